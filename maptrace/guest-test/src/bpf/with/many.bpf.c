// SPDX-License-Identifier: GPL-2.0
/* Makes more entries of one than can be compared */
#include <linux/bpf.h>
#include <maptrace_convert.h>

#define ENTRIES 300

MAPTRACE_CONVERT(__u32, key, __u64, value)
{
	__u32 new_key, i;

	for (i = 0; i < ENTRIES; i++) {
		new_key = *key * ENTRIES + i;
		if (value ? maptrace_update(&new_key, value) : maptrace_delete(&new_key))
			return 1;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
