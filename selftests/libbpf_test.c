// SPDX-License-Identifier: GPL-2.0
/*
 * How libbpf and bpftool of the patched kernel tree support map tracers. The section handler
 * for other libbpfs is registered only in the tests of that handler.
 */
#include "testing_helpers.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <linux/bpf.h>

#include "progs/operation.h"
#include "basic.skel.h"
#include "feature_probe.skel.h"
#include "libbpf.skel.h"

#define KEY 5
#define VALUE 0xdeadbeef
/* What the tracers of libbpf.bpf.c make of them */
#define NEXT_KEY 16
#define NEXT_VALUE (3 * VALUE + 1)

static char warnings[4096];

static int note_warnings(enum libbpf_print_level level, const char *format, va_list args)
{
	size_t len = strlen(warnings);

	if (level != LIBBPF_WARN)
		return 0;
	return vsnprintf(warnings + len, sizeof(warnings) - len, format, args);
}

#define EXPECT_WARNING(text) do {						\
	EXPECT_NE(NULL, strstr(warnings, (text)))				\
		TH_LOG("\"%s\" is not in:\n%s", (text), warnings);		\
} while (0)

FIXTURE(libbpf) {
	struct libbpf_bpf *skel;
	struct bpf_map_trace_link_info info;
};

FIXTURE_SETUP(libbpf)
{
	ASSERT_EQ(0, map_trace_module_load());
	self->skel = libbpf_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_autocreate(self->skel->maps.uncreated_map, false));
	libbpf_set_print(note_warnings);
}

FIXTURE_TEARDOWN(libbpf)
{
	libbpf_bpf__destroy(self->skel);
}

#define LOAD() do {								\
	ASSERT_EQ(0, libbpf_bpf__load(self->skel)) TH_LOG("%s", warnings);	\
	self->info.map_fd = bpf_map__fd(self->skel->maps.traced_map);		\
	self->info.trace_type = BPF_MAP_TRACE_UPDATE_ELEM;			\
} while (0)

static int update(struct libbpf_bpf *skel, __u32 key, __u32 value)
{
	return bpf_map__update_elem(skel->maps.traced_map, &key, sizeof(key), &value,
				    sizeof(value), 0);
}

/* What the tracers stored, 0 if nothing */
static __u32 traced(struct libbpf_bpf *skel, __u32 key)
{
	__u32 value = 0;

	if (bpf_map__lookup_elem(skel->maps.tracer_map, &key, sizeof(key), &value,
				 sizeof(value), 0))
		return 0;
	return value;
}

TEST_F(libbpf, rfc_update_tracer_builds_and_attaches_unchanged)
{
	DECLARE_LIBBPF_OPTS(bpf_map_trace_attach_opts, opts);
	struct bpf_map_trace_link_info link_info = {};
	struct bpf_link *tracer, *kprobe;

	LOAD();
	link_info.map_fd = bpf_map__fd(self->skel->maps.traced_map);
	link_info.trace_type = BPF_MAP_TRACE_UPDATE_ELEM;
	opts.link_info = &link_info;
	opts.link_info_len = sizeof(link_info);
	tracer = bpf_program__attach_map_trace(self->skel->progs.tracer_update, &opts);
	ASSERT_NE(NULL, tracer) TH_LOG("%s", warnings);

	self->skel->bss->pid = getpid();
	kprobe = bpf_program__attach(self->skel->progs.update_on_bpf);
	ASSERT_NE(NULL, kprobe) TH_LOG("%s", warnings);

	/* The lookup is a bpf() of its own, if there was none before. */
	traced(self->skel, KEY);
	EXPECT_EQ(NEXT_VALUE, traced(self->skel, KEY));
	bpf_link__destroy(kprobe);
	bpf_link__destroy(tracer);
}

