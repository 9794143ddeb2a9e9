// SPDX-License-Identifier: GPL-2.0
/*
 * A map of processes, which programs on three tracepoints update, and a mirror of it with
 * another layout, which two tracers of that map update.
 *
 * The programs on the tracepoints do not know about the mirror. They could have been running
 * for weeks before somebody attached the tracers.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "demo.h"

char _license[] SEC("license") = "GPL";

#define MAX_PROCESSES 8192

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PROCESSES);
	__type(key, __u64);
	__type(value, struct process_v2);
} processes_v2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} samples SEC(".maps");

/* The tracepoints: user space clears following, and waits until begun equals ended. */
__u32 following;
__u64 begun;
__u64 ended;
__u64 source_updates;
__u64 source_deletes;
__u64 source_failures;

/* The tracers */
__u64 mirrored_updates;
__u64 mirrored_deletes;

static void count(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static void update(__u32 pid, const struct process *process)
{
	if (bpf_map_update_elem(&processes, &pid, process, BPF_ANY))
		count(&source_failures);
	else
		count(&source_updates);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct process process = {};

	/* Not a thread */
	if (child->pid != child->tgid)
		return 0;
	count(&begun);
	if (following) {
		process.start_ns = child->start_boottime;
		process.parent = parent->tgid;
		BPF_CORE_READ_STR_INTO(&process.comm, child, comm);
		update(child->tgid, &process);
	}
	count(&ended);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task)
{
	struct process process = {};
	struct process *old;
	__u32 pid = task->tgid;

	count(&begun);
	if (following) {
		process.start_ns = task->start_boottime;
		process.parent = task->real_parent->tgid;
		BPF_CORE_READ_STR_INTO(&process.comm, task, comm);
		old = bpf_map_lookup_elem(&processes, &pid);
		process.execs = (old ? old->execs : 0) + 1;
		update(pid, &process);
	}
	count(&ended);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	__u32 pid = task->tgid;

	if (task->pid != pid)
		return 0;
	count(&begun);
	/* The delete fails for a process that is older than the map, and is then not traced. */
	if (following && !bpf_map_delete_elem(&processes, &pid))
		count(&source_deletes);
	count(&ended);
	return 0;
}

static __u64 key_v2(const __u32 *pid)
{
	return (__u64)*pid << 32 | *pid;
}

static void show(__u32 kind, __u64 number, __u64 key, __u32 cpu, const struct process_v2 *value)
{
	struct mirrored *mirrored;

	if (number >= SAMPLE_FIRST && number % SAMPLE_INTERVAL)
		return;
	mirrored = bpf_ringbuf_reserve(&samples, sizeof(*mirrored), 0);
	if (!mirrored)
		return;
	__builtin_memset(mirrored, 0, sizeof(*mirrored));
	mirrored->number = number;
	mirrored->key = key;
	mirrored->kind = kind;
	mirrored->cpu = cpu;
	if (value)
		mirrored->value = *value;
	bpf_ringbuf_submit(mirrored, 0);
}

SEC("map_trace/processes/UPDATE_ELEM")
int mirror_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	const struct process *process = ctx->value;
	struct process_v2 value = {};
	__u64 key = key_v2(ctx->key);

	value.start_us = process->start_ns / 1000;
	value.parent = process->parent;
	value.execs = process->execs;
	__builtin_memcpy(value.comm, process->comm, COMM_SIZE);
	/* 1: the tracer has failed. The link counts it. */
	if (bpf_map_update_elem(&processes_v2, &key, &value, BPF_ANY))
		return 1;
	show(MIRRORED_UPDATE, __sync_fetch_and_add(&mirrored_updates, 1), key, ctx->cpu, &value);
	return 0;
}

SEC("map_trace/processes/DELETE_ELEM")
int mirror_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u64 key = key_v2(ctx->key);

	if (bpf_map_delete_elem(&processes_v2, &key))
		return 1;
	show(MIRRORED_DELETE, __sync_fetch_and_add(&mirrored_deletes, 1), key, ctx->cpu, NULL);
	return 0;
}
