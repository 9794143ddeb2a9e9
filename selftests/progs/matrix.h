/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the programs of the matrix and user space */
#ifndef MATRIX_H
#define MATRIX_H

#define MATRIX_KEYS 32
#define MATRIX_CPUS 64

/* As much of it as the map's key_size says: an LPM trie wants two words. */
struct matrix_key {
	__u32 words[2];
};

/* Its size is no multiple of 8: slices of a per-CPU value are further apart. */
struct matrix_value {
	__u32 lock; /* always 0 but for the bpf_spin_lock that may be here */
	__u32 number;
	__u32 complement;
};

struct matrix_slice {
	struct matrix_value value;
	__u32 padding;
};

#endif
