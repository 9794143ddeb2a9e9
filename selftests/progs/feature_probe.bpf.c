// SPDX-License-Identifier: GPL-2.0
/* Restricts which programs bpftool can load: only map tracers, or none at all */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

#define EPERM 1

bool refuse_tracers;

SEC("lsm/bpf_prog_load")
int BPF_PROG(refuse_programs, struct bpf_prog *prog)
{
	char comm[16];

	if (bpf_get_current_comm(comm, sizeof(comm)) ||
	    bpf_strncmp(comm, sizeof(comm), "bpftool"))
		return 0;
	if (prog->type == BPF_PROG_TYPE_TRACING && prog->expected_attach_type == BPF_TRACE_MAP)
		return refuse_tracers ? -EPERM : 0;
	return -EPERM;
}
