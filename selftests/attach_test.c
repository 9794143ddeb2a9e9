// SPDX-License-Identifier: GPL-2.0
/*
 * What BPF_LINK_CREATE refuses, row by row of the contract's table of errors, and which loads
 * BPF_PROG_LOAD refuses
 */
#include "testing_helpers.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <linux/capability.h>

#include "progs/operation.h"
#include "basic.skel.h"
#include "link_create.skel.h"

FIXTURE(attach) {
	struct basic_bpf *skel;
	struct loaded *loaded;
	struct map_trace_link_info info;
	struct map_trace_link_create create;
};

FIXTURE_SETUP(attach)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	AUTOLOAD(self->skel->progs.update_raw_tp);
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->loaded = note_loaded(self->skel->obj);
	ASSERT_NE(NULL, self->loaded);
	ASSERT_LE(0, map_trace_attach_type());
	self->info.map_fd = bpf_map__fd(self->skel->maps.source);
	self->info.trace_type = UPDATE;
	self->create.prog_fd = bpf_program__fd(self->skel->progs.trace_update);
	self->create.attach_type = map_trace_attach_type();
	self->create.info = (unsigned long)&self->info;
	self->create.info_len = sizeof(self->info);
}

FIXTURE_TEARDOWN(attach)
{
	basic_bpf__destroy(self->skel);
	/* Contract 12: whatever was refused, no reference to a map or a program is left. */
	EXPECT_TRUE(loaded_is_gone(self->loaded));
}

static __s64 update(struct basic_bpf *skel, __u32 key, __u64 value)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key, .value = value };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

/*
 * Refused, no link left behind, nothing traced. And with nothing wrong it attaches. What
 * becomes of the map and the program is seen when the test is over.
 */
#define EXPECT_REFUSED(err) do {						\
	int _links = count_links(self->create.prog_fd);				\
	int _references = map_trace_module_references();			\
										\
	EXPECT_EQ(err, map_trace_link_create(&self->create));			\
	EXPECT_EQ(_links, count_links(self->create.prog_fd));			\
	/* Earlier tests may just be letting go of theirs. */			\
	EXPECT_GE(_references, map_trace_module_references());			\
	self->skel->bss->nr_events = 0;						\
	EXPECT_EQ(0, update(self->skel, 1, 1));					\
	EXPECT_EQ(0, self->skel->bss->nr_events);				\
} while (0)

#define EXPECT_ATTACHES() do {							\
	int _link = map_trace_link_create(&self->create);			\
										\
	EXPECT_LE(0, _link) TH_LOG("attach: %s", strerror(-_link));		\
	self->skel->bss->nr_events = 0;						\
	EXPECT_EQ(0, update(self->skel, 1, 1));					\
	EXPECT_EQ(1, self->skel->bss->nr_events);				\
	close(_link);								\
} while (0)

TEST_F(attach, info_too_short_is_einval)
{
	static const __u32 lengths[] = { 0, 1, 4, 7 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		self->create.info_len = lengths[i];
		EXPECT_REFUSED(-EINVAL);
	}
	self->create.info = 0;
	self->create.info_len = 0;
	EXPECT_REFUSED(-EINVAL);
}

TEST_F(attach, info_of_the_rfc_is_long_enough)
{
	self->create.info_len = 8;
	/* Not part of it */
	self->info.cookie = 0x1234;
	EXPECT_ATTACHES();
	EXPECT_EQ(0, self->skel->bss->events[0].cookie);
}

TEST_F(attach, longer_info_with_zero_tail_works)
{
	char longer[64] = {};

	memcpy(longer, &self->info, sizeof(self->info));
	self->create.info = (unsigned long)longer;
	self->create.info_len = sizeof(longer);
	EXPECT_ATTACHES();
}

TEST_F(attach, longer_info_with_nonzero_tail_is_e2big)
{
	char longer[64] = {};

	memcpy(longer, &self->info, sizeof(self->info));
	longer[sizeof(longer) - 1] = 1;
	self->create.info = (unsigned long)longer;
	self->create.info_len = sizeof(longer);
	EXPECT_REFUSED(-E2BIG);
	longer[sizeof(longer) - 1] = 0;
	longer[sizeof(self->info)] = 1;
	EXPECT_REFUSED(-E2BIG);
}

TEST_F(attach, info_longer_than_a_page_is_e2big)
{
	long page = sysconf(_SC_PAGESIZE);
	char *longer = calloc(1, page + 1);

	ASSERT_NE(NULL, longer);
	memcpy(longer, &self->info, sizeof(self->info));
	self->create.info = (unsigned long)longer;
	self->create.info_len = page + 1;
	EXPECT_REFUSED(-E2BIG);
	self->create.info_len = -1;
	EXPECT_REFUSED(-E2BIG);
	self->create.info_len = page;
	EXPECT_ATTACHES();
	free(longer);
}

