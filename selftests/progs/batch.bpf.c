// SPDX-License-Identifier: GPL-2.0
/* A slow tracer */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define ITERATIONS 2000

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} traced SEC(".maps");

__u64 runs;
__u64 sink;

static long iterate(__u32 i, void *ctx)
{
	sink += i;
	return 0;
}

SEC("map_trace/traced/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	bpf_loop(ITERATIONS, iterate, NULL, 0);
	runs++;
	return 0;
}
