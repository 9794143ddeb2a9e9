// SPDX-License-Identifier: GPL-2.0
/* Programs that are still running while a tracer is attached */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "operation.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

__u64 spin_ns;
__u32 pid;
const void *user_page;

/* User space waits for it, and compares clocks. */
__u32 entered;
__u64 spun_ns;
__u64 left_ns;
__s64 update_ret = -1;
__s64 copy_ret = -1;
__u64 updates_done;
__u64 traced;

static void update(__u32 key)
{
	__u64 value = key;

	update_ret = bpf_map_update_elem(&source, &key, &value, 0);
	if (!update_ret)
		updates_done++;
}

static int spin_until(__u32 i, void *deadline)
{
	return bpf_ktime_get_ns() >= *(__u64 *)deadline;
}

static int spin_on(__u32 i, void *deadline)
{
	bpf_loop(1 << 23, spin_until, deadline, 0);
	return spin_until(0, deadline);
}

/* A loop of its own has an end, which a fast machine reaches before the deadline. */
static void spin(void)
{
	__u64 began_ns = bpf_ktime_get_ns();
	__u64 deadline = began_ns + spin_ns;

	entered = 1;
	bpf_loop(1 << 23, spin_on, &deadline, 0);
	spun_ns = bpf_ktime_get_ns() - began_ns;
}

/* bpf_prog_test_run() of a raw tracepoint holds rcu_read_lock(). */
SEC("raw_tp")
int spin_then_update(void *ctx)
{
	spin();
	update(1);
	left_ns = bpf_ktime_get_ns();
	return 0;
}

/* Sleepable programs hold RCU tasks trace only. */
SEC("syscall")
int spin_sleepable_then_update(void *ctx)
{
	spin();
	update(2);
	left_ns = bpf_ktime_get_ns();
	return 0;
}

/* Sleeps as long as user space does not provide the page. */
SEC("fentry.s/__x64_sys_getpgid")
int sleep_then_update(void *ctx)
{
	__u64 word;

	if ((bpf_get_current_pid_tgid() >> 32) != pid)
		return 0;
	entered = 1;
	copy_ret = bpf_copy_from_user(&word, sizeof(word), user_page);
	update(3);
	left_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("syscall")
int operate(struct operation *op)
{
	__u64 value = op->value;
	__u32 key = op->key;

	op->ret = bpf_map_update_elem(&source, &key, &value, op->flags);
	if (!op->ret)
		updates_done++;
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	traced++;
	return 0;
}
