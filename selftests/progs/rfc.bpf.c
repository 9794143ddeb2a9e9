// SPDX-License-Identifier: GPL-2.0
/*
 * Programs as the RFC's users wrote them, with its section names and its context, and a helper
 * that reads keys and values.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "rfc.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} traced_map SEC(".maps");

/* What the tracers found out */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} tracer_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} map0 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} map1 SEC(".maps");

/* Whose system calls count: nobody's until user space says */
__u32 pid;
/* Delete in place of the update */
__u32 delete;
__s64 ret = 1;

SEC("kprobe/__sys_bpf")
int on_sys_bpf(struct pt_regs *ctx)
{
	__u32 value = RFC_VALUE;
	__u32 key = RFC_KEY;

	if (!pid || bpf_get_current_pid_tgid() >> 32 != pid)
		return 0;
	if (delete)
		ret = bpf_map_delete_elem(&traced_map, &key);
	else
		ret = bpf_map_update_elem(&traced_map, &key, &value, 0);
	return 0;
}

SEC("map_trace/traced_map/UPDATE_ELEM")
int on_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0, value = 0, result;

	if (bpf_probe_read_kernel(&key, sizeof(key), ctx->key) ||
	    bpf_probe_read_kernel(&value, sizeof(value), ctx->value))
		return 1;
	result = collatz(value);
	return bpf_map_update_elem(&tracer_map, &key, &result, 0) ? 1 : 0;
}

SEC("map_trace/traced_map/DELETE_ELEM")
int on_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u32 key = 0, caller = bpf_get_current_pid_tgid() >> 32, result;

	if (bpf_probe_read_kernel(&key, sizeof(key), ctx->key))
		return 1;
	result = collatz(key);
	return bpf_map_update_elem(&tracer_map, &result, &caller, 0) ? 1 : 0;
}

/* The same as their types, without a helper */

SEC("map_trace/traced_map/UPDATE_ELEM")
int on_update_typed(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 result = collatz(*(__u32 *)ctx->value);

	return bpf_map_update_elem(&tracer_map, ctx->key, &result, 0) ? 1 : 0;
}

/* Loops */

SEC("map_trace/traced_map/UPDATE_ELEM")
int updates_traced_map(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0, value = 0;

	bpf_map_update_elem(&traced_map, &key, &value, 0);
	return 0;
}

SEC("map_trace/map0/UPDATE_ELEM")
int tracer0(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0, value = 0;

	bpf_map_update_elem(&map1, &key, &value, 0);
	return 0;
}

SEC("map_trace/map1/UPDATE_ELEM")
int tracer1(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0, value = 0;

	bpf_map_update_elem(&map0, &key, &value, 0);
	return 0;
}

/* The byte that each operation on a map tests, which the RFC had no counterpart of */
__u8 update_byte;
__u8 delete_byte;

SEC("syscall")
int read_traced_bytes(void *ctx)
{
	struct bpf_map *map = (struct bpf_map *)&traced_map;

	update_byte = map->traced[BPF_MAP_TRACE_UPDATE_ELEM];
	delete_byte = map->traced[BPF_MAP_TRACE_DELETE_ELEM];
	return 0;
}
