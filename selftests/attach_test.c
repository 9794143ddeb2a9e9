// SPDX-License-Identifier: GPL-2.0
/* Links: what BPF_LINK_CREATE refuses, and what a link can do */
#include "testing_helpers.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include "progs/operation.h"
#include "basic.skel.h"
#include "link_create.skel.h"

FIXTURE(attach) {
	struct basic_bpf *skel;
	struct map_trace_link_info info;
	struct map_trace_link_create create;
};

FIXTURE_SETUP(attach)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
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
}

static __s64 update(struct basic_bpf *skel, __u32 key, __u64 value)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key, .value = value };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

/* Refused, nothing traced, and the same again with nothing wrong works. */
#define EXPECT_REFUSED(err) do {						\
	EXPECT_EQ(err, map_trace_link_create(&self->create));			\
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

TEST_F(attach, bad_pointer_is_efault)
{
	self->create.info = 8;
	EXPECT_REFUSED(-EFAULT);
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

TEST_F(attach, map_fd_without_read_is_eperm)
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

	ASSERT_LE(0, fd);
	self->info.map_fd = fd;
	EXPECT_REFUSED(-EPERM);
	close(fd);
}

TEST_F(attach, map_type_that_cannot_be_traced_is_eopnotsupp)
{
	static const enum bpf_map_type types[] = {
		BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_PROG_ARRAY,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		bool ringbuf = types[i] == BPF_MAP_TYPE_RINGBUF;
		bool queue = types[i] == BPF_MAP_TYPE_QUEUE;
		int fd = bpf_map_create(types[i], "untraceable", ringbuf || queue ? 0 : 4,
					ringbuf ? 0 : queue ? 8 : 4, ringbuf ? 4096 : 1, NULL);

		ASSERT_LE(0, fd) TH_LOG("map type %d: %s", types[i], strerror(errno));
		self->info.map_fd = fd;
		EXPECT_REFUSED(-EOPNOTSUPP);
		close(fd);
	}
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

TEST_F(attach, after_detach_nothing_runs)
{
	int link = map_trace_link_create(&self->create);

	ASSERT_LE(0, link);
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	ASSERT_EQ(0, map_trace_detach(link));
	ASSERT_EQ(0, update(self->skel, 1, 2));
	EXPECT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(-ENOLINK, map_trace_detach(link));
	EXPECT_EQ(-ENOLINK, map_trace_update(link, self->create.prog_fd, -1));
	close(link);
	EXPECT_ATTACHES();
}

TEST_F(attach, after_the_last_close_nothing_runs)
{
	int link = map_trace_link_create(&self->create);
	int second = dup(link);
	__u64 deadline = now_ns() + 10 * NSEC_PER_SEC;
	__u32 before;

	ASSERT_LE(0, link);
	ASSERT_LE(0, second);
	close(link);
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	close(second);
	/* A close may defer. */
	do {
		before = self->skel->bss->nr_events = 0;
		ASSERT_EQ(0, update(self->skel, 1, 2));
	} while (self->skel->bss->nr_events != before && now_ns() < deadline);
	EXPECT_EQ(0, self->skel->bss->nr_events);
}

TEST_F(attach, link_of_a_dead_process_does_not_run)
{
	__u64 deadline = now_ns() + 10 * NSEC_PER_SEC;
	int status, link;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		link = map_trace_link_create(&self->create);
		if (link < 0 || update(self->skel, 1, 1) || self->skel->bss->nr_events != 1)
			_exit(1);
		/* Not closed */
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	do {
		self->skel->bss->nr_events = 0;
		ASSERT_EQ(0, update(self->skel, 1, 2));
	} while (self->skel->bss->nr_events && now_ns() < deadline);
	EXPECT_EQ(0, self->skel->bss->nr_events);
}

/* Contract 4 and defect 1 of the RFC */
TEST_F(attach, update_of_the_link_swaps_the_program)
{
	int first = bpf_program__fd(self->skel->progs.trace_update);
	int second = bpf_program__fd(self->skel->progs.trace_update_second);
	const struct event *events = self->skel->bss->events;
	int link = map_trace_link_create(&self->create);

	ASSERT_LE(0, link);
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(0, map_trace_update(link, second, -1));
	ASSERT_EQ(0, update(self->skel, 2, 1));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_EQ(1, events[0].tracer);
	EXPECT_EQ(2, events[1].tracer);

	/* Only if the expected program is attached */
	EXPECT_EQ(-EPERM, map_trace_update(link, first, first));
	ASSERT_EQ(0, update(self->skel, 3, 1));
	ASSERT_EQ(3, self->skel->bss->nr_events);
	EXPECT_EQ(2, events[2].tracer);
	EXPECT_EQ(0, map_trace_update(link, first, second));
	ASSERT_EQ(0, update(self->skel, 4, 1));
	ASSERT_EQ(4, self->skel->bss->nr_events);
	EXPECT_EQ(1, events[3].tracer);

	ASSERT_EQ(0, map_trace_detach(link));
	EXPECT_EQ(-ENOLINK, map_trace_update(link, second, -1));
	EXPECT_EQ(-ENOLINK, map_trace_update(link, second, first));
	ASSERT_EQ(0, update(self->skel, 5, 1));
	EXPECT_EQ(4, self->skel->bss->nr_events);
	close(link);
}

TEST_F(attach, update_of_the_link_keeps_the_order)
{
	int second = bpf_program__fd(self->skel->progs.trace_update_second);
	const struct event *events = self->skel->bss->events;
	int links[2];

	links[0] = map_trace_link_create(&self->create);
	ASSERT_LE(0, links[0]);
	self->create.prog_fd = second;
	links[1] = map_trace_link_create(&self->create);
	ASSERT_LE(0, links[1]);
	ASSERT_EQ(0, map_trace_update(links[0], second, -1));
	ASSERT_EQ(0, map_trace_update(links[1],
				      bpf_program__fd(self->skel->progs.trace_update), -1));
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_EQ(2, events[0].tracer);
	EXPECT_EQ(1, events[1].tracer);
	close(links[0]);
	close(links[1]);
}

TEST_F(attach, update_of_the_link_repeats_the_checks)
{
	int link = map_trace_link_create(&self->create);

	ASSERT_LE(0, link);
	EXPECT_EQ(-EINVAL, map_trace_update(link,
				bpf_program__fd(self->skel->progs.trace_delete), -1));
	EXPECT_GT(0, map_trace_update(link,
				      bpf_program__fd(self->skel->progs.update_raw_tp), -1));
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(1, self->skel->bss->events[0].tracer);
	close(link);
}

TEST_F(attach, cookie_tells_two_attachments_of_a_program_apart)
{
	int links[2];

	self->info.cookie = 0x0123456789abcdef;
	links[0] = map_trace_link_create(&self->create);
	ASSERT_LE(0, links[0]);
	self->info.cookie = 2;
	links[1] = map_trace_link_create(&self->create);
	ASSERT_LE(0, links[1]);
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_EQ(0x0123456789abcdef, self->skel->bss->events[0].cookie);
	EXPECT_EQ(2, self->skel->bss->events[1].cookie);
	close(links[0]);
	close(links[1]);
}

TEST_F(attach, link_info_tells_map_type_and_cookie)
{
	struct bpf_prog_info prog_info = {};
	struct bpf_map_info map_info = {};
	struct map_trace_info info;
	__u32 len = sizeof(map_info);
	int link;

	ASSERT_EQ(0, bpf_map_get_info_by_fd(self->info.map_fd, &map_info, &len));
	self->create.prog_fd = bpf_program__fd(self->skel->progs.trace_delete);
	self->info.trace_type = DELETE;
	self->info.cookie = 0xfeedface12345678;
	len = sizeof(prog_info);
	ASSERT_EQ(0, bpf_prog_get_info_by_fd(self->create.prog_fd, &prog_info, &len));
	link = map_trace_link_create(&self->create);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(map_trace_kernel_enum("bpf_link_type", "BPF_LINK_TYPE_MAP_TRACE"), info.type);
	EXPECT_NE(0, info.id);
	EXPECT_EQ(prog_info.id, info.prog_id);
	EXPECT_EQ(map_info.id, info.map_id);
	EXPECT_EQ(DELETE, info.trace_type);
	EXPECT_EQ(0xfeedface12345678, info.cookie);
	EXPECT_EQ(0, info.missed);
	EXPECT_EQ(0, info.failed);

	/* After detach, it still answers. */
	ASSERT_EQ(0, map_trace_detach(link));
	EXPECT_EQ(0, map_trace_get_info(link, &info));
	close(link);
}

/* The number after "@name:" in fdinfo, or -1 */
static long long fdinfo_number(int fd, const char *name)
{
	long long number = -1;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		size_t len = strlen(name);

		if (!strncmp(line, name, len) && line[len] == ':')
			number = strtoll(line + len + 1, NULL, 0);
	}
	fclose(file);
	return number;
}

