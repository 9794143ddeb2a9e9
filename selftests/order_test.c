// SPDX-License-Identifier: GPL-2.0
/* The order in which the tracers of a map run, and BPF_PROG_QUERY, which shows it */
#include "testing_helpers.h"

#include <sys/syscall.h>

#include <linux/capability.h>

#include "progs/order.h"
#include "order.skel.h"

#define MAX_LINKS 8

FIXTURE(order) {
	struct order_bpf *skel;
	int map, one, two, deleted, synced;
	int links[MAX_LINKS];
	int nr_links;
};

FIXTURE_SETUP(order)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = order_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->map = bpf_map__fd(self->skel->maps.source);
	self->one = bpf_program__fd(self->skel->progs.one);
	self->two = bpf_program__fd(self->skel->progs.two);
	self->deleted = bpf_program__fd(self->skel->progs.deleted);
	self->synced = bpf_program__fd(self->skel->progs.synced);
}

FIXTURE_TEARDOWN(order)
{
	while (self->nr_links)
		close(self->links[--self->nr_links]);
	order_bpf__destroy(self->skel);
}

/* A link of the type that the program is for. Its fd, or a negative errno */
static int attach(FIXTURE_DATA(order) *self, int prog, __u64 cookie, __u32 flags, __u32 relative,
		  __u64 revision)
{
	struct map_trace_link_info info = {
		.map_fd = self->map,
		.trace_type = prog == self->deleted ? DELETE :
			      prog == self->synced ? (__u32)map_trace_type_sync() : UPDATE,
		.cookie = cookie,
		.relative_fd = relative,
		.expected_revision = revision,
	};
	struct map_trace_link_create create = {
		.prog_fd = prog,
		.attach_type = map_trace_attach_type(),
		.flags = flags,
		.info = (unsigned long)&info,
		.info_len = sizeof(info),
	};
	int link = map_trace_link_create(&create);

	if (link >= 0 && self->nr_links < MAX_LINKS)
		self->links[self->nr_links++] = link;
	return link;
}

static __u32 id_of_link(int link)
{
	struct map_trace_info info;

	return map_trace_get_info(link, &info) ? 0 : info.id;
}

/* After an update, the update tracers with these cookies have run, one after the other. */
#define EXPECT_RUN(...) do {							\
	static const __u64 _wanted[] = { __VA_ARGS__ };				\
	__typeof__(self->skel->bss) _bss = self->skel->bss;			\
	__u32 _key = 1, _i;							\
	__u64 _value = 2;							\
										\
	_bss->nr_ran = 0;							\
	EXPECT_EQ(0, bpf_map_update_elem(self->map, &_key, &_value, BPF_ANY));	\
	EXPECT_EQ(ARRAY_SIZE(_wanted), _bss->nr_ran);				\
	for (_i = 0; _i < ARRAY_SIZE(_wanted); _i++)				\
		EXPECT_EQ(_wanted[_i], _bss->ran[_i]);				\
} while (0)

TEST_F(order, attach_order_is_the_default)
{
	ASSERT_LE(0, attach(self, self->two, 1, 0, 0, 0));
	ASSERT_LE(0, attach(self, self->one, 2, 0, 0, 0));
	ASSERT_LE(0, attach(self, self->two, 3, 0, 0, 0));
	EXPECT_RUN(1, 2, 3);
}

TEST_F(order, before_and_after_all_others)
{
	/* Also where there is none */
	ASSERT_LE(0, attach(self, self->one, 1, BPF_F_BEFORE, 0, 0));
	ASSERT_LE(0, attach(self, self->one, 2, BPF_F_BEFORE, 0, 0));
	ASSERT_LE(0, attach(self, self->one, 3, BPF_F_AFTER, 0, 0));
	ASSERT_LE(0, attach(self, self->one, 4, BPF_F_BEFORE, 0, 0));
	EXPECT_RUN(4, 2, 1, 3);
}

