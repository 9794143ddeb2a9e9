// SPDX-License-Identifier: GPL-2.0
/* Programs on the functions that do a map's own operations. The test says which function. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "hooks.h"

char _license[] SEC("license") = "GPL";

/* Of this thread only */
__u32 input_tid;

/* What the hooks saw of the last call */
struct hook at_entry, at_exit, at_probe;
__u64 stack[HOOK_STACK];
/* The functions that are on the stack */
char names[HOOK_STACK][HOOK_NAME];

static __always_inline bool is_ours(void)
{
	return (__u32)bpf_get_current_pid_tgid() == input_tid;
}

SEC("?fentry")
int see_entry(void *ctx)
{
	if (!is_ours())
		return 0;
	at_entry.calls++;
	bpf_get_func_arg(ctx, 0, &at_entry.map);
	bpf_probe_read_kernel(&at_entry.key, sizeof(at_entry.key), (void *)((__u64 *)ctx)[1]);
	return 0;
}

SEC("?fexit")
int see_exit(void *ctx)
{
	if (!is_ours())
		return 0;
	at_exit.calls++;
	bpf_get_func_arg(ctx, 0, &at_exit.map);
	bpf_probe_read_kernel(&at_exit.key, sizeof(at_exit.key), (void *)((__u64 *)ctx)[1]);
	bpf_get_func_ret(ctx, (__u64 *)&at_exit.ret);
	return 0;
}

SEC("?kprobe")
int see_probe(struct pt_regs *ctx)
{
	int i;

	if (!is_ours())
		return 0;
	at_probe.calls++;
	at_probe.map = PT_REGS_PARM1(ctx);
	bpf_probe_read_kernel(&at_probe.key, sizeof(at_probe.key), (void *)PT_REGS_PARM2(ctx));
	__builtin_memset(stack, 0, sizeof(stack));
	bpf_get_stack(ctx, stack, sizeof(stack), 0);
	for (i = 0; i < HOOK_STACK; i++)
		bpf_snprintf(names[i], HOOK_NAME, "%ps", &stack[i], sizeof(stack[i]));
	return 0;
}

/* Which is there at the attach already */
SEC("?map_trace/map/UPDATE_ELEM")
int trace_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return 0;
}

SEC("?map_trace/map/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} map SEC(".maps");

__s64 ret;
__u64 flags;

SEC("?raw_tp")
int update(void *ctx)
{
	__u64 value = 1;
	__u32 key = HOOK_KEY;

	ret = bpf_map_update_elem(&map, &key, &value, flags);
	return 0;
}

SEC("?raw_tp")
int delete(void *ctx)
{
	__u32 key = HOOK_KEY;

	ret = bpf_map_delete_elem(&map, &key);
	return 0;
}