TEST_F(attach, fdinfo_tells_map_and_cookie)
{
	struct bpf_map_info map_info = {};
	__u32 len = sizeof(map_info);
	int link;

	ASSERT_EQ(0, bpf_map_get_info_by_fd(self->info.map_fd, &map_info, &len));
	self->info.cookie = 4711;
	link = map_trace_link_create(&self->create);
	ASSERT_LE(0, link);
	EXPECT_EQ(map_info.id, fdinfo_number(link, "map_id"));
	EXPECT_EQ(4711, fdinfo_number(link, "cookie"));
	EXPECT_EQ(0, fdinfo_number(link, "missed"));
	EXPECT_EQ(0, fdinfo_number(link, "failed"));
	close(link);
}

/* What a program gets that is linked with a libbpf that does not know map tracers */
TEST_F(attach, section_name_attaches_to_the_map_of_the_object)
{
	struct bpf_link *link = bpf_program__attach(self->skel->progs.trace_update);

	ASSERT_NE(NULL, link) TH_LOG("attach: %s", strerror(errno));
	ASSERT_EQ(0, update(self->skel, 1, 1));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	ASSERT_EQ(0, bpf_link__detach(link));
	ASSERT_EQ(0, update(self->skel, 1, 1));
	EXPECT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(0, bpf_link__destroy(link));
}

TEST_HARNESS_MAIN
