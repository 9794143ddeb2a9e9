/* SPDX-License-Identifier: GPL-2.0 */
/* The fixture of the matrix: a cell for each type of map, and the checks of its result. */
#ifndef MATRIX_FIXTURE_H
#define MATRIX_FIXTURE_H

#include "testing_helpers.h"

#include "matrix_cell.h"

FIXTURE(matrix) {
	struct cell *cell;
};

FIXTURE_VARIANT(matrix) {
	unsigned int index;
};

#define ADD_VARIANT(name, ...)							\
	FIXTURE_VARIANT_ADD(matrix, name) { .index = INDEX_##name };

MAP_TYPES(ADD_VARIANT)

FIXTURE_SETUP(matrix)
{
	/* Each test is a process of its own. */
	static struct cell cell = { .update_link = -1, .delete_link = -1 };
	__u32 i;

	ASSERT_EQ(0, map_trace_setup());
	cell.type = &map_types[variant->index];
	cell.skel = cell.type->skel;
	ASSERT_NE(NULL, cell.skel);
	cell.cpus = libbpf_num_possible_cpus();
	ASSERT_LT(0, cell.cpus);
	ASSERT_GE(MATRIX_CPUS, cell.cpus);
	for (i = 0; i < MATRIX_KEYS; i++)
		cell.present[i] = has(&cell, ALL_ELEMENTS);
	self->cell = &cell;
}

FIXTURE_TEARDOWN(matrix)
{
	struct cell *cell = self->cell;

	if (cell->update_link >= 0)
		close(cell->update_link);
	if (cell->delete_link >= 0)
		close(cell->delete_link);
	if (cell->jit_enable[0]) {
		write_proc(JIT_ENABLE, cell->jit_enable, NULL, 0);
		matrix_bpf__destroy(cell->skel);
	}
}

/* Trace the source, or the one with locks, and get ready to run the program @name. */
static inline void trace(struct __test_metadata *_metadata, struct cell *cell,
			 const char *name, bool locked)
{
	struct bpf_program *tracer = cell->skel->progs.mirror_update;
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	cell->source = locked ? cell->skel->maps.locked_source : cell->skel->maps.source;
	if (name) {
		cell->prog = bpf_object__find_program_by_name(cell->skel->obj, name);
		ASSERT_NE(NULL, cell->prog) TH_LOG("no program %s", name);
	}
	ASSERT_EQ(0, make_empty(cell->source));
	ASSERT_EQ(0, make_empty(cell->skel->maps.mirror));
	memset(cell->skel->bss, 0, sizeof(*cell->skel->bss));
	ASSERT_EQ(0, bpf_map_get_info_by_fd(source_fd(cell), &info, &len));
	cell->skel->bss->expected_map = info.id;
	cell->skel->bss->input_map_fd = source_fd(cell);

	if (has(cell, PER_CPU))
		tracer = cell->skel->progs.mirror_update_percpu;
	cell->update_link = attach_to(tracer, cell->source);
	ASSERT_LE(0, cell->update_link) TH_LOG("attach: %s", strerror(-cell->update_link));
	cell->delete_link = attach_to(cell->skel->progs.mirror_delete, cell->source);
	if (has(cell, ALL_ELEMENTS)) {
		EXPECT_EQ(-EOPNOTSUPP, cell->delete_link);
	} else {
		ASSERT_LE(0, cell->delete_link)
			TH_LOG("attach: %s", strerror(-cell->delete_link));
	}
}

/* The map is as it should be, the mirror is like the map, and nothing ran too often. */
static inline void compare(struct __test_metadata *_metadata, struct cell *cell)
{
	int mirror = bpf_map__fd(cell->skel->maps.mirror);
	__u32 key, elements = 0, mirrored = 0;
	int cpu, i;

	for (key = 0; key < MATRIX_KEYS; key++) {
		__u32 numbers[MATRIX_CPUS] = {}, mirror_numbers[MATRIX_CPUS] = {};
		bool there = lookup(cell, source_fd(cell), key, numbers);
		bool in_mirror = lookup(cell, mirror, key, mirror_numbers);

		EXPECT_EQ(cell->present[key], there)
			TH_LOG("key %u of the map", key);
		/* An element of an array that was never updated is in no mirror. */
		if (!has(cell, ALL_ELEMENTS)) {
			EXPECT_EQ(there, in_mirror)
				TH_LOG("key %u of the mirror", key);
		}
		for (cpu = 0; cpu < slices(cell); cpu++) {
			EXPECT_EQ(cell->numbers[key][cpu], numbers[cpu])
				TH_LOG("key %u, CPU %d of the map", key, cpu);
			EXPECT_EQ(numbers[cpu], mirror_numbers[cpu])
				TH_LOG("key %u, CPU %d of the mirror", key, cpu);
		}
		elements += there;
		mirrored += in_mirror;
	}
	EXPECT_EQ(elements, count_elements_at_rest(source_fd(cell), elements));
	EXPECT_EQ(mirrored, count_elements(mirror));

	EXPECT_EQ(cell->updates, cell->skel->bss->updates);
	EXPECT_EQ(cell->deletes, cell->skel->bss->deletes);
	if (has(cell, PER_CPU)) {
		for (cpu = 0; cpu < cell->cpus; cpu++) {
			EXPECT_EQ(cell->updates_of_cpu[cpu],
				  cell->skel->bss->updates_of_cpu[cpu])
				TH_LOG("updates of CPU %d", cpu);
		}
	}
	EXPECT_EQ(0, cell->skel->bss->wrong_contexts);
	for (i = 0; i < 2; i++) {
		int link = i ? cell->delete_link : cell->update_link;
		struct map_trace_info info;

		if (link < 0)
			continue;
		ASSERT_EQ(0, map_trace_get_info(link, &info));
		EXPECT_EQ(0, info.failed);
		EXPECT_EQ(0, info.missed);
	}
}

#define NOT_APPLICABLE(reason) TH_LOG("not applicable: %s", reason)

static inline void fill(struct __test_metadata *_metadata, struct cell *cell)
{
	__u32 key;

	for (key = 0; key < USED_KEYS; key++) {
		ASSERT_EQ(0, update_by_syscall(cell, key, 100 + key));
	}
}

/* Returns whether the type has values with locks, traced with BPF_F_LOCK if so. */
static inline bool load_locked(struct __test_metadata *_metadata, struct cell *cell,
			       const char *name)
{
	if (has(cell, LOCKS)) {
		trace(_metadata, cell, name, true);
		cell->flags = BPF_F_LOCK;
		return true;
	}
	NOT_APPLICABLE("values of this type have no bpf_spin_lock");
	trace(_metadata, cell, NULL, false);
	EXPECT_EQ(-EOPNOTSUPP, create_locked_map(cell));
	cell->flags = BPF_F_LOCK;
	return false;
}

/* A skeleton of its own, whose tracers and two programs are not compiled: false to skip */
static inline bool load_without_jit(struct __test_metadata *_metadata, struct cell *cell,
				    const char *first, const char *second)
{
	struct bpf_program *prog;

	if (write_proc(JIT_ENABLE, "0", cell->jit_enable, sizeof(cell->jit_enable))) {
		cell->jit_enable[0] = '\0';
		return false;
	}
	cell->skel = matrix_bpf__open();
	ASSERT_NE(NULL, cell->skel);
	ASSERT_EQ(0, prepare(cell->skel, cell->type));
	bpf_object__for_each_program(prog, cell->skel->obj) {
		const char *name = bpf_program__name(prog);

		if (!is_tracer(prog) && strcmp(name, first) && strcmp(name, second))
			bpf_program__set_autoload(prog, false);
	}
	ASSERT_EQ(0, matrix_bpf__load(cell->skel));
	return true;
}

/* The next program, in the same cell: it begins with nothing done and nothing traced. */
static inline void begin_again(struct __test_metadata *_metadata, struct cell *cell)
{
	__u32 i;

	ASSERT_EQ(0, map_trace_detach(cell->update_link));
	close(cell->update_link);
	cell->update_link = -1;
	if (cell->delete_link >= 0) {
		ASSERT_EQ(0, map_trace_detach(cell->delete_link));
		close(cell->delete_link);
		cell->delete_link = -1;
	}
	for (i = 0; i < MATRIX_KEYS; i++)
		cell->present[i] = has(cell, ALL_ELEMENTS);
	memset(cell->numbers, 0, sizeof(cell->numbers));
	memset(cell->updates_of_cpu, 0, sizeof(cell->updates_of_cpu));
	cell->updates = 0;
	cell->deletes = 0;
}

/* @missing: 0, or what the operation gives because the type does not have it */
static inline void check_deletes(struct __test_metadata *_metadata, struct cell *cell,
				 delete_t delete, int missing)
{
	__u64 flags = cell->flags;
	__u32 key;

	cell->flags = 0;
	fill(_metadata, cell);
	cell->flags = flags;
	if (missing) {
		for (key = 0; key < USED_KEYS; key++) {
			EXPECT_EQ(missing, delete(cell, key));
		}
		compare(_metadata, cell);
		return;
	}
	for (key = 0; key < USED_KEYS; key += 2) {
		ASSERT_EQ(0, delete(cell, key));
		EXPECT_EQ(-ENOENT, delete(cell, key));
	}
	EXPECT_EQ(USED_KEYS / 2, cell->deletes);
	compare(_metadata, cell);
}

#endif
