// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 1 and defect 5 of the RFC, for each operation, from each origin, on each
 * type of map: it is done for real, under tracers that keep a mirror. Afterwards the
 * map holds what it should, the mirror holds the same, and the tracers ran exactly
 * as often as elements, or their slices for a CPU, were changed. Where a type does not
 * have the operation, the cell says so, and checks that it is refused.
 */
#include "testing_helpers.h"

#include <pthread.h>
#include <sys/syscall.h>

#include <bpf/btf.h>

#include "progs/matrix.h"
#include "matrix.skel.h"

/* Half of the keys that fit */
#define USED_KEYS (MATRIX_KEYS / 2)
/* Free lists per CPU make an LRU map evict long before it is full. */
#define LRU_ENTRIES 256
#define MAX_BATCH (LRU_ENTRIES + 3)
/* How often two CPUs delete all elements */
#define RIVAL_ROUNDS 20

/* How long the resizing of a table may take */
#define RESIZED_AFTER_NS NSEC_PER_SEC

/* The kernel's, which user space has no name for */
#define ENOTSUPP 524

/* What a type has beyond the others */
#define PER_CPU		(1 << 0)
#define ALL_ELEMENTS	(1 << 1)	/* arrays: they are all there, always */
#define EVICTS		(1 << 2)
#define LOCKS		(1 << 3)	/* values with a bpf_spin_lock */
#define FOR_EACH	(1 << 4)
#define GIVES_BACK	(1 << 5)	/* LOOKUP_AND_DELETE */
#define PREFIXES	(1 << 6)
#define NO_PREALLOC	(1 << 7)
#define RESIZES		(1 << 8)	/* what moves can be found twice, or be passed over */

#define MAP_TYPES(X)								\
	X(hash,			HASH,			LOCKS | FOR_EACH | GIVES_BACK)	\
	X(lru_hash,		LRU_HASH,		EVICTS | FOR_EACH | GIVES_BACK)	\
	X(percpu_hash,		PERCPU_HASH,		PER_CPU | FOR_EACH | GIVES_BACK)\
	X(lru_percpu_hash,	LRU_PERCPU_HASH,					\
	  PER_CPU | EVICTS | FOR_EACH | GIVES_BACK)					\
	X(array,		ARRAY,			ALL_ELEMENTS | LOCKS | FOR_EACH)\
	X(percpu_array,		PERCPU_ARRAY,		PER_CPU | ALL_ELEMENTS | FOR_EACH)\
	X(rhash,		RHASH,							\
	  LOCKS | FOR_EACH | GIVES_BACK | NO_PREALLOC | RESIZES)			\
	X(lpm_trie,		LPM_TRIE,		PREFIXES | NO_PREALLOC)

struct map_type {
	enum bpf_map_type type;
	unsigned int traits;
	/* The maps and the programs of all tests of this type */
	struct matrix_bpf *skel;
};

