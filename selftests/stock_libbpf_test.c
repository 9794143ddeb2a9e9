// SPDX-License-Identifier: GPL-2.0
/*
 * The section handler in a program that is built with a distribution's libbpf, its
 * headers and its linux/bpf.h, none of which knows of map tracers
 */
#include "testing_helpers.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <linux/bpf.h>

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

TEST_F(stock_libbpf, missing_map_of_the_section_is_enoent)
{
	ASSERT_EQ(0, bpf_program__set_autoload(PROG("tracer_of_missing_map"), true));
	ASSERT_EQ(0, bpf_object__load(self->obj));
	EXPECT_EQ(NULL, bpf_program__attach(PROG("tracer_of_missing_map")));
	EXPECT_EQ(ENOENT, errno);
}

TEST_HARNESS_MAIN