TEST_F(attach, bad_pointer_is_efault)
{
	long page = sysconf(_SC_PAGESIZE);
	char *memory;

	self->create.info = 8;
	EXPECT_REFUSED(-EFAULT);

	/* Only what the RFC has of it can be read. */
	memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, memory);
	ASSERT_EQ(0, mprotect(memory + page, page, PROT_NONE));
	memcpy(memory + page - 8, &self->info, 8);
	self->create.info = (unsigned long)memory + page - 8;
	EXPECT_REFUSED(-EFAULT);
	self->create.info_len = 8;
	EXPECT_ATTACHES();
	munmap(memory, 2 * page);
}

TEST_F(attach, closed_prog_fd_is_ebadf)
{
	self->create.prog_fd = 1000000;
	EXPECT_REFUSED(-EBADF);
}

TEST_F(attach, closed_map_fd_is_ebadf)
{
	self->info.map_fd = 1000000;
	EXPECT_REFUSED(-EBADF);
	self->info.map_fd = -1;
	EXPECT_REFUSED(-EBADF);
}

TEST_F(attach, map_fd_zero_that_is_closed_is_ebadf)
{
	int saved = dup(0);

	close(0);
	self->info.map_fd = 0;
	EXPECT_REFUSED(-EBADF);
	if (saved >= 0) {
		dup2(saved, 0);
		close(saved);
	}
}

TEST_F(attach, map_fd_zero_that_is_a_map_works)
{
	int saved = dup(0);

	ASSERT_EQ(0, dup2(bpf_map__fd(self->skel->maps.source), 0));
	self->info.map_fd = 0;
	EXPECT_ATTACHES();
	close(0);
	if (saved >= 0) {
		dup2(saved, 0);
		close(saved);
	}
}

TEST_F(attach, fd_of_something_else_is_einval)
{
	int fd = open("/dev/null", O_RDWR);

	ASSERT_LE(0, fd);
	self->info.map_fd = fd;
	EXPECT_REFUSED(-EINVAL);
	close(fd);
	self->info.map_fd = bpf_program__fd(self->skel->progs.operate);
	EXPECT_REFUSED(-EINVAL);
	self->create.prog_fd = bpf_map__fd(self->skel->maps.source);
	EXPECT_REFUSED(-EINVAL);
}

TEST_F(attach, flags_and_target_fd_are_einval)
{
	self->create.flags = 1;
	EXPECT_REFUSED(-EINVAL);
	self->create.flags = 1U << 31;
	EXPECT_REFUSED(-EINVAL);
	self->create.flags = 0;
	self->create.target_fd = bpf_map__fd(self->skel->maps.source);
	EXPECT_REFUSED(-EINVAL);
	self->create.target_fd = 0;
	EXPECT_ATTACHES();
}

TEST_F(attach, trace_type_out_of_range_is_einval)
{
	self->info.trace_type = map_trace_kernel_enum("bpf_map_trace_type",
						      "MAX_BPF_MAP_TRACE_TYPE");
	EXPECT_REFUSED(-EINVAL);
	self->info.trace_type = -1;
	EXPECT_REFUSED(-EINVAL);
}

TEST_F(attach, trace_type_of_another_target_is_einval)
{
	self->info.trace_type = DELETE;
	EXPECT_REFUSED(-EINVAL);
	self->info.trace_type = UPDATE;
	self->create.prog_fd = bpf_program__fd(self->skel->progs.trace_delete);
	EXPECT_REFUSED(-EINVAL);
}

TEST_F(attach, other_attach_type_is_einval)
{
	self->create.attach_type = BPF_TRACE_ITER;
	EXPECT_REFUSED(-EINVAL);
	self->create.attach_type = BPF_TRACE_FENTRY;
	EXPECT_REFUSED(-EINVAL);
}

TEST_F(attach, program_that_is_no_tracer_is_refused)
{
	self->create.prog_fd = bpf_program__fd(self->skel->progs.update_raw_tp);
	EXPECT_REFUSED(-EINVAL);
}

TEST_F(attach, contract_10_map_fd_without_read_is_eperm)
{
	LIBBPF_OPTS(bpf_get_fd_by_id_opts, opts, .open_flags = BPF_F_WRONLY);
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int fd;

	ASSERT_EQ(0, bpf_map_get_info_by_fd(self->info.map_fd, &info, &len));
	fd = bpf_map_get_fd_by_id_opts(info.id, &opts);
	ASSERT_LE(0, fd);
	self->info.map_fd = fd;
	EXPECT_REFUSED(-EPERM);
	close(fd);

	opts.open_flags = BPF_F_RDONLY;
	fd = bpf_map_get_fd_by_id_opts(info.id, &opts);
	ASSERT_LE(0, fd);
	self->info.map_fd = fd;
	EXPECT_ATTACHES();
	close(fd);
}

