// SPDX-License-Identifier: GPL-2.0
/* A map of each type that keys alone do not describe, its next layout, and what changes it */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* uapi/linux/bpf.h of this kernel */
#define MAP_TYPE_RHASH 35

#define NR_KEYS 200

struct counted_v2 {
	__u64 count;
	__u32 version;
	__u32 pad;
};

#define MAP(map_name, map_type, entries, map_flag, key_type, value_type)		\
struct {									\
	__uint(type, map_type);							\
	__uint(max_entries, entries);						\
	__uint(map_flags, map_flag);						\
	__type(key, key_type);							\
	__type(value, value_type);						\
} map_name SEC(".maps")

struct count {
	__u64 count;
};

MAP(counts, BPF_MAP_TYPE_PERCPU_HASH, NR_KEYS, 0, __u32, struct count);
MAP(counts_v2, BPF_MAP_TYPE_PERCPU_HASH, NR_KEYS, 0, __u32, struct counted_v2);
MAP(counts_lru, BPF_MAP_TYPE_LRU_PERCPU_HASH, 16 * NR_KEYS, 0, __u32, struct counted_v2);
MAP(counts_one, BPF_MAP_TYPE_HASH, NR_KEYS, 0, __u32, struct count);

struct object {
	__u64 count;
	struct task_struct __kptr_untrusted *task;
};

MAP(objects, BPF_MAP_TYPE_PERCPU_HASH, NR_KEYS, 0, __u32, struct object);
MAP(objects_v2, BPF_MAP_TYPE_PERCPU_HASH, NR_KEYS, 0, __u32, struct object);

MAP(grown, MAP_TYPE_RHASH, 8192, BPF_F_NO_PREALLOC, __u32, struct count);
MAP(grown_v2, MAP_TYPE_RHASH, 8192, BPF_F_NO_PREALLOC, __u32, struct counted_v2);

struct prefix {
	__u32 len;
	__u8 address[4];
};

struct zoned_prefix {
	__u32 len;
	__u32 zone;
	__u8 address[4];
};

struct route {
	__u32 hop;
};

struct route_v2 {
	__u64 hop;
	__u32 metric;
	__u32 pad;
};

/* As long as a prefix can be */
struct long_prefix {
	__u32 len;
	__u8 data[256];
};

MAP(names, BPF_MAP_TYPE_LPM_TRIE, 16, BPF_F_NO_PREALLOC, struct long_prefix, struct route);
MAP(names_v2, BPF_MAP_TYPE_LPM_TRIE, 16, BPF_F_NO_PREALLOC, struct long_prefix, struct route_v2);

MAP(routes, BPF_MAP_TYPE_LPM_TRIE, 4096, BPF_F_NO_PREALLOC, struct prefix, struct route);
MAP(routes_copy, BPF_MAP_TYPE_HASH, 4096, 0, struct prefix, struct route);
MAP(routes_v2, BPF_MAP_TYPE_LPM_TRIE, 4096, BPF_F_NO_PREALLOC, struct prefix, struct route_v2);
MAP(routes_small, BPF_MAP_TYPE_LPM_TRIE, 2, BPF_F_NO_PREALLOC, struct prefix, struct route_v2);
MAP(routes_hash, BPF_MAP_TYPE_HASH, 4096, 0, struct prefix, struct route_v2);
MAP(routes_zoned, BPF_MAP_TYPE_LPM_TRIE, 4096, BPF_F_NO_PREALLOC, struct zoned_prefix,
    struct route_v2);

/* subjects.rs has the same */
struct request {
	__u32 delete;
	__u32 key;
	__u64 value;
	__u64 flags;
	__s64 result;
};

/* Of 8 changes, one deletes, 3 are written through a pointer. */
#define CHURN(map)								\
static long churn_##map##_once(__u32 i, struct request *request)			\
{										\
	__u32 random = bpf_get_prandom_u32(), key = random % request->key;		\
	struct count value = { .count = random }, *found;				\
										\
	switch (i % 8) {								\
	case 0:									\
		bpf_map_delete_elem(&map, &key);					\
		break;								\
	case 1:									\
	case 2:									\
	case 3:									\
		found = bpf_map_lookup_elem(&map, &key);				\
		if (found)							\
			__sync_fetch_and_add(&found->count, 1);			\
		break;								\
	default:									\
		bpf_map_update_elem(&map, &key, &value, BPF_ANY);			\
	}									\
	return 0;								\
}										\
										\
/* ->value changes of keys below ->key */						\
SEC("syscall")									\
int churn_##map(struct request *request)						\
{										\
	struct request copy = *request;						\
										\
	request->result = bpf_loop(copy.value, churn_##map##_once, &copy, 0);		\
	return 0;								\
}

CHURN(counts)
CHURN(counts_one)
CHURN(grown)

static long churn_routes_once(__u32 i, struct request *request)
{
	__u32 random = bpf_get_prandom_u32();
	struct route route = { .hop = random };
	/* Of any length; bits behind it are not cleared. */
	struct prefix prefix = {
		.len = random % 33,
		.address = { 10, random >> 8 & 1, random >> 16 & 3, random >> 24 & 3 },
	};
	struct route *found;

	switch (i % 4) {
	case 0:
		bpf_map_delete_elem(&routes, &prefix);
		break;
	case 1:
		found = bpf_map_lookup_elem(&routes, &prefix);
		if (found)
			__sync_fetch_and_add(&found->hop, 1);
		break;
	default:
		bpf_map_update_elem(&routes, &prefix, &route, BPF_ANY);
	}
	return 0;
}

SEC("syscall")
int churn_routes(struct request *request)
{
	struct request copy = *request;

	request->result = bpf_loop(copy.value, churn_routes_once, &copy, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
