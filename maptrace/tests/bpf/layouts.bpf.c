// SPDX-License-Identifier: GPL-2.0
/* Maps of an old version and of a new one, that are never loaded */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct key {
	__be32 address;
	__be16 port;
};

struct old_value {
	__u32 packets;
	__u32 bytes;
	struct bpf_timer timer;
};

struct new_value {
	__u64 packets;
	__u64 octets;
	__u32 version;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__type(key, struct key);
	__type(value, struct old_value);
} old SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 500);
	__type(key, struct key);
	__type(value, struct new_value);
} new SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __be32);
	__type(value, struct old_value);
} read_only SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, struct old_value);
} trie SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1000);
	__type(value, struct old_value);
} queue SEC(".maps");
