// SPDX-License-Identifier: GPL-2.0
/*
 * A large map with the smallest possible sync tracer, lookups in it, and a measurement of the
 * worker of the map.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "states.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} measured SEC(".maps");

/* How often the tracer ran, and when it did first, and for the @expected-th time */
__u64 told, expected, first, last;

/* When the work began that runs on a kworker. One that sleeps lets others run. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct started);
} started SEC(".maps");

/* The worker of the map is known by the tracer, which it runs; what it has taken so far */
__u64 worker, worker_time, worker_runs;
__u32 errors;

SEC("?map_trace/measured/SYNC_ELEM")
int count_told(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct started *work;
	__u32 pid;

	told++;
	if (told == 1) {
		pid = bpf_get_current_pid_tgid();
		work = bpf_map_lookup_elem(&started, &pid);
		if (work)
			worker = work->function;
		first = bpf_ktime_get_ns();
	} else if (told == expected) {
		last = bpf_ktime_get_ns();
	}
	return 0;
}

SEC("?tp_btf/workqueue_execute_start")
int BPF_PROG(on_work, struct work_struct *work)
{
	struct started now = { bpf_ktime_get_ns(), (__u64)work->func };
	__u32 pid = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&started, &pid, &now, BPF_ANY))
		errors++;
	return 0;
}

SEC("?tp_btf/workqueue_execute_end")
int BPF_PROG(on_work_done, struct work_struct *work, work_func_t function)
{
	__u32 pid = bpf_get_current_pid_tgid();
	struct started *began = bpf_map_lookup_elem(&started, &pid);

	if (began && worker && (__u64)function == worker) {
		worker_time += bpf_ktime_get_ns() - began->time;
		worker_runs++;
	}
	bpf_map_delete_elem(&started, &pid);
	return 0;
}

static long fill_one(__u64 i, void *ctx)
{
	__u32 key = i;

	if (bpf_map_update_elem(&measured, &key, &i, BPF_ANY))
		errors++;
	return 0;
}

/* How many of the first keys the programs below take */
__u32 keys;

SEC("raw_tp")
int fill(void *ctx)
{
	bpf_loop(keys, fill_one, NULL, 0);
	return 0;
}

/* What the loop takes that does the lookups, twice the same: it may be in other code */
__u64 took[2];
__u64 sum;

static long pass(__u64 i, void *ctx)
{
	__u32 key = i;

	sum += key;
	return 0;
}

static long read_one(__u64 i, void *ctx)
{
	__u32 key = i;
	__u64 *value = bpf_map_lookup_elem(&measured, &key);

	if (value)
		sum += *value;
	return 0;
}

static long write_one(__u64 i, void *ctx)
{
	__u32 key = i;
	__u64 *value = bpf_map_lookup_elem(&measured, &key);

	if (value)
		*value = i;
	return 0;
}

#define TIMED_TWICE(name)							\
SEC("raw_tp")									\
int run_##name(void *ctx)							\
{										\
	__u64 begin = bpf_ktime_get_ns(), middle;				\
										\
	bpf_loop(keys, name, NULL, 0);						\
	middle = bpf_ktime_get_ns();						\
	bpf_loop(keys, name, NULL, 0);						\
	took[0] = middle - begin;						\
	took[1] = bpf_ktime_get_ns() - middle;					\
	return 0;								\
}

TIMED_TWICE(pass)
TIMED_TWICE(read_one)
TIMED_TWICE(write_one)
