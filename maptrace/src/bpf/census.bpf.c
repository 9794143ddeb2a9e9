// SPDX-License-Identifier: GPL-2.0
/* How full maps are, and what maps of the LRU types evict, for "maptrace list" */
#include "types.h"

extern __s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym;

/* census.rs has the same */
struct count {
	__u32 id;
	__u32 counted;
	__s64 elements;
};

SEC("iter/bpf_map")
int count_elements(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;
	struct count count = {};

	if (!map)
		return 0;
	count.id = map->id;
	count.counted = !!map->elem_count;
	if (count.counted)
		count.elements = bpf_map_sum_elem_count(map);
	bpf_seq_write(ctx->meta->seq, &count, sizeof(count));
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} evicted SEC(".maps");

/* The LRU asks it to let an element go: htab, node; and whether it did. */
SEC("fexit/htab_lru_map_delete_node")
int count_eviction(__u64 *ctx)
{
	struct bpf_htab *htab = (struct bpf_htab *)ctx[0];
	__u64 one = 1, *count;
	__u32 id;

	if (!(__u8)ctx[2])
		return 0;
	if (bpf_probe_read_kernel(&id, sizeof(id), __builtin_preserve_access_index(&htab->map.id)))
		return 0;
	count = bpf_map_lookup_elem(&evicted, &id);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&evicted, &id, &one, BPF_NOEXIST);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