TEST_F(attach, map_that_programs_may_not_read_is_eperm)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_WRONLY_PROG);
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "unreadable", 4, 8, 8, &opts);
	__u32 id = id_of_map(fd);

	ASSERT_LE(0, fd);
	self->info.map_fd = fd;
	EXPECT_REFUSED(-EPERM);
	close(fd);
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, id));
}

TEST_F(attach, exclusive_map_is_eperm)
{
	/* Of no program that there is */
	char hash[32] = { 1 };
	LIBBPF_OPTS(bpf_map_create_opts, opts, .excl_prog_hash = hash,
		    .excl_prog_hash_size = sizeof(hash));
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "exclusive", 4, 8, 8, &opts);
	__u32 id = id_of_map(fd);

	ASSERT_LE(0, fd) TH_LOG("exclusive map: %s", strerror(errno));
	self->info.map_fd = fd;
	EXPECT_REFUSED(-EPERM);
	close(fd);
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, id));
}

/* Contract 10: what it takes to load any program of BPF_PROG_TYPE_TRACING */
TEST_F(attach, load_without_the_capabilities_is_eperm)
{
	static const __u64 too_few[] = {
		0, 1ULL << CAP_BPF, 1ULL << CAP_PERFMON, 1ULL << CAP_BPF | 1ULL << CAP_NET_ADMIN,
	};
	const __u32 types[] = { UPDATE, DELETE };
	unsigned int type, i;
	int fd;

	for (type = 0; type < ARRAY_SIZE(types); type++) {
		for (i = 0; i < ARRAY_SIZE(too_few); i++) {
			ASSERT_EQ(0, set_capabilities(too_few[i]));
			EXPECT_EQ(-EPERM, load_empty_tracer(types[type]));
		}
		ASSERT_EQ(0, set_capabilities(1ULL << CAP_BPF | 1ULL << CAP_PERFMON));
		fd = load_empty_tracer(types[type]);
		EXPECT_LE(0, fd) TH_LOG("load: %s", strerror(-fd));
		close(fd);
	}
	/* They are enough to attach it, too. */
	EXPECT_ATTACHES();
	ASSERT_EQ(0, set_capabilities(-1ULL));
}

TEST_F(attach, more_than_64_tracers_are_e2big)
{
	int links[64], deleter, i;

	for (i = 0; i < ARRAY_SIZE(links); i++) {
		links[i] = map_trace_link_create(&self->create);
		ASSERT_LE(0, links[i]) TH_LOG("tracer %d: %s", i + 1, strerror(-links[i]));
	}
	EXPECT_EQ(ARRAY_SIZE(links), count_links(self->create.prog_fd));
	EXPECT_EQ(-E2BIG, map_trace_link_create(&self->create));
	EXPECT_EQ(ARRAY_SIZE(links), count_links(self->create.prog_fd));
	ASSERT_EQ(0, update(self->skel, 1, 1));
	EXPECT_EQ(ARRAY_SIZE(links), self->skel->bss->nr_events);

	/* Of an operation of a map: others have their own. */
	deleter = attach_to(self->skel->progs.trace_delete, self->skel->maps.source);
	EXPECT_LE(0, deleter);
	close(deleter);
	self->info.map_fd = bpf_map__fd(self->skel->maps.other);
	deleter = map_trace_link_create(&self->create);
	EXPECT_LE(0, deleter);
	close(deleter);

	/* One place is free again. */
	self->info.map_fd = bpf_map__fd(self->skel->maps.source);
	ASSERT_EQ(0, map_trace_detach(links[20]));
	close(links[20]);
	links[20] = map_trace_link_create(&self->create);
	EXPECT_LE(0, links[20]);
	EXPECT_EQ(-E2BIG, map_trace_link_create(&self->create));
	for (i = 0; i < ARRAY_SIZE(links); i++)
		close(links[i]);
	EXPECT_EQ(0, count_links(self->create.prog_fd));
}

TEST_F(attach, attach_from_a_program_is_eopnotsupp)
{
	struct {
		struct map_trace_link_create create;
		__s64 ret;
	} context = { .create = self->create };
	struct link_create_bpf *skel = link_create_bpf__open_and_load();

	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, run_program(skel->progs.create_link, &context, sizeof(context)));
	EXPECT_EQ(-EOPNOTSUPP, context.ret);
	link_create_bpf__destroy(skel);
	EXPECT_ATTACHES();
}

TEST_HARNESS_MAIN