TEST_F(order, beside_a_link)
{
	int one, two;

	one = attach(self, self->one, 1, 0, 0, 0);
	two = attach(self, self->one, 2, 0, 0, 0);
	ASSERT_LE(0, one);
	ASSERT_LE(0, two);
	ASSERT_LE(0, attach(self, self->one, 3, BPF_F_BEFORE | BPF_F_LINK, two, 0));
	ASSERT_LE(0, attach(self, self->one, 4, BPF_F_AFTER | BPF_F_LINK, one, 0));
	EXPECT_RUN(1, 4, 3, 2);
	ASSERT_LE(0, attach(self, self->one, 5, BPF_F_BEFORE | BPF_F_LINK | BPF_F_ID,
			    id_of_link(one), 0));
	ASSERT_LE(0, attach(self, self->one, 6, BPF_F_AFTER | BPF_F_LINK | BPF_F_ID,
			    id_of_link(two), 0));
	EXPECT_RUN(5, 1, 4, 3, 2, 6);
	/* What is left keeps its order. */
	EXPECT_EQ(0, map_trace_detach(one));
	EXPECT_RUN(5, 4, 3, 2, 6);
}

/* Of a program that has several links: before the first one, and after the last one */
TEST_F(order, beside_a_program)
{
	ASSERT_LE(0, attach(self, self->two, 1, 0, 0, 0));
	ASSERT_LE(0, attach(self, self->one, 2, 0, 0, 0));
	ASSERT_LE(0, attach(self, self->one, 3, 0, 0, 0));
	ASSERT_LE(0, attach(self, self->two, 4, 0, 0, 0));
	ASSERT_LE(0, attach(self, self->two, 5, BPF_F_BEFORE, self->one, 0));
	ASSERT_LE(0, attach(self, self->two, 6, BPF_F_AFTER, self->one, 0));
	EXPECT_RUN(1, 5, 2, 3, 6, 4);
	ASSERT_LE(0, attach(self, self->two, 7, BPF_F_BEFORE | BPF_F_ID,
			    id_of_program(self->one), 0));
	ASSERT_LE(0, attach(self, self->two, 8, BPF_F_AFTER | BPF_F_ID,
			    id_of_program(self->one), 0));
	EXPECT_RUN(1, 5, 7, 2, 3, 8, 6, 4);
}

/* It goes where the program is now. */
TEST_F(order, beside_a_program_of_an_update)
{
	int link = attach(self, self->one, 1, 0, 0, 0);

	ASSERT_LE(0, link);
	ASSERT_LE(0, attach(self, self->one, 2, 0, 0, 0));
	ASSERT_EQ(0, map_trace_update(link, self->two, -1));
	ASSERT_LE(0, attach(self, self->one, 3, BPF_F_AFTER, self->two, 0));
	EXPECT_RUN(1, 3, 2);
}

TEST_F(order, refusals)
{
	__u32 link_id, before = BPF_F_BEFORE;
	struct map_trace_link_info info = { .map_fd = self->map, .trace_type = UPDATE };
	struct map_trace_link_create create = {
		.prog_fd = self->one,
		.attach_type = map_trace_attach_type(),
		.info = (unsigned long)&info,
		.info_len = sizeof(info),
	};
	int link, of_deletes;

	/* Nothing is there. */
	EXPECT_EQ(-ENOENT, attach(self, self->one, 0, before, self->one, 0));
	link = attach(self, self->one, 1, 0, 0, 0);
	of_deletes = attach(self, self->deleted, 2, 0, 0, 0);
	ASSERT_LE(0, link);
	ASSERT_LE(0, of_deletes);
	link_id = id_of_link(link);

	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, before | BPF_F_AFTER, 0, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, before | BPF_F_AFTER, self->one, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, 0, self->one, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, BPF_F_LINK, link, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, BPF_F_ID, link_id, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, before | BPF_F_REPLACE, link, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, BPF_F_ALLOW_MULTI, 0, 0));
	/* Another program, another operation, and an id that nobody has */
	EXPECT_EQ(-ENOENT, attach(self, self->one, 0, before, self->two, 0));
	EXPECT_EQ(-ENOENT, attach(self, self->one, 0, before | BPF_F_LINK, of_deletes, 0));
	EXPECT_EQ(-ENOENT, attach(self, self->deleted, 0, before | BPF_F_LINK, link, 0));
	EXPECT_EQ(-ENOENT, attach(self, self->one, 0, before | BPF_F_LINK | BPF_F_ID, 0, 0));
	EXPECT_EQ(-ENOENT, attach(self, self->one, 0, before | BPF_F_ID, 0, 0));
	EXPECT_EQ(-ENOENT, attach(self, self->one, 0, before | BPF_F_ID, ~0U, 0));
	/* A link is no program, and a map is neither. */
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, before, link, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, before | BPF_F_LINK, self->one, 0));
	EXPECT_EQ(-EINVAL, attach(self, self->one, 0, before | BPF_F_LINK, self->map, 0));
	EXPECT_EQ(-EBADF, attach(self, self->one, 0, before | BPF_F_LINK, 1000, 0));
	EXPECT_EQ(-EBADF, attach(self, self->one, 0, before, 1000, 0));
	/* One that is detached has no place. */
	EXPECT_EQ(0, map_trace_detach(of_deletes));
	EXPECT_EQ(-ENOENT, attach(self, self->deleted, 0, before | BPF_F_LINK, of_deletes, 0));
	EXPECT_EQ(-ENOENT, attach(self, self->deleted, 0, before, self->deleted, 0));

	info.reserved = 1;
	EXPECT_EQ(-EINVAL, map_trace_link_create(&create));
	EXPECT_RUN(1);
}

