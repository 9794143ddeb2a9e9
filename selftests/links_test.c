// SPDX-License-Identifier: GPL-2.0
/* What a link can do: end, in each possible way, change its program, and report its state */
#include "testing_helpers.h"

#include <signal.h>

#include "progs/operation.h"
#include "basic.skel.h"
#include "verifier.skel.h"

#define PIN "/sys/fs/bpf/map_trace_link"

FIXTURE(links) {
	struct basic_bpf *skel;
	int first;
	int second;
	int link;
};

FIXTURE_SETUP(links)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	AUTOLOAD(self->skel->progs.trace_update_second, self->skel->progs.update_raw_tp,
		 self->skel->progs.operate_on_other, self->skel->progs.could_not_follow,
		 self->skel->progs.updates_inner, self->skel->progs.operate_on_inner);
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->first = bpf_program__fd(self->skel->progs.trace_update);
	self->second = bpf_program__fd(self->skel->progs.trace_update_second);
	self->link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
}

FIXTURE_TEARDOWN(links)
{
	if (self->link >= 0)
		close(self->link);
	unlink(PIN);
	basic_bpf__destroy(self->skel);
}

static __s64 update(struct basic_bpf *skel, __u32 key)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key, .value = key };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

/* Which tracer an update runs: 0 is none. More than one, or none at all, is an errno. */
static int tracer_of_update(struct basic_bpf *skel, __u32 key)
{
	__s64 err;

	skel->bss->nr_events = 0;
	err = update(skel, key);
	if (err)
		return err;
	if (skel->bss->nr_events > 1 ||
	    (skel->bss->nr_events && skel->bss->events[0].key != key))
		return -EBADMSG;
	return skel->bss->nr_events ? skel->bss->events[0].tracer : 0;
}

/* The release of a link that is not detached may defer. */
static int tracer_after_release(struct basic_bpf *skel)
{
	__u64 deadline = now_ns() + 10 * NSEC_PER_SEC;
	int tracer;

	do {
		tracer = tracer_of_update(skel, 60);
	} while (tracer > 0 && now_ns() < deadline);
	return tracer;
}

/* What `bpftool prog` shows, too, of programs that were kept from running */
static __u64 recursion_misses(const struct bpf_program *prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_prog_get_info_by_fd(bpf_program__fd(prog), &info, &len) ? -1ULL :
	       info.recursion_misses;
}

/*
 * The end
 */
TEST_F(links, after_detach_nothing_runs)
{
	ASSERT_EQ(1, tracer_of_update(self->skel, 1));
	ASSERT_EQ(0, map_trace_detach(self->link));
	EXPECT_EQ(0, tracer_of_update(self->skel, 2));
	EXPECT_EQ(-ENOLINK, map_trace_detach(self->link));
	EXPECT_EQ(-ENOLINK, map_trace_update(self->link, self->first, -1));
	close(self->link);
	self->link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->link);
	EXPECT_EQ(1, tracer_of_update(self->skel, 3));
}

TEST_F(links, after_the_last_close_nothing_runs)
{
	int second = dup(self->link);

	ASSERT_LE(0, second);
	close(self->link);
	self->link = -1;
	ASSERT_EQ(1, tracer_of_update(self->skel, 1));
	close(second);
	EXPECT_EQ(0, tracer_after_release(self->skel));
	EXPECT_EQ(0, count_links(self->first));
}

/* A process that attaches, tells, and then ends as @end says, without a close */
static void process_that_attaches(struct __test_metadata *_metadata, FIXTURE_DATA(links) *self,
				  int end)
{
	int pipes[2], status, link;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, map_trace_detach(self->link));
	close(self->link);
	self->link = -1;
	ASSERT_EQ(0, pipe(pipes));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
		if (link < 0 || write(pipes[1], "", 1) != 1)
			_exit(1);
		if (!end)
			_exit(0);
		pause();
		_exit(2);
	}
	ASSERT_EQ(1, read(pipes[0], &byte, 1));
	if (end) {
		EXPECT_EQ(1, tracer_of_update(self->skel, 1));
		EXPECT_EQ(1, count_links(self->first));
		ASSERT_EQ(0, kill(pid, end));
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(end, status);
	EXPECT_EQ(0, tracer_after_release(self->skel));
	EXPECT_EQ(0, count_links(self->first));
	close(pipes[0]);
	close(pipes[1]);
}

