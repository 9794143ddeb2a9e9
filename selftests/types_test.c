// SPDX-License-Identifier: GPL-2.0
/*
 * Maps of types that are not in the matrix: the attach is refused with EOPNOTSUPP, and leaves
 * nothing behind.
 */
#include "testing_helpers.h"

#include <bpf/btf.h>

/* Maps are freed after grace periods, by a work item. */
#define FREED_AFTER_MS 60000

#define STRUCT_OPS_VALUE "bpf_struct_ops_bpf_dummy_ops"

/* What a type asks for when it is created, beyond its sizes */
enum needs {
	NEEDS_NOTHING,
	NEEDS_BTF,
	NEEDS_INNER_MAP,
	NEEDS_KERNEL_TYPE,
};

struct map_type {
	const char *name;
	enum bpf_map_type type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 flags;
	enum needs needs;
};

#define UNTRACEABLE_TYPES(X)							\
	X(PROG_ARRAY,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(PERF_EVENT_ARRAY,		4, 4, 1, 0, NEEDS_NOTHING)		\
	X(STACK_TRACE,			4, 8, 1, 0, NEEDS_NOTHING)		\
	X(CGROUP_ARRAY,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(ARRAY_OF_MAPS,		4, 4, 1, 0, NEEDS_INNER_MAP)		\
	X(HASH_OF_MAPS,			4, 4, 1, 0, NEEDS_INNER_MAP)		\
	X(DEVMAP,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(SOCKMAP,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(CPUMAP,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(XSKMAP,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(SOCKHASH,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(CGROUP_STORAGE,		8, 8, 0, 0, NEEDS_NOTHING)		\
	X(REUSEPORT_SOCKARRAY,		4, 4, 1, 0, NEEDS_NOTHING)		\
	X(PERCPU_CGROUP_STORAGE,	8, 8, 0, 0, NEEDS_NOTHING)		\
	X(QUEUE,			0, 8, 1, 0, NEEDS_NOTHING)		\
	X(STACK,			0, 8, 1, 0, NEEDS_NOTHING)		\
	X(SK_STORAGE,			4, 4, 0, BPF_F_NO_PREALLOC, NEEDS_BTF)	\
	X(DEVMAP_HASH,			4, 4, 1, 0, NEEDS_NOTHING)		\
	X(STRUCT_OPS,			4, 0, 1, 0, NEEDS_KERNEL_TYPE)		\
	X(RINGBUF,			0, 0, 4096, 0, NEEDS_NOTHING)		\
	X(INODE_STORAGE,		4, 4, 0, BPF_F_NO_PREALLOC, NEEDS_BTF)	\
	X(TASK_STORAGE,			4, 4, 0, BPF_F_NO_PREALLOC, NEEDS_BTF)	\
	X(BLOOM_FILTER,			0, 8, 1, 0, NEEDS_NOTHING)		\
	X(USER_RINGBUF,			0, 0, 4096, 0, NEEDS_NOTHING)		\
	X(CGRP_STORAGE,			4, 4, 0, BPF_F_NO_PREALLOC, NEEDS_BTF)	\
	X(ARENA,			0, 0, 1, BPF_F_MMAPABLE, NEEDS_NOTHING)	\
	X(INSN_ARRAY,			4, 16, 1, 0, NEEDS_NOTHING)

/* What the matrix is about */
#define TRACEABLE_TYPES(X)							\
	X(HASH) X(ARRAY) X(PERCPU_HASH) X(PERCPU_ARRAY) X(LRU_HASH) X(LRU_PERCPU_HASH)	\
	X(LPM_TRIE) X(RHASH)

FIXTURE(types) {
	int tracers[2];
	struct btf *btf;
	int inner;
};

FIXTURE_VARIANT(types) {
	struct map_type map;
};

#define ADD_TYPE(suffix, ...)							\
	FIXTURE_VARIANT_ADD(types, suffix) {					\
		.map = { #suffix, BPF_MAP_TYPE_##suffix, __VA_ARGS__ },		\
	};

UNTRACEABLE_TYPES(ADD_TYPE)

/* One of each operation, in a module that nothing of earlier tests holds */
static int load_tracers(int tracers[2])
{
	int err = map_trace_module_unload_retry(FREED_AFTER_MS);

	if (!err || err == -ENOENT)
		err = map_trace_setup();
	if (err)
		return err;
	tracers[0] = load_empty_tracer(UPDATE);
	tracers[1] = load_empty_tracer(DELETE);
	return tracers[0] < 0 ? tracers[0] : tracers[1] < 0 ? tracers[1] : 0;
}

FIXTURE_SETUP(types)
{
	ASSERT_EQ(0, load_tracers(self->tracers));
	self->inner = -1;
}

/* No attach that was refused keeps one. */
static void close_tracers(struct __test_metadata *_metadata, const int tracers[2])
{
	int i;

	for (i = 0; i < 2; i++) {
		__u32 id = id_of_program(tracers[i]);

		close(tracers[i]);
		EXPECT_TRUE(is_gone(bpf_prog_get_next_id, id));
	}
}

FIXTURE_TEARDOWN(types)
{
	close_tracers(_metadata, self->tracers);
	btf__free(self->btf);
	if (self->inner >= 0)
		close(self->inner);
}

/* BTF with an integer, for the key and the value of local storage. Its id, or an errno */
static int load_integer(struct btf **btf)
{
	int id, err;

	*btf = btf__new_empty();
	if (!*btf)
		return -errno;
	id = btf__add_int(*btf, "int", 4, BTF_INT_SIGNED);
	if (id < 0)
		return id;
	err = btf__load_into_kernel(*btf);
	return err ? err : id;
}

static int create(FIXTURE_DATA(types) *self, const struct map_type *map)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = map->flags);
	__u32 value_size = map->value_size;
	struct btf *kernel;
	int id, fd;

	switch (map->needs) {
	case NEEDS_NOTHING:
		break;
	case NEEDS_BTF:
		id = load_integer(&self->btf);
		if (id < 0)
			return id;
		opts.btf_fd = btf__fd(self->btf);
		opts.btf_key_type_id = id;
		opts.btf_value_type_id = id;
		break;
	case NEEDS_INNER_MAP:
		self->inner = bpf_map_create(BPF_MAP_TYPE_HASH, "inner", 4, 4, 1, NULL);
		if (self->inner < 0)
			return -errno;
		opts.inner_map_fd = self->inner;
		break;
	case NEEDS_KERNEL_TYPE:
		kernel = btf__load_vmlinux_btf();
		if (!kernel)
			return -errno;
		id = btf__find_by_name_kind(kernel, STRUCT_OPS_VALUE, BTF_KIND_STRUCT);
		if (id > 0)
			value_size = btf__type_by_id(kernel, id)->size;
		btf__free(kernel);
		if (id < 0)
			return id;
		opts.btf_vmlinux_value_type_id = id;
		/* Any will do, but there has to be one. */
		id = load_integer(&self->btf);
		if (id < 0)
			return id;
		opts.btf_fd = btf__fd(self->btf);
		break;
	}
	fd = bpf_map_create(map->type, "untraceable", map->key_size, value_size,
			    map->max_entries, &opts);
	return fd < 0 ? -errno : fd;
}

TEST_F(types, attach_is_eopnotsupp)
{
	__u32 types[] = { UPDATE, DELETE };
	unsigned int i;
	__u32 id;
	int map;

	map = create(self, &variant->map);
	ASSERT_LE(0, map) TH_LOG("%s: %s", variant->map.name, strerror(-map));
	id = id_of_map(map);
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		EXPECT_EQ(-EOPNOTSUPP, map_trace_attach(self->tracers[i], map, types[i], 0));
		EXPECT_EQ(0, count_links(self->tracers[i]));
		EXPECT_EQ(0, map_trace_module_references());
	}
	/* With the map and the tracers still there, at once */
	EXPECT_EQ(0, map_trace_module_unload());
	close(map);
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, id));
}

FIXTURE(types_traced) {
	int tracers[2];
};

FIXTURE_SETUP(types_traced)
{
	ASSERT_EQ(0, load_tracers(self->tracers));
}

FIXTURE_TEARDOWN(types_traced)
{
	close_tracers(_metadata, self->tracers);
}

/* They are traceable, but have nothing to delete. */
TEST_F(types_traced, delete_on_an_array_is_eopnotsupp)
{
	static const enum bpf_map_type types[] = {
		BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		int map = bpf_map_create(types[i], "array", 4, 8, 1, NULL);
		__u32 id = id_of_map(map);

		ASSERT_LE(0, map);
		EXPECT_EQ(-EOPNOTSUPP, map_trace_attach(self->tracers[1], map, DELETE, 0));
		EXPECT_EQ(0, count_links(self->tracers[1]));
		EXPECT_EQ(0, map_trace_module_references());
		close(map);
		EXPECT_TRUE(is_gone(bpf_map_get_next_id, id));
	}
	EXPECT_EQ(0, map_trace_module_unload());
}

/* The other way round: what is counted above does count. */
TEST_F(types_traced, attached_tracer_is_found)
{
	int map = bpf_map_create(BPF_MAP_TYPE_HASH, "hash", 4, 8, 1, NULL);
	int link = map_trace_attach(self->tracers[0], map, UPDATE, 0);

	ASSERT_LE(0, map);
	ASSERT_LE(0, link);
	EXPECT_EQ(1, count_links(self->tracers[0]));
	EXPECT_EQ(0, count_links(self->tracers[1]));
	/* The link */
	EXPECT_EQ(1, map_trace_module_references());
	EXPECT_EQ(-EWOULDBLOCK, map_trace_module_unload());
	close(link);
	close(map);
}

/* A type that a later kernel adds is to be decided on, and to be tested. */
TEST(types_are_all_tested)
{
#define TYPE_NAME(suffix, ...) "BPF_MAP_TYPE_" #suffix,
	static const char *const names[] = {
		UNTRACEABLE_TYPES(TYPE_NAME) TRACEABLE_TYPES(TYPE_NAME)
	};
	int last = map_trace_kernel_enum("bpf_map_type", "__MAX_BPF_MAP_TYPE");
	bool tested[256] = {};
	unsigned int i;
	int type;

	ASSERT_LT(0, last);
	ASSERT_GT(ARRAY_SIZE(tested), last);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		type = map_trace_kernel_enum("bpf_map_type", names[i]);
		ASSERT_LT(0, type) TH_LOG("%s", names[i]);
		ASSERT_GT(last, type);
		EXPECT_FALSE(tested[type]) TH_LOG("%s", names[i]);
		tested[type] = true;
	}
	for (type = 1; type < last; type++) {
		EXPECT_TRUE(tested[type]) TH_LOG("map type %d", type);
	}
}

TEST_HARNESS_MAIN
