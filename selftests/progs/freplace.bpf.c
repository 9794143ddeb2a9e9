// SPDX-License-Identifier: GPL-2.0
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

/* The target is set at run time: a tracer that is loaded already */
SEC("freplace")
int replacement(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}
