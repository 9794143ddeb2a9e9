// SPDX-License-Identifier: GPL-2.0
/*
 * Makes allocations of a thread fail, from a certain one on, or some allocations of the workers
 * of the module
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

/* Whose, and from which one on; nobody's while it is 0 */
__u32 thread;
__u32 first;
/* How many there were, and how many of them have failed */
__u32 seen, failed;
/* How many are to fail of those that workers make */
__u32 worker_faults;
/* Only those that code there has asked for, if it is somewhere */
__u64 code_start, code_end;

#define PF_WQ_WORKER 0x20
#define DEPTH 32

static bool is_from_code(void *ctx)
{
	__u64 stack[DEPTH];
	long size;
	int i;

	if (!code_end)
		return true;
	size = bpf_get_stack(ctx, stack, sizeof(stack), 0);
	for (i = 0; i < DEPTH && i * 8 < size; i++)
		if (stack[i] >= code_start && stack[i] < code_end)
			return true;
	return false;
}

/* Those of interrupts are not the thread's: they may not sleep. */
SEC("fmod_ret/should_failslab")
int BPF_PROG(fail_slab, struct kmem_cache *cache, gfp_t flags, int ret)
{
	bool by_thread = thread && (__u32)bpf_get_current_pid_tgid() == thread;
	bool by_worker = worker_faults && bpf_get_current_task_btf()->flags & PF_WQ_WORKER;

	if (ret || !(flags & 1U << ___GFP_DIRECT_RECLAIM_BIT) ||
	    flags & 1U << ___GFP_NOFAIL_BIT || (!by_thread && !by_worker) || !is_from_code(ctx))
		return ret;
	if (by_worker)
		worker_faults--;
	else if (++seen < first)
		return 0;
	failed++;
	return -12 /* ENOMEM */;
}
