/* SPDX-License-Identifier: GPL-2.0 */
#ifndef RUNS_H
#define RUNS_H

#include <linux/types.h>

/* How often a process ran, by its pid: what runs.bpf.c counts */
struct run {
	__u64 times;
	__u64 last_ns;
};

/* The same in another layout: what follow.bpf.c makes of it */
struct run_v2 {
	__u32 last_s;
	__u32 times;
};

#define MAX_RUNS 4096

#endif
