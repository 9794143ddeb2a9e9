// SPDX-License-Identifier: GPL-2.0
/* The tables of the matrix of sync tracers, and the selection of the cells that are run */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include <linux/filter.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "sync_matrix.h"
#include "sync_matrix_user.h"

#define MAX_WAYS 64

#define TYPE_ENTRY(its_name, its_type, its_flags, its_traits)			\
	[TYPE_##its_name] = {							\
		.name = #its_name, .type = BPF_MAP_TYPE_##its_type,		\
		.flags = (its_flags), .traits = (its_traits),			\
	},

const struct type types[NR_TYPES] = { SYNC_MATRIX_TYPES(TYPE_ENTRY) };

const struct context_entry contexts[NR_CONTEXTS] = {
	[TASK]		= { "task", "raw_tp", JIT, SEEN_TASK },
	[SLEEPABLE]	= { "sleepable", "syscall", JIT, SEEN_TASK },
	[SOFTIRQ]	= { "softirq", "raw_tp", JIT, SEEN_SOFTIRQ },
	[HARDIRQ]	= { "hardirq", "perf_event", JIT, SEEN_HARDIRQ },
	[NMI]		= { "nmi", "perf_event", JIT, SEEN_NMI },
	[INTERPRETED]	= { "interpreted", "raw_tp", INTERPRETER, SEEN_TASK },
	[HARDENED]	= { "hardened", "raw_tp", HARDENED_JIT, SEEN_TASK },
};

#define ANYWHERE ((1 << NR_CONTEXTS) - 1)
#define JITED (ANYWHERE & ~(1 << INTERPRETED))

/* What stands for a program with bpf_throw() loads, or it is -ENOTSUPP, which has no name here. */
static bool kernel_has_exceptions(void)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_1 },
		{ .code = BPF_JMP | BPF_CALL, .src_reg = BPF_PSEUDO_KFUNC_CALL },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	static int has = -1;
	int fd;

	if (has < 0) {
		insns[1].imm = map_trace_target_id("bpf_throw");
		fd = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "throws", "GPL", insns,
				   sizeof(insns) / sizeof(*insns), NULL);
		if (fd < 0 && errno != 524)
			fprintf(stderr, "# bpf_throw(): %s\n", strerror(errno));
		/* Only this one says that there is none. */
		has = fd >= 0 || errno != 524;
		if (fd >= 0)
			close(fd);
	}
	return has;
}

/* Contexts, and why there are no others */
#define EVERYWHERE .contexts = ANYWHERE
#define NOT_INTERPRETED(why)							\
	.contexts = JITED, .other_contexts = "the interpreter takes no " why
#define IN_SLEEPABLE(why)							\
	.contexts = 1 << SLEEPABLE | 1 << INTERPRETED | 1 << HARDENED, .other_contexts = why
#define ONLY_IN(context, why)							\
	.contexts = 1 << (context), .other_contexts = why
#define USER(function)								\
	.kind = BY_USER, .by_user = function, ONLY_IN(TASK, "a task does it by a system call")

