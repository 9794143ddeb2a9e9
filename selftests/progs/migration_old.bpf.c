// SPDX-License-Identifier: GPL-2.0
/*
 * A program that is upgraded while it runs. It keeps a map of the files that a process has
 * opened, lets the process write only to these files, and counts the writes. It knows nothing
 * of migrations.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "migration.h"

char _license[] SEC("license") = "GPL";

#define EPERM 1

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FILES);
	__type(key, struct file_old);
	__type(value, struct state_old);
} open_files SEC(".maps");

/* Who is watched: nobody until user space says */
__u32 pid;
__u64 opened;

static bool is_watched(void)
{
	return pid && bpf_get_current_pid_tgid() >> 32 == pid;
}

SEC("fexit/__x64_sys_openat")
int BPF_PROG(after_openat, const struct pt_regs *regs, long fd)
{
	struct file_old key = { .pid = pid, .fd = fd };
	struct state_old state = {};

	if (!is_watched() || fd < 0)
		return 0;
	state.number = __sync_fetch_and_add(&opened, 1);
	bpf_map_update_elem(&open_files, &key, &state, BPF_ANY);
	return 0;
}

/* Before the number is free for the next open. The result of the call is a long. */
SEC("fmod_ret/__x64_sys_close")
long BPF_PROG(before_close, const struct pt_regs *regs)
{
	struct file_old key = { .pid = pid, .fd = regs->di };

	if (is_watched())
		bpf_map_delete_elem(&open_files, &key);
	return 0;
}

SEC("fmod_ret/__x64_sys_write")
long BPF_PROG(may_write, const struct pt_regs *regs)
{
	struct file_old key = { .pid = pid, .fd = regs->di };
	struct state_old *state;

	/* Standard output and error are everybody's. */
	if (!is_watched() || key.fd <= 2)
		return 0;
	state = bpf_map_lookup_elem(&open_files, &key);
	if (!state)
		return -EPERM;
	__sync_fetch_and_add(&state->writes, 1);
	return 0;
}
