// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "matrix_cell.h"

#define TYPE_ENTRY(name, suffix, its_traits)					\
	[INDEX_##name] = { .type = BPF_MAP_TYPE_##suffix, .traits = (its_traits) },

struct map_type map_types[] = { MAP_TYPES(TYPE_ENTRY) };

static __u32 max_entries(const struct map_type *type)
{
	return type->traits & EVICTS ? LRU_ENTRIES : MATRIX_KEYS;
}

static __u32 map_flags(const struct map_type *type)
{
	return type->traits & NO_PREALLOC ? BPF_F_NO_PREALLOC : 0;
}

__u32 key_size(const struct map_type *type)
{
	return type->traits & PREFIXES ? sizeof(struct matrix_key) : sizeof(__u32);
}

static int set_type(struct bpf_map *map, const struct map_type *type)
{
	int err = bpf_map__set_type(map, type->type);

	if (!err)
		err = bpf_map__set_max_entries(map, max_entries(type));
	if (!err)
		err = bpf_map__set_map_flags(map, map_flags(type));
	if (!err)
		err = bpf_map__set_key_size(map, key_size(type));
	return err;
}

/* libbpf changes nothing about an inner map: give the outer one another for its shape. */
static int set_inner_type(struct bpf_map *outer, const struct map_type *type)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = map_flags(type));
	int fd = bpf_map_create(type->type, "inner", key_size(type), sizeof(struct matrix_value),
				max_entries(type), &opts);

	return fd < 0 ? -errno : bpf_map__set_inner_map_fd(outer, fd);
}

int prepare(struct matrix_bpf *skel, const struct map_type *type)
{
	bool percpu = type->traits & PER_CPU, locks = type->traits & LOCKS;
	int err;

	err = set_type(skel->maps.source, type);
	if (!err)
		err = set_type(skel->maps.other, type);
	if (!err)
		err = set_inner_type(skel->maps.outer, type);
	if (!err && locks)
		err = set_type(skel->maps.locked_source, type);
	else if (!err)
		err = bpf_map__set_autocreate(skel->maps.locked_source, false);
	if (!err && percpu)
		err = bpf_map__set_type(skel->maps.mirror, BPF_MAP_TYPE_PERCPU_HASH);
	if (!err)
		err = bpf_map__set_key_size(skel->maps.mirror, key_size(type));

	bpf_program__set_autoload(skel->progs.mirror_update, !percpu);
	bpf_program__set_autoload(skel->progs.mirror_update_percpu, percpu);
	bpf_program__set_autoload(skel->progs.update_locked, locks);
	bpf_program__set_autoload(skel->progs.delete_locked, locks);
	bpf_program__set_autoload(skel->progs.delete_for_each, type->traits & FOR_EACH);
	return err;
}

/* Of the programs, only those whose names begin with @operation */
static void select_programs(struct matrix_bpf *skel, const char *operation)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, skel->obj) {
		if (is_tracer(prog))
			continue;
		if (!operation || strncmp(bpf_program__name(prog), operation, strlen(operation)))
			bpf_program__set_autoload(prog, false);
	}
}

static struct matrix_bpf *load(const struct map_type *type, const char *operation)
{
	struct matrix_bpf *skel = matrix_bpf__open();

	if (!skel)
		return NULL;
	if (!prepare(skel, type)) {
		select_programs(skel, operation);
		if (!matrix_bpf__load(skel))
			return skel;
	}
	matrix_bpf__destroy(skel);
	return NULL;
}

void load_map_types(const char *operation)
{
	unsigned int i;

	if (map_trace_setup())
		return;
	for (i = 0; i < sizeof(map_types) / sizeof(map_types[0]); i++)
		map_types[i].skel = load(&map_types[i], operation);
}

bool has(const struct cell *cell, unsigned int trait)
{
	return cell->type->traits & trait;
}

int source_fd(const struct cell *cell)
{
	return bpf_map__fd(cell->source);
}

int slices(const struct cell *cell)
{
	return has(cell, PER_CPU) ? cell->cpus : 1;
}

int make_empty(const struct bpf_map *map)
{
	struct matrix_slice zero[MATRIX_CPUS] = {};
	int fd = bpf_map__fd(map);
	struct matrix_key key;
	__u32 i;

	if (bpf_map__type(map) == BPF_MAP_TYPE_ARRAY ||
	    bpf_map__type(map) == BPF_MAP_TYPE_PERCPU_ARRAY) {
		for (i = 0; i < MATRIX_KEYS; i++)
			if (bpf_map_update_elem(fd, &i, zero, BPF_ANY))
				return -errno;
		return 0;
	}
	while (!bpf_map_get_next_key(fd, NULL, &key))
		if (bpf_map_delete_elem(fd, &key))
			return -errno;
	return 0;
}

struct matrix_key key_of(const struct cell *cell, __u32 number)
{
	struct matrix_key key = {{ number, 0 }};

	/* All of the data: no prefix covers another. */
	if (has(cell, PREFIXES))
		key = (struct matrix_key){{ 32, number }};
	return key;
}

struct matrix_value value_of(__u32 number)
{
	return (struct matrix_value){ .number = number, .complement = ~number };
}

/* Each CPU gets a number of its own. */
static __u32 number_of_cpu(__u32 number, int cpu)
{
	return number + cpu * 10000;
}