TEST_F(libbpf, rfc_delete_tracer_builds_and_attaches_unchanged)
{
	DECLARE_LIBBPF_OPTS(bpf_map_trace_attach_opts, opts);
	struct bpf_map_trace_link_info link_info = {};
	struct bpf_link *tracer, *kprobe;

	LOAD();
	link_info.map_fd = bpf_map__fd(self->skel->maps.traced_map);
	link_info.trace_type = BPF_MAP_TRACE_DELETE_ELEM;
	opts.link_info = &link_info;
	opts.link_info_len = sizeof(link_info);
	tracer = bpf_program__attach_map_trace(self->skel->progs.tracer_delete, &opts);
	ASSERT_NE(NULL, tracer) TH_LOG("%s", warnings);

	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	self->skel->bss->pid = getpid();
	kprobe = bpf_program__attach(self->skel->progs.delete_on_bpf);
	ASSERT_NE(NULL, kprobe) TH_LOG("%s", warnings);

	traced(self->skel, NEXT_KEY);
	EXPECT_EQ(getpid(), traced(self->skel, NEXT_KEY));
	bpf_link__destroy(kprobe);
	bpf_link__destroy(tracer);
}

/* The RFC's structs: no cookie, and no padding that counts */
TEST_F(libbpf, shorter_structs_of_the_rfc_work)
{
	struct bpf_map_trace_attach_opts opts = {
		.sz = offsetof(struct bpf_map_trace_attach_opts, link_info_len) + sizeof(__u32),
		.link_info = &self->info,
		.link_info_len = offsetof(struct bpf_map_trace_link_info, cookie),
	};
	struct bpf_link *link;

	LOAD();
	link = bpf_program__attach_map_trace(self->skel->progs.tracer_update, &opts);
	ASSERT_NE(NULL, link) TH_LOG("%s", warnings);
	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	EXPECT_EQ(NEXT_VALUE, traced(self->skel, KEY));
	bpf_link__destroy(link);
}

TEST_F(libbpf, skeleton_attaches_to_the_map_of_the_section)
{
	LOAD();
	bpf_program__set_autoattach(self->skel->progs.update_on_bpf, false);
	bpf_program__set_autoattach(self->skel->progs.delete_on_bpf, false);
	ASSERT_EQ(0, libbpf_bpf__attach(self->skel)) TH_LOG("%s", warnings);
	EXPECT_NE(NULL, self->skel->links.tracer_update);
	EXPECT_NE(NULL, self->skel->links.tracer_delete);
	/* It names no map. */
	EXPECT_EQ(NULL, self->skel->links.tracer_of_any_map);

	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	EXPECT_EQ(NEXT_VALUE, traced(self->skel, KEY));
	EXPECT_EQ(0, traced(self->skel, NEXT_KEY));
	ASSERT_EQ(0, bpf_map__delete_elem(self->skel->maps.traced_map, &(__u32){ KEY }, 4, 0));
	EXPECT_EQ(getpid(), traced(self->skel, NEXT_KEY));

	/* Until the links are gone */
	libbpf_bpf__detach(self->skel);
	ASSERT_EQ(0, update(self->skel, 6, 6));
	EXPECT_EQ(0, traced(self->skel, 6));
}

TEST_F(libbpf, without_opts_it_attaches_to_the_map_of_the_section)
{
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts);
	struct bpf_link *link;

	LOAD();
	link = bpf_program__attach_map_trace(self->skel->progs.tracer_update, NULL);
	ASSERT_NE(NULL, link) TH_LOG("%s", warnings);
	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	EXPECT_EQ(NEXT_VALUE, traced(self->skel, KEY));
	bpf_link__destroy(link);

	link = bpf_program__attach_map_trace(self->skel->progs.tracer_update, &opts);
	ASSERT_NE(NULL, link) TH_LOG("%s", warnings);
	ASSERT_EQ(0, update(self->skel, KEY, 2));
	EXPECT_EQ(1, traced(self->skel, KEY));
	bpf_link__destroy(link);
}

