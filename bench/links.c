// SPDX-License-Identifier: GPL-2.0
/* What a link costs: to attach, to update, to detach, and in memory. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "allocations.skel.h"
#include "bench.h"
#include "chain.skel.h"
#include "helpers.h"
#include "tracers.skel.h"

#define ROUNDS 9
#define MAX_LINKS 1000
/* MAX_TRACERS of tracer_list.rs */
#define MAX_TRACERS_OF_A_MAP 64

static int new_map(void)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "bench", sizeof(__u32), sizeof(__u64), 1, NULL);

	if (fd < 0)
		die("map", fd);
	return fd;
}

static int try_attach(int tracer, int map)
{
	struct bpf_map_trace_link_info info = {
		.map_fd = map,
		.trace_type = BPF_MAP_TRACE_UPDATE_ELEM,
	};
	LIBBPF_OPTS(bpf_link_create_opts, opts,
		.map_trace.info = &info,
		.map_trace.info_len = sizeof(info));

	return bpf_link_create(tracer, 0, BPF_TRACE_MAP, &opts);
}

static int attach(int tracer, int map)
{
	int link = try_attach(tracer, map);

	if (link < 0)
		die("attach", link);
	return link;
}

/* The processor time that this thread has used: without what it has waited */
static __u64 thread_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Attach and detach with @others links on maps of their own */
static void measure_latency(int tracer, int others)
{
	__u64 attach_time[ROUNDS], attach_work[ROUNDS], detach_time[ROUNDS], detach_work[ROUNDS];
	__u64 time, work;
	int i, map = new_map(), link;

	for (i = 0; i < ROUNDS; i++) {
		time = clock_now();
		work = thread_now();
		link = attach(tracer, map);
		attach_work[i] = thread_now() - work;
		attach_time[i] = clock_now() - time;

		time = clock_now();
		work = thread_now();
		if (bpf_link_detach(link))
			die("detach", errno);
		detach_work[i] = thread_now() - work;
		detach_time[i] = clock_now() - time;
		close(link);
	}
	qsort(attach_time, ROUNDS, sizeof(__u64), compare_times);
	qsort(attach_work, ROUNDS, sizeof(__u64), compare_times);
	qsort(detach_time, ROUNDS, sizeof(__u64), compare_times);
	qsort(detach_work, ROUNDS, sizeof(__u64), compare_times);
	figure(attach_time[ROUNDS / 2] / 1000.0, "latency/attach/%d/microseconds", others + 1);
	figure(attach_work[0], "latency/attach/%d/work", others + 1);
	figure(detach_time[ROUNDS / 2] / 1000.0, "latency/detach/%d/microseconds", others + 1);
	figure(detach_work[0], "latency/detach/%d/work", others + 1);
	close(map);
}

static void bench_latency(int tracer)
{
	static const int steps[] = { 1, 100, MAX_LINKS };
	static int links[MAX_LINKS];
	int count = 0, map;
	size_t i;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		progress("attach and detach of one of %d links", steps[i]);
		/* The link keeps the map. */
		for (; count < steps[i] - 1; count++) {
			map = new_map();
			links[count] = attach(tracer, map);
			close(map);
		}
		measure_latency(tracer, count);
	}
	while (count)
		close(links[--count]);
}

/* A tracer that writes to @map */
static struct chain_bpf *load_chain(int map)
{
	struct chain_bpf *chain = chain_bpf__open();

	if (!chain || bpf_map__reuse_fd(chain->maps.next, map) || chain_bpf__load(chain))
		die("chain", errno);
	return chain;
}

/*
 * The loop check of a tracer that leads to @reached links: to one map, whose tracers each
 * lead to a map whose tracers lead nowhere. BPF_LINK_UPDATE repeats it, and waits for less
 * than an attach.
 */