TEST_F(links, link_of_a_process_that_exits_does_not_run)
{
	process_that_attaches(_metadata, self, 0);
}

TEST_F(links, link_of_a_process_that_is_killed_does_not_run)
{
	process_that_attaches(_metadata, self, SIGKILL);
}

TEST_F(links, pinned_link_runs_until_it_is_unpinned)
{
	int again;

	ASSERT_EQ(0, bpf_obj_pin(self->link, PIN)) TH_LOG("%s: %s", PIN, strerror(errno));
	close(self->link);
	self->link = -1;
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
	EXPECT_EQ(1, count_links(self->first));

	/* What comes from the pin is the same link. */
	again = bpf_obj_get(PIN);
	ASSERT_LE(0, again);
	EXPECT_EQ(0, map_trace_update(again, self->second, self->first));
	close(again);
	EXPECT_EQ(2, tracer_of_update(self->skel, 2));

	ASSERT_EQ(0, unlink(PIN));
	EXPECT_EQ(0, tracer_after_release(self->skel));
	EXPECT_EQ(0, count_links(self->second));
}

TEST_F(links, unpin_leaves_a_link_that_is_open)
{
	ASSERT_EQ(0, bpf_obj_pin(self->link, PIN));
	ASSERT_EQ(0, unlink(PIN));
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
	ASSERT_EQ(0, map_trace_detach(self->link));
	EXPECT_EQ(0, tracer_of_update(self->skel, 2));
}

TEST_F(links, link_that_is_got_by_id_is_the_same)
{
	struct map_trace_info info, same;
	int again;

	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	again = bpf_link_get_fd_by_id(info.id);
	ASSERT_LE(0, again);
	ASSERT_EQ(0, map_trace_get_info(again, &same));
	EXPECT_EQ(0, memcmp(&info, &same, sizeof(info)));
	close(self->link);
	self->link = -1;
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
	ASSERT_EQ(0, map_trace_detach(again));
	EXPECT_EQ(0, tracer_of_update(self->skel, 2));
	close(again);
	EXPECT_GT(0, bpf_link_get_fd_by_id(info.id));
	EXPECT_EQ(ENOENT, errno);
}

TEST_F(links, detached_link_lets_go_of_the_map)
{
	int map, link;
	__u32 id;

	map = bpf_map_create(BPF_MAP_TYPE_HASH, "short_lived", 4, 8, 8, NULL);
	ASSERT_LE(0, map);
	id = id_of_map(map);
	link = map_trace_attach(self->first, map, UPDATE, 0);
	ASSERT_LE(0, link);
	/* The link holds it, */
	close(map);
	map = bpf_map_get_fd_by_id(id);
	ASSERT_LE(0, map);
	close(map);
	/* but not once it is detached. */
	ASSERT_EQ(0, map_trace_detach(link));
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, id));
	close(link);
}

/*
 * The program. Contract 4 and defect 1 of the RFC
 */
TEST_F(links, defect_1_update_swaps_the_program)
{
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, map_trace_update(self->link, self->second, -1));
		EXPECT_EQ(2, tracer_of_update(self->skel, 2 * i));
		EXPECT_EQ(2, tracer_of_update(self->skel, 2 * i + 1));
		ASSERT_EQ(0, map_trace_update(self->link, self->first, -1));
		EXPECT_EQ(1, tracer_of_update(self->skel, 2 * i));
		EXPECT_EQ(1, tracer_of_update(self->skel, 2 * i + 1));
	}
	/* By itself */
	ASSERT_EQ(0, map_trace_update(self->link, self->first, self->first));
	EXPECT_EQ(1, tracer_of_update(self->skel, 7));
}

