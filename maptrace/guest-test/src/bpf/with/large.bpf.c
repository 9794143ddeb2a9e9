// SPDX-License-Identifier: GPL-2.0
/* Values that the stack has no room for, in two entries each */
#include <linux/bpf.h>
#include <maptrace_convert.h>

struct large {
	__u32 number;
	__u8 data[65532];
};

struct large_v2 {
	__u64 number;
	__u64 added;
	__u8 data[65532];
};

MAPTRACE_CONVERT(__u32, key, struct large, value)
{
	__u32 second = *key + 100;
	struct large_v2 *new;

	if (!value)
		return maptrace_delete(key) || maptrace_delete(&second);
	new = maptrace_room(sizeof(*new));
	if (!new)
		return 1;
	new->number = value->number;
	bpf_probe_read_kernel(new->data, sizeof(value->data), value->data);
	if (maptrace_update(key, new))
		return 1;
	new = maptrace_room(sizeof(*new));
	if (!new)
		return 1;
	new->added = 5;
	return maptrace_update(&second, new);
}

char LICENSE[] SEC("license") = "GPL";
