// SPDX-License-Identifier: GPL-2.0
/* What an operation costs, by who does it, on which map, and what is attached. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bench.h"
#include "helpers.h"
#include "tracers.skel.h"
#include "workload.skel.h"

#define MAX_ENTRIES 1024
#define MAX_TRACERS 8

/* What the keys of a trie begin with, as in workload.bpf.c */
#define PREFIX_LEN 32

/*
 * A round is short, so that most of them lie between two ticks of the timer, and
 * the fastest is the one that nothing has interrupted.
 */
#define ROUNDS 24
#define WARM_UP 4

struct map_kind {
	const char *name;
	enum bpf_map_type type;
	__u32 flags;
	/* How many keys are used, a power of 2: as many as there are entries, but for the LRU
	 * types, which would evict, and take another way at each of their updates.
	 */
	__u32 keys;
	/* The functions that hooks attach to, NULL where none can */
	const char *update;
	const char *delete;
	const char *update_by_syscall;	/* where it is another one */
};

#define PREALLOCATED BPF_F_ZERO_SEED
#define ALLOCATED (BPF_F_ZERO_SEED | BPF_F_NO_PREALLOC)

static const struct map_kind map_kinds[] = {
	{ "hash", BPF_MAP_TYPE_HASH, PREALLOCATED, MAX_ENTRIES,
	  "htab_map_update_elem", "htab_map_delete_elem" },
	{ "hash_no_prealloc", BPF_MAP_TYPE_HASH, ALLOCATED, MAX_ENTRIES,
	  "htab_map_update_elem", "htab_map_delete_elem" },
	{ "lru_hash", BPF_MAP_TYPE_LRU_HASH, PREALLOCATED, MAX_ENTRIES / 4,
	  "htab_lru_map_update_elem", "htab_lru_map_delete_elem" },
	{ "percpu_hash", BPF_MAP_TYPE_PERCPU_HASH, PREALLOCATED, MAX_ENTRIES,
	  "htab_percpu_map_update_elem", "htab_map_delete_elem", "bpf_percpu_hash_update" },
	{ "lru_percpu_hash", BPF_MAP_TYPE_LRU_PERCPU_HASH, PREALLOCATED, MAX_ENTRIES / 4,
	  "htab_lru_percpu_map_update_elem", "htab_lru_map_delete_elem",
	  "bpf_percpu_hash_update" },
	{ "array", BPF_MAP_TYPE_ARRAY, 0, MAX_ENTRIES, "array_map_update_elem" },
	{ "percpu_array", BPF_MAP_TYPE_PERCPU_ARRAY, 0, MAX_ENTRIES,
	  "array_map_update_elem", NULL, "bpf_percpu_array_update" },
	{ "rhash", BPF_MAP_TYPE_RHASH, BPF_F_NO_PREALLOC, MAX_ENTRIES,
	  "rhtab_map_update_elem", "rhtab_map_delete_elem" },
	/* Built without what fentry and fexit need. */
	{ "lpm_trie", BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, MAX_ENTRIES },
};

/* Where the operations come from */
enum origin { FROM_PROGRAM, FROM_SYSCALL };

static const char * const origin_names[] = { "program", "syscall" };

/* How the programs are made that do the operations */
struct way {
	const char *name;	/* behind that of the operation */
	const char *path;	/* of the sysctl that has to be set, with its value */
	const char *value;
	bool interpreted;
};

static const struct way jited = { "" };
static const struct way hardened = {
	", bpf_jit_harden=2", "/proc/sys/net/core/bpf_jit_harden", "2",
};
/* Both on a kernel of their own, whose functions begin without an endbr64 */
static const struct way without_ibt = {
	", without IBT", "/proc/sys/net/core/bpf_jit_enable", "1",
};
static const struct way interpreted = {
	", without IBT, interpreted", "/proc/sys/net/core/bpf_jit_enable", "0",
	.interpreted = true,
};

/* What is done to each element; the figures of batches are for one element, too. */
struct operation {
	const char *name;
	int command;		/* of bpf(2) */
	bool deletes;
	bool batch;
};

static const struct operation update = { "update", BPF_MAP_UPDATE_ELEM };
static const struct operation delete = { "delete", BPF_MAP_DELETE_ELEM, .deletes = true };

/* What only bpf(2) can do, on the first of the maps */
static const struct operation by_syscall_only[] = {
	{ "lookup_and_delete", BPF_MAP_LOOKUP_AND_DELETE_ELEM, .deletes = true },
	{ "update_batch", BPF_MAP_UPDATE_BATCH, .batch = true },
	{ "delete_batch", BPF_MAP_DELETE_BATCH, .deletes = true, .batch = true },
	{ "lookup_and_delete_batch", BPF_MAP_LOOKUP_AND_DELETE_BATCH, .deletes = true,
	  .batch = true },
};