struct query {
	__u32 progs[MAX_LINKS], links[MAX_LINKS];
	__u32 count;
	__u64 revision;
};

static int query(int map, __u32 room, struct query *found)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts,
		.prog_ids = found->progs,
		.link_ids = found->links,
		.count = room,
	);
	int err;

	memset(found, 0xff, sizeof(*found));
	err = bpf_prog_query_opts(map, map_trace_attach_type(), &opts);
	found->count = opts.count;
	found->revision = opts.revision;
	return err;
}

TEST_F(order, revision_counts_changes)
{
	struct query now;
	int link;

	EXPECT_EQ(0, query(self->map, MAX_LINKS, &now));
	EXPECT_EQ(0, now.count);
	EXPECT_EQ(1, now.revision);
	EXPECT_EQ(-ESTALE, attach(self, self->one, 1, 0, 0, 2));
	link = attach(self, self->one, 1, 0, 0, 1);
	ASSERT_LE(0, link);
	EXPECT_EQ(0, query(self->map, MAX_LINKS, &now));
	EXPECT_EQ(2, now.revision);
	/* For all operations of the map */
	EXPECT_EQ(-ESTALE, attach(self, self->deleted, 1, 0, 0, 1));
	ASSERT_LE(0, attach(self, self->deleted, 1, 0, 0, 2));
	/* What is refused changes nothing. */
	EXPECT_EQ(-ENOENT, attach(self, self->one, 1, BPF_F_BEFORE, self->two, 3));
	EXPECT_EQ(0, map_trace_update(link, self->two, -1));
	EXPECT_EQ(0, query(self->map, MAX_LINKS, &now));
	EXPECT_EQ(4, now.revision);
	EXPECT_EQ(0, map_trace_detach(link));
	EXPECT_EQ(0, query(self->map, MAX_LINKS, &now));
	EXPECT_EQ(5, now.revision);
	EXPECT_EQ(-ESTALE, attach(self, self->one, 1, 0, 0, 4));
	ASSERT_LE(0, attach(self, self->one, 1, BPF_F_BEFORE, 0, 5));
	/* Nobody asks for one. */
	ASSERT_LE(0, attach(self, self->one, 2, 0, 0, 0));
	EXPECT_RUN(1, 2);
}