const struct way ways[] = {
	/* Operations of programs */
	{ "update", .told = BY_OPERATION, EVERYWHERE },
	{ "update_absent", .told = BY_OPERATION, .traits = DELETES, .absent = true, EVERYWHERE },
	{ "update_present", .told = BY_OPERATION, EVERYWHERE },
	{ "update_locked", .told = BY_OPERATION, .source = LOCKED, .traits = LOCKS,
	  IN_SLEEPABLE("programs of tracing take no map with a bpf_spin_lock") },
	{ "delete", .told = BY_OPERATION, .traits = DELETES, EVERYWHERE },
	{ "evict", .told = BY_QUEUE, .traits = EVICTS, EVERYWHERE },

	/* Pointers that programs get */
	{ "store", .told = BY_MARK, EVERYWHERE },
	{ "store_later", .told = BY_MARK, .traits = DELETES, .may_miss = true, EVERYWHERE },
	{ "atomic_add", .told = BY_MARK, EVERYWHERE },
	{ "atomic_or", .told = BY_MARK, EVERYWHERE },
	{ "atomic_exchange", .told = BY_MARK, EVERYWHERE },
	{ "atomic_compare_exchange", .told = BY_MARK, EVERYWHERE },
	{ "store_release", .told = BY_MARK, EVERYWHERE },
	{ "store_in_percpu_lookup", .told = BY_FLUSH, .traits = PER_CPU, EVERYWHERE },
	{ "store_under_lock", .told = BY_MARK, .source = LOCKED, .traits = LOCKS,
	  IN_SLEEPABLE("programs of tracing take no map with a bpf_spin_lock") },
	{ "store_beside_kptr", .told = BY_MARK, .source = POINTING, .traits = KPTRS, EVERYWHERE },
	{ "store_in_global", .told = BY_FLUSH, .source = GLOBAL, .traits = IS_ARRAY, EVERYWHERE },

	/* Helpers and kfuncs that are given them */
	{ "probe_read", .told = BY_MARK, EVERYWHERE },
	{ "current_comm", .told = BY_MARK, EVERYWHERE },
	{ "strtol", .told = BY_MARK, EVERYWHERE },
	{ "dynptr_write", .told = BY_MARK, EVERYWHERE },
	{ "dynptr_data", .told = BY_MARK, EVERYWHERE },
	{ "dynptr_copy", .told = BY_MARK, NOT_INTERPRETED("kfuncs") },
	{ "ringbuf_read", .told = BY_MARK, EVERYWHERE },
	{ "copy_from_user_str", .told = BY_MARK,
	  .contexts = 1 << SLEEPABLE | 1 << HARDENED, .other_contexts = "the kfunc may sleep" },

	/* Where the program goes on with them */
	{ "global_function", .told = BY_MARK, EVERYWHERE },
	{ "subprogram", .told = BY_MARK, EVERYWHERE },
	{ "freplace", .told = BY_MARK, NOT_INTERPRETED("replaced functions") },
	{ "tail_call", .told = BY_MARK, EVERYWHERE },
	{ "exception", .told = BY_MARK, NOT_INTERPRETED("exceptions"),
	  .there = kernel_has_exceptions,
	  .not_there = "this kernel has no exceptions (CONFIG_UNWINDER_ORC)" },
	{ "for_each", .told = BY_MARK, .traits = FOR_EACH, .all_keys = true,
	  NOT_INTERPRETED("callbacks") },

	/* Callbacks, and others that are given pointers */
	{ "timer", .kind = BY_CALLBACK, .told = BY_MARK, .source = DEFERRING, .traits = CALLBACKS,
	  ONLY_IN(SOFTIRQ, "the callback of a timer runs in a softirq") },
	{ "work", .kind = BY_CALLBACK, .told = BY_MARK, .source = DEFERRING, .traits = CALLBACKS,
	  ONLY_IN(SLEEPABLE, "the callback of a work queue may sleep") },
	{ "task_work", .kind = BY_CALLBACK, .told = BY_MARK, .source = DEFERRING,
	  .traits = CALLBACKS, ONLY_IN(SLEEPABLE, "the callback of task work may sleep") },
	{ "iterator", .kind = BY_ITERATOR, .told = BY_MARK, .traits = ITERATES, .all_keys = true,
	  .contexts = 1 << TASK | 1 << INTERPRETED | 1 << HARDENED,
	  .other_contexts = "a task reads an iterator" },

	/* User space */
	{ "user_update", .told = BY_OPERATION, USER(user_update) },
	{ "user_update_absent", .told = BY_OPERATION, .traits = DELETES, .absent = true,
	  USER(user_update_absent) },
	{ "user_update_present", .told = BY_OPERATION, USER(user_update_present) },
	{ "user_update_locked", .told = BY_OPERATION, .source = LOCKED, .traits = LOCKS,
	  USER(user_update_locked) },
	{ "user_update_cpu", .told = BY_OPERATION, .traits = PER_CPU, USER(user_update_cpu) },
	{ "user_update_all_cpus", .told = BY_OPERATION, .traits = PER_CPU,
	  USER(user_update_all_cpus) },
	{ "user_delete", .told = BY_OPERATION, .traits = DELETES, USER(user_delete) },
	{ "user_lookup_and_delete", .told = BY_OPERATION, .traits = GIVES_BACK,
	  USER(user_lookup_and_delete) },
	{ "batch_update", .told = BY_OPERATION, USER(user_batch_update) },
	{ "batch_delete", .told = BY_OPERATION, .traits = DELETES, USER(user_batch_delete) },
	{ "batch_lookup_and_delete", .told = BY_OPERATION, .traits = GIVES_BACK,
	  USER(user_batch_lookup_and_delete) },
	{ "mapped", .told = BY_FLUSH, .source = MAPPED, .traits = IS_ARRAY,
	  USER(user_store_in_mapping) },
};

