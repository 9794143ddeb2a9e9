// SPDX-License-Identifier: GPL-2.0
/*
 * What sync tracers cost beside the operations: a replay and a flush of all elements, lookups
 * by programs that write through pointers, the walks of the worker, and memory.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "allocations.skel.h"
#include "bench.h"
#include "helpers.h"
#include "states.h"
#include "states.skel.h"

#define LARGE 1000000
/* The lookups of a round, each of a key of its own */
#define LOOKUPS 1024
#define ROUNDS 9
/* How many elements are marked where some are */
#define MARKED 10000
/* For how long a key is hot, or nothing is written */
#define WATCH_NS 5000000000ULL
#define PAUSE_US 1000

static struct states_bpf *open_states(enum bpf_map_type type, __u32 entries, bool traced)
{
	struct states_bpf *states = states_bpf__open();

	if (!states || bpf_map__set_type(states->maps.measured, type) ||
	    bpf_map__set_max_entries(states->maps.measured, entries))
		die("states", errno);
	bpf_program__set_autoload(states->progs.count_told, traced);
	bpf_program__set_autoload(states->progs.on_work, traced);
	bpf_program__set_autoload(states->progs.on_work_done, traced);
	if (states_bpf__load(states))
		die("load of states", errno);
	return states;
}

static void run(struct states_bpf *states, const struct bpf_program *prog, __u32 keys)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	states->bss->keys = keys;
	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &opts) || states->bss->errors)
		die("run", errno);
}

static int attach(struct states_bpf *states)
{
	struct bpf_map_trace_link_info info = {
		.map_fd = bpf_map__fd(states->maps.measured),
		.trace_type = BPF_MAP_TRACE_SYNC_ELEM,
	};
	LIBBPF_OPTS(bpf_link_create_opts, opts,
		.map_trace.info = &info,
		.map_trace.info_len = sizeof(info));
	int link = bpf_link_create(bpf_program__fd(states->progs.count_told), 0, BPF_TRACE_MAP,
				   &opts);

	if (link < 0)
		die("attach", link);
	return link;
}

static void wait_for_replay(int link)
{
	struct pollfd pollfd = { .fd = link, .events = POLLIN };

	if (poll(&pollfd, 1, -1) != 1 || pollfd.revents != POLLIN)
		die("replay", errno);
}

static __u64 thread_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* The fastest of some rounds, each of which is told apart by a pause in which the worker has come
 * by: in a traced map the first half of a round marks elements anew, the second half finds them
 * marked. Without the loop itself.
 */
static void measure_lookups(struct states_bpf *states, const struct bpf_program *prog,
			    double best[2])
{
	__u64 times[2] = { ~0ULL, ~0ULL }, empty = ~0ULL;
	int i, half;

	for (i = 0; i < ROUNDS; i++) {
		run(states, states->progs.run_pass, LOOKUPS);
		for (half = 0; half < 2; half++)
			if (states->bss->took[half] < empty)
				empty = states->bss->took[half];
		usleep(500000);
		run(states, prog, LOOKUPS);
		for (half = 0; half < 2; half++)
			if (states->bss->took[half] < times[half])
				times[half] = states->bss->took[half];
	}
	for (half = 0; half < 2; half++)
		best[half] = ((double)times[half] - empty) / LOOKUPS;
}

static void bench_lookups(enum bpf_map_type type, const char *name)
{
	/* An LRU map would give some of them up if it had no more room. */
	struct states_bpf *states = open_states(type, 4 * LOOKUPS, can_trace_maps());
	double best[2];
	int link;

	progress("lookups of %s", name);
	run(states, states->progs.fill, LOOKUPS);
	measure_lookups(states, states->progs.run_read_one, best);
	figure(best[1], "lookups/%s lookup, read/untraced", name);
	measure_lookups(states, states->progs.run_write_one, best);
	figure(best[1], "lookups/%s lookup, written/untraced", name);
	if (can_trace_maps()) {
		link = attach(states);
		wait_for_replay(link);
		measure_lookups(states, states->progs.run_read_one, best);
		figure(best[1], "lookups/%s lookup, read/traced", name);
		measure_lookups(states, states->progs.run_write_one, best);
		figure(best[0], "lookups/%s lookup, written/marks", name);
		figure(best[1], "lookups/%s lookup, written/marked", name);
		close(link);
	}
	states_bpf__destroy(states);
}

/* Until the worker has nothing more to do: it was idle for a second */
static void settle(struct states_bpf *states)
{
	__u64 before;

	do {
		before = __atomic_load_n(&states->bss->worker_runs, __ATOMIC_SEQ_CST);
		usleep(1000000);
	} while (before != __atomic_load_n(&states->bss->worker_runs, __ATOMIC_SEQ_CST));
}