TEST_F(order, query_shows_the_order)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts);
	struct query now;
	int links[4], i;

	links[3] = attach(self, self->synced, 1, 0, 0, 0);
	links[2] = attach(self, self->deleted, 2, 0, 0, 0);
	links[1] = attach(self, self->one, 3, 0, 0, 0);
	links[0] = attach(self, self->two, 4, BPF_F_BEFORE, 0, 0);
	EXPECT_EQ(0, query(self->map, MAX_LINKS, &now));
	ASSERT_EQ(4, now.count);
	for (i = 0; i < 4; i++) {
		ASSERT_LE(0, links[i]);
		EXPECT_EQ(id_of_link(links[i]), now.links[i]);
	}
	EXPECT_EQ(id_of_program(self->two), now.progs[0]);
	EXPECT_EQ(id_of_program(self->one), now.progs[1]);
	EXPECT_EQ(id_of_program(self->deleted), now.progs[2]);
	EXPECT_EQ(id_of_program(self->synced), now.progs[3]);
	EXPECT_EQ(~0U, now.links[4]);

	/* How many there are, without their ids */
	EXPECT_EQ(0, query(self->map, 0, &now));
	EXPECT_EQ(4, now.count);
	EXPECT_EQ(5, now.revision);
	EXPECT_EQ(~0U, now.links[0]);
	/* As many as there is room for */
	EXPECT_EQ(-ENOSPC, query(self->map, 2, &now));
	EXPECT_EQ(4, now.count);
	EXPECT_EQ(id_of_link(links[1]), now.links[1]);
	EXPECT_EQ(~0U, now.links[2]);
	EXPECT_EQ(0, query(self->map, 4, &now));
	/* Nobody takes the ids. */
	opts.count = 1;
	EXPECT_EQ(0, bpf_prog_query_opts(self->map, map_trace_attach_type(), &opts));
	EXPECT_EQ(4, opts.count);
	/* Another map has none of them. */
	EXPECT_EQ(0, query(bpf_map__fd(self->skel->maps.other), MAX_LINKS, &now));
	EXPECT_EQ(0, now.count);
	EXPECT_EQ(1, now.revision);
}

/* A flush reports a key to all of them, and a replay to the new one alone. */
TEST_F(order, sync_tracers_run_in_their_order)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	__u32 key = 1;
	__u64 value = 2;
	int link, i;

	ASSERT_EQ(0, bpf_map_update_elem(self->map, &key, &value, BPF_ANY));
	link = attach(self, self->synced, 1, 0, 0, 0);
	ASSERT_LE(0, link);
	ASSERT_LE(0, attach(self, self->synced, 2, BPF_F_BEFORE, 0, 0));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, map_trace_flush(self->links[i], NULL, 0, 0, NULL));
	bss->nr_ran = 0;
	ASSERT_EQ(0, bpf_map_update_elem(self->map, &key, &value, BPF_ANY));
	EXPECT_EQ(2, bss->nr_ran);
	EXPECT_EQ(2, bss->ran[0]);
	EXPECT_EQ(1, bss->ran[1]);
	bss->nr_ran = 0;
	EXPECT_EQ(0, map_trace_update(link, self->synced, -1));
	EXPECT_EQ(0, map_trace_flush(self->links[1], NULL, 0, 0, NULL));
	EXPECT_LT(0, bss->nr_ran);
	EXPECT_EQ(0, bpf_map_delete_elem(self->map, &key));
}

TEST_F(order, query_refusals)
{
	LIBBPF_OPTS(bpf_map_create_opts, write_only, .map_flags = BPF_F_WRONLY);
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .query_flags = BPF_F_QUERY_EFFECTIVE);
	LIBBPF_OPTS(bpf_prog_query_opts, fault, .link_ids = (__u32 *)8, .count = 1);
	__u64 admin = 1ULL << CAP_NET_ADMIN | 1ULL << CAP_SYS_ADMIN;
	int attach_type = map_trace_attach_type(), unreadable;
	struct query now;

	ASSERT_LE(0, attach(self, self->one, 1, 0, 0, 0));
	EXPECT_EQ(-EINVAL, bpf_prog_query_opts(self->map, attach_type, &opts));
	EXPECT_EQ(-EFAULT, bpf_prog_query_opts(self->map, attach_type, &fault));
	EXPECT_EQ(-EBADF, query(1000, 1, &now));
	EXPECT_EQ(-EINVAL, query(self->one, 1, &now));
	unreadable = bpf_map_create(BPF_MAP_TYPE_HASH, NULL, 4, 8, 1, &write_only);
	ASSERT_LE(0, unreadable);
	EXPECT_EQ(-EPERM, query(unreadable, 1, &now));
	close(unreadable);

	ASSERT_EQ(0, set_capabilities(~admin));
	EXPECT_EQ(-EPERM, query(self->map, 1, &now));
	ASSERT_EQ(0, set_capabilities(~0ULL));
	EXPECT_EQ(0, query(self->map, 1, &now));
}