#define INDEX(name, ...) INDEX_##name,
#define TYPE_ENTRY(name, suffix, its_traits)					\
	[INDEX_##name] = { .type = BPF_MAP_TYPE_##suffix, .traits = (its_traits) },

enum { MAP_TYPES(INDEX) };

static struct map_type map_types[] = { MAP_TYPES(TYPE_ENTRY) };

FIXTURE(matrix) {
	const struct map_type *type;
	struct matrix_bpf *skel;
	const struct bpf_map *source;
	/* The program that operates, where one does */
	const struct bpf_program *prog;
	__u64 flags;
	int update_link;
	int delete_link;
	int cpus;
	/* With which the skeleton was loaded that is not the type's */
	char jit_enable[16];

	/* What the map should hold, and how often the tracers should have run */
	bool present[MATRIX_KEYS];
	__u32 numbers[MATRIX_KEYS][MATRIX_CPUS];
	__u64 updates;
	__u64 deletes;
	__u64 updates_of_cpu[MATRIX_CPUS];
};

typedef FIXTURE_DATA(matrix) cell_t;

FIXTURE_VARIANT(matrix) {
	unsigned int index;
};

#define ADD_VARIANT(name, ...)							\
	FIXTURE_VARIANT_ADD(matrix, name) { .index = INDEX_##name };

MAP_TYPES(ADD_VARIANT)

static __u32 max_entries(const struct map_type *type)
{
	return type->traits & EVICTS ? LRU_ENTRIES : MATRIX_KEYS;
}

static __u32 map_flags(const struct map_type *type)
{
	return type->traits & NO_PREALLOC ? BPF_F_NO_PREALLOC : 0;
}

static __u32 key_size(const struct map_type *type)
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

/* All maps, and all programs that this type can have */
static int prepare(struct matrix_bpf *skel, const struct map_type *type)
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

static struct matrix_bpf *load(const struct map_type *type)
{
	struct matrix_bpf *skel = matrix_bpf__open();

	if (!skel || (!prepare(skel, type) && !matrix_bpf__load(skel)))
		return skel;
	matrix_bpf__destroy(skel);
	return NULL;
}

/*
 * Each test is a process of its own, and loading takes long where the kernel is
 * emulated: they get what was loaded before they began.
 */
static void __attribute__((constructor)) load_all(void)
{
	unsigned int i;

	if (map_trace_setup())
		return;
	for (i = 0; i < ARRAY_SIZE(map_types); i++)
		map_types[i].skel = load(&map_types[i]);
}

FIXTURE_SETUP(matrix)
{
	__u32 i;

	ASSERT_EQ(0, map_trace_setup());
	self->type = &map_types[variant->index];
	self->skel = self->type->skel;
	ASSERT_NE(NULL, self->skel);
	self->update_link = -1;
	self->delete_link = -1;
	self->cpus = libbpf_num_possible_cpus();
	ASSERT_LT(0, self->cpus);
	ASSERT_GE(MATRIX_CPUS, self->cpus);
	for (i = 0; i < MATRIX_KEYS; i++)
		self->present[i] = self->type->traits & ALL_ELEMENTS;
}

FIXTURE_TEARDOWN(matrix)
{
	if (self->update_link >= 0)
		close(self->update_link);
	if (self->delete_link >= 0)
		close(self->delete_link);
	if (self->jit_enable[0]) {
		write_proc(JIT_ENABLE, self->jit_enable, NULL, 0);
		matrix_bpf__destroy(self->skel);
	}
}

static bool has(const cell_t *self, unsigned int trait)
{
	return self->type->traits & trait;
}

static int source_fd(const cell_t *self)
{
	return bpf_map__fd(self->source);
}

/* Slices of values: one for each CPU, or only one */
static int slices(const cell_t *self)
{
	return has(self, PER_CPU) ? self->cpus : 1;
}

/* What the tests before have left, of elements or of numbers */
static int make_empty(const struct bpf_map *map)
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

/* Trace the source, or the one with locks, and get ready to run the program @name. */
static void trace(struct __test_metadata *_metadata, cell_t *self, const char *name, bool locked)
{
	struct bpf_program *tracer = self->skel->progs.mirror_update;
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	self->source = locked ? self->skel->maps.locked_source : self->skel->maps.source;
	if (name) {
		self->prog = bpf_object__find_program_by_name(self->skel->obj, name);
		ASSERT_NE(NULL, self->prog) TH_LOG("no program %s", name);
	}
	ASSERT_EQ(0, make_empty(self->source));
	ASSERT_EQ(0, make_empty(self->skel->maps.mirror));
	memset(self->skel->bss, 0, sizeof(*self->skel->bss));
	ASSERT_EQ(0, bpf_map_get_info_by_fd(source_fd(self), &info, &len));
	self->skel->bss->expected_map = info.id;
	self->skel->bss->input_map_fd = source_fd(self);

	if (has(self, PER_CPU))
		tracer = self->skel->progs.mirror_update_percpu;
	self->update_link = attach_to(tracer, self->source);
	ASSERT_LE(0, self->update_link) TH_LOG("attach: %s", strerror(-self->update_link));
	self->delete_link = attach_to(self->skel->progs.mirror_delete, self->source);
	if (has(self, ALL_ELEMENTS)) {
		EXPECT_EQ(-EOPNOTSUPP, self->delete_link);
	} else {
		ASSERT_LE(0, self->delete_link)
			TH_LOG("attach: %s", strerror(-self->delete_link));
	}
}

static struct matrix_key key_of(const cell_t *self, __u32 number)
{
	struct matrix_key key = {{ number, 0 }};

	/* All of the data: no prefix covers another. */
	if (has(self, PREFIXES))
		key = (struct matrix_key){{ 32, number }};
	return key;
}

static struct matrix_value value_of(__u32 number)
{
	return (struct matrix_value){ .number = number, .complement = ~number };
}

/* Each CPU gets a number of its own. */
static __u32 number_of_cpu(__u32 number, int cpu)
{
	return number + cpu * 10000;
}

static void expect_update_of_slice(cell_t *self, __u32 key, int cpu, __u32 number)
{
	self->present[key] = true;
	self->numbers[key][cpu] = number;
	self->updates++;
	self->updates_of_cpu[cpu]++;
}

static void expect_delete(cell_t *self, __u32 key)
{
	self->present[key] = false;
	memset(self->numbers[key], 0, sizeof(self->numbers[key]));
	self->deletes++;
}

/*
 * Fill in @value, as the system calls take it with the flags of this cell. Returns
 * its size.
 */
static size_t fill_value(const cell_t *self, void *value, __u32 number)
{
	struct matrix_slice *to = value;
	int cpu;

	if (!has(self, PER_CPU) || (self->flags & (BPF_F_CPU | BPF_F_ALL_CPUS))) {
		*(struct matrix_value *)value = value_of(number);
		return sizeof(struct matrix_value);
	}
	memset(value, 0, self->cpus * sizeof(*to));
	for (cpu = 0; cpu < self->cpus; cpu++)
		to[cpu].value = value_of(number_of_cpu(number, cpu));
	return self->cpus * sizeof(*to);
}

/* What such an update does, from user space */
static void expect_update(cell_t *self, __u32 key, __u32 number)
{
	int cpu;

	if (self->flags & BPF_F_CPU) {
		expect_update_of_slice(self, key, self->flags >> 32, number);
		return;
	}
	for (cpu = 0; cpu < slices(self); cpu++) {
		bool same = !has(self, PER_CPU) || (self->flags & BPF_F_ALL_CPUS);

		expect_update_of_slice(self, key, cpu,
				       same ? number : number_of_cpu(number, cpu));
	}
}

/* The numbers of an element, or false where there is none */
static bool lookup(const cell_t *self, int map, __u32 key, __u32 *numbers)
{
	struct matrix_slice value[MATRIX_CPUS] = {};
	struct matrix_key map_key = key_of(self, key);
	int cpu;

	if (bpf_map_lookup_elem(map, &map_key, value))
		return false;
	for (cpu = 0; cpu < slices(self); cpu++) {
		numbers[cpu] = value[cpu].value.number;
		/* Neither half a value nor that of another slice */
		if (value[cpu].value.lock ||
		    (value[cpu].value.complement != ~numbers[cpu] &&
		     (numbers[cpu] || value[cpu].value.complement)))
			numbers[cpu] = -1;
	}
	return true;
}

static __u32 count_elements(int map)
{
	struct matrix_key key, *last = NULL;
	__u32 count = 0;

	while (!bpf_map_get_next_key(map, last, &key)) {
		count++;
		last = &key;
	}
	return count;
}

/*
 * The same where @expected is what there should be: while a resizable table is resized, an
 * element can be found twice, or not at all, on the way to the next one.
 */
static __u32 count_elements_at_rest(int map, __u32 expected)
{
	__u64 deadline = now_ns() + RESIZED_AFTER_NS;
	__u32 count;

	while ((count = count_elements(map)) != expected && now_ns() < deadline)
		usleep(1000);
	return count;
}

/* The map is as it should be, the mirror is like the map, and nothing ran too often. */
static void compare(struct __test_metadata *_metadata, cell_t *self)
{
	int mirror = bpf_map__fd(self->skel->maps.mirror);
	__u32 key, elements = 0, mirrored = 0;
	int cpu, i;

	for (key = 0; key < MATRIX_KEYS; key++) {
		__u32 numbers[MATRIX_CPUS] = {}, mirror_numbers[MATRIX_CPUS] = {};
		bool there = lookup(self, source_fd(self), key, numbers);
		bool in_mirror = lookup(self, mirror, key, mirror_numbers);

		EXPECT_EQ(self->present[key], there)
			TH_LOG("key %u of the map", key);
		/* An element of an array that was never updated is in no mirror. */
		if (!has(self, ALL_ELEMENTS)) {
			EXPECT_EQ(there, in_mirror)
				TH_LOG("key %u of the mirror", key);
		}
		for (cpu = 0; cpu < slices(self); cpu++) {
			EXPECT_EQ(self->numbers[key][cpu], numbers[cpu])
				TH_LOG("key %u, CPU %d of the map", key, cpu);
			EXPECT_EQ(numbers[cpu], mirror_numbers[cpu])
				TH_LOG("key %u, CPU %d of the mirror", key, cpu);
		}
		elements += there;
		mirrored += in_mirror;
	}
	EXPECT_EQ(elements, count_elements_at_rest(source_fd(self), elements));
	EXPECT_EQ(mirrored, count_elements(mirror));

	EXPECT_EQ(self->updates, self->skel->bss->updates);
	EXPECT_EQ(self->deletes, self->skel->bss->deletes);
	if (has(self, PER_CPU)) {
		for (cpu = 0; cpu < self->cpus; cpu++) {
			EXPECT_EQ(self->updates_of_cpu[cpu],
				  self->skel->bss->updates_of_cpu[cpu])
				TH_LOG("updates of CPU %d", cpu);
		}
	}
	EXPECT_EQ(0, self->skel->bss->wrong_contexts);
	for (i = 0; i < 2; i++) {
		int link = i ? self->delete_link : self->update_link;
		struct map_trace_info info;

		if (link < 0)
			continue;
		ASSERT_EQ(0, map_trace_get_info(link, &info));
		EXPECT_EQ(0, info.failed);
		EXPECT_EQ(0, info.missed);
	}
}

/* What is gone from the map was deleted, whoever says what about it. */
static __u32 expect_deletes_of_what_is_gone(cell_t *self)
{
	__u32 numbers[MATRIX_CPUS], key, gone = 0;

	for (key = 0; key < MATRIX_KEYS; key++) {
		if (!self->present[key] || lookup(self, source_fd(self), key, numbers))
			continue;
		expect_delete(self, key);
		gone++;
	}
	return gone;
}

#define NOT_APPLICABLE(reason) TH_LOG("not applicable: %s", reason)

/*
 * The operations. Each returns 0 or an errno, and notes what is to be expected if it
 * succeeded.
 */
typedef int (*update_t)(cell_t *self, __u32 key, __u32 number);
typedef int (*delete_t)(cell_t *self, __u32 key);

static int run_operation(cell_t *self, __u32 key)
{
	int err;

	self->skel->bss->expected_flags = self->flags;
	self->skel->bss->input_flags = self->flags;
	self->skel->bss->input_key = key_of(self, key);
	self->skel->bss->output_ret = 1;
	err = run_program(self->prog, NULL, 0);
	return err ? err : self->skel->bss->output_ret;
}

/* On each CPU in turn: it is that one's slice that is updated. */
static int update_by_program(cell_t *self, __u32 key, __u32 number)
{
	int cpu = key % online_cpus();
	int err = pin_to_cpu(cpu);

	if (err)
		return err;
	self->skel->bss->input_value = value_of(number);
	err = run_operation(self, key);
	if (!err)
		expect_update_of_slice(self, key, has(self, PER_CPU) ? cpu : 0, number);
	return err;
}

static int update_by_sys_bpf(cell_t *self, __u32 key, __u32 number)
{
	int err;

	fill_value(self, self->skel->bss->input_slices, number);
	err = run_operation(self, key);
	if (!err)
		expect_update(self, key, number);
	return err;
}

static int update_by_syscall(cell_t *self, __u32 key, __u32 number)
{
	struct matrix_key map_key = key_of(self, key);
	struct matrix_slice value[MATRIX_CPUS];

	self->skel->bss->expected_flags = self->flags;
	fill_value(self, value, number);
	if (bpf_map_update_elem(source_fd(self), &map_key, value, self->flags))
		return -errno;
	expect_update(self, key, number);
	return 0;
}

/* BPF_F_CPU: the slice of a CPU, which the caller need not run on */
static int update_by_syscall_of_cpu(cell_t *self, __u32 key, __u32 number)
{
	self->flags = BPF_F_CPU | (__u64)(key % self->cpus) << 32;
	return update_by_syscall(self, key, number);
}

static int delete_by_program(cell_t *self, __u32 key)
{
	int err = run_operation(self, key);

	if (!err)
		expect_delete(self, key);
	return err;
}

static int delete_by_syscall(cell_t *self, __u32 key)
{
	struct matrix_key map_key = key_of(self, key);

	if (bpf_map_delete_elem(source_fd(self), &map_key))
		return -errno;
	expect_delete(self, key);
	return 0;
}

static int take_by_syscall(cell_t *self, __u32 key)
{
	struct matrix_key map_key = key_of(self, key);
	struct matrix_slice value[MATRIX_CPUS] = {};
	int cpu;

	if (bpf_map_lookup_and_delete_elem_flags(source_fd(self), &map_key, value, self->flags))
		return -errno;
	for (cpu = 0; cpu < slices(self); cpu++) {
		if (value[cpu].value.number != self->numbers[key][cpu])
			return -EBADMSG;
	}
	expect_delete(self, key);
	return 0;
}

/*
 * What is done with the operations
 */
static void check_updates(struct __test_metadata *_metadata, cell_t *self, update_t update)
{
	__u32 key;

	for (key = 0; key < USED_KEYS; key++) {
		ASSERT_EQ(0, update(self, key, 100 + key));
	}
	compare(_metadata, self);
	/* Another value, and one that changes nothing */
	for (key = 0; key < USED_KEYS; key += 2) {
		ASSERT_EQ(0, update(self, key, 200 + key));
		ASSERT_EQ(0, update(self, key, 200 + key));
	}
	compare(_metadata, self);
}

/* The whole row, for a program */
static void check_updates_by(struct __test_metadata *_metadata, cell_t *self, const char *name)
{
	trace(_metadata, self, name, false);
	check_updates(_metadata, self, update_by_program);
}

static void check_refused(struct __test_metadata *_metadata, cell_t *self, update_t update,
			  int err)
{
	__u64 flags = self->flags;
	__u32 key;

	for (key = 0; key < USED_KEYS; key++) {
		EXPECT_EQ(err, update(self, key, 100 + key));
	}
	compare(_metadata, self);
	/* The map is traced, only this is not done. */
	self->flags = 0;
	ASSERT_EQ(0, update_by_syscall(self, 1, 1));
	compare(_metadata, self);
	self->flags = flags;
}

static void fill(struct __test_metadata *_metadata, cell_t *self)
{
	__u32 key;

	for (key = 0; key < USED_KEYS; key++) {
		ASSERT_EQ(0, update_by_syscall(self, key, 100 + key));
	}
}

/* @missing: 0, or what the operation gives because the type does not have it */
static void check_deletes(struct __test_metadata *_metadata, cell_t *self, delete_t delete,
			  int missing)
{
	__u64 flags = self->flags;
	__u32 key;

	self->flags = 0;
	fill(_metadata, self);
	self->flags = flags;
	if (missing) {
		for (key = 0; key < USED_KEYS; key++) {
			EXPECT_EQ(missing, delete(self, key));
		}
		compare(_metadata, self);
		return;
	}
	for (key = 0; key < USED_KEYS; key += 2) {
		ASSERT_EQ(0, delete(self, key));
		EXPECT_EQ(-ENOENT, delete(self, key));
	}
	EXPECT_EQ(USED_KEYS / 2, self->deletes);
	compare(_metadata, self);
}

/* Whether a delete gives @missing, and why */
static int without_delete(struct __test_metadata *_metadata, const cell_t *self, int missing)
{
	if (!has(self, ALL_ELEMENTS))
		return 0;
	NOT_APPLICABLE("an array has no delete");
	return missing;
}

static void check_deletes_by(struct __test_metadata *_metadata, cell_t *self, const char *name)
{
	trace(_metadata, self, name, false);
	check_deletes(_metadata, self, delete_by_program,
		      without_delete(_metadata, self, -EINVAL));
}

/* A map of this type whose value has a bpf_spin_lock; a negative errno */
static int create_locked_map(cell_t *self)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	struct btf *btf = bpf_object__btf(self->skel->obj);
	int fd;

	opts.map_flags = map_flags(self->type);
	opts.btf_fd = bpf_object__btf_fd(self->skel->obj);
	opts.btf_key_type_id = btf__find_by_name_kind(btf, "unsigned int", BTF_KIND_INT);
	opts.btf_value_type_id = btf__find_by_name_kind(btf, "locked_value", BTF_KIND_STRUCT);
	if (has(self, PREFIXES))
		opts.btf_key_type_id = btf__find_by_name_kind(btf, "matrix_key",
							      BTF_KIND_STRUCT);
	fd = bpf_map_create(self->type->type, "locked", key_size(self->type),
			    sizeof(struct matrix_value), MATRIX_KEYS, &opts);
	return fd < 0 ? -errno : fd;
}

/* Returns whether the type has values with locks, traced with BPF_F_LOCK if so. */
static bool load_locked(struct __test_metadata *_metadata, cell_t *self, const char *name)
{
	if (has(self, LOCKS)) {
		trace(_metadata, self, name, true);
		self->flags = BPF_F_LOCK;
		return true;
	}
	NOT_APPLICABLE("values of this type have no bpf_spin_lock");
	trace(_metadata, self, NULL, false);
	EXPECT_EQ(-EOPNOTSUPP, create_locked_map(self));
	self->flags = BPF_F_LOCK;
	return false;
}

/*
 * Batches. Keys and values lie one after the other, without gaps.
 */
struct batch {
	char keys[MAX_BATCH * sizeof(struct matrix_key)];
	char *values;
	size_t key_len;
	size_t value_len;
	__u32 count;
};

static char log_buf[1 << 16];

static char batch_values[MAX_BATCH * MATRIX_CPUS * sizeof(struct matrix_slice)];
static struct batch batch;

static void batch_begin(cell_t *self)
{
	memset(&batch, 0, sizeof(batch));
	batch.values = batch_values;
}

static void batch_add(cell_t *self, __u32 key, __u32 number)
{
	struct matrix_key map_key = key_of(self, key);

	memcpy(batch.keys + batch.key_len, &map_key, key_size(self->type));
	batch.key_len += key_size(self->type);
	batch.value_len += fill_value(self, batch.values + batch.value_len, number);
	batch.count++;
}

static int batch_update(cell_t *self, __u32 *count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = self->flags);

	self->skel->bss->expected_flags = self->flags;
	*count = batch.count;
	return bpf_map_update_batch(source_fd(self), batch.keys, batch.values, count, &opts) ?
	       -errno : 0;
}

