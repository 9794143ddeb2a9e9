// SPDX-License-Identifier: GPL-2.0
/* A tracer that leads on to another map */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

/* Any map: put there before the program is loaded */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} next SEC(".maps");

SEC("map_trace/next/UPDATE_ELEM")
int write_next(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return bpf_map_update_elem(&next, ctx->key, ctx->value, BPF_ANY) ? 1 : 0;
}
