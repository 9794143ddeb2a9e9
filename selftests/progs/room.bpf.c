// SPDX-License-Identifier: GPL-2.0
/* Nested operations. Some of their arguments are on the stack, and some have to be copied. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "room.h"

char _license[] SEC("license") = "GPL";

struct wide {
	__u64 words[WIDE_WORDS];
};

/* Key and value together are larger than what is copied to the stack. */
struct wide_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct wide);
};

struct wide_map source SEC(".maps");

/* The same map, for programs that find it at run time only */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct wide_map);
} outer SEC(".maps") = {
	.values = { &source },
};

/* A program that can tail-call has its stack on that of the kernel, and not in memory of its
 * own, which the kernel cannot tell from a map's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} none_of_raw_tp SEC(".maps"), none_of_htab_map_update_elem SEC(".maps"),
  none_of_htab_map_delete_elem SEC(".maps");

/* Each key is its operation's depth, and so is the first word of each value. */
static const __u32 keys[ROOM_DEPTH] = { 0, 1, 2 };

/* What is asked for */
__u32 operation;
__u32 input_depth;

__u32 depth;
__s64 rets[ROOM_DEPTH];

/* What the tracers saw: a bit for each key */
__u32 updated;
__u32 deleted;
__u32 wrong_values;

static __always_inline void operate_at(__u32 at)
{
	struct wide value;
	__u32 key = at, zero = 0;
	void *map;

	switch (operation) {
	case DELETE_KEY_IN_MAP:
		rets[at] = bpf_map_delete_elem(&source, &keys[at]);
		break;
	case DELETE_UNKNOWN_MAP:
		map = bpf_map_lookup_elem(&outer, &zero);
		rets[at] = map ? bpf_map_delete_elem(map, &key) : -1;
		break;
	case UPDATE_KEY_IN_MAP:
		__builtin_memset(&value, 0, sizeof(value));
		value.words[0] = at;
		rets[at] = bpf_map_update_elem(&source, &keys[at], &value, BPF_ANY);
		break;
	}
}

SEC("raw_tp")
int operate(void *ctx)
{
	depth = 0;
	operate_at(0);
	bpf_tail_call(ctx, &none_of_raw_tp, 0);
	return 0;
}

/* A program does not run within itself: one for each depth, and for each operation */
#define OPERATE_WITHIN(at, function)						\
SEC("fentry/" #function)							\
int function##_##at(void *ctx)							\
{										\
	if (input_depth < (at) || depth != (at) - 1)				\
		return 0;							\
	depth = (at);								\
	operate_at(at);								\
	/* Once */								\
	input_depth = 0;							\
	bpf_tail_call(ctx, &none_of_##function, 0);				\
	return 0;								\
}

OPERATE_WITHIN(1, htab_map_update_elem)
OPERATE_WITHIN(2, htab_map_update_elem)
OPERATE_WITHIN(1, htab_map_delete_elem)
OPERATE_WITHIN(2, htab_map_delete_elem)

SEC("map_trace/source/UPDATE_ELEM")
int see_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = *(__u32 *)ctx->key;

	if (*(__u64 *)ctx->value != key)
		wrong_values++;
	updated |= 1U << (key & 31);
	return 0;
}

SEC("map_trace/source/DELETE_ELEM")
int see_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	deleted |= 1U << (*(__u32 *)ctx->key & 31);
	return 0;
}
