/* SPDX-License-Identifier: GPL-2.0 */
/* The arguments and results of a program that operates on a map, as user space sees them */
#ifndef OPERATION_H
#define OPERATION_H

enum operation_kind {
	OPERATION_UPDATE,
	OPERATION_DELETE,
};

struct operation {
	__u32 kind;
	__u32 key;
	__u64 value;
	__u64 flags;
	__s64 ret;
};

/* What a tracer saw */
struct event {
	__u32 kind;
	__u32 key;
	__u64 value;
	__u64 flags;
	__u32 tracer;
	__u32 cpu;	/* what its context said */
	__u32 ran_on;	/* the one it was on */
	__u32 map_id;
	__u64 cookie;
};

#define MAX_EVENTS 64

#endif
