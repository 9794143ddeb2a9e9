/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the BPF programs of the demo and user space: both layouts */
#ifndef DEMO_H
#define DEMO_H

#define COMM_SIZE 16

/* The source: __u32 pid -> struct process */
struct process {
	__u64 start_ns;
	__u32 parent;
	__u32 execs;
	char comm[COMM_SIZE];
};

/*
 * The mirror: the key is the result of bpf_get_current_pid_tgid(), the time is in
 * microseconds, and the members are in another order.
 */
struct process_v2 {
	char comm[COMM_SIZE];
	__u32 execs;
	__u32 parent;
	__u64 start_us;
};

enum mirrored_kind {
	MIRRORED_UPDATE,
	MIRRORED_DELETE,
};

/* One in SAMPLE_INTERVAL mirrored events is shown, and the first SAMPLE_FIRST. */
#define SAMPLE_FIRST 8
#define SAMPLE_INTERVAL 1000

struct mirrored {
	__u64 number;
	__u64 key;
	__u32 kind;
	__u32 cpu;
	struct process_v2 value;
};

#endif