/* Which map is traced, of the two that there are */
enum subject { NO_MAP, BYSTANDER, MEASURED, MEASURED_BEFORE };

/* What is attached while an operation is measured */
struct setting {
	const char *name;
	enum subject subject;
	const char *hook;	/* the prefix of the tracer's name */
	int tracers;
};

static const struct setting settings[] = {
	{ "untraced", NO_MAP, NULL, 0 },
	{ "bystander", BYSTANDER, "map_trace", 1 },
	{ "detached", MEASURED_BEFORE, "map_trace", 1 },
	{ "tracers_1", MEASURED, "map_trace", 1 },
	{ "tracers_2", MEASURED, "map_trace", 2 },
	{ "tracers_4", MEASURED, "map_trace", 4 },
	{ "tracers_8", MEASURED, "map_trace", 8 },
	{ "sync_1", MEASURED, "sync", 1 },
	{ "fentry_bystander", BYSTANDER, "fentry", 1 },
	{ "fentry", MEASURED, "fentry", 1 },
	{ "fexit_bystander", BYSTANDER, "fexit", 1 },
	{ "fexit", MEASURED, "fexit", 1 },
	{ "kprobe_bystander", BYSTANDER, "kprobe", 1 },
	{ "kprobe", MEASURED, "kprobe", 1 },
};

/* A cell of the table: all that a measurement needs */
struct cell {
	const struct way *way;
	const struct map_kind *kind;
	const struct operation *operation;
	enum origin origin;
	const struct setting *setting;

	struct workload_bpf *workload;
	struct bpf_program *empty, *update, *delete;
	struct tracers_bpf *tracers;
	struct bpf_link *links[MAX_TRACERS];
	__u32 operations;	/* in a round */
	__u64 traced;		/* how many a tracer should have seen */
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static bool is_trie(const struct map_kind *kind)
{
	return kind->type == BPF_MAP_TYPE_LPM_TRIE;
}

static bool is_percpu(const struct map_kind *kind)
{
	return kind->type == BPF_MAP_TYPE_PERCPU_HASH ||
	       kind->type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
	       kind->type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

/* A key has 4 bytes, but in a trie, where the length of the prefix comes first. */
static __u32 key_size(const struct map_kind *kind)
{
	return is_trie(kind) ? 2 * sizeof(__u32) : sizeof(__u32);
}

static void set_up_map(struct bpf_map *map, const struct map_kind *kind)
{
	if (bpf_map__set_type(map, kind->type) || bpf_map__set_map_flags(map, kind->flags) ||
	    bpf_map__set_max_entries(map, MAX_ENTRIES) ||
	    bpf_map__set_key_size(map, key_size(kind)))
		die("map", errno);
}

/* What is measured is what is meant. */
static void check_way(const struct cell *cell)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_prog_get_info_by_fd(bpf_program__fd(cell->update), &info, &len))
		die("program info", errno);
	if (!info.jited_prog_len != cell->way->interpreted)
		die(cell->way->interpreted ? "the JIT is on" : "the JIT is off", ENOTSUP);
}

static void load_workload(struct cell *cell)
{
	struct workload_bpf *workload = workload_bpf__open();

	if (!workload)
		die("workload", errno);
	set_up_map(workload->maps.measured, cell->kind);
	set_up_map(workload->maps.bystander, cell->kind);
	workload->rodata->operations = cell->operations;
	workload->rodata->keys = cell->kind->keys;
	workload->rodata->trie = is_trie(cell->kind);
	if (cell->way->interpreted) {
		cell->empty = workload->progs.interpret_empty;
		cell->update = workload->progs.interpret_update;
		cell->delete = workload->progs.interpret_delete;
	} else {
		cell->empty = workload->progs.run_empty;
		cell->update = workload->progs.run_update;
		cell->delete = workload->progs.run_delete;
	}
	bpf_program__set_autoload(cell->empty, true);
	bpf_program__set_autoload(cell->update, true);
	bpf_program__set_autoload(cell->delete, true);
	if (workload_bpf__load(workload))
		die("load of the workload", errno);
	check_way(cell);
	cell->workload = workload;
}

static __u32 map_id(const struct bpf_map *map)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	if (bpf_map_get_info_by_fd(bpf_map__fd(map), &info, &len))
		die("map info", errno);
	return info.id;
}

