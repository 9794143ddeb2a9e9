// SPDX-License-Identifier: GPL-2.0
/* Drops what is odd, and takes nothing above 1,000 */
#include <linux/bpf.h>
#include <maptrace_convert.h>

/* A variable of its own is no harm to those of maptrace. */
__u64 calls;

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	__sync_fetch_and_add(&calls, 1);
	if (!value || *value % 2)
		return maptrace_delete(key);
	if (*value > 1000)
		return 1;
	return maptrace_update(key, value);
}

char LICENSE[] SEC("license") = "GPL";
