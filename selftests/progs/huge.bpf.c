// SPDX-License-Identifier: GPL-2.0
/* Values so large that the kernel has no room for copies of them */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

/* For each of four contexts of each CPU there would be two: 128 MiB for one CPU. */
struct huge {
	__u64 first;
	__u8 rest[(16 << 20) - 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct huge);
} source SEC(".maps"), copy SEC(".maps");

__s64 update_ret;
__u64 traced;

SEC("map_trace/copy/UPDATE_ELEM")
int trace_copy(struct bpf_map_trace_ctx__update_elem *ctx)
{
	traced += *(__u64 *)ctx->value;
	return 0;
}

/* From an element: that would have to be copied. */
SEC("raw_tp")
int update_from_element(void *ctx)
{
	struct huge *value;
	__u32 key = 0;

	value = bpf_map_lookup_elem(&source, &key);
	if (!value)
		return 0;
	value->first = 42;
	update_ret = bpf_map_update_elem(&copy, &key, value, 0);
	return 0;
}
