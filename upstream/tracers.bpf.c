// SPDX-License-Identifier: GPL-2.0
/*
 * The tracers that every map of the kernel's own tests gets: they read the ends of what they
 * are told, which all maps have, and count.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "tracers.h"

char _license[] SEC("license") = "GPL";

struct tracer_counts counts;

static int count(enum bpf_map_trace_type tracer, const void *key, const void *value)
{
	__u64 read = *(const __u8 *)key;

	if (value)
		read += *(const __u8 *)value;
	__sync_fetch_and_add(&counts.read, read);
	__sync_fetch_and_add(&counts.runs[tracer], 1);
	return 0;
}

SEC("map_trace/UPDATE_ELEM")
int trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return count(BPF_MAP_TRACE_UPDATE_ELEM, ctx->key, ctx->value);
}

SEC("map_trace/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return count(BPF_MAP_TRACE_DELETE_ELEM, ctx->key, NULL);
}

SEC("map_trace/SYNC_ELEM")
int trace_sync(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	return count(BPF_MAP_TRACE_SYNC_ELEM, ctx->key, ctx->value);
}
