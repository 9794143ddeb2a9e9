/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A cell of the matrix: an operation, from an origin, on a map of a type, whose tracers keep a
 * mirror. The cell notes what it does, as the expected content of map and mirror.
 */
#ifndef MATRIX_CELL_H
#define MATRIX_CELL_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/types.h>

#include "progs/matrix.h"
#include "matrix.skel.h"

/* Half of the keys that fit */
#define USED_KEYS (MATRIX_KEYS / 2)
/* Free lists per CPU make an LRU map evict long before it is full. */
#define LRU_ENTRIES 256
#define MAX_BATCH (LRU_ENTRIES + 3)

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

enum { MAP_TYPES(INDEX) };

extern struct map_type map_types[];

struct cell {
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

/*
 * For a constructor: each test is a process of its own, and loading takes long where the
 * kernel is emulated, so they get what was loaded before they began. These are the tracers
 * and the programs whose names begin with @operation; NULL is none.
 */
void load_map_types(const char *operation);

/* All maps, and all programs that this type can have */
int prepare(struct matrix_bpf *skel, const struct map_type *type);

bool has(const struct cell *cell, unsigned int trait);
int source_fd(const struct cell *cell);
/* Slices of values: one for each CPU, or only one */
int slices(const struct cell *cell);

/* What the tests before have left, of elements or of numbers */
int make_empty(const struct bpf_map *map);

/* A map of this type whose value has a bpf_spin_lock; a negative errno */
int create_locked_map(struct cell *cell);

struct matrix_key key_of(const struct cell *cell, __u32 number);
__u32 key_size(const struct map_type *type);
struct matrix_value value_of(__u32 number);
/*
 * Fill in @value, as the system calls take it with the flags of this cell. Returns
 * its size.
 */
size_t fill_value(const struct cell *cell, void *value, __u32 number);

/* What an update from user space does, with the flags of this cell */
void expect_update(struct cell *cell, __u32 key, __u32 number);
void expect_update_of_slice(struct cell *cell, __u32 key, int cpu, __u32 number);
void expect_delete(struct cell *cell, __u32 key);
/* What is gone from the map was deleted, whoever says what about it. */
__u32 expect_deletes_of_what_is_gone(struct cell *cell);

/* The numbers of an element, or false where there is none */
bool lookup(const struct cell *cell, int map, __u32 key, __u32 *numbers);
__u32 count_elements(int map);
/*
 * The same where @expected is what there should be: while a resizable table is resized, an
 * element can be found twice, or not at all, on the way to the next one.
 */
__u32 count_elements_at_rest(int map, __u32 expected);

/*
 * The operations. Each returns 0 or an errno, and notes what is to be expected if it
 * succeeded.
 */
typedef int (*update_t)(struct cell *cell, __u32 key, __u32 number);
typedef int (*delete_t)(struct cell *cell, __u32 key);

int update_by_syscall(struct cell *cell, __u32 key, __u32 number);

/* Runs the program of this cell, and notes nothing. */
int run_operation(struct cell *cell, __u32 key);

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

extern char batch_values[MAX_BATCH * MATRIX_CPUS * sizeof(struct matrix_slice)];
extern struct batch batch;

void batch_begin(struct cell *cell);
void batch_add(struct cell *cell, __u32 key, __u32 number);

#endif
