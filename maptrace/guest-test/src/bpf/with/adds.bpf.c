// SPDX-License-Identifier: GPL-2.0
/* Not idempotent: what it writes is another value each time */
#include <linux/bpf.h>
#include <maptrace_convert.h>

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	__u64 sum, *before;

	if (!value)
		return maptrace_delete(key);
	before = bpf_map_lookup_elem(&maptrace_new, key);
	sum = *value + (before ? *before : 0);
	return maptrace_update(key, &sum);
}

char LICENSE[] SEC("license") = "GPL";
