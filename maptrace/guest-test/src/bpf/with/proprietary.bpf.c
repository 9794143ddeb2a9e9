// SPDX-License-Identifier: GPL-2.0
/* Says that it may not call what only GPL programs may, as the tracer does */
#include <linux/bpf.h>
#include <maptrace_convert.h>

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	return value ? maptrace_update(key, value) : maptrace_delete(key);
}

char LICENSE[] SEC("license") = "Proprietary";
