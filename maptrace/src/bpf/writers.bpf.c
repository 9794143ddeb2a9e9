// SPDX-License-Identifier: GPL-2.0
/*
 * The tracers that "maptrace migrate --switch" attaches to the new map while both
 * programs may run: they note the keys that the new one has written.
 */
#include "types.h"
#include "migration.h"

/* The kernel refuses to attach it to a map whose keys are shorter. */
const volatile __u32 key_size = sizeof(__u32);

static __always_inline int note(const __u8 *key)
{
	__u32 zero = 0, one = 1;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);

	/* It is the tracer that moves what is in the old map. */
	if (!cpu || *(volatile __u64 *)&cpu->level)
		return 0;
	(void)*(const volatile __u8 *)(key + key_size - 1);
	if (bpf_map_update_elem(&maptrace_noted, key, &one, BPF_ANY))
		__sync_fetch_and_add(&cpu->failed, 1);
	return 0;
}

SEC("map_trace/update")
int new_updated(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return note(ctx->key);
}

SEC("map_trace/delete")
int new_deleted(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	/* Nobody has written that key: an LRU has made room, for the tracer as well. */
	if (ctx->reason == MAP_TRACE_REASON_EVICTION)
		return 0;
	return note(ctx->key);
}

char LICENSE[] SEC("license") = "GPL";