static int batch_delete(cell_t *self, __u32 *count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = self->flags);

	*count = batch.count;
	return bpf_map_delete_batch(source_fd(self), batch.keys, count, &opts) ? -errno : 0;
}

/* A batch that does all it is asked for */
static void check_update_batch(struct __test_metadata *_metadata, cell_t *self)
{
	__u32 key, count;

	batch_begin(self);
	for (key = 0; key < USED_KEYS; key++)
		batch_add(self, key, 100 + key);
	/* The same twice, and then once more what is there already */
	batch_add(self, 3, 203);
	batch_add(self, 3, 203);
	ASSERT_EQ(0, batch_update(self, &count));
	ASSERT_EQ(USED_KEYS + 2, count);
	for (key = 0; key < USED_KEYS; key++)
		expect_update(self, key, 100 + key);
	expect_update(self, 3, 203);
	expect_update(self, 3, 203);
	compare(_metadata, self);
}

static void check_update_batch_refused(struct __test_metadata *_metadata, cell_t *self)
{
	__u32 count;

	batch_begin(self);
	batch_add(self, 1, 1);
	EXPECT_EQ(-EINVAL, batch_update(self, &count));
	compare(_metadata, self);
	self->flags = 0;
	ASSERT_EQ(0, update_by_syscall(self, 1, 1));
	compare(_metadata, self);
}