static void measure_loop_check(int tracer, int reached)
{
	struct chain_bpf *first, *second[MAX_TRACERS_OF_A_MAP];
	int links[MAX_LINKS + MAX_TRACERS_OF_A_MAP], seconds = 0, count = 0, i, map, link;
	int traced = new_map(), middle = new_map(), end = -1;
	__u64 best = ~0ULL, time;

	while (count < reached) {
		if (count % MAX_TRACERS_OF_A_MAP) {
			links[count++] = attach(tracer, end);
			continue;
		}
		if (seconds == MAX_TRACERS_OF_A_MAP)
			die("loop check", E2BIG);
		close(end);
		end = new_map();
		second[seconds] = load_chain(end);
		links[count++] = attach(bpf_program__fd(second[seconds++]->progs.write_next),
					middle);
	}
	first = load_chain(middle);
	link = attach(bpf_program__fd(first->progs.write_next), traced);
	for (i = 0; i < ROUNDS; i++) {
		time = thread_now();
		if (bpf_link_update(link, bpf_program__fd(first->progs.write_next), NULL))
			die("update of a link", errno);
		time = thread_now() - time;
		if (time < best)
			best = time;
	}
	figure(best, "loop_check/%d", reached);

	close(link);
	chain_bpf__destroy(first);
	while (count)
		close(links[--count]);
	while (seconds)
		chain_bpf__destroy(second[--seconds]);
	for (i = 0; i < 3; i++) {
		map = i == 0 ? traced : i == 1 ? middle : end;
		if (map >= 0)
			close(map);
	}
}

static void bench_loop_check(int tracer)
{
	static const int steps[] = { 0, 1, 10, 100, MAX_LINKS };
	size_t i;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		progress("loop check that reaches %d links", steps[i]);
		measure_loop_check(tracer, steps[i]);
	}
}

/* What is freed after a grace period has to be gone. */
static __s64 kept(const struct allocations_bpf *allocations)
{
	usleep(200000);
	return __atomic_load_n(&allocations->bss->kept, __ATOMIC_SEQ_CST);
}

static void bench_memory(int tracer)
{
	struct allocations_bpf *allocations = allocations_bpf__open();
	int links[MAX_TRACERS_OF_A_MAP], map = new_map(), i;
	__s64 before, one, all, link;

	progress("memory of links");
	if (!allocations)
		die("allocations", errno);
	allocations->rodata->process = getpid();
	if (allocations_bpf__load(allocations) || allocations_bpf__attach(allocations))
		die("allocations", errno);

	/* The table of files has room for all of them. */
	if (dup2(map, 2 * MAX_TRACERS_OF_A_MAP + 256) < 0)
		die("dup2", errno);
	before = kept(allocations);
	links[0] = attach(tracer, map);
	one = kept(allocations);
	for (i = 1; i < MAX_TRACERS_OF_A_MAP; i++)
		links[i] = attach(tracer, map);
	all = kept(allocations);
	link = (all - one) / (MAX_TRACERS_OF_A_MAP - 1);
	figure(link, "memory/link");
	figure(one - before - link, "memory/traced_map");

	for (i = 0; i < MAX_TRACERS_OF_A_MAP; i++)
		close(links[i]);
	close(2 * MAX_TRACERS_OF_A_MAP + 256);
	close(map);
	allocations_bpf__destroy(allocations);
}

void bench_links(void)
{
	struct tracers_bpf *tracers = tracers_bpf__open();
	struct bpf_program *program;
	int tracer;

	if (!tracers)
		die("tracers", errno);
	bpf_object__for_each_program(program, tracers->obj)
		bpf_program__set_autoload(program, program == tracers->progs.map_trace_update);
	if (tracers_bpf__load(tracers))
		die("tracers", errno);
	tracer = bpf_program__fd(tracers->progs.map_trace_update);

	bench_memory(tracer);
	bench_latency(tracer);
	bench_loop_check(tracer);
	tracers_bpf__destroy(tracers);
}
