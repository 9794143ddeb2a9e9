// SPDX-License-Identifier: GPL-2.0
/* Forgets to take out what an old value has become, and was not to */
#include <linux/bpf.h>
#include <maptrace_convert.h>

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	__u32 second = *key + 100;

	if (!value)
		return maptrace_delete(key);
	if (maptrace_update(key, value))
		return 1;
	return *value % 2 ? 0 : maptrace_update(&second, value);
}

char LICENSE[] SEC("license") = "GPL";
