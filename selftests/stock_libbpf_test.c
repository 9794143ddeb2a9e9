// SPDX-License-Identifier: GPL-2.0
/*
 * The section handler in a program that is built with a distribution's libbpf, its headers and
 * its linux/bpf.h, none of which supports map tracers
 */
#include "testing_helpers.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <linux/bpf.h>

#include "stock_libbpf.skel.h"

FIXTURE(stock_libbpf) {
	struct bpf_object *obj;
	struct bpf_map *source;
	struct bpf_map *mirror;
};

FIXTURE_SETUP(stock_libbpf)
{
	ASSERT_EQ(0, map_trace_setup());
	self->obj = bpf_object__open_file("stock_libbpf.bpf.o", NULL);
	ASSERT_NE(NULL, self->obj);
	self->source = bpf_object__find_map_by_name(self->obj, "source");
	self->mirror = bpf_object__find_map_by_name(self->obj, "mirror");
}

FIXTURE_TEARDOWN(stock_libbpf)
{
	bpf_object__close(self->obj);
}

#define PROG(name) bpf_object__find_program_by_name(self->obj, name)

static int update(const struct bpf_map *map, __u32 key, __u64 value)
{
	return bpf_map__update_elem(map, &key, sizeof(key), &value, sizeof(value), 0);
}

static int delete(const struct bpf_map *map, __u32 key)
{
	return bpf_map__delete_elem(map, &key, sizeof(key), 0);
}

/* The value of @key, 0 if there is none */
static __u64 lookup(const struct bpf_map *map, __u32 key)
{
	__u64 value = 0;

	if (bpf_map__lookup_elem(map, &key, sizeof(key), &value, sizeof(value), 0))
		return 0;
	return value;
}

static __u32 runs(const struct bpf_object *obj, __u32 cookie)
{
	__u32 count = 0;

	bpf_map__lookup_elem(bpf_object__find_map_by_name(obj, "runs"), &cookie,
			     sizeof(cookie), &count, sizeof(count), 0);
	return count;
}

/* Else the tests below would show nothing. */
TEST(this_libbpf_knows_no_tracers)
{
	enum bpf_attach_type attach_type;
	enum bpf_prog_type prog_type;

	TH_LOG("libbpf %s", libbpf_version_string());
	ASSERT_LE(0, map_trace_attach_type());
	EXPECT_LE(__MAX_BPF_ATTACH_TYPE, map_trace_attach_type());
	EXPECT_EQ(NULL, libbpf_bpf_attach_type_str(map_trace_attach_type()));
	EXPECT_NE(0, libbpf_prog_type_by_name("map_trace/source/UPDATE_ELEM", &prog_type,
					      &attach_type));
}

/*
 * Whatever the version that this was built with, the handler gets along with the oldest
 * libbpf 1: no function of it that this binary calls is newer.
 */
TEST(functions_of_libbpf_1_0_are_enough)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), needed = 0;
	const Elf64_Shdr *section;
	const Elf64_Ehdr *elf;
	struct stat st;
	unsigned int i;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstat(fd, &st));
	elf = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, elf);
	ASSERT_EQ(ELFCLASS64, elf->e_ident[EI_CLASS]);
	section = (const void *)elf + elf->e_shoff;
	for (i = 0; i < elf->e_shnum; i++) {
		const char *strings = (const void *)elf + section[section[i].sh_link].sh_offset;
		const Elf64_Verneed *library = (const void *)elf + section[i].sh_offset;
		unsigned int left = section[i].sh_info;

		if (section[i].sh_type != SHT_GNU_verneed)
			continue;
		for (; left--; library = (const void *)library + library->vn_next) {
			const Elf64_Vernaux *version = (const void *)library + library->vn_aux;
			unsigned int versions = library->vn_cnt;

			for (; versions--; version = (const void *)version + version->vna_next) {
				const char *name = strings + version->vna_name;

				if (strncmp(name, "LIBBPF_", 7))
					continue;
				needed++;
				EXPECT_TRUE(!strncmp(name, "LIBBPF_0.", 9) ||
					    !strcmp(name, "LIBBPF_1.0.0")) TH_LOG("%s", name);
			}
		}
	}
	if (!needed)
		SKIP(return, "libbpf is linked in, and has no versions");
}

TEST(without_the_handler_nothing_loads)
{
	struct bpf_object *obj;

	ASSERT_EQ(0, map_trace_module_load());
	obj = bpf_object__open_file("stock_libbpf.bpf.o", NULL);
	ASSERT_NE(NULL, obj);
	EXPECT_NE(0, bpf_object__load(obj));
	bpf_object__close(obj);
}

