// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"

#include "load.h"
#include "soak.skel.h"

#define BATCH 8
/* How long a new link is waited for at most, until all is replayed */
#define REPLAY_MS 100
/* Two threads that are pinned to no CPU */
#define SYSCALLS_THREAD MAX_CPUS
#define LINKS_THREAD (MAX_CPUS + 1)

__u64 seed_of(__u64 seed, __u32 stream)
{
	__u64 random = seed * 0x9e3779b97f4a7c15 + stream + 1;
	int i;

	for (i = 0; i < 8; i++)
		NEXT_RANDOM(random);
	return random ?: 1;
}

static bool is_stopped(const struct load *load)
{
	return __atomic_load_n(&load->stop, __ATOMIC_RELAXED);
}

/* The first one counts. */
static void fail(struct load *load, const char *what, int err)
{
	int none = 0;

	if (__atomic_compare_exchange_n(&load->err, &none, err, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		load->failed = what;
}

/* --- programs */

struct worker {
	struct load *load;
	int cpu;
};

static void *run_programs(void *argument)
{
	struct worker *worker = argument;
	struct load *load = worker->load;
	__u64 index = worker->cpu;
	int err = pin_to_cpu(worker->cpu);
	__u32 round;

	for (round = 0; !err && !is_stopped(load); round++)
		err = run_program((round + worker->cpu) % 2 ? load->skel->progs.churn :
				  load->skel->progs.churn_sleepable, &index, sizeof(index));
	if (err)
		fail(load, "programs", err);
	return NULL;
}

/* --- bpf(2) */

static __u32 pick_key(const struct load *load, __u32 random)
{
	return random % 4 ? (random >> 2) % HOT_KEYS : (random >> 2) % load->nr_keys;
}

static void fill_values(const struct load *load, __u64 *values, enum way way, __u64 number)
{
	__u32 i;

	for (i = 0; i < load->nr_values; i++)
		values[i] = (__u64)USER_STREAM << STREAM_SHIFT | (__u64)way << WAY_SHIFT | number;
}

static void do_batch(struct load *load, __u32 random, __u64 number)
{
	static __u64 values[NR_KEYS * MAX_CPUS];
	static __u32 keys[NR_KEYS];
	__u32 count = BATCH, position, i;
	int map = bpf_map__fd(load->skel->maps.source);

	for (i = 0; i < BATCH; i++) {
		keys[i] = (random >> 8) % load->nr_keys + i;
		keys[i] %= load->nr_keys;
		fill_values(load, &values[i * load->nr_values], USER_BATCH, number);
	}
	switch (load->has_deletes ? random % 16 : 15) {
	case 0:
		/* Takes out much of what is there */
		count = load->nr_keys / 2;
		bpf_map_lookup_and_delete_batch(map, NULL, &position, keys, values, &count, NULL);
		break;
	case 1 ... 6:
		bpf_map_delete_batch(map, keys, &count, NULL);
		break;
	default:
		bpf_map_update_batch(map, keys, values, &count, NULL);
	}
}

/* What they return depends on what others do. */
static void *run_syscalls(void *argument)
{
	struct load *load = argument;
	int map = bpf_map__fd(load->skel->maps.source);
	__u64 values[MAX_CPUS];

	while (!is_stopped(load)) {
		__u64 random = NEXT_RANDOM(load->random_of_syscalls);
		__u64 number = ++load->operations[SYSCALLS];
		__u32 key = pick_key(load, random >> 8);

		fill_values(load, values, USER_UPDATE, number);
		switch (random % 16) {
		case 0 ... 4:
			bpf_map_update_elem(map, &key, values, random >> 60);
			break;
		case 5 ... 7:
			bpf_map_delete_elem(map, &key);
			break;
		case 8 ... 10:
			bpf_map_lookup_and_delete_elem(map, &key, values);
			break;
		default:
			do_batch(load, random >> 32, number);
		}
	}
	return NULL;
}

/* --- links */

int flush_link(struct load *load, int link, bool with_keys)
{
	__u32 keys[NR_KEYS], i;
	int err;

	for (i = 0; i < load->nr_keys; i++)
		keys[i] = i;
	err = map_trace_flush(link, with_keys ? keys : NULL, with_keys ? load->nr_keys : 0, 0,
			      NULL);
	load->flushes++;
	load->flushed_again += err == -EAGAIN;
	return err;
}

/* The tracer fails now and then, and a lock may not be had. */
static void flush_under_load(struct load *load, int link, bool with_keys)
{
	int err = flush_link(load, link, with_keys);

	if (err && err != -EAGAIN && err != -EDEADLK && err != -ETIMEDOUT)
		fail(load, "flush", err);
}

static void attach_late(struct load *load, bool wait)
{
	struct pollfd pollfd = { .events = POLLIN };

	load->late = attach_to(load->skel->progs.synced_late, load->skel->maps.source);
	if (load->late < 0) {
		fail(load, "attach", load->late);
		return;
	}
	load->attaches++;
	pollfd.fd = load->late;
	if (wait)
		poll(&pollfd, 1, REPLAY_MS);
}

static void detach_late(struct load *load, bool by_close)
{
	struct map_trace_info info;
	int err = map_trace_get_info(load->late, &info);

	if (!err) {
		load->late_missed += info.missed;
		load->late_failed += info.failed;
		load->late_lost += info.lost;
		if (!by_close)
			err = map_trace_detach(load->late);
	}
	if (err)
		fail(load, "detach", err);
	close(load->late);
	load->late = -1;
}

static void update_late(struct load *load, bool first)
{
	int err = map_trace_update(load->late, bpf_program__fd(first ?
				   load->skel->progs.synced_late :
				   load->skel->progs.synced_late_too), -1);

	if (err)
		fail(load, "update of a link", err);
	load->updates++;
}

static void *run_links(void *argument)
{
	struct load *load = argument;

	while (!is_stopped(load) && !load->err) {
		__u64 random = NEXT_RANDOM(load->random_of_links);

		if (load->late < 0) {
			attach_late(load, random % 2);
			continue;
		}
		switch (random % 8) {
		case 0:
		case 1:
			detach_late(load, random % 2);
			break;
		case 2:
		case 3:
			update_late(load, random % 2);
			break;
		case 4:
		case 5:
			flush_under_load(load, load->late, random % 2);
			break;
		case 6:
			/* Without pointers, it has to do without. */
			if (load->pointers)
				flush_under_load(load, load->link, false);
			break;
		default:
			usleep((random >> 8) % 20000);
		}
	}
	if (load->late < 0 && !load->err)
		attach_late(load, false);
	return NULL;
}

/* --- interrupts */

static int attach_interrupt(struct load *load, int index, const struct bpf_program *prog, int fd)
{
	if (fd < 0)
		return fd;
	load->interrupts[index] = bpf_program__attach_perf_event(prog, fd);
	return load->interrupts[index] ? 0 : -errno;
}

/* A breakpoint is an NMI to the kernel. */
static int open_breakpoint(__u64 address, int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_W,
		.bp_addr = address,
		.bp_len = HW_BREAKPOINT_LEN_8,
		.sample_period = 1,
		.exclude_user = 1,
	};
	int fd = syscall(__NR_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Runs a program of timers for each CPU, there */
static int run_on_each(const struct load *load, const struct bpf_program *prog)
{
	cpu_set_t before;
	int cpu, err = 0;

	if (sched_getaffinity(0, sizeof(before), &before))
		return -errno;
	for (cpu = 0; cpu < load->cpus && !err; cpu++) {
		__u64 index = cpu;

		err = pin_to_cpu(cpu) ?: run_program(prog, &index, sizeof(index));
	}
	if (sched_setaffinity(0, sizeof(before), &before) && !err)
		err = -errno;
	return err;
}

static int start_interrupts(struct load *load)
{
	struct soak_bpf *skel = load->skel;
	int cpu, err = run_program(skel->progs.find_watched, NULL, 0);

	for (cpu = 0; cpu < load->cpus && !err; cpu++) {
		err = attach_interrupt(load, 2 * cpu, skel->progs.in_hardirq,
				       open_cpu_clock(-1, cpu));
		err = err ?: attach_interrupt(load, 2 * cpu + 1, skel->progs.in_nmi,
				open_breakpoint(skel->bss->watched_address, cpu));
	}
	return err ?: run_on_each(load, skel->progs.start_timer);
}

/* --- all of them */

static int start_thread(struct load *load, int index, void *(*run)(void *), void *argument)
{
	int err = -pthread_create(&load->threads[index], NULL, run, argument);

	if (err)
		load->threads[index] = 0;
	return err;
}

int load_start(struct load *load, __u64 seed, bool pointers)
{
	static struct worker workers[MAX_CPUS];
	struct soak_bpf *skel = load->skel;
	int i, err;

	load->cpus = online_cpus();
	if (load->cpus > MAX_CPUS)
		return -E2BIG;
	for (i = 0; i < NR_STREAMS; i++) {
		skel->bss->streams[i].random = seed_of(seed, i);
		skel->bss->streams[i].operations = 0;
	}
	load->random_of_syscalls = seed_of(seed, NR_STREAMS);
	load->random_of_links = seed_of(seed, NR_STREAMS + 1);
	load->pointers = pointers;
	load->stop = 0;
	memset(load->threads, 0, sizeof(load->threads));
	memset(load->interrupts, 0, sizeof(load->interrupts));
	skel->bss->pointers = pointers;
	__atomic_store_n(&skel->bss->running, 1, __ATOMIC_SEQ_CST);

	err = start_interrupts(load);
	for (i = 0; i < load->cpus && !err; i++) {
		workers[i] = (struct worker){ .load = load, .cpu = i };
		err = start_thread(load, i, run_programs, &workers[i]);
	}
	err = err ?: start_thread(load, SYSCALLS_THREAD, run_syscalls, load);
	err = err ?: start_thread(load, LINKS_THREAD, run_links, load);
	if (err)
		load_stop(load);
	return err;
}

void load_stop(struct load *load)
{
	static const enum source sources[] = { PROGRAMS, HARDIRQ, NMI, TIMERS };
	struct soak_bpf *skel = load->skel;
	int i, err;

	__atomic_store_n(&load->stop, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < MAX_CPUS + 2; i++)
		if (load->threads[i])
			pthread_join(load->threads[i], NULL);
	for (i = 0; i < 2 * MAX_CPUS; i++)
		bpf_link__destroy(load->interrupts[i]);
	__atomic_store_n(&skel->bss->running, 0, __ATOMIC_SEQ_CST);
	err = run_on_each(load, skel->progs.cancel_timer);
	if (err)
		fail(load, "cancel of a timer", err);
	for (i = 0; i < NR_STREAMS; i++)
		load->operations[sources[i / STREAMS_EACH]] += skel->bss->streams[i].operations;
}
