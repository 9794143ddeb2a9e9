// SPDX-License-Identifier: GPL-2.0
/*
 * The RFC's example, by its names: tracers that fill the map of the next version of a program.
 * The old map is that of rfc.bpf.c, which user space puts in here.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "rfc.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} old_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct rfc_new_key);
	__type(value, __u32);
} new_map SEC(".maps");

static int migrate_write(const void *key, const void *value)
{
	struct rfc_new_key new_key = {};
	__u32 old_value = 0;

	if (bpf_probe_read(&new_key.number, sizeof(new_key.number), key) ||
	    bpf_probe_read(&old_value, sizeof(old_value), value))
		return 1;
	return bpf_map_update_elem(&new_map, &new_key, &old_value, 0) ? 1 : 0;
}

SEC("map_trace/old_map/UPDATE_ELEM")
int copy_on_write__update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return migrate_write(ctx->key, ctx->value);
}

SEC("map_trace/old_map/DELETE_ELEM")
int copy_on_write__delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	struct rfc_new_key new_key = {};

	if (bpf_probe_read(&new_key.number, sizeof(new_key.number), ctx->key))
		return 1;
	bpf_map_delete_elem(&new_map, &new_key);
	return 0;
}

SEC("iter/bpf_map_elem")
int bulk_migration(struct bpf_iter__bpf_map_elem *ctx)
{
	if (ctx->key && ctx->value)
		migrate_write(ctx->key, ctx->value);
	return 0;
}