TEST_F(links, update_only_replaces_the_program_that_is_expected)
{
	EXPECT_EQ(-EPERM, map_trace_update(self->link, self->second, self->second));
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
	EXPECT_EQ(0, map_trace_update(self->link, self->second, self->first));
	EXPECT_EQ(2, tracer_of_update(self->skel, 2));
	EXPECT_EQ(-EPERM, map_trace_update(self->link, self->first, self->first));
	EXPECT_EQ(2, tracer_of_update(self->skel, 3));

	ASSERT_EQ(0, map_trace_detach(self->link));
	EXPECT_EQ(-ENOLINK, map_trace_update(self->link, self->first, -1));
	EXPECT_EQ(-ENOLINK, map_trace_update(self->link, self->first, self->second));
	/* Gone is gone, whatever was expected. */
	EXPECT_EQ(-ENOLINK, map_trace_update(self->link, self->first, self->first));
	EXPECT_EQ(0, tracer_of_update(self->skel, 4));
}

TEST_F(links, update_takes_over_the_references)
{
	int old = load_empty_tracer(UPDATE), new = load_empty_tracer(UPDATE);
	__u32 old_id = id_of_program(old), new_id = id_of_program(new);
	struct map_trace_info info;
	int fd;

	ASSERT_LE(0, old);
	ASSERT_LE(0, new);
	ASSERT_EQ(0, map_trace_update(self->link, old, -1));
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(old_id, info.prog_id);
	ASSERT_EQ(0, map_trace_update(self->link, new, old));
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(new_id, info.prog_id);

	/* Nobody has the old one now, and the link alone the new one. */
	close(old);
	close(new);
	EXPECT_TRUE(is_gone(bpf_prog_get_next_id, old_id));
	fd = bpf_prog_get_fd_by_id(new_id);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, tracer_of_update(self->skel, 1));

	/* A refused one is not kept. */
	new = load_empty_tracer(DELETE);
	ASSERT_LE(0, new);
	new_id = id_of_program(new);
	EXPECT_EQ(-EINVAL, map_trace_update(self->link, new, -1));
	close(new);
	EXPECT_TRUE(is_gone(bpf_prog_get_next_id, new_id));
}

TEST_F(links, update_keeps_the_order)
{
	const struct event *events = self->skel->bss->events;
	int second;

	second = attach_to(self->skel->progs.trace_update_second, self->skel->maps.source);
	ASSERT_LE(0, second);
	ASSERT_EQ(0, map_trace_update(self->link, self->second, -1));
	ASSERT_EQ(0, map_trace_update(second, self->first, -1));
	ASSERT_EQ(0, update(self->skel, 1));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_EQ(2, events[0].tracer);
	EXPECT_EQ(1, events[1].tracer);
	close(second);
}

TEST_F(links, update_repeats_the_checks)
{
	struct verifier_bpf *skel = verifier_bpf__open();
	struct map_trace_info info;

	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, load_one_program(skel->obj, "reads_past_value", NULL, 0));
	EXPECT_EQ(-EACCES, map_trace_update(self->link,
					    bpf_program__fd(skel->progs.reads_past_value), -1));
	EXPECT_EQ(-EINVAL, map_trace_update(self->link,
				bpf_program__fd(self->skel->progs.trace_delete), -1));
	EXPECT_EQ(-EINVAL, map_trace_update(self->link,
				bpf_program__fd(self->skel->progs.update_raw_tp), -1));
	EXPECT_EQ(-EBADF, map_trace_update(self->link, 1000000, -1));
	EXPECT_EQ(-EBADF, map_trace_update(self->link, self->second, 1000000));
	verifier_bpf__destroy(skel);

	/* Nothing of it took effect. */
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(id_of_program(self->first), info.prog_id);
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
}

TEST_F(links, update_refuses_other_flags)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = 1U << 31);

	EXPECT_EQ(-EINVAL, bpf_link_update(self->link, self->second, &opts) ? -errno : 0);
	/* An expected program, but no BPF_F_REPLACE */
	opts.flags = 0;
	opts.old_prog_fd = self->first;
	EXPECT_EQ(-EINVAL, bpf_link_update(self->link, self->second, &opts) ? -errno : 0);
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
}

