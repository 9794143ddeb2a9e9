// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 12: every failure leaves nothing behind. Each allocation on the way of a
 * system call fails once, in turn: the call reports it or gets along without, and the
 * next one works. What was lost on the way is found by kmemleak and by the module,
 * which could not be removed.
 */
#include "testing_helpers.h"

#include <fcntl.h>
#include <unistd.h>

#include <linux/bpf.h>

#include "progs/operation.h"
#include "basic.skel.h"
#include "loops.skel.h"

#define FAILSLAB "/sys/kernel/debug/failslab/"
/* More allocations than any of the calls makes */
#define MAX_NTH 200
#define FREED_AFTER_MS 60000

FIXTURE(fault) {
	struct basic_bpf *skel;
	struct loaded *loaded;
	int nth;
};

/* Files of debugfs cannot be written at an offset. */
static int set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = write(fd, value, strlen(value));
	close(fd);
	return len < 0 ? -EIO : 0;
}

FIXTURE_SETUP(fault)
{
	char path[64];

	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	AUTOLOAD(self->skel->progs.mirror_update, self->skel->progs.trace_update_second);
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->loaded = note_loaded(self->skel->obj);
	ASSERT_NE(NULL, self->loaded);
	snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", gettid());
	self->nth = open(path, O_RDWR | O_CLOEXEC);
	if (self->nth < 0)
		SKIP(return, "kernel without fault injection (CONFIG_FAULT_INJECTION)");
	/* Allocations that may sleep are the ones that are wanted. */
	ASSERT_EQ(0, set(FAILSLAB "ignore-gfp-wait", "N"));
	/* The log is for what is not on purpose. */
	ASSERT_EQ(0, set(FAILSLAB "verbose", "0"));
}

FIXTURE_TEARDOWN(fault)
{
	close(self->nth);
	basic_bpf__destroy(self->skel);
	EXPECT_TRUE(loaded_is_gone(self->loaded));
	/* A reference that is lost keeps the module. */
	EXPECT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
}

/* The next allocation but @nth - 1 of this thread fails. */
static void arm(FIXTURE_DATA(fault) *self, int nth)
{
	char number[16];
	int len = snprintf(number, sizeof(number), "%d", nth);

	if (pwrite(self->nth, number, len, 0) != len)
		abort();
}

/* Whether there were that many allocations */
static bool disarm(FIXTURE_DATA(fault) *self)
{
	char number[16] = {};

	if (pread(self->nth, number, sizeof(number) - 1, 0) <= 0)
		abort();
	if (pwrite(self->nth, "0", 1, 0) != 1)
		abort();
	return atoi(number) == 0;
}

static __s64 update(struct basic_bpf *skel, __u32 key)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key, .value = key };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

TEST_F_TIMEOUT(fault, attach, 400)
{
	int mirror = bpf_map__fd(self->skel->maps.mirror);
	int nth, link, failures = 0;

	for (nth = 1; nth < MAX_NTH; nth++) {
		/* It writes to a map: the loop check has an edge to look at, and to keep. */
		int prog = bpf_program__fd(self->skel->progs.mirror_update);
		/* It never had a tracer. */
		int map = bpf_map_create(BPF_MAP_TYPE_HASH, "fresh", sizeof(__u32),
					 sizeof(__u64), 4, NULL);
		__u32 id = id_of_map(map);
		__u64 value = 1;
		__u32 key = 1;
		bool failed;

		ASSERT_LE(0, map);
		arm(self, nth);
		link = map_trace_attach(prog, map, UPDATE, 0);
		failed = disarm(self);
		if (link < 0) {
			EXPECT_EQ(-ENOMEM, link);
			EXPECT_TRUE(failed);
			failures++;
			/* The map is as it was: it does not hold the module. */
			EXPECT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS))
				TH_LOG("allocation %d: the module is held", nth);
			ASSERT_EQ(0, map_trace_module_load());
		}
		/* Not half attached */
		ASSERT_EQ(0, bpf_map_update_elem(map, &key, &value, BPF_ANY));
		EXPECT_EQ(link >= 0, !bpf_map_delete_elem(mirror, &key))
			TH_LOG("allocation %d: link %d", nth, link);
		if (link >= 0)
			close(link);
		close(map);
		EXPECT_TRUE(is_gone(bpf_map_get_next_id, id)) TH_LOG("allocation %d", nth);
		/* The next one has to begin with a module that nothing holds. */
		ASSERT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
		ASSERT_EQ(0, map_trace_module_load());
		if (!failed)
			break;
	}
	TH_LOG("%d allocations, %d failures", nth - 1, failures);
	EXPECT_LT(nth, MAX_NTH);
	/*
	 * The information, the tracer, what it writes and the edges of that, twice, where
	 * the loop check begins, twice, the link, its file, the array, the list
	 */
	EXPECT_LE(11, failures);
}

static int attach_updater(const struct bpf_program *prog, const struct bpf_map *map)
{
	return map_trace_attach(bpf_program__fd(prog), bpf_map__fd(map), UPDATE, 0);
}