static void check_delete_batch(struct __test_metadata *_metadata, cell_t *self)
{
	__u64 flags = self->flags;
	__u32 key, count;

	self->flags = 0;
	fill(_metadata, self);
	self->flags = flags;
	batch_begin(self);
	for (key = 0; key < USED_KEYS; key += 2)
		batch_add(self, key, 0);
	if (without_delete(_metadata, self, -ENOTSUPP)) {
		EXPECT_EQ(-ENOTSUPP, batch_delete(self, &count));
		compare(_metadata, self);
		return;
	}
	ASSERT_EQ(0, batch_delete(self, &count));
	ASSERT_EQ(USED_KEYS / 2, count);
	for (key = 0; key < USED_KEYS; key += 2)
		expect_delete(self, key);
	compare(_metadata, self);
}

/* Where a batch goes on, a bucket or a key */
struct position {
	struct matrix_key key;
	bool end;
};

/* Take at most @wanted elements, the first ones or from @in on. How many, or an errno */
static int take_batch(cell_t *self, struct position *in, struct position *out, void *values,
		      __u32 wanted)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = self->flags);
	struct position next = {};
	__u32 count = wanted;
	int err;

	err = bpf_map_lookup_and_delete_batch(source_fd(self), in ? &in->key : NULL, &next.key,
					      batch.keys, values, &count, &opts);
	err = err ? -errno : 0;
	next.end = err == -ENOENT;
	if (out)
		*out = next;
	return err && err != -ENOENT ? err : (int)count;
}

