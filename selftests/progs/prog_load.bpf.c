// SPDX-License-Identifier: GPL-2.0
/* BPF_PROG_LOAD of a tracer from a program */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "prog_load.h"

char _license[] SEC("license") = "GPL";

/* r0 = 0; exit */
struct bpf_insn insns[] = {
	{ .code = 0xb7 },
	{ .code = 0x95 },
};

char gpl[] = "GPL";

union bpf_attr attr = {
	.prog_type = BPF_PROG_TYPE_TRACING,
	.insn_cnt = sizeof(insns) / sizeof(*insns),
};

SEC("syscall")
int load_tracer(struct load *load)
{
	/* Addresses of the kernel, as the caller is */
	attr.insns = (unsigned long)insns;
	attr.license = (unsigned long)gpl;
	attr.expected_attach_type = load->attach_type;
	attr.attach_btf_id = load->attach_btf_id;
	load->ret = bpf_sys_bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
	return 0;
}
