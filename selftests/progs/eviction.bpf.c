// SPDX-License-Identifier: GPL-2.0
/* An LRU map that is filled beyond its size, and its tracers */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "eviction.h"

char _license[] SEC("license") = "GPL";

extern void bpf_local_irq_save(unsigned long *flags) __weak __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __weak __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CAPACITY);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

/* Which keys are inserted, and whether each insertion fails */
__u32 from, to;
__u64 update_flags;
__u32 update_errors;

/* How often the tracers were told of a key */
__u32 evicted[NR_KEYS], deleted[NR_KEYS];
__u32 nr_updated, nr_evicted, nr_other;
/* The most that a mirror would have had */
__u32 most;
/* The most keys that an operation was told of before its own update */
__u32 evicted_before, burst;
__u32 wrong_map;

static void fill(void)
{
	__u64 value = 1;
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;

		if (bpf_map_update_elem(&source, &key, &value, update_flags))
			update_errors++;
	}
}

SEC("raw_tp")
int fill_plain(void *ctx)
{
	fill();
	return 0;
}

SEC("syscall")
int fill_sleepable(void *ctx)
{
	fill();
	return 0;
}

/* Without interrupts no tick comes, and so no worker */
SEC("raw_tp")
int fill_alone(void *ctx)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	fill();
	bpf_local_irq_restore(&flags);
	return 0;
}

__u32 next_key, end_key;

/* As an interrupt, beside what the task does */
SEC("perf_event")
int insert_in_hardirq(void *ctx)
{
	__u32 key = __sync_fetch_and_add(&next_key, 1);
	__u64 value = 1;

	if (key < end_key && bpf_map_update_elem(&source, &key, &value, 0))
		__sync_fetch_and_add(&update_errors, 1);
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int updated(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 size = __sync_fetch_and_add(&nr_updated, 1) + 1 - nr_evicted;

	if (ctx->reason != BPF_MAP_TRACE_REASON_OPERATION)
		__sync_fetch_and_add(&nr_other, 1);
	if (size > most)
		most = size;
	if (nr_evicted - evicted_before > burst)
		burst = nr_evicted - evicted_before;
	evicted_before = nr_evicted;
	return 0;
}

SEC("map_trace/source/DELETE_ELEM")
int given_up(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u32 key = *(__u32 *)ctx->key;

	if (key >= NR_KEYS) {
		__sync_fetch_and_add(&nr_other, 1);
	} else if (ctx->reason == BPF_MAP_TRACE_REASON_EVICTION) {
		__sync_fetch_and_add(&evicted[key], 1);
		__sync_fetch_and_add(&nr_evicted, 1);
	} else if (ctx->reason == BPF_MAP_TRACE_REASON_OPERATION) {
		__sync_fetch_and_add(&deleted[key], 1);
	} else {
		__sync_fetch_and_add(&nr_other, 1);
	}
	if (ctx->map != (struct bpf_map *)&source)
		wrong_map++;
	return 0;
}

/* How long the next run of this one takes, and whether that has begun */
__u64 hold_ns;
__u32 held;

SEC("map_trace/source/DELETE_ELEM")
int takes_long(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u64 end = bpf_ktime_get_ns() + hold_ns;
	int i;

	if (!hold_ns)
		return 0;
	hold_ns = 0;
	held = 1;
	bpf_for(i, 0, 1 << 23)
		if (bpf_ktime_get_ns() > end)
			break;
	return 0;
}
