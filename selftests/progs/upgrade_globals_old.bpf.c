// SPDX-License-Identifier: GPL-2.0
/* A program that counts in global variables */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

__u64 packets;
__u64 bytes;

SEC("raw_tp")
int packet(void *ctx)
{
	__sync_fetch_and_add(&packets, 1);
	__sync_fetch_and_add(&bytes, 100);
	return 0;
}
