// SPDX-License-Identifier: GPL-2.0
/*
 * A program whose map is in use, and which knows nothing of tracers: how often each process ran
 * since its exec. It writes the map in three ways: an update, a delete, and in place.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "runs.h"

char _license[] SEC("license") = "GPL";

struct task_struct {
	int pid;
	int tgid;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RUNS);
	__type(key, __u32);
	__type(value, struct run);
} runs SEC(".maps");

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task)
{
	struct run run = { .last_ns = bpf_ktime_get_ns() };
	__u32 pid = task->tgid;

	bpf_map_update_elem(&runs, &pid, &run, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempt, struct task_struct *from, struct task_struct *to)
{
	__u32 pid = to->tgid;
	struct run *run = bpf_map_lookup_elem(&runs, &pid);

	if (run) {
		__sync_fetch_and_add(&run->times, 1);
		run->last_ns = bpf_ktime_get_ns();
	}
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct *task)
{
	__u32 pid = task->tgid;

	if (task->pid == task->tgid)
		bpf_map_delete_elem(&runs, &pid);
	return 0;
}