static const char *hooked_function(const struct cell *cell)
{
	if (cell->operation->command == BPF_MAP_LOOKUP_AND_DELETE_ELEM)
		return "htab_map_lookup_and_delete_elem";
	if (cell->operation->deletes)
		return cell->kind->delete;
	if (cell->origin == FROM_SYSCALL && cell->kind->update_by_syscall)
		return cell->kind->update_by_syscall;
	return cell->kind->update;
}

/* What it is told by the worker is not what is measured. */
static struct bpf_link *wait_for_replay(struct bpf_link *link)
{
	struct pollfd pollfd = { .events = POLLIN };

	if (!link)
		return NULL;
	pollfd.fd = bpf_link__fd(link);
	if (poll(&pollfd, 1, -1) != 1)
		die("poll", errno);
	return link;
}

static struct bpf_link *attach(const struct cell *cell, const struct bpf_program *tracer,
			       const struct bpf_map *map)
{
	struct bpf_map_trace_link_info info = {
		.map_fd = bpf_map__fd(map),
		.trace_type = !strcmp(cell->setting->hook, "sync") ? BPF_MAP_TRACE_SYNC_ELEM :
			cell->operation->deletes ? BPF_MAP_TRACE_DELETE_ELEM :
			BPF_MAP_TRACE_UPDATE_ELEM,
	};
	LIBBPF_OPTS(bpf_map_trace_attach_opts, opts,
		.link_info = &info,
		.link_info_len = sizeof(info));

	if (!strcmp(cell->setting->hook, "map_trace"))
		return bpf_program__attach_map_trace(tracer, &opts);
	if (!strcmp(cell->setting->hook, "sync"))
		return wait_for_replay(bpf_program__attach_map_trace(tracer, &opts));
	if (!strcmp(cell->setting->hook, "kprobe"))
		return bpf_program__attach_kprobe(tracer, false, hooked_function(cell));
	return bpf_program__attach(tracer);
}

static void load_and_attach_tracers(struct cell *cell)
{
	const struct setting *setting = cell->setting;
	const struct bpf_map *map = setting->subject == BYSTANDER ?
		cell->workload->maps.bystander : cell->workload->maps.measured;
	struct bpf_program *program, *tracer = NULL;
	char name[64];
	int i;

	cell->tracers = tracers_bpf__open();
	if (!cell->tracers)
		die("tracers", errno);
	snprintf(name, sizeof(name), "%s_%s", setting->hook,
		 cell->operation->deletes ? "delete" : "update");
	bpf_object__for_each_program(program, cell->tracers->obj) {
		bool wanted = !strcmp(bpf_program__name(program), name);

		bpf_program__set_autoload(program, wanted);
		if (wanted)
			tracer = program;
	}
	if (!tracer)
		die(name, ENOENT);
	if (setting->hook[0] == 'f' &&
	    bpf_program__set_attach_target(tracer, 0, hooked_function(cell)))
		die(hooked_function(cell), errno);
	cell->tracers->rodata->traced_map_id = map_id(map);
	if (tracers_bpf__load(cell->tracers))
		die(name, errno);

	for (i = 0; i < setting->tracers; i++) {
		cell->links[i] = attach(cell, tracer, map);
		if (!cell->links[i])
			die(name, errno);
	}
}

static void detach_tracers(struct cell *cell)
{
	int i;

	for (i = 0; i < cell->setting->tracers; i++) {
		bpf_link__destroy(cell->links[i]);
		cell->links[i] = NULL;
	}
}

static void run(const struct bpf_program *program)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int err = bpf_prog_test_run_opts(bpf_program__fd(program), &opts);

	if (err)
		die(bpf_program__name(program), err);
}

/* Not libbpf's: what is around the system call counts. */
static void bpf_syscall(int command, union bpf_attr *attr)
{
	if (syscall(__NR_bpf, command, attr, sizeof(*attr)))
		die("system call", errno);
}

static __u64 values[MAX_ENTRIES];

/* What a program does, from bpf(2) */
static void single_system_calls(const struct cell *cell)
{
	const struct operation *operation = cell->operation;
	__u32 key[2] = { PREFIX_LEN }, *number = &key[is_trie(cell->kind) ? 1 : 0], i;
	union bpf_attr attr = {
		.map_fd = bpf_map__fd(cell->workload->maps.measured),
		.key = (unsigned long)key,
		.value = operation->command != BPF_MAP_DELETE_ELEM ? (unsigned long)values : 0,
	};

	for (i = 0; i < cell->operations; i++) {
		*number = i & (cell->kind->keys - 1);
		values[0] = i;
		bpf_syscall(operation->command, &attr);
	}
}

