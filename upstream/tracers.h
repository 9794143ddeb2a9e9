/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tracers count, and the library that attaches them, in memory that all processes of
 * a run share: the global data of the tracers, which is pinned beside them.
 */
#ifndef TRACERS_H
#define TRACERS_H

/* Those of enum bpf_map_trace_type */
#define NR_TRACERS 3
/* More than there are types of maps, and errnos; what is larger counts as the last one. */
#define NR_MAP_TYPES 64
#define NR_ERRNOS 135

#define PIN_DIRECTORY "/sys/fs/bpf/upstream"

struct tracer_counts {
	/* By the tracers. A key or value that has been read is added, so that it is read. */
	__u64 runs[NR_TRACERS];
	__u64 read;
	/* By the library: links that were made, and what they said at their end */
	__u64 links[NR_TRACERS];
	__u64 missed;
	__u64 lost;
	/* Maps without one: why, by tracer */
	__u32 refused[NR_TRACERS][NR_MAP_TYPES][NR_ERRNOS];
};

#endif