TEST_F(libbpf, section_without_map_attaches_to_any_with_cookies)
{
	const struct bpf_program *prog = self->skel->progs.tracer_of_any_map;
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts,
		.link_info = &self->info,
		.link_info_len = sizeof(self->info),
	);
	struct bpf_link *links[2];

	LOAD();
	EXPECT_EQ(NULL, bpf_program__attach(prog));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, NULL));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_WARNING("prog 'tracer_of_any_map': section 'map_trace/UPDATE_ELEM' names no map");

	self->info.cookie = 0x1111222233334444;
	links[0] = bpf_program__attach_map_trace(prog, &opts);
	ASSERT_NE(NULL, links[0]) TH_LOG("%s", warnings);
	self->info.map_fd = bpf_map__fd(self->skel->maps.tracer_map);
	self->info.cookie = 2;
	links[1] = bpf_program__attach_map_trace(prog, &opts);
	ASSERT_NE(NULL, links[1]) TH_LOG("%s", warnings);

	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	EXPECT_EQ(1, self->skel->bss->nr_any);
	EXPECT_EQ(0x1111222233334444, self->skel->bss->last_cookie);
	ASSERT_EQ(0, bpf_map__update_elem(self->skel->maps.tracer_map, &(__u32){ 1 }, 4,
					  &(__u32){ 1 }, 4, 0));
	EXPECT_EQ(2, self->skel->bss->nr_any);
	EXPECT_EQ(2, self->skel->bss->last_cookie);
	bpf_link__destroy(links[0]);
	bpf_link__destroy(links[1]);
}

TEST_F(libbpf, bad_opts_are_einval)
{
	const struct bpf_program *prog = self->skel->progs.tracer_update;
	struct {
		struct bpf_map_trace_attach_opts opts;
		__u64 later;
	} longer = { .opts.sz = sizeof(longer), .later = 1 };
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts, .link_info_len = 8);
	struct bpf_link *link;

	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, NULL));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_WARNING("prog 'tracer_update': can't attach before loaded");

	LOAD();
	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, &opts));
	EXPECT_EQ(EINVAL, errno);
	opts.link_info = &self->info;
	opts.link_info_len = 0;
	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, &opts));
	EXPECT_EQ(EINVAL, errno);
	opts.sz = 4;
	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, &opts));
	EXPECT_EQ(EINVAL, errno);

	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, &longer.opts));
	EXPECT_EQ(EINVAL, errno);
	longer.later = 0;
	link = bpf_program__attach_map_trace(prog, &longer.opts);
	EXPECT_NE(NULL, link) TH_LOG("%s", warnings);
	bpf_link__destroy(link);
}

TEST_F(libbpf, missing_map_of_the_section_is_named)
{
	const struct bpf_program *prog = self->skel->progs.tracer_of_missing_map;

	bpf_program__set_autoload(self->skel->progs.tracer_of_missing_map, true);
	LOAD();
	EXPECT_EQ(NULL, bpf_program__attach(prog));
	EXPECT_EQ(ENOENT, errno);
	EXPECT_WARNING("prog 'tracer_of_missing_map': there is no map 'no_such_map'");
	EXPECT_WARNING("use bpf_program__attach_map_trace() with the fd of a map");
	EXPECT_EQ(NULL, bpf_program__attach_map_trace(prog, NULL));
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(-ENOENT, libbpf_bpf__attach(self->skel));
}

static __u32 map_id_of_link(const struct bpf_link *link)
{
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);

	return bpf_link_get_info_by_fd(bpf_link__fd(link), &info, &len) ? 0 : info.map_trace.map_id;
}

/*
 * The map of a section is a variable of the object. The map that is reused for it comes
 * with the name of another variable, which goes on to mean that one.
 */