/* How many elements these are, of which none is told of twice but by a table that is resized */
static __u32 taken_elements(cell_t *self, int count)
{
	__u32 size = key_size(self->type), elements = 0;
	int i, earlier;

	if (!has(self, RESIZES))
		return count;
	for (i = 0; i < count; i++) {
		for (earlier = 0; earlier < i; earlier++)
			if (!memcmp(batch.keys + i * size, batch.keys + earlier * size, size))
				break;
		elements += earlier == i;
	}
	return elements;
}

static void take_all(struct __test_metadata *_metadata, cell_t *self)
{
	__u64 deadline = now_ns() + RESIZED_AFTER_NS;
	struct position next = {}, *position = NULL;

	do {
		int count = take_batch(self, position, &next, batch.values, MATRIX_KEYS);

		/* The element to go on from was taken already: start again. */
		if (count == -EAGAIN && position && has(self, RESIZES)) {
			position = NULL;
			continue;
		}
		ASSERT_LE(0, count);
		EXPECT_EQ(taken_elements(self, count), expect_deletes_of_what_is_gone(self));
		compare(_metadata, self);
		position = next.end ? NULL : &next;
	} while (!next.end ||
		 (has(self, RESIZES) && self->deletes < USED_KEYS && now_ns() < deadline));
	EXPECT_EQ(USED_KEYS, self->deletes);
	EXPECT_EQ(0, count_elements_at_rest(source_fd(self), 0));
}

static bool gives_back(struct __test_metadata *_metadata, cell_t *self)
{
	if (has(self, GIVES_BACK))
		return true;
	NOT_APPLICABLE("this type has no LOOKUP_AND_DELETE");
	EXPECT_EQ(-ENOTSUPP, take_by_syscall(self, 0));
	EXPECT_EQ(-ENOTSUPP, take_batch(self, NULL, NULL, batch.values, MATRIX_KEYS));
	compare(_metadata, self);
	return false;
}

/*
 * UPDATE
 */
TEST_F(matrix, update_by_program)
{
	check_updates_by(_metadata, self, "update");
}

TEST_F(matrix, update_by_program_with_key_and_value_in_a_map)
{
	check_updates_by(_metadata, self, "update_from_map");
}

TEST_F(matrix, update_by_program_of_an_inner_map)
{
	check_updates_by(_metadata, self, "update_inner");
}

TEST_F(matrix, update_by_program_of_one_of_two_maps)
{
	check_updates_by(_metadata, self, "update_either");
	/* The other one is not traced. */
	self->skel->bss->input_either = 1;
	ASSERT_EQ(0, run_operation(self, 1));
	EXPECT_LT(0, count_elements(bpf_map__fd(self->skel->maps.other)));
	compare(_metadata, self);
}

TEST_F(matrix, update_by_callback)
{
	check_updates_by(_metadata, self, "update_callback");
}

TEST_F(matrix, update_by_program_with_lock)
{
	if (load_locked(_metadata, self, "update_locked"))
		check_updates(_metadata, self, update_by_program);
	else
		check_refused(_metadata, self, update_by_syscall, -EINVAL);
}

/* A skeleton of its own, whose tracers and two programs are not compiled: false to skip */
static bool load_without_jit(struct __test_metadata *_metadata, cell_t *self,
			     const char *first, const char *second)
{
	struct bpf_program *prog;

	if (write_proc(JIT_ENABLE, "0", self->jit_enable, sizeof(self->jit_enable))) {
		self->jit_enable[0] = '\0';
		return false;
	}
	self->skel = matrix_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, prepare(self->skel, self->type));
	bpf_object__for_each_program(prog, self->skel->obj) {
		const char *name = bpf_program__name(prog);

		if (!is_tracer(prog) && strcmp(name, first) && strcmp(name, second))
			bpf_program__set_autoload(prog, false);
	}
	ASSERT_EQ(0, matrix_bpf__load(self->skel));
	return true;
}