TEST_F(stock_libbpf, mirror_follows)
{
	struct bpf_link *links[2];

	ASSERT_EQ(0, bpf_object__load(self->obj));
	links[0] = bpf_program__attach(PROG("mirror_update"));
	ASSERT_NE(NULL, links[0]) TH_LOG("attach: %s", strerror(errno));
	links[1] = bpf_program__attach(PROG("mirror_delete"));
	ASSERT_NE(NULL, links[1]) TH_LOG("attach: %s", strerror(errno));

	ASSERT_EQ(0, update(self->source, 1, 11));
	ASSERT_EQ(0, update(self->source, 2, 22));
	EXPECT_EQ(11, lookup(self->mirror, 1));
	EXPECT_EQ(22, lookup(self->mirror, 2));
	ASSERT_EQ(0, delete(self->source, 1));
	EXPECT_EQ(0, lookup(self->mirror, 1));
	EXPECT_EQ(22, lookup(self->mirror, 2));

	/* Links like any other of libbpf's */
	EXPECT_EQ(0, bpf_link__detach(links[0]));
	ASSERT_EQ(0, update(self->source, 3, 33));
	EXPECT_EQ(0, lookup(self->mirror, 3));
	EXPECT_EQ(0, bpf_link__destroy(links[0]));
	EXPECT_EQ(0, bpf_link__destroy(links[1]));
}

TEST_F(stock_libbpf, cookies_tell_attachments_apart)
{
	struct map_trace_info info;
	int prog, links[2];

	ASSERT_EQ(0, bpf_object__load(self->obj));
	prog = bpf_program__fd(PROG("count_update"));
	links[0] = map_trace_attach(prog, bpf_map__fd(self->source), UPDATE, 1);
	ASSERT_LE(0, links[0]);
	links[1] = map_trace_attach(prog, bpf_map__fd(self->mirror), UPDATE, 2);
	ASSERT_LE(0, links[1]);

	ASSERT_EQ(0, update(self->source, 1, 1));
	ASSERT_EQ(0, update(self->source, 2, 1));
	ASSERT_EQ(0, update(self->mirror, 1, 1));
	EXPECT_EQ(2, runs(self->obj, 1));
	EXPECT_EQ(1, runs(self->obj, 2));

	ASSERT_EQ(0, map_trace_get_info(links[1], &info));
	EXPECT_EQ(2, info.cookie);
	EXPECT_EQ(0, info.missed);
	EXPECT_EQ(0, info.failed);
	close(links[0]);
	close(links[1]);
}

TEST_F(stock_libbpf, link_updates_its_program)
{
	struct bpf_link *link;

	ASSERT_EQ(0, bpf_object__load(self->obj));
	link = bpf_program__attach(PROG("mirror_update"));
	ASSERT_NE(NULL, link) TH_LOG("attach: %s", strerror(errno));
	ASSERT_EQ(0, bpf_link__update_program(link, PROG("count_update")));
	ASSERT_EQ(0, update(self->source, 1, 11));
	EXPECT_EQ(0, lookup(self->mirror, 1));
	EXPECT_EQ(1, runs(self->obj, 0));
	EXPECT_EQ(0, bpf_link__destroy(link));
}

/* Map names: what the handler cannot tell it does not guess. */

static char said[1024];

/* Attach as the section says, without the object if it is NULL; @said is the error. */
static struct bpf_link *attach_and_listen(const struct bpf_object *obj,
					  const struct bpf_program *prog)
{
	int saved = dup(STDERR_FILENO), listening = memfd_create("stderr", MFD_CLOEXEC);
	struct bpf_link *link;
	ssize_t len;
	int err;

	dup2(listening, STDERR_FILENO);
	link = obj ? map_trace_attach_program(obj, prog) : bpf_program__attach(prog);
	err = errno;
	dup2(saved, STDERR_FILENO);
	close(saved);
	len = pread(listening, said, sizeof(said) - 1, 0);
	said[len > 0 ? len : 0] = '\0';
	close(listening);
	errno = err;
	return link;
}

#define EXPECT_REFUSED(error, obj, prog, ...) do {				\
	const char *_texts[] = { __VA_ARGS__ };					\
	unsigned int _i;							\
										\
	EXPECT_EQ(NULL, attach_and_listen(obj, prog));				\
	EXPECT_EQ(error, errno);						\
	for (_i = 0; _i < sizeof(_texts) / sizeof(_texts[0]); _i++) {		\
		EXPECT_NE(NULL, strstr(said, _texts[_i]))			\
			TH_LOG("\"%s\" is not in:\n%s", _texts[_i], said);	\
	}									\
} while (0)

