// SPDX-License-Identifier: GPL-2.0
/* Programs for one load each: what the verifier accepts, refuses and records */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char _license[] SEC("license") = "GPL";

#define __naked __attribute__((naked))
#define __imm(name) [name]"i"(name)
#define __imm_addr(name) [name]"i"(&name)
#define __clobber_all "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "memory"

struct long_key {
	__u64 words[2];
};

/* A value that is longer than the key */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

/* A key that is longer than the value */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct long_key);
	__type(value, __u32);
} long_key_source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} mirror SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u64);
	__type(value, __u64);
} long_key_mirror SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct long_key);
} long_value_mirror SEC(".maps");

__u64 sink;

SEC("?map_trace/source/UPDATE_ELEM")
int reads_key_and_value(struct bpf_map_trace_ctx__update_elem *ctx)
{
	sink = *(__u32 *)ctx->key + *(__u64 *)ctx->value;
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int reads_past_key(struct bpf_map_trace_ctx__update_elem *ctx)
{
	sink = *((volatile __u8 *)ctx->key + 4);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int reads_past_value(struct bpf_map_trace_ctx__update_elem *ctx)
{
	sink = *((volatile __u8 *)ctx->value + 8);
	return 0;
}

SEC("?map_trace/source/DELETE_ELEM")
int reads_past_deleted_key(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	sink = *((volatile __u8 *)ctx->key + 4);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int passes_key_and_value(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_map_update_elem(&mirror, ctx->key, ctx->value, 0);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int passes_past_key(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_map_update_elem(&long_key_mirror, ctx->key, ctx->value, 0);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int passes_past_value(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_map_update_elem(&long_value_mirror, ctx->key, ctx->value, 0);
	return 0;
}

SEC("?map_trace/source/DELETE_ELEM")
int passes_past_deleted_key(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	bpf_map_delete_elem(&long_key_mirror, ctx->key);
	return 0;
}

/*
 * The verifier walks the branch that falls through first. The other one meets the
 * same load with a pointer that must not pass for the same state.
 */
SEC("?map_trace/source/UPDATE_ELEM")
__naked int merges_value_then_key(void)
{
	asm volatile ("					\
	r7 = *(u64 *)(r1 + 0);				\
	r8 = *(u64 *)(r1 + 8);				\
	r0 = *(u64 *)(r1 + 16);				\
	if r0 == 0 goto 1f;				\
	r7 = r8;					\
1:	r8 = 0;						\
	r1 = 0;						\
	r0 = *(u64 *)(r7 + 0);				\
	r0 = 0;						\
	exit;						\
"	::: __clobber_all);
}

SEC("?map_trace/long_key_source/UPDATE_ELEM")
__naked int merges_key_then_value(void)
{
	asm volatile ("					\
	r7 = *(u64 *)(r1 + 8);				\
	r8 = *(u64 *)(r1 + 0);				\
	r0 = *(u64 *)(r1 + 16);				\
	if r0 == 0 goto 1f;				\
	r7 = r8;					\
1:	r8 = 0;						\
	r1 = 0;						\
	r0 = *(u64 *)(r7 + 0);				\
	r0 = 0;						\
	exit;						\
"	::: __clobber_all);
}

/* The same with the pointer on the stack where the branches meet */
SEC("?map_trace/source/UPDATE_ELEM")
__naked int merges_spilled_pointers(void)
{
	asm volatile ("					\
	r7 = *(u64 *)(r1 + 0);				\
	r8 = *(u64 *)(r1 + 8);				\
	r0 = *(u64 *)(r1 + 16);				\
	if r0 == 0 goto 1f;				\
	r7 = r8;					\
1:	*(u64 *)(r10 - 8) = r7;				\
	r7 = 0;						\
	r8 = 0;						\
	r1 = 0;						\
	goto +0;					\
	r2 = *(u64 *)(r10 - 8);				\
	r0 = *(u64 *)(r2 + 0);				\
	r0 = 0;						\
	exit;						\
"	::: __clobber_all);
}

SEC("?map_trace/source/UPDATE_ELEM")
int writes_value(struct bpf_map_trace_ctx__update_elem *ctx)
{
	*(volatile __u64 *)ctx->value = 1;
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int writes_key(struct bpf_map_trace_ctx__update_elem *ctx)
{
	*(volatile __u32 *)ctx->key = 1;
	return 0;
}

SEC("?map_trace/source/DELETE_ELEM")
int writes_deleted_key(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	*(volatile __u32 *)ctx->key = 1;
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int writes_value_atomically(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add((__u64 *)ctx->value, 1);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int writes_value_by_helper(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_get_current_comm(ctx->value, 8);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int writes_context(struct bpf_map_trace_ctx__update_elem *ctx)
{
	*(volatile __u64 *)&ctx->flags = 1;
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int returns_two(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 2;
}

SEC("?map_trace/source/UPDATE_ELEM")
int is_sleepable(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

SEC("?map_trace/source/UPDATE_ELEM")
int tail_calls(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_tail_call(ctx, &programs, 0);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cpus SEC(".maps");

SEC("?map_trace/source/UPDATE_ELEM")
int refers_to_maps_of_programs(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct bpf_map *no_lookup[] = { (struct bpf_map *)&programs, (struct bpf_map *)&cpus };
	__u32 zero = 0;

	if (no_lookup[0]->max_entries != 1 || no_lookup[1]->max_entries != 1)
		return 1;
	return bpf_map_lookup_elem(&devices, &zero) ? 1 : 0;
}

struct locked_value {
	struct bpf_spin_lock lock;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locked_value);
} locked SEC(".maps");

SEC("?map_trace/source/UPDATE_ELEM")
int takes_spin_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value *value;
	__u32 zero = 0;

	value = bpf_map_lookup_elem(&locked, &zero);
	if (!value)
		return 1;
	bpf_spin_lock(&value->lock);
	value->count++;
	bpf_spin_unlock(&value->lock);
	return 0;
}

/* Its mirror can have a lock, for the programs that use it. */
SEC("?map_trace/source/UPDATE_ELEM")
int reads_beside_a_spin_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value *value;
	__u32 zero = 0;

	value = bpf_map_lookup_elem(&locked, &zero);
	return !value || value->count;
}

SEC("?map_trace/source/UPDATE_ELEM")
int updates_beside_a_spin_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value value = { .count = 1 };
	__u32 zero = 0;

	return bpf_map_update_elem(&locked, &zero, &value, BPF_EXIST) ? 1 : 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int updates_under_a_spin_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value value = { .count = 1 };
	__u32 zero = 0;

	return bpf_map_update_elem(&locked, &zero, &value, BPF_F_LOCK) ? 1 : 0;
}

/* What takes the lock is a flag, which is known at run time only. */
SEC("?map_trace/source/UPDATE_ELEM")
int updates_perhaps_under_a_spin_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value value = { .count = 1 };
	__u32 zero = 0;

	return bpf_map_update_elem(&locked, &zero, &value, ctx->flags) ? 1 : 0;
}

/* Known as far as it matters */
SEC("?map_trace/source/UPDATE_ELEM")
int updates_with_some_flags_beside_a_spin_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value value = { .count = 1 };
	__u32 zero = 0;

	return bpf_map_update_elem(&locked, &zero, &value, ctx->flags & BPF_EXIST) ? 1 : 0;
}

struct locked_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locked_value);
} inner_locked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct locked_map);
} outer_of_locked SEC(".maps") = {
	.values = { &inner_locked },
};

SEC("?map_trace/source/UPDATE_ELEM")
int takes_spin_lock_of_an_inner_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value *value;
	__u32 zero = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer_of_locked, &zero);
	if (!inner)
		return 1;
	value = bpf_map_lookup_elem(inner, &zero);
	if (!value)
		return 1;
	bpf_spin_lock(&value->lock);
	value->count++;
	bpf_spin_unlock(&value->lock);
	return 0;
}

