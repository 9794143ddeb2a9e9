// SPDX-License-Identifier: GPL-2.0
/* A counter for each CPU and key, in two layouts: in the new layout each counter has its own key */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "upgrade_layouts.h"

char _license[] SEC("license") = "GPL";

#define ENOENT 2

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, NR_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_FLOWS * MAX_CPUS);
	__type(key, struct counter);
	__type(value, struct flow);
} counters_v2 SEC(".maps");

/* How many CPUs there are: that a key is gone is told once for all. */
__u32 nr_cpus;

SEC("map_trace/counters/SYNC_ELEM")
int follow(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct counter counter = { .key = *(__u32 *)ctx->key, .cpu = ctx->cpu };
	__u64 *packets = ctx->value;
	struct flow flow = {};
	__u32 cpu;
	long err;

	if (packets) {
		flow.packets = *packets;
		return bpf_map_update_elem(&counters_v2, &counter, &flow, BPF_ANY) ? 1 : 0;
	}
	bpf_for(cpu, 0, nr_cpus) {
		counter.cpu = cpu;
		err = bpf_map_delete_elem(&counters_v2, &counter);
		if (err && err != -ENOENT)
			return 1;
	}
	return 0;
}

__u32 counter_key;

SEC("raw_tp")
int count(void *ctx)
{
	__u32 key = counter_key;
	__u64 one = 1, *counter;

	counter = bpf_map_lookup_elem(&counters, &key);
	if (!counter)
		return bpf_map_update_elem(&counters, &key, &one, BPF_NOEXIST);
	*counter += 1;
	return 0;
}
