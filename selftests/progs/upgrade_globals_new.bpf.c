// SPDX-License-Identifier: GPL-2.0
/* The next version, which reads the counts of upgrade_globals_old.bpf.c from its .bss */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct old_globals {
	__u64 packets;
	__u64 bytes;
};

/* User space puts the .bss of the old version in here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct old_globals);
} old_globals SEC(".maps");

__u64 bytes;
__u64 ipv6;
__u64 packets;

SEC("map_trace/old_globals/SYNC_ELEM")
int follow(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct old_globals *old = ctx->value;

	if (!old)
		return 0;
	packets = old->packets;
	bytes = old->bytes;
	return 0;
}