static void batch_system_call(const struct cell *cell)
{
	static __u32 keys[MAX_ENTRIES], position;
	const struct operation *operation = cell->operation;
	union bpf_attr attr = {
		.batch.map_fd = bpf_map__fd(cell->workload->maps.measured),
		.batch.keys = (unsigned long)keys,
		.batch.count = cell->operations,
	};
	__u32 i;

	if (operation->command != BPF_MAP_DELETE_BATCH)
		attr.batch.values = (unsigned long)values;
	if (operation->command == BPF_MAP_LOOKUP_AND_DELETE_BATCH)
		attr.batch.out_batch = (unsigned long)&position;
	for (i = 0; i < cell->operations; i++) {
		keys[i] = i;
		values[i] = i;
	}
	/* The end of the map is where it finds nothing more. */
	if (syscall(__NR_bpf, operation->command, &attr, sizeof(attr)) &&
	    !(errno == ENOENT && attr.batch.out_batch))
		die("system call", errno);
	if (attr.batch.count != cell->operations)
		die("elements of a batch", ERANGE);
}

/* One round of operations, and how long it took */
static __u64 measure_round(struct cell *cell, bool empty)
{
	__u64 start = clock_now();

	if (cell->origin == FROM_PROGRAM)
		run(empty ? cell->empty : cell->operation->deletes ? cell->delete : cell->update);
	else if (!empty && cell->operation->batch)
		batch_system_call(cell);
	else if (!empty)
		single_system_calls(cell);
	return clock_now() - start;
}

/* The times of the rounds, in order */
static void measure_rounds(struct cell *cell, bool empty, __u64 times[ROUNDS])
{
	int i;

	for (i = -WARM_UP; i < ROUNDS; i++) {
		__u64 time;

		if (cell->operation->deletes && !empty)
			run(cell->update);
		time = measure_round(cell, empty);
		if (i >= 0)
			times[i] = time;
	}
	qsort(times, ROUNDS, sizeof(times[0]), compare_times);
}

/* What a tracer adds to its sum for an operation */
static __u64 sum_of(const struct cell *cell, __u32 i)
{
	/* It reads the first 4 bytes of a key. */
	__u64 key = is_trie(cell->kind) ? PREFIX_LEN : i & (cell->kind->keys - 1), sum;
	int cpu;

	if (cell->operation->deletes)
		return key;
	sum = key + i;
	/* A map tracer runs for the value of each CPU, a hook once. */
	if (cell->origin == FROM_SYSCALL && is_percpu(cell->kind) &&
	    !strcmp(cell->setting->hook, "map_trace"))
		for (cpu = 1; cpu < libbpf_num_possible_cpus(); cpu++)
			sum += key + values[cpu];
	return sum;
}

/* Whether the tracers have seen each operation, or none: what is measured is what is meant */
static void check_tracers(const struct cell *cell)
{
	__u64 expected = 0;
	__u32 i;

	if (cell->setting->subject == MEASURED) {
		for (i = 0; i < cell->operations; i++)
			expected += sum_of(cell, i);
		expected *= (ROUNDS + WARM_UP) * cell->setting->tracers;
	}
	if (cell->tracers->bss->sum != expected)
		die("the tracers did not see what they should", ERANGE);
}

/* Each key once: what is deleted has to be there, and all that is there goes in one batch. */
static __u32 operations_of_round(const struct map_kind *kind, const struct operation *operation,
				 enum origin origin)
{
	if (origin == FROM_PROGRAM || operation->command == BPF_MAP_LOOKUP_AND_DELETE_BATCH)
		return kind->keys;
	return kind->keys / 4;
}

static void measure(const struct way *way, const struct map_kind *kind,
		    const struct operation *operation, enum origin origin,
		    const struct setting *setting, const char *name)
{
	struct cell cell = {
		.way = way,
		.kind = kind,
		.operation = operation,
		.origin = origin,
		.setting = setting,
		.operations = operations_of_round(kind, operation, origin),
	};
	__u64 empty[ROUNDS], times[ROUNDS];
	double count = cell.operations;

	load_workload(&cell);
	measure_rounds(&cell, true, empty);
	/* Every cell begins with the same map. */
	run(cell.update);
	if (setting->subject != NO_MAP)
		load_and_attach_tracers(&cell);
	if (setting->subject == MEASURED_BEFORE)
		detach_tracers(&cell);

	measure_rounds(&cell, false, times);
	figure((times[0] - empty[0]) / count, "operations/%s %s from %s%s/%s", kind->name,
	       operation->name, origin_names[origin], way->name, name);
	if (!count_instructions) {
		figure((times[ROUNDS / 4] - empty[ROUNDS / 2]) / count,
		       "quartiles/%s %s from %s/%s/1", kind->name, operation->name,
		       origin_names[origin], name);
		figure((times[ROUNDS / 2] - empty[ROUNDS / 2]) / count,
		       "quartiles/%s %s from %s/%s/2", kind->name, operation->name,
		       origin_names[origin], name);
		figure((times[ROUNDS * 3 / 4] - empty[ROUNDS / 2]) / count,
		       "quartiles/%s %s from %s/%s/3", kind->name, operation->name,
		       origin_names[origin], name);
	}
	if (setting->subject != NO_MAP) {
		check_tracers(&cell);
		detach_tracers(&cell);
		tracers_bpf__destroy(cell.tracers);
	}
	workload_bpf__destroy(cell.workload);
}

