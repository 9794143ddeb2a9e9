// SPDX-License-Identifier: GPL-2.0
/* Maps that know nothing of maptrace, and programs that change them */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum protocol {
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
};

struct in_addr {
	__be32 s_addr;
};

struct conn_key {
	struct in_addr saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	enum protocol protocol;
};

struct conn {
	__u64 packets;
	__u32 established:1;
	__u32 retries:3;
	__s32 balance:5;
	__u8 mac[6];
	char owner[8];
	struct {
		__u16 window[2];
		bool scaled;
	} tcp;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct conn_key);
	__type(value, struct conn);
} conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} plain SEC(".maps"), mirror SEC(".maps"), copy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps"), counters_copy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

struct large {
	__u32 number;
	__u8 data[65532];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct large);
} large SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 8);
	__type(value, __u32);
} queue SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { &inner },
};

/* What maps are migrated to: the same in other layouts */
struct conn_key_v2 {
	enum protocol protocol;
	__u32 zone;
	__be32 daddr;
	struct in_addr saddr;
	__be32 dport;
	__be32 sport;
};

struct conn_v2 {
	__u32 version;
	char owner[16];
	__s32 balance;
	__u64 packets;
	__u16 tries:9;
	__u16 established:1;
	struct {
		bool scaled;
		__u32 window[3];
	} tcp;
	__u8 mac[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct conn_key_v2);
	__type(value, struct conn_v2);
} conns_v2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct conn_key);
	__type(value, struct conn);
} conns_larger SEC(".maps");

struct half_key {
	struct conn_key conn;
	__u32 is_reply;
};

struct half {
	__u64 packets;
	__u32 window;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct half_key);
	__type(value, struct half);
} halves SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u32);
} plain_v2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} small SEC(".maps");

/* What an entry becomes that becomes too many */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} many SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, __u64);
} read_only SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} table_percpu SEC(".maps"), table_percpu_v2 SEC(".maps");

struct large_v2 {
	__u64 number;
	__u64 added;
	__u8 data[65532];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct large_v2);
} large_v2 SEC(".maps");

struct inner inner_v2 SEC(".maps");

struct locked {
	struct bpf_timer timer;
	struct bpf_spin_lock lock;
	__u32 unused;
	__u32 count;
};

struct locked_v2 {
	__u64 count;
	struct bpf_spin_lock lock;
	__u32 unused;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct locked);
} locked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct locked_v2);
} locked_v2 SEC(".maps");

/* main.rs has the same */
struct request {
	__u32 delete;
	__u32 key;
	__u64 value;
	__u64 flags;
	__s64 result;
};

#define CHANGES(map)								\
SEC("syscall")									\
int change_##map(struct request *request)					\
{										\
	__u64 value = request->value;						\
	__u32 key = request->key;						\
										\
	if (request->delete)							\
		request->result = bpf_map_delete_elem(&map, &key);		\
	else									\
		request->result = bpf_map_update_elem(&map, &key, &value, request->flags);\
	return 0;								\
}

CHANGES(plain)
CHANGES(counters)
CHANGES(table)
CHANGES(inner)

/* A connection that has something in each member */
SEC("syscall")
int change_conns(struct request *request)
{
	struct conn_key key = {
		.saddr.s_addr = bpf_htonl(0x0a000001),
		.daddr = bpf_htonl(0x01020304),
		.sport = bpf_htons(1024),
		.dport = bpf_htons(request->key),
		.protocol = PROTOCOL_TCP,
	};
	struct conn value = {
		.packets = request->value,
		.established = 1,
		.retries = 5,
		.balance = -3,
		.mac = { 0xde, 0xad, 0xbe, 0xef, 0, 1 },
		.owner = "nobody",
		.tcp = { .window = { 10, 20 }, .scaled = true },
	};

	if (request->delete)
		request->result = bpf_map_delete_elem(&conns, &key);
	else
		request->result = bpf_map_update_elem(&conns, &key, &value, request->flags);
	return 0;
}

static long hammer_once(__u32 i, struct request *request)
{
	struct conn_key key = { .protocol = PROTOCOL_UDP };
	struct conn value = { .packets = i };

	key.daddr = bpf_get_prandom_u32() % (__u32)request->value;
	bpf_map_update_elem(&conns, &key, &value, BPF_ANY);
	return 0;
}

/* Updates of ->value connections at random, ->key of them */
SEC("syscall")
int hammer(struct request *request)
{
	struct request copy = *request;

	request->result = bpf_loop(copy.key, hammer_once, &copy, 0);
	return 0;
}

/* A value that is changed as programs do that count: no tracer sees it */
SEC("syscall")
int write_plain(struct request *request)
{
	__u32 key = request->key;
	__u64 *value;

	value = bpf_map_lookup_elem(&plain, &key);
	if (value)
		*value = request->value;
	request->result = value ? 0 : -2;
	return 0;
}

static long both_once(__u32 i, struct request *request)
{
	__u32 key = request->key + i % 16;
	__u64 value = i;

	if (i / 16 % 5 == 4) {
		bpf_map_delete_elem(&plain, &key);
		bpf_map_delete_elem(&mirror, &key);
	} else {
		bpf_map_update_elem(&plain, &key, &value, BPF_ANY);
		bpf_map_update_elem(&mirror, &key, &value, BPF_ANY);
	}
	return 0;
}

/* Changes of 16 elements from ->key on, ->value of them, in one map and then in its mirror */
SEC("syscall")
int change_both(struct request *request)
{
	struct request copy = *request;

	request->result = bpf_loop(copy.value, both_once, &copy, 0);
	return 0;
}

static long count_once(__u32 i, struct request *request)
{
	__u32 key = i % 16;
	__u64 value = i;

	if (i % 97 == 96)
		bpf_map_delete_elem(&counters, &key);
	else
		bpf_map_update_elem(&counters, &key, &value, BPF_ANY);
	return 0;
}

/* The same of values of this CPU */
SEC("syscall")
int count(struct request *request)
{
	struct request copy = *request;

	request->result = bpf_loop(copy.value, count_once, &copy, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
