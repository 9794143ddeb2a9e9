/* SPDX-License-Identifier: GPL-2.0 */
/* What the tracers on the old map and on the new one of a migration share */
#ifndef MAPTRACE_MIGRATION_H
#define MAPTRACE_MIGRATION_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include "../../include/maptrace_convert.h"

/* A task, a softirq, a hardirq and an NMI can each be in the tracer, on each CPU. */
#define LEVELS 4

/* What a CPU has done. migration.rs has the same. */
struct cpu_state {
	/* How many tracers are under way, each interrupted by the next one */
	__u64 level;
	__u64 updates;
	__u64 deletes;
	/* What did not fit into a field */
	__u64 cut;
	/* and into the map */
	__u64 full;
	__u64 failed;
	__s64 error;
	/* Operations on keys that the new program has written */
	__u64 both;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_state);
} maptrace_cpus SEC(".maps");

/* The keys of the new map that its program has written since it was switched */
maptrace_noted_t maptrace_noted SEC(".maps");

#endif