const unsigned int nr_ways = sizeof(ways) / sizeof(ways[0]);
_Static_assert(sizeof(ways) / sizeof(ways[0]) <= MAX_WAYS, "MAX_WAYS");

/* Why a type that does not have something has no such cell */
static const struct {
	unsigned int trait;
	const char *reason;
} without[] = {
	{ DELETES, "elements of an array are always there" },
	{ FOR_EACH, "no bpf_for_each_map_elem() with this type (verifier)" },
	{ GIVES_BACK, "no BPF_MAP_LOOKUP_AND_DELETE of this type" },
	{ EVICTS, "it evicts nothing" },
	{ PER_CPU, "it has no values of CPUs" },
	{ LOCKS, "no bpf_spin_lock in values of this type" },
	{ CALLBACKS, "no bpf_timer and the like in values of this type" },
	{ KPTRS, "no kptr in values of this type" },
	{ ITERATES, "an iterator gives no pointers to its values" },
	{ IS_ARRAY, "only an ARRAY can be mapped, and has global data" },
};

static const char plain_inner_values[] = "the inner map has plain values: see hash";

const char *reason_of_type_and_way(const struct type *type, const struct way *way)
{
	unsigned int missing = way->traits & ~type->traits, i;

	if (!missing)
		return NULL;
	if ((type->traits & IS_INNER) && (way->source == LOCKED || way->source == DEFERRING ||
					  way->source == POINTING))
		return plain_inner_values;
	for (i = 0; i < sizeof(without) / sizeof(without[0]); i++)
		if (missing & without[i].trait)
			return without[i].reason;
	return "?";
}

const char *reason_of_way(const struct way *way)
{
	return way->there && !way->there() ? way->not_there : NULL;
}

const char *reason_of_way_and_context(const struct way *way, enum context context)
{
	return way->contexts & (1 << context) ? NULL : way->other_contexts;
}

const char *reason_of_type_and_context(const struct type *type, enum context context)
{
	if ((type->traits & NO_NMIS) && context == NMI)
		return "no program may write it in an NMI: its locks notice nothing";
	return NULL;
}

bool has_map_for(const struct type *type, const struct way *way)
{
	return way->source == SOURCE ||
	       !(type->traits & IS_INNER || way->source == MAPPED || way->source == GLOBAL);
}

bool is_empty(const struct type *type, const struct way *way, enum context context)
{
	return reason_of_way(way) || reason_of_type_and_way(type, way) || reason_of_way_and_context(way, context) ||
	       reason_of_type_and_context(type, context);
}

/* A line for each reason: the types, the ways that have it. */
static void print_types_and_ways(const char *reason)
{
	unsigned int type, way;
	const char *between;

	printf("# empty:");
	for (type = 0, between = " "; type < NR_TYPES; type++)
		for (way = 0; way < nr_ways; way++)
			if (reason_of_type_and_way(&types[type], &ways[way]) == reason) {
				printf("%s%s", between, types[type].name);
				between = ", ";
				break;
			}
	for (way = 0, between = " x "; way < nr_ways; way++)
		for (type = 0; type < NR_TYPES; type++)
			if (reason_of_type_and_way(&types[type], &ways[way]) == reason) {
				printf("%s%s", between, ways[way].name);
				between = ", ";
				break;
			}
	printf(": %s\n", reason);
}