TEST_F(libbpf, map_of_the_section_that_is_reused_is_attached_to)
{
	struct libbpf_bpf *other = libbpf_bpf__open();
	struct bpf_link *links[2];
	int reused;

	ASSERT_NE(NULL, other);
	LOAD();
	reused = bpf_map__fd(self->skel->maps.tracer_map);
	ASSERT_EQ(0, bpf_map__set_autocreate(other->maps.uncreated_map, false));
	ASSERT_EQ(0, bpf_map__reuse_fd(other->maps.traced_map, reused));
	ASSERT_STREQ("tracer_map", bpf_map__name(other->maps.traced_map));
	AUTOLOAD(other->progs.tracer_of_tracer_map);
	ASSERT_EQ(0, libbpf_bpf__load(other)) TH_LOG("%s", warnings);

	links[0] = bpf_program__attach(other->progs.tracer_update);
	ASSERT_NE(NULL, links[0]) TH_LOG("%s", warnings);
	EXPECT_EQ(id_of_map(reused), map_id_of_link(links[0]));
	links[1] = bpf_program__attach(other->progs.tracer_of_tracer_map);
	ASSERT_NE(NULL, links[1]) TH_LOG("%s", warnings);
	EXPECT_EQ(id_of_map(bpf_map__fd(other->maps.tracer_map)), map_id_of_link(links[1]));

	ASSERT_EQ(0, bpf_map_update_elem(reused, &(__u32){ KEY }, &(__u32){ VALUE }, 0));
	EXPECT_EQ(NEXT_VALUE, traced(other, KEY));
	EXPECT_EQ(1, other->bss->nr_any);
	bpf_link__destroy(links[0]);
	bpf_link__destroy(links[1]);
	libbpf_bpf__destroy(other);
}

/* Global data is a map of the section that it is in. */
TEST_F(libbpf, map_of_the_section_that_is_global_data_is_attached_to)
{
	struct bpf_link *link;

	AUTOLOAD(self->skel->progs.tracer_of_global_data);
	LOAD();
	link = bpf_program__attach(self->skel->progs.tracer_of_global_data);
	ASSERT_NE(NULL, link) TH_LOG("%s", warnings);
	EXPECT_EQ(id_of_map(bpf_map__fd(self->skel->maps.bss)), map_id_of_link(link));
	bpf_link__destroy(link);
}

TEST_F(libbpf, map_of_the_section_that_is_not_created_is_named)
{
	const struct bpf_program *prog = self->skel->progs.tracer_of_uncreated_map;

	bpf_program__set_autoload(self->skel->progs.tracer_of_uncreated_map, true);
	LOAD();
	EXPECT_EQ(NULL, bpf_program__attach(prog));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_WARNING("prog 'tracer_of_uncreated_map': map 'uncreated_map' isn't created");
}

TEST_F(libbpf, unknown_operation_in_the_section_does_not_load)
{
	bpf_program__set_autoload(self->skel->progs.tracer_of_unknown_operation, true);
	EXPECT_EQ(-EINVAL, libbpf_bpf__load(self->skel));
	EXPECT_WARNING("invalid section name 'map_trace/traced_map/LOOKUP_ELEM'");
}

TEST_F(libbpf, empty_map_name_in_the_section_does_not_load)
{
	bpf_program__set_autoload(self->skel->progs.tracer_of_nameless_map, true);
	EXPECT_EQ(-EINVAL, libbpf_bpf__load(self->skel));
	EXPECT_WARNING("invalid section name 'map_trace//UPDATE_ELEM'");
}

TEST_F(libbpf, section_without_operation_needs_a_target)
{
	bpf_program__set_autoload(self->skel->progs.tracer_without_operation, true);
	EXPECT_EQ(-EINVAL, libbpf_bpf__load(self->skel));
	EXPECT_WARNING("prog 'tracer_without_operation': no map operation is specified");
}

TEST_F(libbpf, attach_target_can_be_set)
{
	struct bpf_program *prog = self->skel->progs.tracer_without_operation;
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts,
		.link_info = &self->info,
		.link_info_len = sizeof(self->info),
	);
	struct bpf_link *link;

	bpf_program__set_autoload(prog, true);
	ASSERT_EQ(0, bpf_program__set_attach_target(prog, 0, "bpf_map_trace__delete_elem"));
	LOAD();
	self->info.trace_type = BPF_MAP_TRACE_DELETE_ELEM;
	link = bpf_program__attach_map_trace(prog, &opts);
	ASSERT_NE(NULL, link) TH_LOG("%s", warnings);
	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	ASSERT_EQ(0, bpf_map__delete_elem(self->skel->maps.traced_map, &(__u32){ KEY }, 4, 0));
	EXPECT_EQ(1, self->skel->bss->nr_any);
	bpf_link__destroy(link);
}

