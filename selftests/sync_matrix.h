/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The matrix of sync tracers: each way to write, times each type of map, times each context
 * that programs run in. This declares the three tables, and says which cells are empty, and
 * why.
 */
#ifndef SYNC_MATRIX_H
#define SYNC_MATRIX_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/types.h>

#include "progs/sync_matrix.h"

struct cell;

/* What a type of map has */
#define DELETES		(1 << 0)
#define FOR_EACH	(1 << 1)
#define GIVES_BACK	(1 << 2)	/* LOOKUP_AND_DELETE */
#define EVICTS		(1 << 3)
#define PER_CPU		(1 << 4)
#define LOCKS		(1 << 5)	/* values with special fields, each of its own */
#define CALLBACKS	(1 << 6)
#define KPTRS		(1 << 7)
#define ITERATES	(1 << 8)	/* an iterator gives pointers to the values themselves */
#define IS_ARRAY	(1 << 9)	/* can be mapped, and is what global data lies in */
#define PREFIXES	(1 << 10)
#define IS_INNER	(1 << 11)
#define NO_NMIS		(1 << 12)
#define UNMARKED	(1 << 13)	/* pointers are told at a flush: see sync.rst */

#define HASH_TRAITS (DELETES | FOR_EACH | GIVES_BACK)
#define ONE_VALUE_TRAITS (CALLBACKS | KPTRS | ITERATES)
#define OF_EACH_CPU_TRAITS (PER_CPU | KPTRS)

/* Columns: a name, the type, its flags, what it has */
#define SYNC_MATRIX_TYPES(X)							\
	X(hash, HASH, 0, HASH_TRAITS | ONE_VALUE_TRAITS | LOCKS)		\
	X(hash_no_prealloc, HASH, BPF_F_NO_PREALLOC,				\
	  HASH_TRAITS | ONE_VALUE_TRAITS | LOCKS)				\
	X(lru_hash, LRU_HASH, 0, HASH_TRAITS | ONE_VALUE_TRAITS | EVICTS)	\
	X(lru_hash_of_each_cpu, LRU_HASH, BPF_F_NO_COMMON_LRU,			\
	  HASH_TRAITS | ONE_VALUE_TRAITS | EVICTS)				\
	X(percpu_hash, PERCPU_HASH, 0, HASH_TRAITS | OF_EACH_CPU_TRAITS)	\
	X(percpu_hash_no_prealloc, PERCPU_HASH, BPF_F_NO_PREALLOC,		\
	  HASH_TRAITS | OF_EACH_CPU_TRAITS)					\
	X(lru_percpu_hash, LRU_PERCPU_HASH, 0,					\
	  HASH_TRAITS | OF_EACH_CPU_TRAITS | EVICTS)				\
	X(lru_percpu_hash_of_each_cpu, LRU_PERCPU_HASH, BPF_F_NO_COMMON_LRU,	\
	  HASH_TRAITS | OF_EACH_CPU_TRAITS | EVICTS)				\
	X(array, ARRAY, 0, FOR_EACH | ONE_VALUE_TRAITS | LOCKS | IS_ARRAY)	\
	X(percpu_array, PERCPU_ARRAY, 0, FOR_EACH | OF_EACH_CPU_TRAITS)		\
	X(rhash, RHASH, BPF_F_NO_PREALLOC,					\
	  HASH_TRAITS | ONE_VALUE_TRAITS | LOCKS | NO_NMIS | UNMARKED)	\
	X(lpm_trie, LPM_TRIE, BPF_F_NO_PREALLOC, DELETES | PREFIXES | UNMARKED)	\
	X(hash_in_array, HASH, 0, HASH_TRAITS | ITERATES | IS_INNER)		\
	X(hash_in_hash, HASH, 0, HASH_TRAITS | ITERATES | IS_INNER)

struct type {
	const char *name;
	enum bpf_map_type type;
	__u32 flags;
	unsigned int traits;
};

#define TYPE_INDEX(name, ...) TYPE_##name,
enum { SYNC_MATRIX_TYPES(TYPE_INDEX) NR_TYPES };

/* Contexts: the last two are a task with the programs as an interpreter and as a careful JIT run
 * them, which is settled when they are loaded.
 */
enum context { TASK, SLEEPABLE, SOFTIRQ, HARDIRQ, NMI, INTERPRETED, HARDENED, NR_CONTEXTS };

/* How a program is run, which says what type it has */
enum engine { JIT, INTERPRETER, HARDENED_JIT, NR_ENGINES };

struct context_entry {
	const char *name;
	const char *program_type;
	enum engine engine;
	enum seen seen;
};

/* When a sync tracer has run at the latest, and whether an event tracer runs at all */
enum told {
	BY_OPERATION,	/* before the operation returns: both */
	BY_QUEUE,	/* soon, as its key waits in a queue: both */
	BY_MARK,	/* soon, in a map with values of CPUs at a flush; of operations: never */
	BY_FLUSH,	/* at a flush; of operations: never */
};

enum way_kind {
	BY_PROGRAM,
	BY_CALLBACK,	/* which the program has started, and which runs in the context */
	BY_ITERATOR,
	BY_USER,
};

/* The map that is written: that with plain values, or one of its type with others */
enum source { SOURCE, LOCKED, DEFERRING, POINTING, MAPPED, GLOBAL, NR_SOURCES };

struct way {
	const char *name;
	enum way_kind kind;
	enum source source;
	enum told told;
	/* What a type has to have for it, and in which contexts it is there, 1 << each */
	unsigned int traits;
	unsigned int contexts;
	/* Why it is not there in the others */
	const char *other_contexts;
	/* Where not each kernel has it: whether this one does, and why another one does not */
	bool (*there)(void);
	const char *not_there;
	/* Its key is not there before */
	bool absent;
	/* The pointer may be to nothing that is in the map. */
	bool may_miss;
	/* It writes more than one key. */
	bool all_keys;
	int (*by_user)(struct cell *cell);
};

extern const struct type types[NR_TYPES];
extern const struct context_entry contexts[NR_CONTEXTS];
extern const struct way ways[];
extern const unsigned int nr_ways;

/* Why a cell is empty, or NULL */
const char *reason_of_way(const struct way *way);
const char *reason_of_type_and_way(const struct type *type, const struct way *way);
const char *reason_of_way_and_context(const struct way *way, enum context context);
const char *reason_of_type_and_context(const struct type *type, enum context context);
/* Whether a map of the type could be written that way, if it was not refused */
bool has_map_for(const struct type *type, const struct way *way);
bool is_empty(const struct type *type, const struct way *way, enum context context);
unsigned int count_empty_cells(void);
/* Returns how many ways are not everywhere, and do not say why. */
unsigned int print_reasons(void);

/*
 * The cells that are run: all of them, or so many that each pair of two values of the three tables
 * occurs, the same ones each time.
 */
void select_cells(bool all);
unsigned int count_selected_cells(void);
bool is_selected(const struct type *type, const struct way *way, enum context context);
/* How many pairs are in cells that are not empty, but in no cell that is run */
unsigned int count_pairs_left_out(void);

#endif
