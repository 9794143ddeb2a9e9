// SPDX-License-Identifier: GPL-2.0
/* The tracer of README.md, unchanged, and its maps */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "upgrade.h"

char _license[] SEC("license") = "GPL";

#define ENOENT 2

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct conn_v1);
} conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct conn_v2);
} conns_v2 SEC(".maps");

#include "readme-1.c"
