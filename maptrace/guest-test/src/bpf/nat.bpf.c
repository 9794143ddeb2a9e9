// SPDX-License-Identifier: GPL-2.0
/* Connection tracking and its address translation, in the layouts of two versions */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct conn_key {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u32 protocol;
};

struct conn {
	__u32 packets;
	__u32 bytes;
	__u32 state;
};

struct nat {
	__be32 addr;
	__be16 port;
	__u16 used;
};

struct conn_v2 {
	__u64 packets;
	__u64 bytes;
	__u64 marked;
	__u32 state;
};

struct nat_v2 {
	__be32 addr;
	__be16 port;
	__u32 used;
};

/* The loader says how many they have room for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct conn_key);
	__type(value, struct conn);
} conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct conn_key);
	__type(value, struct nat);
} nats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct conn_key);
	__type(value, struct conn_v2);
} conns_v2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct conn_key);
	__type(value, struct nat_v2);
} nats_v2 SEC(".maps");

/* set_tests.rs has the same */
struct traffic {
	__u32 packets;
	/* Connections that there are */
	__u32 range;
	/* 2: only every second one has traffic */
	__u32 step;
	__u32 pad;
};

static __always_inline struct conn_key key_of(__u32 number)
{
	return (struct conn_key) {
		.saddr = number,
		.daddr = ~number,
		.sport = number >> 8,
		.dport = number,
		.protocol = 6,
	};
}

/* A packet of a connection: most of them count in place. */
#define VERSION(suffix, conn_map, conn_type, nat_map, nat_type)			\
static long packet##suffix(__u32 i, struct traffic *traffic)			\
{										\
	__u32 random = bpf_get_prandom_u32();					\
	__u32 number = random % traffic->range / traffic->step * traffic->step;	\
	struct conn_key key = key_of(number);					\
	conn_type *conn, new_conn = { .packets = 1, .state = number };		\
	nat_type *nat, new_nat = { .addr = number, .port = 1024, .used = 1 };	\
										\
	if ((random >> 28) == 0) {						\
		bpf_map_delete_elem(&conn_map, &key);				\
		bpf_map_delete_elem(&nat_map, &key);				\
		return 0;							\
	}									\
	conn = bpf_map_lookup_elem(&conn_map, &key);				\
	if (conn) {								\
		conn->packets++;						\
		__sync_fetch_and_add(&conn->bytes, random % 1500);		\
	} else {								\
		bpf_map_update_elem(&conn_map, &key, &new_conn, BPF_ANY);	\
	}									\
	nat = bpf_map_lookup_elem(&nat_map, &key);				\
	if (nat)								\
		nat->used++;							\
	else									\
		bpf_map_update_elem(&nat_map, &key, &new_nat, BPF_ANY);		\
	return 0;								\
}										\
										\
SEC("syscall")									\
int traffic##suffix(struct traffic *traffic)					\
{										\
	struct traffic copy = *traffic;						\
										\
	if (copy.range && copy.step)						\
		bpf_loop(copy.packets, packet##suffix, &copy, 0);		\
	return 0;								\
}

VERSION(_v1, conns, struct conn, nats, struct nat)
VERSION(_v2, conns_v2, struct conn_v2, nats_v2, struct nat_v2)

static long expire_once(__u32 i, struct traffic *traffic)
{
	struct conn_key key = key_of(i);

	if (i % traffic->step) {
		bpf_map_delete_elem(&conns_v2, &key);
		bpf_map_delete_elem(&nats_v2, &key);
	}
	return 0;
}

/* Takes out the connections that have no traffic. */
SEC("syscall")
int expire_v2(struct traffic *traffic)
{
	struct traffic copy = *traffic;

	if (copy.step)
		bpf_loop(copy.range, expire_once, &copy, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