/* The next program, in the same cell: it begins with nothing done and nothing traced. */
static void begin_again(struct __test_metadata *_metadata, cell_t *self)
{
	__u32 i;

	ASSERT_EQ(0, map_trace_detach(self->update_link));
	close(self->update_link);
	self->update_link = -1;
	if (self->delete_link >= 0) {
		ASSERT_EQ(0, map_trace_detach(self->delete_link));
		close(self->delete_link);
		self->delete_link = -1;
	}
	for (i = 0; i < MATRIX_KEYS; i++)
		self->present[i] = has(self, ALL_ELEMENTS);
	memset(self->numbers, 0, sizeof(self->numbers));
	memset(self->updates_of_cpu, 0, sizeof(self->updates_of_cpu));
	self->updates = 0;
	self->deletes = 0;
}

/* Of a map that it knows, and of one that it does not */
TEST_F(matrix, update_by_interpreted_program)
{
	if (!load_without_jit(_metadata, self, "update", "update_inner"))
		SKIP(return, "kernel without BPF interpreter (CONFIG_BPF_JIT_ALWAYS_ON)");
	check_updates_by(_metadata, self, "update");
	EXPECT_FALSE(is_jited(self->prog));
	begin_again(_metadata, self);
	check_updates_by(_metadata, self, "update_inner");
	EXPECT_FALSE(is_jited(self->prog));
}

TEST_F(matrix, update_by_bpf_sys_bpf)
{
	trace(_metadata, self, "update_sys_bpf", false);
	check_updates(_metadata, self, update_by_sys_bpf);
}

TEST_F(matrix, update_by_syscall)
{
	trace(_metadata, self, NULL, false);
	check_updates(_metadata, self, update_by_syscall);
}

TEST_F(matrix, update_by_syscall_with_lock)
{
	if (load_locked(_metadata, self, NULL))
		check_updates(_metadata, self, update_by_syscall);
	else
		check_refused(_metadata, self, update_by_syscall, -EINVAL);
}

