// SPDX-License-Identifier: GPL-2.0
/* Takes entries of a trie, whose keys have nothing behind the prefix */
#include <linux/bpf.h>
#include <maptrace_convert.h>

struct prefix {
	__u32 len;
	__u8 address[4];
};

struct route {
	__u32 hop;
};

MAPTRACE_CONVERT(struct prefix, key, struct route, value)
{
	return value ? maptrace_update(key, value) : maptrace_delete(key);
}

char LICENSE[] SEC("license") = "GPL";