TEST_F(libbpf, link_create_takes_the_info)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	struct bpf_link_info link_info = {};
	__u32 len = sizeof(link_info);
	int prog, link;

	LOAD();
	prog = bpf_program__fd(self->skel->progs.tracer_of_any_map);
	EXPECT_EQ(-EINVAL, bpf_link_create(prog, 0, BPF_TRACE_MAP, NULL));
	EXPECT_EQ(-EINVAL, bpf_link_create(prog, 0, BPF_TRACE_MAP, &opts));

	self->info.cookie = 77;
	opts.map_trace.info = &self->info;
	opts.map_trace.info_len = sizeof(self->info);
	link = bpf_link_create(prog, 0, BPF_TRACE_MAP, &opts);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, bpf_link_get_info_by_fd(link, &link_info, &len));
	EXPECT_EQ(BPF_LINK_TYPE_MAP_TRACE, link_info.type);
	EXPECT_EQ(BPF_MAP_TRACE_UPDATE_ELEM, link_info.map_trace.trace_type);
	EXPECT_EQ(77, link_info.map_trace.cookie);
	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	EXPECT_EQ(77, self->skel->bss->last_cookie);
	close(link);

	/* What belongs to another attach type is not passed over. */
	opts.uprobe_multi.path_fd = 1;
	EXPECT_EQ(-EINVAL, bpf_link_create(prog, 0, BPF_TRACE_MAP, &opts));
}

TEST_F(libbpf, link_updates_its_program)
{
	struct bpf_link *link;

	LOAD();
	link = bpf_program__attach(self->skel->progs.tracer_update);
	ASSERT_NE(NULL, link) TH_LOG("%s", warnings);
	ASSERT_EQ(0, bpf_link__update_program(link, self->skel->progs.tracer_of_any_map));
	ASSERT_EQ(0, update(self->skel, KEY, VALUE));
	EXPECT_EQ(0, traced(self->skel, KEY));
	EXPECT_EQ(1, self->skel->bss->nr_any);
	bpf_link__destroy(link);
}

/* A program can register the handler for a libbpf that is older, and runs with any. */
TEST(handler_for_older_libbpf_works_with_this_one)
{
	struct basic_bpf *skel;
	struct bpf_link *link;
	__u64 value = 1;
	__u32 key = 1;

	ASSERT_EQ(0, map_trace_setup());
	skel = basic_bpf__open();
	ASSERT_NE(NULL, skel);
	AUTOLOAD(skel->progs.mirror_update);
	ASSERT_EQ(0, basic_bpf__load(skel));
	link = bpf_program__attach(skel->progs.mirror_update);
	ASSERT_NE(NULL, link);
	ASSERT_EQ(0, bpf_map__update_elem(skel->maps.source, &key, 4, &value, 8, 0));
	EXPECT_EQ(0, bpf_map__lookup_elem(skel->maps.mirror, &key, 4, &value, 8, 0));
	bpf_link__destroy(link);

	/* And libbpf's own function attaches what the handler has loaded. */
	link = bpf_program__attach_map_trace(skel->progs.mirror_update, NULL);
	ASSERT_NE(NULL, link);
	key = 2;
	ASSERT_EQ(0, bpf_map__update_elem(skel->maps.source, &key, 4, &value, 8, 0));
	EXPECT_EQ(0, bpf_map__lookup_elem(skel->maps.mirror, &key, 4, &value, 8, 0));
	bpf_link__destroy(link);
	basic_bpf__destroy(skel);
}

TEST(names)
{
	enum bpf_attach_type attach_type;
	enum bpf_prog_type prog_type;

	EXPECT_STREQ("trace_map", libbpf_bpf_attach_type_str(BPF_TRACE_MAP));
	EXPECT_STREQ("map_trace", libbpf_bpf_link_type_str(BPF_LINK_TYPE_MAP_TRACE));
	ASSERT_EQ(0, libbpf_prog_type_by_name("map_trace/some_map/UPDATE_ELEM", &prog_type,
					      &attach_type));
	EXPECT_EQ(BPF_PROG_TYPE_TRACING, prog_type);
	EXPECT_EQ(BPF_TRACE_MAP, attach_type);
}