TEST_F(matrix, update_by_syscall_of_one_cpu)
{
	trace(_metadata, self, NULL, false);
	if (has(self, PER_CPU)) {
		check_updates(_metadata, self, update_by_syscall_of_cpu);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_refused(_metadata, self, update_by_syscall_of_cpu, -EINVAL);
}

TEST_F(matrix, update_by_syscall_of_all_cpus)
{
	trace(_metadata, self, NULL, false);
	self->flags = BPF_F_ALL_CPUS;
	if (has(self, PER_CPU)) {
		check_updates(_metadata, self, update_by_syscall);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_refused(_metadata, self, update_by_syscall, -EINVAL);
}

TEST_F(matrix, update_by_batch)
{
	trace(_metadata, self, NULL, false);
	check_update_batch(_metadata, self);
}

TEST_F(matrix, update_by_batch_with_lock)
{
	if (load_locked(_metadata, self, NULL))
		check_update_batch(_metadata, self);
	else
		check_update_batch_refused(_metadata, self);
}

TEST_F(matrix, update_by_batch_of_one_cpu)
{
	trace(_metadata, self, NULL, false);
	self->flags = BPF_F_CPU | (__u64)(self->cpus - 1) << 32;
	if (has(self, PER_CPU)) {
		check_update_batch(_metadata, self);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_update_batch_refused(_metadata, self);
}

TEST_F(matrix, update_by_batch_of_all_cpus)
{
	trace(_metadata, self, NULL, false);
	self->flags = BPF_F_ALL_CPUS;
	if (has(self, PER_CPU)) {
		check_update_batch(_metadata, self);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_update_batch_refused(_metadata, self);
}

TEST_F(matrix, update_by_batch_of_absent_keys_only)
{
	__u32 key, count;

	trace(_metadata, self, NULL, false);
	ASSERT_EQ(0, update_by_syscall(self, 5, 1));
	self->flags = BPF_NOEXIST;
	batch_begin(self);
	for (key = 0; key < USED_KEYS; key++)
		batch_add(self, key, 100 + key);
	NOT_APPLICABLE("a batch takes no BPF_NOEXIST");
	EXPECT_EQ(-EINVAL, batch_update(self, &count));
	compare(_metadata, self);
}

TEST_F(matrix, update_by_batch_that_stops_at_max_entries)
{
	__u32 key, count, before;
	int err;

	trace(_metadata, self, NULL, false);
	batch_begin(self);
	for (key = 0; key < bpf_map__max_entries(self->source) + 3; key++)
		batch_add(self, key, 100 + key);
	err = batch_update(self, &count);
	if (has(self, EVICTS)) {
		NOT_APPLICABLE("a map that evicts is never full");
		EXPECT_EQ(0, err);
		EXPECT_EQ(batch.count, count);
		/* Evictions are not traced: only what was inserted is. */
		EXPECT_EQ(batch.count * slices(self), self->skel->bss->updates);
		EXPECT_EQ(0, self->skel->bss->deletes);
		before = count_elements(source_fd(self));
		EXPECT_GE(bpf_map__max_entries(self->source), before);
		EXPECT_LE(before, count_elements(bpf_map__fd(self->skel->maps.mirror)));
		return;
	}
	EXPECT_EQ(has(self, PREFIXES) ? -ENOSPC : -E2BIG, err);
	EXPECT_EQ(MATRIX_KEYS, count);
	for (key = 0; key < MATRIX_KEYS; key++)
		expect_update(self, key, 100 + key);
	compare(_metadata, self);
}

/* The keys are there, but the values of the second half are not. */
TEST_F(matrix, update_by_batch_that_stops_at_a_bad_pointer)
{
	long page = sysconf(_SC_PAGESIZE);
	size_t len;
	__u32 key, count;
	char *memory;

	trace(_metadata, self, NULL, false);
	batch_begin(self);
	for (key = 0; key < USED_KEYS / 2; key++)
		batch_add(self, key, 100 + key);
	len = batch.value_len;
	ASSERT_GT(page, len);
	for (; key < USED_KEYS; key++)
		batch_add(self, key, 100 + key);

	memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, memory);
	ASSERT_EQ(0, mprotect(memory + page, page, PROT_NONE));
	memcpy(memory + page - len, batch_values, len);
	batch.values = memory + page - len;
	EXPECT_EQ(-EFAULT, batch_update(self, &count));
	EXPECT_EQ(USED_KEYS / 2, count);
	for (key = 0; key < USED_KEYS / 2; key++)
		expect_update(self, key, 100 + key);
	compare(_metadata, self);
	munmap(memory, 2 * page);
}

/*
 * DELETE
 */
TEST_F(matrix, delete_by_program)
{
	check_deletes_by(_metadata, self, "delete");
}

TEST_F(matrix, delete_by_program_with_key_in_a_map)
{
	check_deletes_by(_metadata, self, "delete_from_map");
}

TEST_F(matrix, delete_by_program_of_an_inner_map)
{
	check_deletes_by(_metadata, self, "delete_inner");
}

TEST_F(matrix, delete_by_program_of_one_of_two_maps)
{
	check_deletes_by(_metadata, self, "delete_either");
}

TEST_F(matrix, delete_by_callback)
{
	check_deletes_by(_metadata, self, "delete_callback");
}

TEST_F(matrix, delete_by_for_each_callback)
{
	__u32 gone;

	if (!has(self, FOR_EACH)) {
		struct matrix_bpf *skel = matrix_bpf__open();

		NOT_APPLICABLE("this type has no bpf_for_each_map_elem()");
		ASSERT_NE(NULL, skel);
		ASSERT_EQ(0, prepare(skel, self->type));
		EXPECT_GT(0, load_one_program(skel->obj, "delete_for_each", log_buf,
					      sizeof(log_buf)));
		ASSERT_LOG_HAS(log_buf, "callback function not allowed for map");
		matrix_bpf__destroy(skel);
		return;
	}
	trace(_metadata, self, "delete_for_each", false);
	fill(_metadata, self);
	ASSERT_EQ(0, run_program(self->prog, NULL, 0));
	gone = expect_deletes_of_what_is_gone(self);
	EXPECT_EQ(gone, self->skel->bss->output_deleted);
	if (without_delete(_metadata, self, -EINVAL)) {
		EXPECT_EQ(-EINVAL, self->skel->bss->output_ret);
		EXPECT_EQ(0, gone);
	} else {
		EXPECT_LT(0, gone);
	}
	compare(_metadata, self);
}

TEST_F(matrix, delete_by_program_with_lock)
{
	if (!load_locked(_metadata, self, "delete_locked"))
		return;
	self->flags = 0;
	check_deletes(_metadata, self, delete_by_program,
		      without_delete(_metadata, self, -EINVAL));
}

TEST_F(matrix, delete_by_interpreted_program)
{
	if (!load_without_jit(_metadata, self, "delete", "delete_inner"))
		SKIP(return, "kernel without BPF interpreter (CONFIG_BPF_JIT_ALWAYS_ON)");
	check_deletes_by(_metadata, self, "delete");
	EXPECT_FALSE(is_jited(self->prog));
	begin_again(_metadata, self);
	check_deletes_by(_metadata, self, "delete_inner");
	EXPECT_FALSE(is_jited(self->prog));
}

TEST_F(matrix, delete_by_bpf_sys_bpf)
{
	check_deletes_by(_metadata, self, "delete_sys_bpf");
}

TEST_F(matrix, delete_by_syscall)
{
	trace(_metadata, self, NULL, false);
	check_deletes(_metadata, self, delete_by_syscall,
		      without_delete(_metadata, self, -EINVAL));
}

TEST_F(matrix, delete_by_batch)
{
	trace(_metadata, self, NULL, false);
	check_delete_batch(_metadata, self);
}

TEST_F(matrix, delete_by_batch_with_lock)
{
	__u32 count;

	if (load_locked(_metadata, self, NULL)) {
		check_delete_batch(_metadata, self);
		return;
	}
	batch_begin(self);
	batch_add(self, 1, 1);
	EXPECT_EQ(has(self, ALL_ELEMENTS) ? -ENOTSUPP : -EINVAL, batch_delete(self, &count));
	compare(_metadata, self);
}

TEST_F(matrix, delete_by_batch_that_stops_at_an_absent_key)
{
	__u32 key, count;

	trace(_metadata, self, NULL, false);
	fill(_metadata, self);
	batch_begin(self);
	for (key = 0; key < 4; key++)
		batch_add(self, key, 0);
	batch_add(self, USED_KEYS, 0);
	batch_add(self, 5, 0);
	if (without_delete(_metadata, self, -ENOTSUPP)) {
		EXPECT_EQ(-ENOTSUPP, batch_delete(self, &count));
		compare(_metadata, self);
		return;
	}
	EXPECT_EQ(-ENOENT, batch_delete(self, &count));
	EXPECT_EQ(4, count);
	for (key = 0; key < 4; key++)
		expect_delete(self, key);
	compare(_metadata, self);
}

/*
 * LOOKUP_AND_DELETE, which a program has not
 */
TEST_F(matrix, lookup_and_delete_by_syscall)
{
	batch_begin(self);
	trace(_metadata, self, NULL, false);
	if (gives_back(_metadata, self))
		check_deletes(_metadata, self, take_by_syscall, 0);
}

TEST_F(matrix, lookup_and_delete_by_syscall_with_lock)
{
	batch_begin(self);
	if (load_locked(_metadata, self, NULL)) {
		if (gives_back(_metadata, self))
			check_deletes(_metadata, self, take_by_syscall, 0);
		return;
	}
	self->flags = 0;
	ASSERT_EQ(0, update_by_syscall(self, 1, 1));
	self->flags = BPF_F_LOCK;
	EXPECT_EQ(-EINVAL, take_by_syscall(self, 1));
	compare(_metadata, self);
}

/* The element is gone, although user space does not get it. */
TEST_F(matrix, lookup_and_delete_by_syscall_with_a_bad_pointer)
{
	struct matrix_key key = key_of(self, 3);

	batch_begin(self);
	trace(_metadata, self, NULL, false);
	fill(_metadata, self);
	if (!gives_back(_metadata, self))
		return;
	EXPECT_EQ(-EFAULT,
		  bpf_map_lookup_and_delete_elem(source_fd(self), &key, (void *)8) ? -errno : 0);
	EXPECT_EQ(1, expect_deletes_of_what_is_gone(self));
	compare(_metadata, self);
}

TEST_F(matrix, lookup_and_delete_by_batch)
{
	batch_begin(self);
	trace(_metadata, self, NULL, false);
	fill(_metadata, self);
	if (gives_back(_metadata, self))
		take_all(_metadata, self);
}

TEST_F(matrix, lookup_and_delete_by_batch_with_lock)
{
	bool locks;

	batch_begin(self);
	locks = load_locked(_metadata, self, NULL);
	self->flags = 0;
	fill(_metadata, self);
	self->flags = BPF_F_LOCK;
	if (locks) {
		if (gives_back(_metadata, self))
			take_all(_metadata, self);
		return;
	}
	EXPECT_EQ(has(self, GIVES_BACK) ? -EINVAL : -ENOTSUPP,
		  take_batch(self, NULL, NULL, batch.values, MATRIX_KEYS));
	compare(_metadata, self);
}

TEST_F(matrix, lookup_and_delete_by_batch_of_a_few)
{
	int wanted, count = -ENOSPC;

	batch_begin(self);
	trace(_metadata, self, NULL, false);
	fill(_metadata, self);
	if (!gives_back(_metadata, self))
		return;
	/* Never less than what is in a bucket, which may be more than two. */
	for (wanted = 2; count == -ENOSPC && wanted < USED_KEYS; wanted++) {
		compare(_metadata, self);
		count = take_batch(self, NULL, NULL, batch.values, wanted);
	}
	ASSERT_LT(0, count);
	EXPECT_GT(USED_KEYS, count);
	EXPECT_EQ(taken_elements(self, count), expect_deletes_of_what_is_gone(self));
	compare(_metadata, self);
}

struct rival {
	cell_t *self;
	pthread_t thread;
	pthread_barrier_t *barrier;
	int deleted;
	int err;
};

/* Delete one element after the other, while somebody else takes them all. */
static void *delete_meanwhile(void *argument)
{
	struct rival *rival = argument;
	__u32 key;

	rival->err = pin_to_cpu(1);
	pthread_barrier_wait(rival->barrier);
	for (key = 0; key < MATRIX_KEYS && !rival->err; key++) {
		struct matrix_key map_key = key_of(rival->self, key);

		if (!bpf_map_delete_elem(source_fd(rival->self), &map_key))
			rival->deleted++;
		else if (errno != ENOENT)
			rival->err = -errno;
	}
	return NULL;
}

/* Take what there is. How many user space was told of, or an errno */
static int take_until_empty(cell_t *self)
{
	__u32 numbers[MATRIX_CPUS], key = 0;
	int count, total = 0;

	do {
		struct position next = {}, *position = NULL;

		while (!next.end) {
			count = take_batch(self, position, &next, batch.values, MATRIX_KEYS);
			/* Where it was to go on, there is nothing any more. */
			if (count == -EAGAIN)
				break;
			if (count < 0)
				return count;
			total += count;
			position = &next;
		}
		/* While a table is resized, a batch can pass over an element. */
		while (key < MATRIX_KEYS && !lookup(self, source_fd(self), key, numbers))
			key++;
	} while (key < MATRIX_KEYS);
	return total;
}

/* Whoever deletes an element, it is traced once. */
TEST_F(matrix, lookup_and_delete_by_batch_while_another_cpu_deletes)
{
	struct rival rival = { .self = self };
	pthread_barrier_t barrier;
	int round, taken = 0;
	__u32 key;

	batch_begin(self);
	trace(_metadata, self, NULL, false);
	if (!gives_back(_metadata, self))
		return;
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, 2));
	rival.barrier = &barrier;
	for (round = 0; round < RIVAL_ROUNDS; round++) {
		int count;

		for (key = 0; key < MATRIX_KEYS; key++) {
			ASSERT_EQ(0, update_by_syscall(self, key, 100 + key));
		}
		ASSERT_EQ(0, pthread_create(&rival.thread, NULL, delete_meanwhile, &rival));
		pthread_barrier_wait(&barrier);
		count = take_until_empty(self);
		ASSERT_EQ(0, pthread_join(rival.thread, NULL));
		ASSERT_EQ(0, rival.err);
		ASSERT_LE(0, count) TH_LOG("round %d: %s", round, strerror(-count));
		taken += count;
		ASSERT_EQ(MATRIX_KEYS, expect_deletes_of_what_is_gone(self));
		ASSERT_EQ(self->deletes, self->skel->bss->deletes) TH_LOG("round %d", round);
	}
	/* A batch of a resizable table tells user space of all that it has seen. */
	TH_LOG("%d taken, %d deleted, %d in all", taken, rival.deleted,
	       RIVAL_ROUNDS * MATRIX_KEYS);
	compare(_metadata, self);
	pthread_barrier_destroy(&barrier);
}

/* They are gone, although user space does not get them. */
TEST_F(matrix, lookup_and_delete_by_batch_with_a_bad_pointer)
{
	batch_begin(self);
	trace(_metadata, self, NULL, false);
	fill(_metadata, self);
	if (!gives_back(_metadata, self))
		return;
	EXPECT_EQ(-EFAULT, take_batch(self, NULL, NULL, (void *)8, MATRIX_KEYS));
	EXPECT_LT(0, expect_deletes_of_what_is_gone(self));
	compare(_metadata, self);
}

TEST_HARNESS_MAIN
