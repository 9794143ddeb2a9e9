// SPDX-License-Identifier: GPL-2.0
/*
 * A program of each type that the kernel of the tests can run. All of them do an update and a
 * delete of a map. Two types are missing: LIRC_MODE2, for remote controls, and LWT_SEG6LOCAL,
 * for routes that this kernel is built without.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "prog_types.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

/* For programs that run for the sockets of a map */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Each test is about one run, whoever else makes its program run. */
__u32 begun;
__u32 done;
__s64 update_ret;
__s64 delete_ret;

/* What the tracers saw */
__u64 updates;
__u64 deletes;
__u64 wrong_arguments;

static __always_inline void update_and_delete(void)
{
	__u64 value = PROG_TYPES_VALUE;
	__u32 key = PROG_TYPES_KEY;

	if (__sync_lock_test_and_set(&begun, 1))
		return;
	update_ret = bpf_map_update_elem(&source, &key, &value, BPF_NOEXIST);
	delete_ret = bpf_map_delete_elem(&source, &key);
	*(volatile __u32 *)&done = 1;
}

SEC("map_trace/source/UPDATE_ELEM")
int trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&updates, 1);
	if (*(__u32 *)ctx->key != PROG_TYPES_KEY || *(__u64 *)ctx->value != PROG_TYPES_VALUE ||
	    ctx->flags != BPF_NOEXIST)
		__sync_fetch_and_add(&wrong_arguments, 1);
	return 0;
}

SEC("map_trace/source/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__sync_fetch_and_add(&deletes, 1);
	if (*(__u32 *)ctx->key != PROG_TYPES_KEY)
		__sync_fetch_and_add(&wrong_arguments, 1);
	return 0;
}

/* Not only the type's name: sections are symbols, too. */
#define PROGRAM(section, type, context, ret)					\
SEC(section)									\
int by_##type(context *ctx)							\
{										\
	update_and_delete();							\
	return ret;								\
}

PROGRAM("syscall", syscall, void, 0)

/* Tracing */
PROGRAM("raw_tp", raw_tracepoint, void, 0)
PROGRAM("raw_tp.w/bpf_test_finish", raw_tracepoint_writable, void, 0)
PROGRAM("tp/syscalls/sys_enter_getpgid", tracepoint, void, 0)
PROGRAM("kprobe/__x64_sys_getpgid", kprobe, void, 0)
PROGRAM("fentry/bpf_fentry_test1", tracing, void, 0)
PROGRAM("perf_event", perf_event, void, 0)
PROGRAM("lsm/task_getpgid", lsm, void, 0)

/* Packets */
PROGRAM("socket", socket_filter, struct __sk_buff, 0)
PROGRAM("tc", sched_cls, struct __sk_buff, 0)
PROGRAM("action", sched_act, struct __sk_buff, 0)
PROGRAM("xdp", xdp, struct xdp_md, XDP_PASS)
PROGRAM("cgroup_skb/egress", cgroup_skb, struct __sk_buff, 1)
PROGRAM("lwt_in", lwt_in, struct __sk_buff, 0)
PROGRAM("lwt_out", lwt_out, struct __sk_buff, 0)
PROGRAM("lwt_xmit", lwt_xmit, struct __sk_buff, 0)
PROGRAM("flow_dissector", flow_dissector, struct __sk_buff, 0)
PROGRAM("netfilter", netfilter, struct bpf_nf_ctx, 1)

/* Sockets */
PROGRAM("sk_lookup", sk_lookup, struct bpf_sk_lookup, SK_PASS)
PROGRAM("sk_reuseport", sk_reuseport, struct sk_reuseport_md, SK_PASS)
PROGRAM("sk_skb/verdict", sk_skb, struct __sk_buff, SK_PASS)
PROGRAM("sk_msg", sk_msg, struct sk_msg_md, SK_PASS)
PROGRAM("sockops", sock_ops, struct bpf_sock_ops, 1)

/* Control groups */
PROGRAM("cgroup/sock_create", cgroup_sock, struct bpf_sock, 1)
PROGRAM("cgroup/connect4", cgroup_sock_addr, struct bpf_sock_addr, 1)
PROGRAM("cgroup/dev", cgroup_device, struct bpf_cgroup_dev_ctx, 1)
PROGRAM("cgroup/sysctl", cgroup_sysctl, struct bpf_sysctl, 1)
PROGRAM("cgroup/getsockopt", cgroup_sockopt, struct bpf_sockopt, 1)

/* It has a test run, and what that makes run has no type of its own. */
SEC("tc")
int does_nothing(struct __sk_buff *ctx)
{
	return 0;
}

/* What the extension replaces */
__noinline int replaced(struct __sk_buff *ctx)
{
	/* For the compiler, it could be anything. */
	int ret = 0;

	asm volatile("" : "+r"(ret));
	return ret;
}

SEC("tc")
int is_extended(struct __sk_buff *ctx)
{
	return replaced(ctx);
}

/* Its target is set at run time. */
PROGRAM("?freplace", extension, struct __sk_buff, 0)

/* The same where the caller can sleep, which the extension does not know */
__noinline int replaced_in_sleepable(int ret)
{
	asm volatile("" : "+r"(ret));
	return ret;
}

SEC("syscall")
int is_extended_and_sleepable(void *ctx)
{
	return replaced_in_sleepable(0);
}

SEC("?freplace")
int by_extension_of_sleepable(int ret)
{
	update_and_delete();
	return ret;
}

/* A congestion control that is good for one connection */
SEC("struct_ops")
void BPF_PROG(by_struct_ops, struct sock *sk)
{
	update_and_delete();
}

SEC("struct_ops")
__u32 BPF_PROG(congestion_ssthresh, struct sock *sk)
{
	return 10;
}

SEC("struct_ops")
__u32 BPF_PROG(congestion_undo_cwnd, struct sock *sk)
{
	return 10;
}

SEC("struct_ops")
void BPF_PROG(congestion_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC(".struct_ops.link")
struct tcp_congestion_ops congestion = {
	.init = (void *)by_struct_ops,
	.ssthresh = (void *)congestion_ssthresh,
	.undo_cwnd = (void *)congestion_undo_cwnd,
	.cong_avoid = (void *)congestion_avoid,
	.name = PROG_TYPES_CONGESTION,
};