struct locked_object {
	struct bpf_spin_lock lock;
	__u32 count;
};

SEC("?map_trace/source/UPDATE_ELEM")
int takes_spin_lock_of_an_object(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_object *object;

	object = bpf_obj_new(bpf_core_type_id_local(struct locked_object));
	if (!object)
		return 1;
	bpf_spin_lock(&object->lock);
	object->count++;
	bpf_spin_unlock(&object->lock);
	bpf_obj_drop(object);
	return 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int updates_an_inner_map_under_its_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value value = {};
	__u32 zero = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer_of_locked, &zero);
	if (!inner)
		return 1;
	return bpf_map_update_elem(inner, &zero, &value, BPF_F_LOCK) ? 1 : 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int updates_an_inner_map_beside_its_lock(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct locked_value value = { .count = 1 };
	__u32 zero = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer_of_locked, &zero);
	if (!inner)
		return 1;
	return bpf_map_update_elem(inner, &zero, &value, BPF_ANY) ? 1 : 0;
}

/* Programs that are traced */

__u64 word = 0x0123456789abcdef;

/*
 * All 512 bytes of the stack hold ``word`` while the map is updated: the key is the
 * lowest slot, the value the highest. Returns how many slots changed.
 */
SEC("?raw_tp")
__naked int uses_all_of_the_stack(void)
{
	asm volatile ("					\
	r1 = %[word] ll;				\
	r6 = *(u64 *)(r1 + 0);				\
	r2 = r10;					\
	r2 += -512;					\
	r3 = 0;						\
1:	*(u64 *)(r2 + 0) = r6;				\
	r2 += 8;					\
	r3 += 1;					\
	if r3 != 64 goto 1b;				\
	r1 = %[source] ll;				\
	r2 = r10;					\
	r2 += -512;					\
	r3 = r10;					\
	r3 += -8;					\
	r4 = 0;						\
	call %[bpf_map_update_elem];			\
	if r0 != 0 goto 3f;				\
	r2 = r10;					\
	r2 += -512;					\
	r3 = 0;						\
2:	r4 = *(u64 *)(r2 + 0);				\
	if r4 == r6 goto +1;				\
	r0 += 1;					\
	r2 += 8;					\
	r3 += 1;					\
	if r3 != 64 goto 2b;				\
3:	exit;						\
"	:: __imm(bpf_map_update_elem), __imm_addr(source), __imm_addr(word)
	: __clobber_all);
}

SEC("?raw_tp")
__naked int uses_more_than_the_stack(void)
{
	asm volatile ("					\
	r1 = 5;						\
	*(u64 *)(r10 - 520) = r1;			\
	r1 = %[source] ll;				\
	r2 = r10;					\
	r2 += -520;					\
	r3 = r2;					\
	r4 = 0;						\
	call %[bpf_map_update_elem];			\
	r0 = 0;						\
	exit;						\
"	:: __imm(bpf_map_update_elem), __imm_addr(source)
	: __clobber_all);
}
