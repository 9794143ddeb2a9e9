// SPDX-License-Identifier: GPL-2.0
/*
 * Maps, programs that operate on them, and tracers that record what they see. A program that
 * not every test needs is loaded only for tests that ask for it: loading takes most of their
 * time.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "operation.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} mirror SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} other SEC(".maps");

struct inner_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner_map);
} outer SEC(".maps") = {
	.values = { &inner },
};

struct event events[MAX_EVENTS];
__u32 nr_events;

static struct event *next_event(void)
{
	__u32 i = __sync_fetch_and_add(&nr_events, 1);

	return i < MAX_EVENTS ? &events[i] : NULL;
}

static int note_update(struct bpf_map_trace_ctx__update_elem *ctx, __u32 tracer)
{
	struct event *event = next_event();

	if (!event)
		return 0;
	event->kind = OPERATION_UPDATE;
	event->key = *(__u32 *)ctx->key;
	event->value = *(__u64 *)ctx->value;
	event->flags = ctx->flags;
	event->tracer = tracer;
	event->cpu = ctx->cpu;
	event->ran_on = bpf_get_smp_processor_id();
	event->map_id = ctx->map->id;
	event->cookie = bpf_get_attach_cookie(ctx);
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return note_update(ctx, 1);
}

SEC("?map_trace/source/UPDATE_ELEM")
int trace_update_second(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return note_update(ctx, 2);
}

SEC("?map_trace/source/UPDATE_ELEM")
int mirror_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return bpf_map_update_elem(&mirror, ctx->key, ctx->value, 0) ? 1 : 0;
}

SEC("?map_trace/source/UPDATE_ELEM")
int could_not_follow(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 1;
}

__s64 recursive_ret = 1;

/* Leads to itself, through a map that is not known when it is loaded */
SEC("?map_trace/inner/UPDATE_ELEM")
int updates_inner(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 zero = 0, key = 7;
	__u64 value = 7;
	void *map = bpf_map_lookup_elem(&outer, &zero);

	if (!map)
		return 1;
	recursive_ret = bpf_map_update_elem(map, &key, &value, BPF_ANY);
	return note_update(ctx, 4);
}

SEC("map_trace/source/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	struct event *event = next_event();

	if (!event)
		return 0;
	event->kind = OPERATION_DELETE;
	event->key = *(__u32 *)ctx->key;
	event->tracer = 3;
	event->cpu = ctx->cpu;
	event->ran_on = bpf_get_smp_processor_id();
	event->map_id = ctx->map->id;
	event->cookie = bpf_get_attach_cookie(ctx);
	return 0;
}

SEC("?map_trace/source/DELETE_ELEM")
int mirror_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return bpf_map_delete_elem(&mirror, ctx->key) ? 1 : 0;
}

static __always_inline void operate_on(void *map, struct operation *op)
{
	__u64 value = op->value;
	__u32 key = op->key;

	if (op->kind == OPERATION_UPDATE)
		op->ret = bpf_map_update_elem(map, &key, &value, op->flags);
	else
		op->ret = bpf_map_delete_elem(map, &key);
}

SEC("syscall")
int operate(struct operation *op)
{
	operate_on(&source, op);
	return 0;
}

SEC("?syscall")
int operate_on_other(struct operation *op)
{
	operate_on(&other, op);
	return 0;
}

/* The map is not known when the program is loaded. */
SEC("?syscall")
int operate_on_inner(struct operation *op)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&outer, &zero);

	if (!map) {
		op->ret = -2;
		return 0;
	}
	operate_on(map, op);
	return 0;
}

__u32 input_key;
__u64 input_value;
__u64 input_flags;
__s64 output_ret;

/* Programs that also the interpreter runs, and that have no context of their own */
SEC("?raw_tp")
int update_raw_tp(void *ctx)
{
	__u64 value = input_value;
	__u32 key = input_key;

	output_ret = bpf_map_update_elem(&source, &key, &value, input_flags);
	return 0;
}

SEC("?raw_tp")
int delete_raw_tp(void *ctx)
{
	__u32 key = input_key;

	output_ret = bpf_map_delete_elem(&source, &key);
	return 0;
}

/* Key and value lie in a map, not on the stack. */
SEC("?raw_tp")
int update_from_map_value(void *ctx)
{
	output_ret = bpf_map_update_elem(&source, &input_key, &input_value, input_flags);
	return 0;
}

static __noinline int update_in_subprogram(__u32 key, __u64 value)
{
	return bpf_map_update_elem(&source, &key, &value, 0);
}

SEC("?raw_tp")
int update_bpf2bpf(void *ctx)
{
	output_ret = update_in_subprogram(input_key, input_value);
	return 0;
}

static int update_in_callback(__u32 i, void *data)
{
	__u32 key = input_key + i;
	__u64 value = input_value + i;

	output_ret = bpf_map_update_elem(&source, &key, &value, 0);
	return 0;
}

SEC("?raw_tp")
int update_in_loop(void *ctx)
{
	bpf_loop(3, update_in_callback, NULL, 0);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

SEC("?raw_tp")
int update_by_tail_call(void *ctx)
{
	output_ret = -1;
	bpf_tail_call(ctx, &programs, 0);
	return 0;
}

/* What input_nested says how often, while the map is being updated */
__u32 input_nested;

SEC("?fentry/htab_map_update_elem")
int update_within_an_update(void *ctx)
{
	if (!input_nested)
		return 0;
	input_nested--;
	output_ret = bpf_map_update_elem(&source, &input_key, &input_value, BPF_ANY);
	return 0;
}