/* Of those who know more members, and of those who know fewer */
TEST_F(order, query_of_another_length)
{
	static const __u32 nothing[MAX_LINKS];
	__u32 prog_flags[MAX_LINKS], link_flags[MAX_LINKS];
	union bpf_attr attr = {};

	ASSERT_LE(0, attach(self, self->one, 1, 0, 0, 0));
	memset(prog_flags, 0xff, sizeof(prog_flags));
	memset(link_flags, 0xff, sizeof(link_flags));
	attr.query.target_fd = self->map;
	attr.query.attach_type = map_trace_attach_type();
	attr.query.prog_cnt = MAX_LINKS;
	attr.query.prog_attach_flags = (unsigned long)prog_flags;
	attr.query.link_attach_flags = (unsigned long)link_flags;
	attr.query.revision = 77;
	EXPECT_EQ(0, syscall(__NR_bpf, BPF_PROG_QUERY, &attr,
			     offsetof(union bpf_attr, query.revision)));
	EXPECT_EQ(1, attr.query.prog_cnt);
	EXPECT_EQ(77, attr.query.revision);
	EXPECT_EQ(0, memcmp(prog_flags, nothing, 4));
	EXPECT_EQ(0, memcmp(link_flags, nothing, 4));
	EXPECT_EQ(~0U, prog_flags[1]);
	attr.query.revision = 0;
	attr.query.prog_cnt = 0;
	EXPECT_EQ(0, syscall(__NR_bpf, BPF_PROG_QUERY, &attr, sizeof(attr)));
	EXPECT_EQ(2, attr.query.revision);
}

TEST_F(order, libbpf_passes_the_place)
{
	struct bpf_map_trace_link_info info = { .map_fd = self->map, .trace_type = UPDATE };
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts,
		.link_info = &info,
		.link_info_len = sizeof(info),
		.flags = BPF_F_BEFORE,
	);
	struct bpf_link *link;

	ASSERT_LE(0, attach(self, self->one, 1, 0, 0, 0));
	info.cookie = 2;
	link = bpf_program__attach_map_trace(self->skel->progs.two, &opts);
	ASSERT_NE(NULL, link);
	EXPECT_RUN(2, 1);
	bpf_link__destroy(link);
	info.expected_revision = 1;
	EXPECT_EQ(NULL, bpf_program__attach_map_trace(self->skel->progs.two, &opts));
	EXPECT_EQ(ESTALE, errno);
}

TEST_F(order, bpftool_shows_the_order)
{
	char command[64], output[4096], first[32], second[32];
	int one, two, other;
	size_t len;
	FILE *pipe;

	/* With one of another map between them */
	one = attach(self, self->one, 1, 0, 0, 0);
	other = attach_to(self->skel->progs.one, self->skel->maps.other);
	two = attach(self, self->two, 2, BPF_F_BEFORE, 0, 0);
	ASSERT_LE(0, one);
	ASSERT_LE(0, other);
	ASSERT_LE(0, two);
	snprintf(command, sizeof(command), "bpftool -j map show id %u", id_of_map(self->map));
	pipe = popen(command, "r");
	ASSERT_NE(NULL, pipe);
	len = fread(output, 1, sizeof(output) - 1, pipe);
	output[len] = '\0';
	EXPECT_EQ(0, pclose(pipe));
	snprintf(first, sizeof(first), "\"link_id\":%u", id_of_link(two));
	snprintf(second, sizeof(second), "\"link_id\":%u", id_of_link(one));
	ASSERT_NE(NULL, strstr(output, first)) TH_LOG("%s", output);
	ASSERT_NE(NULL, strstr(output, second)) TH_LOG("%s", output);
	EXPECT_LT(strstr(output, first), strstr(output, second)) TH_LOG("%s", output);
	snprintf(first, sizeof(first), "\"link_id\":%u", id_of_link(other));
	EXPECT_EQ(NULL, strstr(output, first)) TH_LOG("%s", output);
	close(other);
}

TEST_HARNESS_MAIN
