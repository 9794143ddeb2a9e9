// SPDX-License-Identifier: GPL-2.0
/* A trie, and a mirror that is not a trie */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "sync_trie.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, TRIE_CAPACITY);
	__type(key, struct prefix);
	__type(value, __u64);
} source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRIE_CAPACITY);
	__type(key, struct prefix);
	__type(value, __u64);
} mirror SEC(".maps");

/* While set, the tracer cannot follow; of this many runs, one fails */
__u32 failing, fails_each, runs;

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u32 run = __sync_fetch_and_add(&runs, 1);
	__u64 *value = ctx->value;
	long err;

	if (failing || (fails_each && run % fails_each == 0))
		return 1;
	if (value)
		return bpf_map_update_elem(&mirror, ctx->key, value, BPF_ANY) ? 1 : 0;
	err = bpf_map_delete_elem(&mirror, ctx->key);
	return err && err != -2 /* ENOENT */;
}

/* What the programs below do it with */
struct prefix key;
__u64 new_value;
int err;

SEC("raw_tp")
int update_one(void *ctx)
{
	struct prefix prefix = key;
	__u64 value = new_value;

	err = bpf_map_update_elem(&source, &prefix, &value, BPF_ANY);
	return 0;
}

SEC("raw_tp")
int delete_one(void *ctx)
{
	struct prefix prefix = key;

	err = bpf_map_delete_elem(&source, &prefix);
	return 0;
}

/* Nobody is told of this. */
SEC("raw_tp")
int write_through_pointer(void *ctx)
{
	struct prefix prefix = key;
	__u64 *value = bpf_map_lookup_elem(&source, &prefix);

	err = !value;
	if (value)
		*value = new_value;
	return 0;
}

__u64 operations;

static void churn_once(void)
{
	__u32 random = bpf_get_prandom_u32();
	struct prefix prefix = {
		.prefixlen = (random >> 8) % (HOT_BITS + 1),
		/* With something behind the prefix */
		.data = { random >> 16, random >> 24, random, random >> 4 },
	};
	__u64 value = bpf_ktime_get_ns();

	if (random % 4)
		bpf_map_update_elem(&source, &prefix, &value, BPF_ANY);
	else
		bpf_map_delete_elem(&source, &prefix);
	__sync_fetch_and_add(&operations, 1);
}

SEC("raw_tp")
int churn(void *ctx)
{
	int i;

	bpf_for(i, 0, 100)
		churn_once();
	return 0;
}

/* Prefixes between addresses whose last byte is even */
SEC("raw_tp")
int churn_between(void *ctx)
{
	int i;

	bpf_for(i, 0, 100) {
		__u32 random = bpf_get_prandom_u32();
		struct prefix prefix = {
			.prefixlen = 8 + (random >> 8) % 25,
			.data = { random >> 16 & 3, random >> 18 & 3, random >> 20 & 63,
				  random >> 26 | 1 },
		};
		__u64 value = random;

		if (random % 2)
			bpf_map_update_elem(&source, &prefix, &value, BPF_ANY);
		else
			bpf_map_delete_elem(&source, &prefix);
		__sync_fetch_and_add(&operations, 1);
	}
	return 0;
}

SEC("syscall")
int churn_sleepable(void *ctx)
{
	int i;

	bpf_for(i, 0, 100)
		churn_once();
	return 0;
}