TEST_F(links, update_keeps_the_cookie)
{
	int link = map_trace_attach(self->first, bpf_map__fd(self->skel->maps.other), UPDATE, 42);
	struct operation op = { .kind = OPERATION_UPDATE, .key = 1 };

	ASSERT_LE(0, link);
	ASSERT_EQ(0, map_trace_update(link, self->second, -1));
	ASSERT_EQ(0, run_program(self->skel->progs.operate_on_other, &op, sizeof(op)));
	ASSERT_EQ(0, op.ret);
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(2, self->skel->bss->events[0].tracer);
	EXPECT_EQ(42, self->skel->bss->events[0].cookie);
	close(link);
}

/*
 * One program, attached more than once
 */
TEST_F(links, cookie_tells_two_attachments_apart)
{
	const struct event *events = self->skel->bss->events;
	int source = bpf_map__fd(self->skel->maps.source);
	int links[2];

	links[0] = map_trace_attach(self->first, source, UPDATE, 0x0123456789abcdef);
	ASSERT_LE(0, links[0]);
	links[1] = map_trace_attach(self->first, source, UPDATE, -1);
	ASSERT_LE(0, links[1]);
	ASSERT_EQ(0, update(self->skel, 1));
	ASSERT_EQ(3, self->skel->bss->nr_events);
	EXPECT_EQ(0, events[0].cookie);
	EXPECT_EQ(0x0123456789abcdef, events[1].cookie);
	EXPECT_EQ(-1, events[2].cookie);
	close(links[0]);
	close(links[1]);
}

TEST_F(links, map_and_cookie_tell_several_maps_apart)
{
	const struct event *events = self->skel->bss->events;
	const struct bpf_map *const maps[] = {
		self->skel->maps.source, self->skel->maps.mirror, self->skel->maps.other,
	};
	int links[ARRAY_SIZE(maps)], i;
	__u64 value = 1;
	__u32 key = 1;

	close(self->link);
	self->link = -1;
	for (i = 0; i < ARRAY_SIZE(maps); i++) {
		links[i] = map_trace_attach(self->first, bpf_map__fd(maps[i]), UPDATE, 100 + i);
		ASSERT_LE(0, links[i]);
	}
	EXPECT_EQ(ARRAY_SIZE(maps), count_links(self->first));
	self->skel->bss->nr_events = 0;
	for (i = 0; i < ARRAY_SIZE(maps); i++) {
		ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(maps[i]), &key, &value, BPF_ANY));
		ASSERT_EQ(i + 1, self->skel->bss->nr_events);
		EXPECT_EQ(id_of_map(bpf_map__fd(maps[i])), events[i].map_id);
		EXPECT_EQ(100 + i, events[i].cookie);
	}

	/* Each ends by itself. */
	ASSERT_EQ(0, map_trace_detach(links[1]));
	for (i = 0; i < ARRAY_SIZE(maps); i++) {
		self->skel->bss->nr_events = 0;
		ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(maps[i]), &key, &value, BPF_ANY));
		EXPECT_EQ(i != 1, self->skel->bss->nr_events);
	}
	for (i = 0; i < ARRAY_SIZE(maps); i++)
		close(links[i]);
}

/*
 * What it tells
 */
