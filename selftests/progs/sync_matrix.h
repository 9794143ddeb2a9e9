/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the programs of the matrix of sync tracers and user space */
#ifndef SYNC_MATRIX_SHARED_H
#define SYNC_MATRIX_SHARED_H

/* The keys that are there when a cell begins, of which it writes one */
#define CELL_KEYS 16

#define HASH_ENTRIES 32
#define LRU_ENTRIES 64
/* So many keys, from here on, do not fit */
#define EVICTING_KEYS 96
#define FIRST_EVICTING_KEY 1000

#define MAX_CPUS 8

/* As much of it as the map's key_size says: an LPM trie wants two words. */
struct cell_key {
	__u32 words[2];
};

/* Its size is no multiple of 8. Where it has special fields, those come after. */
struct cell_value {
	__u32 words[5];
};

struct mirror_key {
	struct cell_key key;
	__u32 cpu;
};

/* Where a program has run */
enum seen { SEEN_TASK, SEEN_SOFTIRQ, SEEN_HARDIRQ, SEEN_NMI };

#endif
