// SPDX-License-Identifier: GPL-2.0
/* Replaces a function that takes a value: see sync_matrix.bpf.c */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "sync_matrix.h"

char _license[] SEC("license") = "GPL";

struct cell_value new_value;

SEC("freplace/replaced")
int replacement(struct cell_value *value)
{
	if (value)
		*value = new_value;
	return 0;
}
