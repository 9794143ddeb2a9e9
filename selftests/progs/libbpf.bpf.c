// SPDX-License-Identifier: GPL-2.0
/*
 * Programs as they were written for the RFC, with its section names and context structs, and
 * bpf_probe_read() for keys and values. Also sections that only libbpf looks at.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

#define KEY 5
#define VALUE 0xdeadbeef

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} traced_map SEC(".maps");

/* What the tracers make of what they saw */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} tracer_map SEC(".maps");

/* Never created */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} uncreated_map SEC(".maps");

__u32 pid;
__u32 nr_any;
__u64 last_cookie;

/* Something to recognize: from a number to the next one in Collatz' sequence */
static __u32 next_number(__u32 number)
{
	return number % 2 ? 3 * number + 1 : number / 2;
}

/* How often the sync tracer has run for a flush, and what it returns */
__u32 nr_flushed;
__u32 sync_fails;

SEC("?map_trace/traced_map/SYNC_ELEM")
int tracer_sync(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	if (ctx->reason == BPF_MAP_TRACE_REASON_FLUSH)
		__sync_fetch_and_add(&nr_flushed, 1);
	return !!sync_fails;
}

SEC("map_trace/traced_map/UPDATE_ELEM")
int tracer_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0, value = 0;

	if (bpf_probe_read(&key, sizeof(key), ctx->key) ||
	    bpf_probe_read(&value, sizeof(value), ctx->value))
		return 1;
	value = next_number(value);
	bpf_map_update_elem(&tracer_map, &key, &value, 0);
	return 0;
}

SEC("map_trace/traced_map/DELETE_ELEM")
int tracer_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u32 key = 0, value = bpf_get_current_pid_tgid() >> 32;

	if (bpf_probe_read(&key, sizeof(key), ctx->key))
		return 1;
	key = next_number(key);
	bpf_map_update_elem(&tracer_map, &key, &value, 0);
	return 0;
}

/* Also loaded on its own, without the programs above */
SEC("kprobe/__sys_bpf")
int update_on_bpf(struct pt_regs *ctx)
{
	__u32 key = KEY, value = VALUE;

	if (bpf_get_current_pid_tgid() >> 32 != pid)
		return 0;
	bpf_map_update_elem(&traced_map, &key, &value, 0);
	return 0;
}

SEC("kprobe/__sys_bpf")
int delete_on_bpf(struct pt_regs *ctx)
{
	__u32 key = KEY;

	if (bpf_get_current_pid_tgid() >> 32 != pid)
		return 0;
	bpf_map_delete_elem(&traced_map, &key);
	return 0;
}

/* For any map: not attached by itself */
SEC("map_trace/UPDATE_ELEM")
int tracer_of_any_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&nr_any, 1);
	last_cookie = bpf_get_attach_cookie(ctx);
	return 0;
}

SEC("?map_trace")
int tracer_without_operation(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__sync_fetch_and_add(&nr_any, 1);
	return 0;
}

SEC("?map_trace/no_such_map/UPDATE_ELEM")
int tracer_of_missing_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}

SEC("?map_trace/tracer_map/UPDATE_ELEM")
int tracer_of_tracer_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&nr_any, 1);
	return 0;
}

SEC("?map_trace/.bss/UPDATE_ELEM")
int tracer_of_global_data(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}

SEC("?map_trace/uncreated_map/UPDATE_ELEM")
int tracer_of_uncreated_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}

SEC("?map_trace/traced_map/LOOKUP_ELEM")
int tracer_of_unknown_operation(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}

SEC("?map_trace//UPDATE_ELEM")
int tracer_of_nameless_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}
