/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SYNC_H
#define SYNC_H

/* How many keys there are, and how many elements: an LRU map gives some of them up */
#define NR_KEYS 512
#define CAPACITY 512
#define CAPACITY_LRU 256

/* More than there are */
#define NR_REASONS 8

/* Of the mirror of a map with a value for each CPU */
#define MAX_CPUS 8

struct cpu_key {
	__u32 key;
	__u32 cpu;
};

#endif
