// SPDX-License-Identifier: GPL-2.0
/* Tracers that call a function with a kprobe */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} traced SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

__u32 input_tid;

__u64 runs;
__u64 hits;

static int update_array(void)
{
	__u64 one = 1;
	__u32 zero = 0;

	runs++;
	return bpf_map_update_elem(&array, &zero, &one, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/traced/UPDATE_ELEM")
int trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return update_array();
}

SEC("map_trace/traced/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return update_array();
}

SEC("kprobe/array_map_update_elem")
int hit(void *ctx)
{
	if ((__u32)bpf_get_current_pid_tgid() == input_tid)
		hits++;
	return 0;
}

SEC("raw_tp")
int update(void *ctx)
{
	__u64 value = 1;
	__u32 key = 1;

	return bpf_map_update_elem(&traced, &key, &value, BPF_ANY);
}