static bool can_delete(const struct map_kind *kind)
{
	return kind->type != BPF_MAP_TYPE_ARRAY && kind->type != BPF_MAP_TYPE_PERCPU_ARRAY;
}

static bool has_states(const struct map_kind *kind)
{
	return kind->type == BPF_MAP_TYPE_HASH || kind->type == BPF_MAP_TYPE_LRU_HASH ||
	       kind->type == BPF_MAP_TYPE_ARRAY;
}

/* Whether this is to be measured at all */
static bool hook_runs(const struct map_kind *kind, const struct operation *operation,
		      enum origin origin, const char *hook)
{
	if (!hook || !strcmp(hook, "map_trace"))
		return true;
	if (!strcmp(hook, "sync"))
		return has_states(kind);
	if (!kind->update)
		return false;
	/* It deletes without a function for one element. */
	if (operation->command == BPF_MAP_LOOKUP_AND_DELETE_BATCH)
		return false;
	/* The system call keeps them from running: bpf_disable_instrumentation(). */
	return origin != FROM_SYSCALL || strcmp(hook, "kprobe");
}

static void measure_row(const struct map_kind *kind, const struct operation *operation,
			enum origin origin)
{
	size_t i;

	progress("%s of %s, from a %s", operation->name, kind->name, origin_names[origin]);
	if (!can_trace_maps()) {
		measure(&jited, kind, operation, origin, &settings[0], "unpatched");
		return;
	}
	for (i = 0; i < COUNT_OF(settings); i++)
		if (hook_runs(kind, operation, origin, settings[i].hook))
			measure(&jited, kind, operation, origin, &settings[i], settings[i].name);
}

/* What an operation of a hash map costs that is not traced, by programs made in another way */
static void measure_untraced(const struct way *way)
{
	static const struct operation * const operations[] = { &update, &delete };
	char old[8];
	size_t i, j;

	set_sysctl(way->path, way->value, old, sizeof(old));
	for (i = 0; i < COUNT_OF(operations); i++) {
		progress("%s of %s%s", operations[i]->name, map_kinds[0].name, way->name);
		if (!can_trace_maps())
			measure(way, &map_kinds[0], operations[i], FROM_PROGRAM, &settings[0],
				"unpatched");
		else
			for (j = 0; settings[j].subject != MEASURED; j++)
				measure(way, &map_kinds[0], operations[i], FROM_PROGRAM,
					&settings[j], settings[j].name);
	}
	set_sysctl(way->path, old, NULL, 0);
}

/*
 * What varies by more than it costs to trace it: each update of a trie makes a node and
 * frees another, and when all that is in an RHASH is deleted, it shrinks meanwhile.
 */
static bool is_lost_in_noise(const struct map_kind *kind, const struct operation *operation,
			     enum origin origin)
{
	if (operation->deletes)
		return kind->type == BPF_MAP_TYPE_RHASH && origin == FROM_PROGRAM;
	return is_trie(kind) && origin == FROM_SYSCALL;
}

void bench_operations(void)
{
	enum origin origin;
	size_t i;

	for (origin = FROM_PROGRAM; origin <= FROM_SYSCALL; origin++) {
		for (i = 0; i < COUNT_OF(map_kinds); i++) {
			if (!is_lost_in_noise(&map_kinds[i], &update, origin))
				measure_row(&map_kinds[i], &update, origin);
			if (can_delete(&map_kinds[i]) &&
			    !is_lost_in_noise(&map_kinds[i], &delete, origin))
				measure_row(&map_kinds[i], &delete, origin);
		}
	}
	for (i = 0; i < COUNT_OF(by_syscall_only); i++)
		measure_row(&map_kinds[0], &by_syscall_only[i], FROM_SYSCALL);
	if (count_instructions)
		measure_untraced(&hardened);
}

void bench_interpreter(void)
{
	measure_untraced(&without_ibt);
	measure_untraced(&interpreted);
}
