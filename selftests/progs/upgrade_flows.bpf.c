// SPDX-License-Identifier: GPL-2.0
/* Counters that are written in place. The new layout has a lock */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "upgrade_layouts.h"

char _license[] SEC("license") = "GPL";

#define ENOENT 2

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct flow_v2 {
	struct bpf_spin_lock lock;
	__u32 flags;
	__u64 bytes;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_FLOWS);
	__type(key, __u32);
	__type(value, struct flow_v2);
} flows_v2 SEC(".maps");

/* The mirrors of event tracers, and of a sync tracer that is not idempotent */
struct copy_of_flows {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
};

struct copy_of_flows by_operations SEC(".maps");
struct copy_of_flows sums_of_updates SEC(".maps");
struct copy_of_flows sums_of_states SEC(".maps");

SEC("map_trace/flows/SYNC_ELEM")
int follow(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct flow *flow = ctx->value;
	struct flow_v2 next = {};
	long err;

	if (!flow) {
		err = bpf_map_delete_elem(&flows_v2, ctx->key);
		return err && err != -ENOENT;
	}
	next.bytes = flow->bytes;
	next.packets = flow->packets;
	return bpf_map_update_elem(&flows_v2, ctx->key, &next, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/flows/UPDATE_ELEM")
int updated(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return bpf_map_update_elem(&by_operations, ctx->key, ctx->value, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/flows/DELETE_ELEM")
int deleted(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	bpf_map_delete_elem(&by_operations, ctx->key);
	return 0;
}

static int add(void *sums, const void *key, const struct flow *flow)
{
	struct flow zero = {}, *sum;

	bpf_map_update_elem(sums, key, &zero, BPF_NOEXIST);
	sum = bpf_map_lookup_elem(sums, key);
	if (!sum)
		return 1;
	sum->packets += flow->packets;
	return 0;
}

/* Right: each update is told once. */
SEC("map_trace/flows/UPDATE_ELEM")
int add_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return add(&sums_of_updates, ctx->key, ctx->value);
}

/* Wrong: a state can be told as often as anybody likes. */
SEC("map_trace/flows/SYNC_ELEM")
int add_state(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct flow *flow = ctx->value;

	return flow ? add(&sums_of_states, ctx->key, flow) : 0;
}

/* What the program below does it with */
__u32 flow_key;

/* A packet of 100 bytes */
SEC("raw_tp")
int packet(void *ctx)
{
	struct flow *flow, first = { .packets = 1, .bytes = 100 };
	__u32 key = flow_key;

	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return bpf_map_update_elem(&flows, &key, &first, BPF_NOEXIST);
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, 100);
	return 0;
}

/* The same in the next version. Programs that trace may not take locks. */
SEC("tc")
int packet_v2(void *ctx)
{
	__u32 key = flow_key;
	struct flow_v2 *flow = bpf_map_lookup_elem(&flows_v2, &key);

	if (!flow)
		return 1;
	bpf_spin_lock(&flow->lock);
	flow->packets++;
	flow->bytes += 100;
	bpf_spin_unlock(&flow->lock);
	return 0;
}

/* A pointer is kept while its element goes to another key. */
SEC("raw_tp")
int write_through_old_pointer(void *ctx)
{
	struct flow *flow, zero = {};
	__u32 first = 1, second = 2;

	flow = bpf_map_lookup_elem(&flows, &first);
	if (!flow)
		return 1;
	if (bpf_map_delete_elem(&flows, &first) ||
	    bpf_map_update_elem(&flows, &second, &zero, BPF_ANY))
		return 1;
	flow->packets = 7;
	return 0;
}
