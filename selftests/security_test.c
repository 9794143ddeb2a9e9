// SPDX-License-Identifier: GPL-2.0
/* What Documentation/security.rst says, where no other binary tests it */
#include "testing_helpers.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "progs/operation.h"
#include "progs/sync.h"
#include "basic.skel.h"
#include "sync.skel.h"

#define PIN "/sys/fs/bpf/map_trace_security"
#define NOBODY 65534
#define CGROUPS "/tmp/map_trace_cgroups"
#define CGROUP CGROUPS "/map_trace"

/* How long the state of a map may take to be told, and statistics to be written */
#define SETTLE_MS 120000

/* BPF_MAP_TRACE_REASON_FLUSH */
#define REASON_FLUSH 4

FIXTURE(security) {
	struct basic_bpf *skel;
	int source, prog, link;
};

FIXTURE_SETUP(security)
{
	unlink(PIN);
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->source = bpf_map__fd(self->skel->maps.source);
	self->prog = bpf_program__fd(self->skel->progs.trace_update);
	self->link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->link);
}

FIXTURE_TEARDOWN(security)
{
	unlink(PIN);
	close(self->link);
	basic_bpf__destroy(self->skel);
}

/* What a program's update has returned */
static __s64 update(struct basic_bpf *skel, __u32 key)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key, .value = 1 };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

/* Who was handed the descriptors needs nothing else. Who has the ids only has nothing. */
TEST_F(security, descriptors_are_the_rights)
{
	struct map_trace_info info;
	int second;

	ASSERT_EQ(0, set_capabilities(0));
	EXPECT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(-1, bpf_link_get_fd_by_id(info.id));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, bpf_map_get_fd_by_id(info.map_id));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, bpf_prog_get_fd_by_id(info.prog_id));
	EXPECT_EQ(EPERM, errno);

	second = map_trace_attach(self->prog, self->source, UPDATE, 0);
	EXPECT_LE(0, second) TH_LOG("attach: %s", strerror(-second));
	EXPECT_EQ(0, map_trace_update(second, self->prog, -1));
	EXPECT_EQ(0, map_trace_detach(second));
	close(second);
	ASSERT_EQ(0, set_capabilities(-1ULL));
}

TEST_F(security, pinned_link_of_another_user)
{
	LIBBPF_OPTS(bpf_obj_get_opts, opts, .file_flags = BPF_F_RDONLY);
	int fd;

	ASSERT_EQ(0, bpf_obj_pin(self->link, PIN)) TH_LOG("%s: %s", PIN, strerror(errno));
	ASSERT_EQ(0, seteuid(NOBODY));
	EXPECT_EQ(-EACCES, bpf_obj_get(PIN));
	ASSERT_EQ(0, seteuid(0));

	/* Reading is no right of its own: with it alone nobody gets the link. */
	ASSERT_EQ(0, chmod(PIN, 0444));
	ASSERT_EQ(0, seteuid(NOBODY));
	EXPECT_EQ(-EACCES, bpf_obj_get(PIN));
	EXPECT_EQ(-EINVAL, bpf_obj_get_opts(PIN, &opts));
	ASSERT_EQ(0, seteuid(0));

	ASSERT_EQ(0, chmod(PIN, 0666));
	ASSERT_EQ(0, seteuid(NOBODY));
	fd = bpf_obj_get(PIN);
	EXPECT_LE(0, fd) TH_LOG("%s: %s", PIN, strerror(errno));
	EXPECT_EQ(0, map_trace_detach(fd));
	ASSERT_EQ(0, seteuid(0));
	close(fd);
}

/* User space cannot write it any more. Programs can, and that is traced. */
TEST_F(security, frozen_map_is_traced)
{
	__u32 key = 1;
	__u64 value = 1;
	int second;

	ASSERT_EQ(0, bpf_map_freeze(self->source)) TH_LOG("freeze: %s", strerror(errno));
	EXPECT_EQ(-1, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, self->skel->bss->nr_events);

	second = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	EXPECT_LE(0, second) TH_LOG("attach: %s", strerror(-second));
	EXPECT_EQ(0, update(self->skel, 1));
	EXPECT_EQ(2, self->skel->bss->nr_events);
	close(second);
}

/* Its context is what the module hands to it, and nobody else can. */
TEST_F(security, only_its_map_runs_a_tracer)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	__u64 context[8] = {};

	EXPECT_NE(0, bpf_prog_test_run_opts(self->prog, &opts));
	opts.ctx_in = context;
	opts.ctx_size_in = sizeof(context);
	EXPECT_NE(0, bpf_prog_test_run_opts(self->prog, &opts));
	EXPECT_GT(0, bpf_raw_tracepoint_open(NULL, self->prog));
	EXPECT_GT(0, bpf_raw_tracepoint_open("sys_enter", self->prog));
	EXPECT_NE(0, bpf_prog_attach(self->prog, self->source, map_trace_attach_type(), 0));
	EXPECT_EQ(0, self->skel->bss->nr_events);
	EXPECT_EQ(1, count_links(self->prog));
}

static bool is_replayed(int link)
{
	struct pollfd pollfd = { .fd = link, .events = POLLIN };

	return poll(&pollfd, 1, SETTLE_MS) == 1 && pollfd.revents == POLLIN;
}

