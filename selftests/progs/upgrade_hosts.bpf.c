// SPDX-License-Identifier: GPL-2.0
/* An LRU map as the mirror of a map that does not evict, and the other way round */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "upgrade_layouts.h"

char _license[] SEC("license") = "GPL";

#define ENOENT 2

/* The tests set what else there is of them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_HOSTS);
	__type(key, __u32);
	__type(value, __u64);
} hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NR_HOSTS);
	__type(key, __u32);
	__type(value, __u64);
} hosts_v2 SEC(".maps");

SEC("map_trace/hosts/SYNC_ELEM")
int follow(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;
	long err;

	if (value)
		return bpf_map_update_elem(&hosts_v2, ctx->key, value, BPF_ANY) ? 1 : 0;
	err = bpf_map_delete_elem(&hosts_v2, ctx->key);
	return err && err != -ENOENT;
}

/* How many the new map has given up */
__u64 given_up;

SEC("map_trace/hosts_v2/DELETE_ELEM")
int count_evictions(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	if (ctx->reason == BPF_MAP_TRACE_REASON_EVICTION)
		__sync_fetch_and_add(&given_up, 1);
	return 0;
}

__u32 nr_keys;

SEC("raw_tp")
int fill(void *ctx)
{
	__u32 i;

	bpf_for(i, 0, nr_keys) {
		__u64 value = i;
		__u32 key = i;

		if (bpf_map_update_elem(&hosts, &key, &value, BPF_ANY))
			return 1;
	}
	return 0;
}
