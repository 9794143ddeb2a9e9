// SPDX-License-Identifier: GPL-2.0
/* Updates and deletes from several CPUs, counted on both sides of the operation */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define OPERATIONS_A_RUN 64

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

/* Each operation counts before it begins and, if it succeeded, after it ended. */
__u64 updates_begun;
__u64 updates_done;
__u64 deletes_begun;
__u64 deletes_done;
__u64 failures;

/* What the tracers saw */
__u64 updates_traced;
__u64 updates_traced_by_second;
__u64 deletes_traced;
__u64 wrong_values;

static int operate(__u32 i, void *data)
{
	/* Keys of their own for each CPU: no operation fails. */
	__u32 key = bpf_get_smp_processor_id() * OPERATIONS_A_RUN + i;
	__u64 value = ~(__u64)key;

	__sync_fetch_and_add(&updates_begun, 1);
	if (bpf_map_update_elem(&source, &key, &value, BPF_NOEXIST))
		__sync_fetch_and_add(&failures, 1);
	__sync_fetch_and_add(&updates_done, 1);

	__sync_fetch_and_add(&deletes_begun, 1);
	if (bpf_map_delete_elem(&source, &key))
		__sync_fetch_and_add(&failures, 1);
	__sync_fetch_and_add(&deletes_done, 1);
	return 0;
}

SEC("raw_tp")
int churn(void *ctx)
{
	bpf_loop(OPERATIONS_A_RUN, operate, NULL, 0);
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int count_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	if (*(__u64 *)ctx->value != ~(__u64)*(__u32 *)ctx->key)
		__sync_fetch_and_add(&wrong_values, 1);
	__sync_fetch_and_add(&updates_traced, 1);
	return 0;
}

/* What a link runs in its place, from one update of the map to the next */
SEC("map_trace/source/UPDATE_ELEM")
int count_update_second(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&updates_traced_by_second, 1);
	return 0;
}

SEC("map_trace/source/DELETE_ELEM")
int count_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	if (*(__u32 *)ctx->key >= 256)
		__sync_fetch_and_add(&wrong_values, 1);
	__sync_fetch_and_add(&deletes_traced, 1);
	return 0;
}
