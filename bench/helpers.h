/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by all parts of the benchmark: the clock, and the output of figures and errors. */
#ifndef HELPERS_H
#define HELPERS_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>

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

/* Write to a file of /proc/sys; what was there, cut, goes to @old, if that is given. */
void set_sysctl(const char *path, const char *value, char *old, size_t old_size);

/* For qsort() */
int compare_times(const void *a, const void *b);

#endif
