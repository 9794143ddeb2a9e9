// SPDX-License-Identifier: GPL-2.0
/* BPF_LINK_CREATE from a program, which would have to wait for itself */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

/* struct map_trace_link_create of user space */
struct create {
	__u32 prog_fd;
	__u32 target_fd;
	__u32 attach_type;
	__u32 flags;
	__u64 info;
	__u32 info_len;
	__u32 padding;
	__s64 ret;
};

SEC("syscall")
int create_link(struct create *create)
{
	/* bpf_sys_bpf() takes initialized memory of the stack. */
	__u32 attr[8] = {
		create->prog_fd, create->target_fd, create->attach_type, create->flags,
		create->info, create->info >> 32, create->info_len, 0,
	};

	create->ret = bpf_sys_bpf(BPF_LINK_CREATE, attr, sizeof(attr));
	return 0;
}
