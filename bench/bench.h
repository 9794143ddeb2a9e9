/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of the benchmark share. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/types.h>

/*
 * As many keys as a map has entries, but for the LRU types: they would evict, and
 * take another way at each of their updates.
 */
#define MAX_ENTRIES 1024

/* What the clock counts: see clock_now() */
extern bool count_instructions;

/* On the emulated machine of "-icount shift=0" instructions, else nanoseconds */
__u64 clock_now(void);

/* One figure, on standard output; its name has parts, from the widest to the narrowest */
void __attribute__((format(printf, 2, 3))) figure(double value, const char *name, ...);

/* A line that says how far it got, on standard error */
void __attribute__((format(printf, 1, 2))) progress(const char *format, ...);

/* Say on standard error what failed, and end */
void __attribute__((noreturn)) die(const char *what, int err);

/* Whether this kernel has map tracing: the unpatched one has not */
bool can_trace_maps(void);

/* What is measured */
void bench_operations(void);
void bench_links(void);
void bench_programs(void);

#endif