TEST_F(links, info_tells_map_type_and_cookie)
{
	int deleter = bpf_program__fd(self->skel->progs.trace_delete);
	struct map_trace_info info;
	int link;

	link = map_trace_attach(deleter, bpf_map__fd(self->skel->maps.source), DELETE,
				0xfeedface12345678);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(map_trace_kernel_enum("bpf_link_type", "BPF_LINK_TYPE_MAP_TRACE"), info.type);
	EXPECT_NE(0, info.id);
	EXPECT_EQ(id_of_program(deleter), info.prog_id);
	EXPECT_EQ(id_of_map(bpf_map__fd(self->skel->maps.source)), info.map_id);
	EXPECT_EQ(DELETE, info.trace_type);
	EXPECT_EQ(0xfeedface12345678, info.cookie);
	EXPECT_EQ(0, info.missed);
	EXPECT_EQ(0, info.failed);

	/* After detach, it still answers. */
	ASSERT_EQ(0, map_trace_detach(link));
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(0, info.map_id);
	EXPECT_EQ(DELETE, info.trace_type);
	EXPECT_EQ(0xfeedface12345678, info.cookie);
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

TEST_F(links, fdinfo_tells_the_same)
{
	struct map_trace_info info;
	int link, i;

	link = map_trace_attach(bpf_program__fd(self->skel->progs.could_not_follow),
				bpf_map__fd(self->skel->maps.source), UPDATE, 4711);
	ASSERT_LE(0, link);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, update(self->skel, i));
	}
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(id_of_map(bpf_map__fd(self->skel->maps.source)), fdinfo_number(link, "map_id"));
	EXPECT_EQ(UPDATE, fdinfo_number(link, "trace_type"));
	EXPECT_EQ(4711, fdinfo_number(link, "cookie"));
	EXPECT_EQ(0, fdinfo_number(link, "missed"));
	EXPECT_EQ(3, fdinfo_number(link, "failed"));
	EXPECT_EQ(3, info.failed);
	EXPECT_EQ(info.id, fdinfo_number(link, "link_id"));
	EXPECT_EQ(info.prog_id, fdinfo_number(link, "prog_id"));
	close(link);
}

/* Through a map of maps: what cannot be known at load is bounded and counted. */
TEST_F(links, defect_9_run_that_recursion_prevents_is_missed)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = 1, .value = 1 };
	struct map_trace_info info;
	__u32 i;
	int link;

	link = attach_to(self->skel->progs.updates_inner, self->skel->maps.inner);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	for (i = 1; i <= 3; i++) {
		self->skel->data->recursive_ret = 1;
		ASSERT_EQ(0, run_program(self->skel->progs.operate_on_inner, &op, sizeof(op)));
		ASSERT_EQ(0, op.ret);
		ASSERT_EQ(0, map_trace_get_info(link, &info));
		/* Its own update took place, and was not traced. */
		EXPECT_EQ(0, self->skel->data->recursive_ret);
		EXPECT_EQ(i, self->skel->bss->nr_events);
		EXPECT_EQ(i, info.missed);
		EXPECT_EQ(i, fdinfo_number(link, "missed"));
		EXPECT_EQ(0, info.failed);
		/* The link's count, and the one that each program has */
		EXPECT_EQ(i, recursion_misses(self->skel->progs.updates_inner));
	}
	EXPECT_EQ(0, recursion_misses(self->skel->progs.trace_update));
	close(link);
}

TEST_F(links, statistics_count_the_runs)
{
	int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
	long long before = run_count(self->first);
	__u32 key;

	ASSERT_LE(0, stats);
	ASSERT_LE(0, before);
	for (key = 0; key < 7; key++) {
		ASSERT_EQ(0, update(self->skel, key));
	}
	EXPECT_EQ(before + 7, run_count(self->first));
	EXPECT_EQ(0, run_count(self->second));
	close(stats);
	ASSERT_EQ(0, update(self->skel, 8));
	EXPECT_EQ(before + 7, run_count(self->first));
}

/* What a program gets that is linked with a libbpf that does not know map tracers */
TEST_F(links, section_name_attaches_to_the_map_of_the_object)
{
	struct bpf_link *link;

	ASSERT_EQ(0, map_trace_detach(self->link));
	link = bpf_program__attach(self->skel->progs.trace_update);
	ASSERT_NE(NULL, link) TH_LOG("attach: %s", strerror(errno));
	EXPECT_EQ(1, tracer_of_update(self->skel, 1));
	ASSERT_EQ(0, bpf_link__detach(link));
	EXPECT_EQ(0, tracer_of_update(self->skel, 2));
	EXPECT_EQ(0, bpf_link__destroy(link));
}

TEST_HARNESS_MAIN
