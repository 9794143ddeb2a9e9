// SPDX-License-Identifier: GPL-2.0
/*
 * One tracer, in each way to run it: read the key and the value, and add them to a counter.
 * Hooks that see every map first check which map it is.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

/* What the hooks on functions of the kernel look for */
const volatile __u32 traced_map_id;

__u64 sum;

static __always_inline int count(__u64 key, __u64 value)
{
	sum += key + value;
	return 0;
}

SEC("map_trace/measured/UPDATE_ELEM")
int map_trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return count(*(__u32 *)ctx->key, *(__u64 *)ctx->value);
}

SEC("map_trace/measured/DELETE_ELEM")
int map_trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return count(*(__u32 *)ctx->key, 0);
}

/* They are told of what was there before, and of what fills the map before it is emptied, too. */
static __always_inline bool is_measured(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	return ctx->reason == BPF_MAP_TRACE_REASON_OPERATION;
}

SEC("map_trace/measured/SYNC_ELEM")
int sync_update(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;

	if (!value || !is_measured(ctx))
		return 0;
	return count(*(__u32 *)ctx->key, *value);
}

SEC("map_trace/measured/SYNC_ELEM")
int sync_delete(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	if (ctx->value || !is_measured(ctx))
		return 0;
	return count(*(__u32 *)ctx->key, 0);
}

static __always_inline int count_if_traced(__u32 map_id, const void *key_ptr, const void *value_ptr)
{
	__u32 key = 0;
	__u64 value = 0;

	if (map_id != traced_map_id)
		return 0;
	bpf_probe_read_kernel(&key, sizeof(key), key_ptr);
	if (value_ptr)
		bpf_probe_read_kernel(&value, sizeof(value), value_ptr);
	return count(key, value);
}

/* Their functions are set before they are loaded. */
SEC("fentry")
int BPF_PROG(fentry_update, struct bpf_map *map, void *key, void *value)
{
	return count_if_traced(map->id, key, value);
}

SEC("fentry")
int BPF_PROG(fentry_delete, struct bpf_map *map, void *key)
{
	return count_if_traced(map->id, key, NULL);
}

SEC("fexit")
int BPF_PROG(fexit_update, struct bpf_map *map, void *key, void *value)
{
	return count_if_traced(map->id, key, value);
}

SEC("fexit")
int BPF_PROG(fexit_delete, struct bpf_map *map, void *key)
{
	return count_if_traced(map->id, key, NULL);
}

SEC("kprobe")
int BPF_KPROBE(kprobe_update, struct bpf_map *map, void *key, void *value)
{
	return count_if_traced(BPF_CORE_READ(map, id), key, value);
}

SEC("kprobe")
int BPF_KPROBE(kprobe_delete, struct bpf_map *map, void *key)
{
	return count_if_traced(BPF_CORE_READ(map, id), key, NULL);
}
