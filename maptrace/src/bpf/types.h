/* SPDX-License-Identifier: GPL-2.0 */
/* What the programs of maptrace have to know of the kernel, relocated when they are loaded */
#ifndef MAPTRACE_TYPES_H
#define MAPTRACE_TYPES_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define RELOCATED __attribute__((preserve_access_index))

struct bpf_map {
	__u32 id;
	/* for each CPU; NULL where elements are not counted */
	__s64 *elem_count;
} RELOCATED;

struct bpf_htab {
	struct bpf_map map;
} RELOCATED;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} RELOCATED;

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
} RELOCATED;

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
} RELOCATED;

/*
 * The contexts of map tracers: a slot of 8 bytes for each field, which is their contract.
 * Not every kernel has ->reason.
 */
struct bpf_map_trace_ctx__update_elem {
	void *key;
	void *value;
	__u64 flags;
	struct bpf_map *map;
	__u64 cpu;
	__u64 reason;
};

struct bpf_map_trace_ctx__delete_elem {
	void *key;
	struct bpf_map *map;
	__u64 cpu;
	__u64 reason;
};

struct bpf_map_trace_ctx__sync_elem {
	void *key;
	void *value;
	struct bpf_map *map;
	__u64 cpu;
	__u64 reason;
};

/* enum bpf_map_trace_reason */
#define MAP_TRACE_REASON_EVICTION 1
#define MAP_TRACE_REASON_FLUSH 4

#endif
