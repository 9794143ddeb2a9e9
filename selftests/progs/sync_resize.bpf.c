// SPDX-License-Identifier: GPL-2.0
/* A map that grows and shrinks, and its sync tracers */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "sync_resize.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RHASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RESIZE_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RESIZE_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} mirror SEC(".maps");

__u32 runs;

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;
	long err;

	__sync_fetch_and_add(&runs, 1);
	if (value)
		return bpf_map_update_elem(&mirror, ctx->key, value, BPF_ANY) ? 1 : 0;
	err = bpf_map_delete_elem(&mirror, ctx->key);
	return err && err != -2 /* ENOENT */;
}

/* What the programs below do it with */
__u32 from, to;
__u32 errors;

SEC("raw_tp")
int update_range(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u64 value = i + 1;
		__u32 key = i;

		if (bpf_map_update_elem(&source, &key, &value, BPF_ANY))
			__sync_fetch_and_add(&errors, 1);
	}
	return 0;
}

SEC("raw_tp")
int delete_range(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;

		if (bpf_map_delete_elem(&source, &key))
			__sync_fetch_and_add(&errors, 1);
	}
	return 0;
}

/* Nobody is told of these. */
SEC("raw_tp")
int write_through_pointers(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;
		__u64 *value = bpf_map_lookup_elem(&source, &key);

		if (value)
			*value += 1000;
	}
	return 0;
}
