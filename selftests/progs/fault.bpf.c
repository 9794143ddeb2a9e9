// SPDX-License-Identifier: GPL-2.0
/*
 * Makes allocations of a thread fail, or of its pages, from a certain one on, or some allocations
 * of the workers of the module
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
/* Pages fail, and not what is smaller */
__u32 pages;
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

/* Of a pass: without memory for good, a page fault is repeated for ever. */
#define MAX_FAULTS 1000

/*
 * Those of interrupts are not the thread's: they may not sleep. Nor may the first try of
 * kvmalloc(), but apart from that it is GFP_KERNEL.
 */
#define OF_TASKS (1U << ___GFP_DIRECT_RECLAIM_BIT | 1U << ___GFP_FS_BIT)

static bool has_to_fail(void *ctx, gfp_t flags)
{
	bool by_thread = thread && (__u32)bpf_get_current_pid_tgid() == thread;
	bool by_worker = worker_faults && bpf_get_current_task_btf()->flags & PF_WQ_WORKER;

	if (!(flags & OF_TASKS) || flags & 1U << ___GFP_NOFAIL_BIT || (!by_thread && !by_worker) ||
	    !is_from_code(ctx))
		return false;
	if (by_worker)
		worker_faults--;
	else if (++seen < first || seen - first >= MAX_FAULTS)
		return false;
	failed++;
	return true;
}

SEC("fmod_ret/should_failslab")
int BPF_PROG(fail_slab, struct kmem_cache *cache, gfp_t flags, int ret)
{
	return !ret && !pages && has_to_fail(ctx, flags) ? -12 /* ENOMEM */ : ret;
}

SEC("fmod_ret/should_fail_alloc_page")
int BPF_PROG(fail_page, gfp_t flags, unsigned int order, int ret)
{
	return !ret && pages && has_to_fail(ctx, flags) ? 1 : ret;
}
