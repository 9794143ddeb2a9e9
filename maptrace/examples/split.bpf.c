// SPDX-License-Identifier: GPL-2.0
/* A conversion for "maptrace migrate --with": a connection becomes an entry for each direction */
#include <linux/bpf.h>
#include <stdbool.h>
#include <maptrace_convert.h>

enum protocol {
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
};

struct in_addr {
	__be32 s_addr;
};

/* What the old map has */
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

/* What the new map has */
struct half_key {
	struct conn_key conn;
	__u32 is_reply;
};

struct half {
	__u64 packets;
	__u32 window;
	__u32 pad;
};

MAPTRACE_CONVERT(struct conn_key, key, struct conn, value)
{
	struct half_key new_key = { .conn = *key };
	struct half half = {};
	__u32 i;

	for (i = 0; i < 2; i++) {
		new_key.is_reply = i;
		if (value) {
			half.packets = value->packets;
			half.window = value->tcp.window[i];
			if (maptrace_update(&new_key, &half))
				return 1;
		} else if (maptrace_delete(&new_key)) {
			return 1;
		}
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
