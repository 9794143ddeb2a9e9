/* SPDX-License-Identifier: GPL-2.0 */
/* Everything that writes to a map at once, and what happens to a link meanwhile */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/types.h>

#include "map_trace_libbpf.h"
#include "soak.h"

struct bpf_link;
struct soak_bpf;

/* Who writes */
enum source { PROGRAMS, HARDIRQ, NMI, TIMERS, SYSCALLS, NR_SOURCES };

struct load {
	struct soak_bpf *skel;
	__u32 nr_keys;
	/* Where it has a value for each CPU, how many, else 1 */
	__u32 nr_values;
	bool has_deletes;
	/* The link that stays, and the one that comes and goes: -1 while it is not there */
	int link, late;

	/* What was done since it was created */
	__u64 operations[NR_SOURCES];
	__u64 attaches, updates, flushes, flushed_again;
	/* Of the late links that are gone */
	__u64 late_missed, late_failed, late_lost;
	/* 0, or a negative errno, and of what */
	int err;
	const char *failed;

	/* Its own */
	int cpus;
	bool pointers;
	__u64 random_of_syscalls, random_of_links;
	__u32 stop;
	pthread_t threads[MAX_CPUS + 2];
	struct bpf_link *interrupts[2 * MAX_CPUS];
};

/* Where each stream of random numbers begins */
__u64 seed_of(__u64 seed, __u32 stream);

/* With writes through pointers, or without. 0 or a negative errno */
int load_start(struct load *load, __u64 seed, bool pointers);
/* Waits for all of them. The late link is there then. */
void load_stop(struct load *load);

/* Flush a link and count that. 0 or a negative errno, -EAGAIN among them */
int flush_link(struct load *load, int link, bool with_keys);

#endif