static __u32 map_of_link(const struct bpf_link *link)
{
	struct map_trace_info info;

	return map_trace_get_info(bpf_link__fd(link), &info) ? 0 : info.map_id;
}

#define MAP(obj, name) bpf_object__find_map_by_name(obj, name)

TEST_F(stock_libbpf, missing_map_of_the_section_is_enoent)
{
	const struct bpf_program *prog = PROG("tracer_of_missing_map");

	ASSERT_EQ(0, bpf_program__set_autoload(PROG("tracer_of_missing_map"), true));
	ASSERT_EQ(0, bpf_object__load(self->obj));
	EXPECT_REFUSED(ENOENT, NULL, prog, "tracer_of_missing_map: map no_such_map is not in",
		       "map_trace_attach()");
	EXPECT_REFUSED(ENOENT, self->obj, prog, "tracer_of_missing_map: map no_such_map is not in",
		       "map_trace_attach()");
}

TEST_F(stock_libbpf, map_with_the_name_of_another_in_the_kernel_needs_the_object)
{
	const struct bpf_map *map = MAP(self->obj, "connections_by_cpu");
	const struct bpf_program *prog = PROG("tracer_of_long_name");
	struct bpf_link *link;

	ASSERT_EQ(0, bpf_object__load(self->obj));
	EXPECT_REFUSED(ENOTUNIQ, NULL, prog,
		       "tracer_of_long_name: map connections_by_cpu and another one",
		       "map_trace_attach_program()", "map_trace_attach_skeleton()",
		       "map_trace_attach()");

	link = attach_and_listen(self->obj, prog);
	ASSERT_NE(NULL, link) TH_LOG("%s", said);
	EXPECT_EQ(id_of_map(bpf_map__fd(map)), map_of_link(link));
	ASSERT_EQ(0, update(MAP(self->obj, "connections_by_pid"), 1, 11));
	EXPECT_EQ(0, lookup(self->mirror, 1));
	ASSERT_EQ(0, update(map, 1, 12));
	EXPECT_EQ(12, lookup(self->mirror, 1));
	EXPECT_EQ(0, bpf_link__destroy(link));
}

/* A second object that reuses maps of the first one, with other names and with its own */
FIXTURE(reused) {
	struct bpf_object *obj;
	struct stock_libbpf_bpf *skel;
	const struct bpf_map *by_cpu;
	const struct bpf_map *source;
};

FIXTURE_SETUP(reused)
{
	ASSERT_EQ(0, map_trace_setup());
	self->obj = bpf_object__open_file("stock_libbpf.bpf.o", NULL);
	ASSERT_NE(NULL, self->obj);
	ASSERT_EQ(0, bpf_object__load(self->obj));
	self->by_cpu = MAP(self->obj, "mirror");
	self->source = MAP(self->obj, "source");

	self->skel = stock_libbpf_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__reuse_fd(self->skel->maps.connections_by_cpu,
				       bpf_map__fd(self->by_cpu)));
	ASSERT_EQ(0, bpf_map__reuse_fd(self->skel->maps.source, bpf_map__fd(self->source)));
	/* Not its own name any more, but that of another one of its variables */
	ASSERT_STREQ("mirror", bpf_map__name(self->skel->maps.connections_by_cpu));
	ASSERT_EQ(0, stock_libbpf_bpf__load(self->skel));
}

FIXTURE_TEARDOWN(reused)
{
	stock_libbpf_bpf__destroy(self->skel);
	bpf_object__close(self->obj);
}

TEST_F(reused, handler_refuses)
{
	EXPECT_REFUSED(ENOTUNIQ, NULL, self->skel->progs.tracer_of_long_name,
		       "tracer_of_long_name: map connections_by_cpu and another one",
		       "map_trace_attach_program()", "map_trace_attach()");
	EXPECT_REFUSED(ENOENT, NULL, self->skel->progs.mirror_update,
		       "mirror_update: map source was not created with its object",
		       "map_trace_attach_program()", "map_trace_attach()");
	EXPECT_GT(0, stock_libbpf_bpf__attach(self->skel));
}

