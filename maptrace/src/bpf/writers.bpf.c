// SPDX-License-Identifier: GPL-2.0
/*
 * The tracers that "maptrace migrate --switch" attaches to the new map while both
 * programs may run: they note the keys that the new one has written.
 */
#include "types.h"
#include "migration.h"

/* A prefix of a trie, with its length before it */
#define MAX_PREFIX_KEY (sizeof(__u32) + 256)

/* migration.rs has the same, and fills it in before it loads the program */
const volatile struct {
	/* The kernel refuses to attach it to a map whose keys are shorter. */
	__u32 key_size;
	__u32 is_trie;
} config = { .key_size = sizeof(__u32) };

/* Bits behind a prefix are whatever they were given as: here, zero. keys.rs does the same. */
static __always_inline void copy_prefix(__u8 *to, const __u8 *key)
{
	__s64 left, sign;
	__u32 i;

	bpf_probe_read_kernel(to, config.key_size, key);
	left = *(__u32 *)to;
#pragma clang loop unroll(disable)
	for (i = sizeof(__u32); i < MAX_PREFIX_KEY; i++) {
		__s64 bits = left;

		if (i >= config.key_size)
			break;
		/* Between 0 and 8, with no branch, of which the verifier would follow each. */
		sign = bits >> 63;
		asm volatile("" : "+r"(sign));
		bits &= ~sign;
		sign = (bits - 8) >> 63;
		asm volatile("" : "+r"(sign));
		bits = 8 + ((bits - 8) & sign);
		to[i] &= 0xff00 >> bits;
		left -= 8;
	}
}

static __always_inline int note(const __u8 *key)
{
	__u32 zero = 0, one = 1;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);
	__u8 prefix[MAX_PREFIX_KEY] __attribute__((aligned(8)));

	/* It is the tracer that moves what is in the old map. */
	if (!cpu || *(volatile __u64 *)&cpu->level)
		return 0;
	(void)*(const volatile __u8 *)(key + config.key_size - 1);
	if (config.is_trie) {
		copy_prefix(prefix, key);
		key = prefix;
	}
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