/* What the worker takes for a round in which so many elements are marked */
static __u64 measure_marked(struct states_bpf *states, __u32 marked)
{
	__u64 told = states->bss->told;

	settle(states);
	states->bss->worker_time = 0;
	run(states, states->progs.run_write_one, marked);
	settle(states);
	if (states->bss->told - told < marked)
		die("elements that were marked", ERANGE);
	return states->bss->worker_time;
}

static void bench_worker(struct states_bpf *states)
{
	__u64 begin, one, many;

	progress("the worker of a map of %d elements", LARGE);
	one = measure_marked(states, 1);
	many = measure_marked(states, 1 + MARKED);
	figure((double)one / LARGE, "states/worker/passed");
	figure((double)(many - one) / MARKED, "states/worker/marked");

	settle(states);
	states->bss->worker_runs = 0;
	usleep(WATCH_NS / 1000);
	figure(states->bss->worker_runs, "states/worker/idle");

	states->bss->worker_time = 0;
	states->bss->told = 0;
	begin = clock_now();
	while (clock_now() - begin < WATCH_NS) {
		run(states, states->progs.run_write_one, 1);
		usleep(PAUSE_US);
	}
	figure(100.0 * states->bss->worker_time / (clock_now() - begin), "states/worker/hot/percent");
	figure(states->bss->told * 1e9 / (clock_now() - begin), "states/worker/hot/told");
}

static void bench_large(void)
{
	struct states_bpf *states = open_states(BPF_MAP_TYPE_HASH, LARGE, true);
	__u64 time;
	int link;

	progress("replay of %d elements", LARGE);
	run(states, states->progs.fill, LARGE);
	states->links.on_work = bpf_program__attach(states->progs.on_work);
	states->links.on_work_done = bpf_program__attach(states->progs.on_work_done);
	if (!states->links.on_work || !states->links.on_work_done)
		die("tracepoints", errno);
	states->bss->expected = LARGE;
	link = attach(states);
	wait_for_replay(link);
	if (!states->bss->last || !states->bss->worker)
		die("replay", ERANGE);
	figure((double)(states->bss->last - states->bss->first) / (LARGE - 1), "states/replay");

	time = thread_now();
	if (bpf_link_flush(link, NULL))
		die("flush", errno);
	figure((double)(thread_now() - time) / LARGE, "states/flush");

	bench_worker(states);
	close(link);
	states_bpf__destroy(states);
}

/* In bytes, of the whole system, where next to nothing else is done */
static __s64 vmalloc_used(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128];
	__s64 kib = -1;

	if (!file)
		die("/proc/meminfo", errno);
	while (kib < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "VmallocUsed: %lld kB", &kib);
	fclose(file);
	return kib * 1024;
}

/* What is freed after a grace period has to be gone, and the replay has ended. */
static __s64 kept(const struct allocations_bpf *allocations, bool large)
{
	__s64 bytes;

	usleep(1000000);
	bytes = __atomic_load_n(&allocations->bss->kept, __ATOMIC_SEQ_CST);
	/* What is large may come from vmalloc(), where stacks of threads come and go as well. */
	return large ? bytes + vmalloc_used() : bytes;
}

/* The memory of a map's first sync tracer, its link included */
static void bench_memory(enum bpf_map_type type, __u32 entries, const char *name)
{
	struct allocations_bpf *allocations = allocations_bpf__open();
	struct states_bpf *states = open_states(type, entries, true);
	__s64 before;
	int link;

	progress("memory of %s", name);
	if (!allocations)
		die("allocations", errno);
	allocations->rodata->process = getpid();
	if (allocations_bpf__load(allocations) || allocations_bpf__attach(allocations))
		die("allocations", errno);
	before = kept(allocations, entries == LARGE);
	link = attach(states);
	figure(kept(allocations, entries == LARGE) - before, "states/memory/%s", name);
	close(link);
	allocations_bpf__destroy(allocations);
	states_bpf__destroy(states);
}

void bench_states(void)
{
	bench_lookups(BPF_MAP_TYPE_HASH, "hash");
	bench_lookups(BPF_MAP_TYPE_LRU_HASH, "lru_hash");
	bench_lookups(BPF_MAP_TYPE_ARRAY, "array");
	if (!can_trace_maps() || !count_instructions)
		return;
	bench_memory(BPF_MAP_TYPE_HASH, LOOKUPS, "hash of 1,024");
	bench_memory(BPF_MAP_TYPE_HASH, LARGE, "hash of 1,000,000");
	bench_memory(BPF_MAP_TYPE_ARRAY, LARGE, "array of 1,000,000");
	bench_large();
}