/* Who flushes chooses the keys: they are told to the tracer of that link, and to no other. */
TEST(flush_tells_its_own_tracer_alone)
{
	__u32 keys[] = { 7, 8 };
	struct sync_bpf *skel;
	int links[2], i;

	ASSERT_EQ(0, map_trace_setup());
	skel = sync_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	for (i = 0; i < ARRAY_SIZE(links); i++) {
		links[i] = attach_to(skel->progs.synced, skel->maps.source);
		ASSERT_LE(0, links[i]);
		ASSERT_TRUE(is_replayed(links[i]));
	}
	EXPECT_EQ(0, map_trace_flush(links[0], keys, ARRAY_SIZE(keys), 0, NULL));
	EXPECT_EQ(ARRAY_SIZE(keys), skel->bss->reasons[REASON_FLUSH]);
	for (i = 0; i < ARRAY_SIZE(links); i++)
		close(links[i]);
	sync_bpf__destroy(skel);
}

#define NR_LINKS 64
#define NR_WRITTEN 60
/* The least that an edge of the loop check takes: a node of a tree, with a key and a value */
#define EDGE_SIZE 48

/* Deletes from each of the maps. Its fd, or a negative errno */
static int load_tracer_that_deletes_from(const int *maps)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	struct bpf_insn insns[3 + 5 * NR_WRITTEN + 2] = {
		/* *(u64 *)(fp - 8) = 0; */
		{ .code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = BPF_REG_10, .off = -8 },
	};
	int fd, i, n = 1;

	for (i = 0; i < NR_WRITTEN; i++) {
		insns[n++] = (struct bpf_insn) {
			.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1,
			.src_reg = BPF_PSEUDO_MAP_FD, .imm = maps[i],
		};
		n++;
		insns[n++] = (struct bpf_insn) {
			.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_2,
			.src_reg = BPF_REG_10,
		};
		insns[n++] = (struct bpf_insn) {
			.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = BPF_REG_2, .imm = -8,
		};
		insns[n++] = (struct bpf_insn) {
			.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_map_delete_elem,
		};
	}
	insns[n++] = (struct bpf_insn) {
		.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0,
	};
	insns[n++] = (struct bpf_insn) { .code = BPF_JMP | BPF_EXIT };

	opts.expected_attach_type = map_trace_attach_type();
	opts.attach_btf_id = map_trace_target_id("bpf_map_trace__update_elem");
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "deletes", "GPL", insns, n, &opts);
	return fd < 0 ? -errno : fd;
}

static int move_to(const char *cgroup)
{
	char path[128];
	int fd, err;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	err = write(fd, "0", 1) == 1 ? 0 : -errno;
	close(fd);
	return err;
}

/* What the kernel has allocated for the control group, in bytes. Or a negative errno */
static long long charged(void)
{
	FILE *stat = fopen(CGROUP "/memory.stat", "r");
	long long bytes = -ENOENT;
	char line[128];

	if (!stat)
		return -errno;
	while (fgets(line, sizeof(line), stat) &&
	       sscanf(line, "slab_unreclaimable %lld", &bytes) != 1)
		;
	fclose(stat);
	return bytes;
}

/* The memory of a link is not for nothing: the most of it are the edges of the loop check. */
TEST_F(security, what_a_link_takes_is_charged)
{
	const long long least = (long long)NR_LINKS * NR_WRITTEN * EDGE_SIZE;
	int maps[NR_WRITTEN], links[NR_LINKS], prog, i;
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	long long before, after;

	for (i = 0; i < NR_WRITTEN; i++) {
		maps[i] = bpf_map_create(BPF_MAP_TYPE_HASH, "written", 4, 4, 1, NULL);
		ASSERT_LE(0, maps[i]);
	}
	prog = load_tracer_that_deletes_from(maps);
	ASSERT_LE(0, prog) TH_LOG("load: %s", strerror(-prog));
	/* One place of the 64 */
	close(self->link);
	self->link = -1;

	mkdir(CGROUPS, 0700);
	ASSERT_EQ(0, mount("none", CGROUPS, "cgroup2", 0, NULL)) TH_LOG("%s", strerror(errno));
	ASSERT_EQ(0, write_proc(CGROUPS "/cgroup.subtree_control", "+memory", NULL, 0));
	ASSERT_EQ(0, mkdir(CGROUP, 0700));
	ASSERT_EQ(0, move_to(CGROUP));
	before = charged();
	ASSERT_LE(0, before);
	for (i = 0; i < NR_LINKS; i++) {
		links[i] = map_trace_attach(prog, self->source, UPDATE, 0);
		ASSERT_LE(0, links[i]) TH_LOG("attach: %s", strerror(-links[i]));
	}
	/* The kernel adds its counters up every other second. */
	do {
		after = charged();
	} while (after - before < least && now_ns() < end && !usleep(100000));
	EXPECT_LE(least, after - before);

	EXPECT_EQ(0, move_to(CGROUPS));
	for (i = 0; i < NR_LINKS; i++)
		close(links[i]);
	for (i = 0; i < NR_WRITTEN; i++)
		close(maps[i]);
	close(prog);
	EXPECT_EQ(0, rmdir(CGROUP));
	EXPECT_EQ(0, umount(CGROUPS));
	rmdir(CGROUPS);
}

TEST_HARNESS_MAIN