/* Without memory, the old program goes on, and its writes are those that count. */
TEST_F_TIMEOUT(fault, update_prog, 400)
{
	struct loops_bpf *loops = loops_bpf__open();
	int before, link, after, back, old, new, nth, failures = 0;
	struct map_trace_info info;
	struct loaded *loaded;
	__u64 value = 1;
	__u32 key = 1;
	int m1, m2;

	ASSERT_NE(NULL, loops);
	bpf_program__set_autoload(loops->progs.update_counts, true);
	bpf_program__set_autoload(loops->progs.update_updates_m1, true);
	bpf_program__set_autoload(loops->progs.update_updates_m2, true);
	bpf_program__set_autoload(loops->progs.update_updates_m3, true);
	ASSERT_EQ(0, loops_bpf__load(loops));
	loaded = note_loaded(loops->obj);
	ASSERT_NE(NULL, loaded);
	old = bpf_program__fd(loops->progs.update_counts);
	new = bpf_program__fd(loops->progs.update_updates_m2);
	m1 = bpf_map__fd(loops->maps.m1);
	m2 = bpf_map__fd(loops->maps.m2);

	/* m0 -> m1 -> m2 -> m3: the loop check has to look in both directions. */
	before = attach_updater(loops->progs.update_updates_m1, loops->maps.m0);
	ASSERT_LE(0, before);
	link = attach_updater(loops->progs.update_counts, loops->maps.m1);
	ASSERT_LE(0, link);
	after = attach_updater(loops->progs.update_updates_m3, loops->maps.m2);
	ASSERT_LE(0, after);

	for (nth = 1; nth < MAX_NTH; nth++) {
		bool failed;
		int err;

		arm(self, nth);
		err = map_trace_update(link, new, -1);
		failed = disarm(self);
		if (err) {
			EXPECT_EQ(-ENOMEM, err);
			EXPECT_TRUE(failed);
			failures++;
		}
		ASSERT_EQ(0, map_trace_get_info(link, &info));
		EXPECT_EQ(id_of_program(err ? old : new), info.prog_id)
			TH_LOG("allocation %d: %s", nth, strerror(-err));
		loops->bss->runs = 0;
		ASSERT_EQ(0, bpf_map_update_elem(m1, &key, &value, BPF_ANY));
		EXPECT_EQ(err ? 1 : 0, loops->bss->runs);
		EXPECT_EQ(!err, !bpf_map_delete_elem(m2, &key));
		/* Only the new one leads to where this comes from. */
		back = attach_updater(loops->progs.update_updates_m1, loops->maps.m2);
		if (err) {
			EXPECT_LE(0, back) TH_LOG("allocation %d: %s", nth, strerror(-back));
		} else {
			EXPECT_EQ(-ELOOP, back);
		}
		if (back >= 0) {
			ASSERT_EQ(0, map_trace_detach(back));
			close(back);
		}
		ASSERT_EQ(0, map_trace_update(link, old, -1));
		if (!failed)
			break;
	}
	TH_LOG("%d allocations, %d failures", nth - 1, failures);
	EXPECT_LT(nth, MAX_NTH);
	/* What it writes, the edges, twice, and the loop check, twice in each direction */
	EXPECT_LE(7, failures);
	close(before);
	close(link);
	close(after);
	loops_bpf__destroy(loops);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

TEST_F(fault, contract_12_detach_cannot_fail)
{
	int nth;

	for (nth = 1; nth < MAX_NTH; nth++) {
		int first = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
		int second = attach_to(self->skel->progs.trace_update_second,
				       self->skel->maps.source);
		bool failed;

		ASSERT_LE(0, first);
		ASSERT_LE(0, second);
		arm(self, nth);
		EXPECT_EQ(0, map_trace_detach(first));
		failed = disarm(self);

		self->skel->bss->nr_events = 0;
		ASSERT_EQ(0, update(self->skel, 1));
		EXPECT_EQ(1, self->skel->bss->nr_events);
		EXPECT_EQ(2, self->skel->bss->events[0].tracer);
		close(first);
		close(second);
		ASSERT_EQ(0, update(self->skel, 1));
		EXPECT_EQ(1, self->skel->bss->nr_events);
		if (!failed)
			break;
	}
	TH_LOG("%d allocations", nth - 1);
	/* The shorter array: without memory for it, the old one stays. */
	EXPECT_LT(1, nth);
	EXPECT_LT(nth, MAX_NTH);
}

TEST_F(fault, load_of_a_tracer)
{
	int nth, failures = 0;
	bool failed = true;

	for (nth = 1; nth < 5 * MAX_NTH && failed; nth++) {
		LIBBPF_OPTS(bpf_prog_load_opts, opts,
			    .expected_attach_type = map_trace_attach_type(),
			    .attach_btf_id = map_trace_target_id("bpf_map_trace__delete_elem"));
		static const struct bpf_insn insns[] = {
			{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
			{ .code = BPF_JMP | BPF_EXIT },
		};
		int fd;

		arm(self, nth);
		fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "tracer", "GPL", insns, 2, &opts);
		failed = disarm(self);
		if (fd < 0) {
			failures++;
			EXPECT_TRUE(failed) TH_LOG("load: %s", strerror(-fd));
		} else {
			close(fd);
		}
	}
	TH_LOG("%d allocations, %d failures", nth - 1, failures);
	EXPECT_FALSE(failed);
	EXPECT_LT(0, failures);
}

TEST_HARNESS_MAIN
