/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The content of a map, in memory: for comparisons, and for the copies that are made without
 * tracers
 */
#ifndef COPIES_H
#define COPIES_H

#include <stdbool.h>

#include <linux/types.h>

#include "soak.h"

struct bpf_program;

struct copy {
	__u32 nr_keys;
	/* One, or one for each CPU */
	__u32 nr_values;
	struct {
		bool there;
		__u64 values[MAX_CPUS];
	} elements[NR_KEYS];
};

/* Key by key, from a map that nobody changes. 0 or a negative errno, as all of these */
int read_map(int map, struct copy *copy);
/* The same from a mirror, and the other way */
int read_mirror(int mirror, struct copy *copy);
int write_mirror(int mirror, const struct copy *copy);

/* What is read is added to the copy, and what is not there stays in it. */
int sweep(int map, struct copy *copy);
/* By a program that writes keys and values to the file of its iterator */
int copy_by_iterator(const struct bpf_program *prog, int map, struct copy *copy);

bool differs(const struct copy *a, const struct copy *b, __u32 key);
__u32 count_differing(const struct copy *a, const struct copy *b);

#endif