void expect_update_of_slice(struct cell *cell, __u32 key, int cpu, __u32 number)
{
	cell->present[key] = true;
	cell->numbers[key][cpu] = number;
	cell->updates++;
	cell->updates_of_cpu[cpu]++;
}

void expect_delete(struct cell *cell, __u32 key)
{
	cell->present[key] = false;
	memset(cell->numbers[key], 0, sizeof(cell->numbers[key]));
	cell->deletes++;
}

size_t fill_value(const struct cell *cell, void *value, __u32 number)
{
	struct matrix_slice *to = value;
	int cpu;

	if (!has(cell, PER_CPU) || (cell->flags & (BPF_F_CPU | BPF_F_ALL_CPUS))) {
		*(struct matrix_value *)value = value_of(number);
		return sizeof(struct matrix_value);
	}
	memset(value, 0, cell->cpus * sizeof(*to));
	for (cpu = 0; cpu < cell->cpus; cpu++)
		to[cpu].value = value_of(number_of_cpu(number, cpu));
	return cell->cpus * sizeof(*to);
}

void expect_update(struct cell *cell, __u32 key, __u32 number)
{
	int cpu;

	if (cell->flags & BPF_F_CPU) {
		expect_update_of_slice(cell, key, cell->flags >> 32, number);
		return;
	}
	for (cpu = 0; cpu < slices(cell); cpu++) {
		bool same = !has(cell, PER_CPU) || (cell->flags & BPF_F_ALL_CPUS);

		expect_update_of_slice(cell, key, cpu,
				       same ? number : number_of_cpu(number, cpu));
	}
}

bool lookup(const struct cell *cell, int map, __u32 key, __u32 *numbers)
{
	struct matrix_slice value[MATRIX_CPUS] = {};
	struct matrix_key map_key = key_of(cell, key);
	int cpu;

	if (bpf_map_lookup_elem(map, &map_key, value))
		return false;
	for (cpu = 0; cpu < slices(cell); cpu++) {
		numbers[cpu] = value[cpu].value.number;
		/* Neither half a value nor that of another slice */
		if (value[cpu].value.lock ||
		    (value[cpu].value.complement != ~numbers[cpu] &&
		     (numbers[cpu] || value[cpu].value.complement)))
			numbers[cpu] = -1;
	}
	return true;
}

__u32 count_elements(int map)
{
	struct matrix_key key, *last = NULL;
	__u32 count = 0;

	while (!bpf_map_get_next_key(map, last, &key)) {
		count++;
		last = &key;
	}
	return count;
}

__u32 count_elements_at_rest(int map, __u32 expected)
{
	__u64 deadline = now_ns() + RESIZED_AFTER_NS;
	__u32 count;

	while ((count = count_elements(map)) != expected && now_ns() < deadline)
		usleep(1000);
	return count;
}

__u32 expect_deletes_of_what_is_gone(struct cell *cell)
{
	__u32 numbers[MATRIX_CPUS], key, gone = 0;

	for (key = 0; key < MATRIX_KEYS; key++) {
		if (!cell->present[key] || lookup(cell, source_fd(cell), key, numbers))
			continue;
		expect_delete(cell, key);
		gone++;
	}
	return gone;
}

int run_operation(struct cell *cell, __u32 key)
{
	int err;

	cell->skel->bss->expected_flags = cell->flags;
	cell->skel->bss->input_flags = cell->flags;
	cell->skel->bss->input_key = key_of(cell, key);
	cell->skel->bss->output_ret = 1;
	err = run_program(cell->prog, NULL, 0);
	return err ? err : cell->skel->bss->output_ret;
}

int update_by_syscall(struct cell *cell, __u32 key, __u32 number)
{
	struct matrix_key map_key = key_of(cell, key);
	struct matrix_slice value[MATRIX_CPUS];

	cell->skel->bss->expected_flags = cell->flags;
	fill_value(cell, value, number);
	if (bpf_map_update_elem(source_fd(cell), &map_key, value, cell->flags))
		return -errno;
	expect_update(cell, key, number);
	return 0;
}

int create_locked_map(struct cell *cell)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	struct btf *btf = bpf_object__btf(cell->skel->obj);
	int fd;

	opts.map_flags = map_flags(cell->type);
	opts.btf_fd = bpf_object__btf_fd(cell->skel->obj);
	opts.btf_key_type_id = btf__find_by_name_kind(btf, "unsigned int", BTF_KIND_INT);
	opts.btf_value_type_id = btf__find_by_name_kind(btf, "locked_value", BTF_KIND_STRUCT);
	if (has(cell, PREFIXES))
		opts.btf_key_type_id = btf__find_by_name_kind(btf, "matrix_key",
							      BTF_KIND_STRUCT);
	fd = bpf_map_create(cell->type->type, "locked", key_size(cell->type),
			    sizeof(struct matrix_value), MATRIX_KEYS, &opts);
	return fd < 0 ? -errno : fd;
}

char batch_values[MAX_BATCH * MATRIX_CPUS * sizeof(struct matrix_slice)];
struct batch batch;

void batch_begin(struct cell *cell)
{
	memset(&batch, 0, sizeof(batch));
	batch.values = batch_values;
}

void batch_add(struct cell *cell, __u32 key, __u32 number)
{
	struct matrix_key map_key = key_of(cell, key);

	memcpy(batch.keys + batch.key_len, &map_key, key_size(cell->type));
	batch.key_len += key_size(cell->type);
	batch.value_len += fill_value(cell, batch.values + batch.value_len, number);
	batch.count++;
}
