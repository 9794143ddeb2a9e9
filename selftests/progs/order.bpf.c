// SPDX-License-Identifier: GPL-2.0
/* Tracers that note in which order they run */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "order.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps"), other SEC(".maps");

/* The cookies of the links */
__u64 ran[MAX_RUNS];
__u32 nr_ran;

static int note(void *ctx)
{
	__u32 run = __sync_fetch_and_add(&nr_ran, 1);

	if (run < MAX_RUNS)
		ran[run] = bpf_get_attach_cookie(ctx);
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int one(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return note(ctx);
}

SEC("map_trace/source/UPDATE_ELEM")
int two(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return note(ctx);
}

SEC("map_trace/source/DELETE_ELEM")
int deleted(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return note(ctx);
}

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	return note(ctx);
}