TEST_F(reused, program_is_attached_with_the_object)
{
	struct stock_libbpf_bpf *skel = self->skel;
	struct bpf_link *links[2];

	links[0] = attach_and_listen(skel->obj, skel->progs.tracer_of_long_name);
	ASSERT_NE(NULL, links[0]) TH_LOG("%s", said);
	EXPECT_EQ(id_of_map(bpf_map__fd(self->by_cpu)), map_of_link(links[0]));
	links[1] = attach_and_listen(skel->obj, skel->progs.mirror_delete);
	ASSERT_NE(NULL, links[1]) TH_LOG("%s", said);
	EXPECT_EQ(id_of_map(bpf_map__fd(self->source)), map_of_link(links[1]));

	ASSERT_EQ(0, update(skel->maps.connections_by_pid, 1, 11));
	EXPECT_EQ(0, lookup(skel->maps.mirror, 1));
	ASSERT_EQ(0, update(self->by_cpu, 1, 12));
	EXPECT_EQ(12, lookup(skel->maps.mirror, 1));
	ASSERT_EQ(0, update(self->source, 1, 1));
	ASSERT_EQ(0, delete(self->source, 1));
	EXPECT_EQ(0, lookup(skel->maps.mirror, 1));
	EXPECT_EQ(0, bpf_link__destroy(links[0]));
	EXPECT_EQ(0, bpf_link__destroy(links[1]));
}

TEST_F(reused, skeleton_is_attached_with_the_object)
{
	__u32 by_cpu = id_of_map(bpf_map__fd(self->by_cpu));
	__u32 source = id_of_map(bpf_map__fd(self->source));
	struct stock_libbpf_bpf *skel = self->skel;

	ASSERT_EQ(0, map_trace_attach_skeleton(skel->skeleton));
	ASSERT_NE(NULL, skel->links.tracer_of_long_name);
	ASSERT_NE(NULL, skel->links.mirror_update);
	ASSERT_NE(NULL, skel->links.mirror_delete);
	EXPECT_EQ(by_cpu, map_of_link(skel->links.tracer_of_long_name));
	EXPECT_EQ(source, map_of_link(skel->links.mirror_update));
	EXPECT_EQ(source, map_of_link(skel->links.mirror_delete));

	ASSERT_EQ(0, update(self->source, 1, 11));
	EXPECT_EQ(11, lookup(skel->maps.mirror, 1));
	/* Only while it attaches this one */
	EXPECT_REFUSED(ENOENT, NULL, skel->progs.mirror_update, "map source was not created");
	stock_libbpf_bpf__detach(skel);
	ASSERT_EQ(0, update(self->source, 2, 22));
	EXPECT_EQ(0, lookup(skel->maps.mirror, 2));
}

/* With the object, a map's place decides. It is not taken for granted. */
TEST_F(stock_libbpf, maps_that_are_not_in_the_order_of_btf_are_refused)
{
	struct bpf_link *link;

	ASSERT_EQ(0, bpf_object__load(self->obj));
	link = attach_and_listen(self->obj, PROG("mirror_update"));
	ASSERT_NE(NULL, link) TH_LOG("%s", said);
	EXPECT_EQ(0, bpf_link__destroy(link));

	ASSERT_EQ(0, bpf_map__reuse_fd(MAP(self->obj, "runs"), bpf_map__fd(self->mirror)));
	EXPECT_REFUSED(ENOTUNIQ, self->obj, PROG("mirror_update"),
		       "mirror_update: map source is of an object whose maps are not in the order",
		       "map_trace_attach()");
}

TEST_F(stock_libbpf, map_that_is_not_created_is_einval)
{
	const struct bpf_program *prog = PROG("tracer_of_long_name");

	ASSERT_EQ(0, bpf_map__set_autocreate(MAP(self->obj, "connections_by_cpu"), false));
	ASSERT_EQ(0, bpf_object__load(self->obj));
	EXPECT_REFUSED(EINVAL, self->obj, prog,
		       "tracer_of_long_name: map connections_by_cpu is not created",
		       "map_trace_attach()");
}

/* More than one map with the name and the BTF: somebody else has created one. */
TEST_F(stock_libbpf, second_map_with_the_btf_of_the_object_is_enotuniq)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	struct bpf_link *link;
	int other;

	ASSERT_EQ(0, bpf_object__load(self->obj));
	opts.btf_fd = bpf_object__btf_fd(self->obj);
	opts.btf_key_type_id = bpf_map__btf_key_type_id(self->source);
	opts.btf_value_type_id = bpf_map__btf_value_type_id(self->source);
	other = bpf_map_create(BPF_MAP_TYPE_HASH, "source", 4, 8, 64, &opts);
	ASSERT_LE(0, other);
	EXPECT_REFUSED(ENOTUNIQ, NULL, PROG("mirror_update"),
		       "mirror_update: map source is not the only one", "map_trace_attach()");
	link = attach_and_listen(self->obj, PROG("mirror_update"));
	ASSERT_NE(NULL, link) TH_LOG("%s", said);
	EXPECT_EQ(id_of_map(bpf_map__fd(self->source)), map_of_link(link));
	EXPECT_EQ(0, bpf_link__destroy(link));
	close(other);
}

TEST_HARNESS_MAIN
