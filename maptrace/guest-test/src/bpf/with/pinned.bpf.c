// SPDX-License-Identifier: GPL-2.0
/* Has a map that would be one for the tracer and for the comparison */
#include <linux/bpf.h>
#include <maptrace_convert.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&calls, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
	return value ? maptrace_update(key, value) : maptrace_delete(key);
}

char LICENSE[] SEC("license") = "GPL";
