// SPDX-License-Identifier: GPL-2.0
/* Does not look whether there is a value, which the verifier does not take */
#include <linux/bpf.h>
#include <maptrace_convert.h>

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	__u64 twice = *value * 2;

	return maptrace_update(key, &twice);
}

char LICENSE[] SEC("license") = "GPL";
