/* SPDX-License-Identifier: GPL-2.0 */
#ifndef UPGRADE_LAYOUTS_H
#define UPGRADE_LAYOUTS_H

#define NR_FLOWS 16

struct flow {
	__u64 packets;
	__u64 bytes;
};

/* One of a CPU */
#define MAX_CPUS 64

struct counter {
	__u32 key;
	__u32 cpu;
};

/* Fragments of a datagram: too large for the stack of a program */
#define NR_DATAGRAMS 16

struct datagram {
	__u64 tag;		/* the key, told again in each of its parts */
	__u64 data[188];
};

struct datagram_v2 {
	__u64 tag;
	__u64 seen;
	__u64 flags;
	__u64 data[188];
};

_Static_assert(sizeof(struct datagram) == 1512, "before");
_Static_assert(sizeof(struct datagram_v2) == 1528, "after");

/* Connections whose values hold a timer */
#define NR_CONNS 64
#define IDLE_NS 4000000000ULL

/* An LRU as the new map */
#define NR_HOSTS 512

#endif
