// SPDX-License-Identifier: GPL-2.0
/* Also built with the headers of a distribution's libbpf */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} mirror SEC(".maps");

/* Two maps that the kernel calls the same */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} connections_by_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} connections_by_pid SEC(".maps");

/* By cookie */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} runs SEC(".maps");

SEC("map_trace/source/UPDATE_ELEM")
int mirror_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return bpf_map_update_elem(&mirror, ctx->key, ctx->value, 0) ? 1 : 0;
}

SEC("map_trace/source/DELETE_ELEM")
int mirror_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return bpf_map_delete_elem(&mirror, ctx->key) ? 1 : 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int count_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = bpf_get_attach_cookie(ctx);
	__u32 *count = bpf_map_lookup_elem(&runs, &key);

	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

SEC("map_trace/connections_by_cpu/UPDATE_ELEM")
int tracer_of_long_name(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return bpf_map_update_elem(&mirror, ctx->key, ctx->value, 0) ? 1 : 0;
}

SEC("?map_trace/no_such_map/UPDATE_ELEM")
int tracer_of_missing_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}