unsigned int print_reasons(void)
{
	unsigned int way, context, type, i, without_reason = 0;

	for (i = 0; i < sizeof(without) / sizeof(without[0]); i++)
		print_types_and_ways(without[i].reason);
	print_types_and_ways(plain_inner_values);
	for (way = 0; way < nr_ways; way++) {
		if (reason_of_way(&ways[way]))
			printf("# empty: %s: %s\n", ways[way].name, reason_of_way(&ways[way]));
		if (ways[way].contexts == ANYWHERE)
			continue;
		printf("# empty: %s in", ways[way].name);
		for (context = 0; context < NR_CONTEXTS; context++)
			if (!(ways[way].contexts & (1 << context)))
				printf(" %s", contexts[context].name);
		printf(": %s\n", ways[way].other_contexts ?: "?");
		without_reason += !ways[way].other_contexts;
	}
	for (type = 0; type < NR_TYPES; type++)
		for (context = 0; context < NR_CONTEXTS; context++) {
			const char *reason = reason_of_type_and_context(&types[type], context);

			if (reason)
				printf("# empty: %s in %s: %s\n", types[type].name,
				       contexts[context].name, reason);
		}
	return without_reason;
}

unsigned int count_empty_cells(void)
{
	unsigned int type, way, context, count = 0;

	for (type = 0; type < NR_TYPES; type++)
		for (way = 0; way < nr_ways; way++)
			for (context = 0; context < NR_CONTEXTS; context++)
				count += is_empty(&types[type], &ways[way], context);
	return count;
}

static bool selected[NR_TYPES][MAX_WAYS][NR_CONTEXTS];

/* The pairs that are covered */
static bool type_way[NR_TYPES][MAX_WAYS];
static bool way_context[MAX_WAYS][NR_CONTEXTS];
static bool type_context[NR_TYPES][NR_CONTEXTS];

static unsigned int gain(unsigned int type, unsigned int way, unsigned int context)
{
	return !type_way[type][way] + !way_context[way][context] + !type_context[type][context];
}

static void select_cell(unsigned int type, unsigned int way, unsigned int context)
{
	selected[type][way][context] = true;
	type_way[type][way] = true;
	way_context[way][context] = true;
	type_context[type][context] = true;
}

/*
 * Each cell that covers at least so many new pairs is taken. Of a type and a way, the context that
 * covers most.
 */
static void select_greedily(unsigned int least)
{
	unsigned int type, way, context;

	for (type = 0; type < NR_TYPES; type++)
		for (way = 0; way < nr_ways; way++) {
			unsigned int best = 0, best_context = 0;

			for (context = 0; context < NR_CONTEXTS; context++) {
				if (is_empty(&types[type], &ways[way], context) ||
				    gain(type, way, context) <= best)
					continue;
				best = gain(type, way, context);
				best_context = context;
			}
			if (best >= least)
				select_cell(type, way, best_context);
		}
}

void select_cells(bool all)
{
	unsigned int type, way, context, least;

	for (least = 3; !all && least; least--)
		select_greedily(least);
	/* What a type and a way have more than one context to cover */
	for (type = 0; type < NR_TYPES; type++)
		for (way = 0; way < nr_ways; way++)
			for (context = 0; context < NR_CONTEXTS; context++)
				if (!is_empty(&types[type], &ways[way], context) &&
				    (all || gain(type, way, context)))
					select_cell(type, way, context);
}

unsigned int count_selected_cells(void)
{
	unsigned int type, way, context, count = 0;

	for (type = 0; type < NR_TYPES; type++)
		for (way = 0; way < nr_ways; way++)
			for (context = 0; context < NR_CONTEXTS; context++)
				count += selected[type][way][context];
	return count;
}

bool is_selected(const struct type *type, const struct way *way, enum context context)
{
	return selected[type - types][way - ways][context];
}

unsigned int count_pairs_left_out(void)
{
	bool pairs[3][MAX_WAYS][MAX_WAYS] = {}, run[3][MAX_WAYS][MAX_WAYS] = {};
	unsigned int type, way, context, i, j, k, count = 0;

	for (type = 0; type < NR_TYPES; type++)
		for (way = 0; way < nr_ways; way++)
			for (context = 0; context < NR_CONTEXTS; context++) {
				bool runs = selected[type][way][context];

				if (is_empty(&types[type], &ways[way], context))
					continue;
				pairs[0][type][way] = true;
				pairs[1][type][context] = true;
				pairs[2][way][context] = true;
				run[0][type][way] |= runs;
				run[1][type][context] |= runs;
				run[2][way][context] |= runs;
			}
	for (i = 0; i < 3; i++)
		for (j = 0; j < MAX_WAYS; j++)
			for (k = 0; k < MAX_WAYS; k++)
				count += pairs[i][j][k] && !run[i][j][k];
	return count;
}
