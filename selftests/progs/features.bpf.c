// SPDX-License-Identifier: GPL-2.0
/* One use of everything that makes libbpf probe a feature of the kernel */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

const volatile __u32 step = 1;
__u32 counter;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} map SEC(".maps");

static __noinline void *look_up(__u32 key)
{
	return bpf_map_lookup_elem(&map, &key);
}

SEC("raw_tp")
int count(void *ctx)
{
	if (!look_up(counter))
		counter += step;
	return 0;
}