TEST(probe_tells_whether_maps_can_be_traced)
{
	ASSERT_EQ(0, map_trace_module_load());
	EXPECT_EQ(1, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_UPDATE_ELEM, NULL));
	EXPECT_EQ(1, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_DELETE_ELEM, NULL));
	EXPECT_EQ(-EOPNOTSUPP, libbpf_probe_bpf_map_trace(MAX_BPF_MAP_TRACE_TYPE, NULL));
	EXPECT_EQ(-EINVAL, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_UPDATE_ELEM, ""));
}

/* bpftool */

/* It loads programs of its own, to find who holds what. */
#define BPFTOOL_TIMEOUT 400

FIXTURE(bpftool) {
	struct libbpf_bpf *skel;
	struct bpf_map_info map;
	struct bpf_prog_info prog;
	struct bpf_link_info link;
	struct bpf_link *tracer;
	char output[65536];
};

#define SYMBOLS "/proc/kallsyms"

FIXTURE_SETUP(bpftool)
{
	__u32 len;

	/*
	 * To say which processes hold a link, bpftool loads a program, and reads all symbols
	 * of the kernel for that, which takes most of its time. Without them it leaves that
	 * out, and nothing else.
	 */
	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	ASSERT_EQ(0, mount("/dev/null", SYMBOLS, NULL, MS_BIND, NULL));

	ASSERT_EQ(0, map_trace_module_load());
	self->skel = libbpf_bpf__open();
	ASSERT_NE(NULL, self->skel);
	bpf_map__set_autocreate(self->skel->maps.uncreated_map, false);
	bpf_program__set_autoload(self->skel->progs.tracer_sync, true);
	ASSERT_EQ(0, libbpf_bpf__load(self->skel));

	struct bpf_map_trace_link_info info = {
		.map_fd = bpf_map__fd(self->skel->maps.traced_map),
		.trace_type = BPF_MAP_TRACE_UPDATE_ELEM,
		.cookie = 4711,
	};
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts, .link_info = &info,
		    .link_info_len = sizeof(info));

	self->tracer = bpf_program__attach_map_trace(self->skel->progs.tracer_update, &opts);
	ASSERT_NE(NULL, self->tracer);
	self->skel->links.tracer_delete = bpf_program__attach(self->skel->progs.tracer_delete);
	ASSERT_NE(NULL, self->skel->links.tracer_delete);

	len = sizeof(self->map);
	ASSERT_EQ(0, bpf_map_get_info_by_fd(info.map_fd, &self->map, &len));
	len = sizeof(self->prog);
	ASSERT_EQ(0, bpf_prog_get_info_by_fd(bpf_program__fd(self->skel->progs.tracer_update),
					     &self->prog, &len));
	len = sizeof(self->link);
	ASSERT_EQ(0, bpf_link_get_info_by_fd(bpf_link__fd(self->tracer), &self->link, &len));
}

FIXTURE_TEARDOWN(bpftool)
{
	bpf_link__destroy(self->tracer);
	libbpf_bpf__destroy(self->skel);
}

/* Runs it, and keeps what it prints; -1 where it cannot be run */
static int bpftool(char *output, size_t size, const char *format, ...)
{
	char command[256] = "bpftool ", line[512];
	va_list args;
	size_t len;
	FILE *pipe;

	va_start(args, format);
	vsnprintf(command + strlen(command), sizeof(command) - strlen(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	if (!pipe)
		return -1;
	len = fread(output, 1, size - 1, pipe);
	output[len] = '\0';
	/* Whoever asks for the output of this test gets what goes into a manual. */
	printf("# $ %s\n", command);
	for (const char *p = output; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		snprintf(line, sizeof(line), "%.*s", (int)strcspn(p, "\n"), p);
		printf("# %s\n", line);
	}
	fflush(stdout);
	pclose(pipe);
	return len ? 0 : -1;
}

#define BPFTOOL(...) \
	ASSERT_EQ(0, bpftool(self->output, sizeof(self->output), __VA_ARGS__))

#define EXPECT_OUTPUT(...) do {							\
	char _text[256];							\
										\
	snprintf(_text, sizeof(_text), __VA_ARGS__);				\
	EXPECT_NE(NULL, strstr(self->output, _text))				\
		TH_LOG("\"%s\" is not in:\n%s", _text, self->output);		\
} while (0)

TEST_F_TIMEOUT(bpftool, link_show_names_map_operation_and_counts, BPFTOOL_TIMEOUT)
{
	BPFTOOL("link show id %u", self->link.id);
	EXPECT_OUTPUT("%u: map_trace  prog %u", self->link.id, self->prog.id);
	EXPECT_OUTPUT("map_id %u  map_name traced_map  trace_type UPDATE_ELEM  cookie 4711  "
		      "missed 0  failed 0", self->map.id);

	BPFTOOL("-j link show");
	EXPECT_OUTPUT("\"type\":\"map_trace\",\"prog_id\":%u,\"map_id\":%u,"
		      "\"map_name\":\"traced_map\",\"trace_type\":\"UPDATE_ELEM\","
		      "\"cookie\":4711,\"missed\":0,\"failed\":0", self->prog.id, self->map.id);
	EXPECT_OUTPUT("\"trace_type\":\"DELETE_ELEM\",\"cookie\":0");
}

TEST_F_TIMEOUT(bpftool, link_show_names_the_process_that_holds_it, BPFTOOL_TIMEOUT)
{
	ASSERT_EQ(0, umount(SYMBOLS));
	BPFTOOL("link show id %u", self->link.id);
	EXPECT_OUTPUT("pids libbpf_test(%d)", getpid());
	BPFTOOL("-j link show id %u", self->link.id);
	EXPECT_OUTPUT("\"pids\":[{\"pid\":%d,\"comm\":\"libbpf_test\"}]", getpid());
}

TEST_F_TIMEOUT(bpftool, link_show_tells_a_detached_link, BPFTOOL_TIMEOUT)
{
	ASSERT_EQ(0, bpf_link__detach(self->tracer));
	BPFTOOL("link show id %u", self->link.id);
	EXPECT_OUTPUT("map_id (detached)  trace_type UPDATE_ELEM");
	BPFTOOL("-j link show id %u", self->link.id);
	EXPECT_OUTPUT("\"map_id\":0,\"trace_type\":\"UPDATE_ELEM\"");

	/* Nor is it a tracer of the map any more. */
	BPFTOOL("-j map show id %u", self->map.id);
	EXPECT_EQ(NULL, strstr(self->output, "UPDATE_ELEM"));
	EXPECT_OUTPUT("\"trace_type\":\"DELETE_ELEM\"");
}

TEST_F_TIMEOUT(bpftool, link_flush_has_all_told, BPFTOOL_TIMEOUT)
{
	__u32 key = KEY, value = 1, len = sizeof(struct bpf_link_info);
	struct bpf_link_info info = {};
	LIBBPF_OPTS(bpf_link_flush_opts, opts, .timeout_ms = 60000);

	self->skel->links.tracer_sync = bpf_program__attach(self->skel->progs.tracer_sync);
	ASSERT_NE(NULL, self->skel->links.tracer_sync);
	ASSERT_EQ(0, bpf_link_get_info_by_fd(bpf_link__fd(self->skel->links.tracer_sync), &info,
					     &len));
	ASSERT_EQ(0, bpf_map__update_elem(self->skel->maps.traced_map, &key, sizeof(key), &value,
					  sizeof(value), BPF_ANY));

	BPFTOOL("link show id %u", info.id);
	EXPECT_OUTPUT("trace_type SYNC_ELEM");
	EXPECT_OUTPUT("pending 0  lost 0");
	BPFTOOL("-j link flush id %u", info.id);
	EXPECT_OUTPUT("null");
	EXPECT_EQ(1, self->skel->bss->nr_flushed);
	EXPECT_EQ(0, bpf_link_flush(bpf_link__fd(self->skel->links.tracer_sync), NULL));
	EXPECT_EQ(2, self->skel->bss->nr_flushed);
	key = 6;
	opts.keys = &key;
	opts.count = 1;
	EXPECT_EQ(0, bpf_link_flush(bpf_link__fd(self->skel->links.tracer_sync), &opts));
	EXPECT_EQ(4, self->skel->bss->nr_flushed);

	self->skel->bss->sync_fails = 1;
	BPFTOOL("-j link flush id %u timeout 60000", info.id);
	EXPECT_OUTPUT("could not follow 1 keys");
	EXPECT_EQ(-EAGAIN, bpf_link_flush(bpf_link__fd(self->skel->links.tracer_sync), &opts));
	EXPECT_EQ(2, opts.left);
	self->skel->bss->sync_fails = 0;

	BPFTOOL("-j link flush id %u", self->link.id);
	EXPECT_OUTPUT("Operation not supported");
}

TEST_F_TIMEOUT(bpftool, map_show_names_its_tracers, BPFTOOL_TIMEOUT)
{
	BPFTOOL("map show id %u", self->map.id);
	EXPECT_OUTPUT("tracer trace_type UPDATE_ELEM  prog_id %u  link_id %u",
		      self->prog.id, self->link.id);
	EXPECT_OUTPUT("tracer trace_type DELETE_ELEM");
	BPFTOOL("-j map show");
	EXPECT_OUTPUT("\"tracers\":[{\"trace_type\":\"UPDATE_ELEM\",\"prog_id\":%u,\"link_id\":%u},"
		      "{\"trace_type\":\"DELETE_ELEM\"", self->prog.id, self->link.id);
}

TEST_F_TIMEOUT(bpftool, prog_show_names_what_it_traces, BPFTOOL_TIMEOUT)
{
	BPFTOOL("prog show id %u", self->prog.id);
	EXPECT_OUTPUT("trace_type UPDATE_ELEM");
	EXPECT_OUTPUT("traces map_id %u  link_id %u", self->map.id, self->link.id);
	BPFTOOL("-j prog show");
	EXPECT_OUTPUT("\"trace_type\":\"UPDATE_ELEM\",\"traced_maps\":[{\"map_id\":%u,"
		      "\"link_id\":%u}]", self->map.id, self->link.id);
	/* Loaded, but not attached */
	EXPECT_OUTPUT("\"trace_type\":\"UPDATE_ELEM\",\"traced_maps\":[]");
}

#define PINNED_BY_BPFTOOL "/sys/fs/bpf/map_trace_by_type"

/* Of a file with several programs it takes the first. */
TEST_F_TIMEOUT(bpftool, prog_load_by_type_and_attach, BPFTOOL_TIMEOUT)
{
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);
	int fd;

	unlink(PINNED_BY_BPFTOOL);
	bpftool(self->output, sizeof(self->output),
		"prog load upgrade.bpf.o " PINNED_BY_BPFTOOL " type map_trace autoattach 2>&1");
	fd = bpf_obj_get(PINNED_BY_BPFTOOL);
	ASSERT_LE(0, fd) TH_LOG("%s", self->output);
	ASSERT_EQ(0, unlink(PINNED_BY_BPFTOOL));
	ASSERT_EQ(0, bpf_link_get_info_by_fd(fd, &info, &len));
	EXPECT_EQ(BPF_LINK_TYPE_MAP_TRACE, info.type);
	EXPECT_EQ(BPF_MAP_TRACE_SYNC_ELEM, info.map_trace.trace_type);
	close(fd);
}

/*
 * For each type of program it tries each helper, some thousand programs. Where it cannot
 * load those, there is nothing to try.
 */
TEST_F_TIMEOUT(bpftool, feature_probe_tells_whether_maps_can_be_traced, BPFTOOL_TIMEOUT)
{
	struct feature_probe_bpf *skel = feature_probe_bpf__open_and_load();

	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, feature_probe_bpf__attach(skel));
	BPFTOOL("feature probe kernel");
	EXPECT_OUTPUT("\nMap tracing is available\n");
	EXPECT_OUTPUT("\nBounded loop support is NOT available\n");

	skel->bss->refuse_tracers = true;
	BPFTOOL("-j feature probe kernel");
	EXPECT_OUTPUT("\"have_map_trace\":false");
	feature_probe_bpf__destroy(skel);
}

TEST_HARNESS_MAIN
