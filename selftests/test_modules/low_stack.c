// SPDX-License-Identifier: GPL-2.0
/*
 * A kfunc for the tests. It uses up the stack except for a given number of bytes, calls a
 * function there that programs can attach to, and returns how much of the remaining stack they
 * have used.
 */
#include <linux/bpf.h>
#include <linux/bpf_map_trace.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/irqflags.h>
#include <linux/module.h>

/* Written to all of the rest, before */
#define UNUSED 0x5aa55aa55aa55aa5UL

/* The end of a task's stack has a magic number. */
#define KEPT (2 * sizeof(unsigned long))

static unsigned int limit = BPF_MAP_TRACE_STACK;
module_param(limit, uint, 0444);
MODULE_PARM_DESC(limit, "How many bytes have to be left for tracers");

__bpf_hook_start();

/* For fentry programs */
noinline int low_stack_hook(void)
{
	barrier();
	return 0;
}

__bpf_hook_end();

/* It writes to the stack below itself: it calls nothing, and interrupts are off. */
static noinline __no_sanitize_address __no_kcsan void fill(unsigned long *from)
{
	volatile unsigned long *to = (unsigned long *)current_stack_pointer;

	while (--to >= from)
		*to = UNUSED;
}

static noinline __no_sanitize_address __no_kcsan unsigned long unused(const unsigned long *from)
{
	const volatile unsigned long *to = from;

	while (*to == UNUSED)
		to++;
	return (to - from) * sizeof(*to);
}

/* The hook's programs find what is left when @bytes are taken. */
static noinline __no_sanitize_address unsigned long take_and_call(unsigned long bytes,
								  unsigned long *from)
{
	void *room = __builtin_alloca(bytes);

	/* Somebody knows where it is, so that it has to be there. */
	asm volatile("" :: "r" (room) : "memory");
	fill(from);
	low_stack_hook();
	return unused(from);
}

__bpf_kfunc_start_defs();

/**
 * bpf_low_stack() - call low_stack_hook() where little of the stack is left
 * @left: so many bytes
 *
 * Context: Any. Interrupts are off meanwhile: what they use would be counted.
 *
 * Return: how many of these bytes were used, by the programs that are on the hook and on the
 * way there; -ENOSPC where less is left already, -EFAULT on a stack that is not known.
 */
__bpf_kfunc long bpf_low_stack(u32 left)
{
	unsigned long here = current_stack_pointer;
	struct bpf_map_trace_stack stack;
	unsigned long flags, untouched;

	if (!bpf_map_trace_find_stack(here, &stack))
		return -EFAULT;
	here -= stack.begin;
	if (here < left)
		return -ENOSPC;
	local_irq_save(flags);
	untouched = take_and_call(here - left, (unsigned long *)(stack.begin + KEPT));
	local_irq_restore(flags);
	return left - KEPT - untouched;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(low_stack_kfuncs)
BTF_ID_FLAGS(func, bpf_low_stack)
BTF_KFUNCS_END(low_stack_kfuncs)

static const struct btf_kfunc_id_set low_stack_kfunc_set = {
	.owner = THIS_MODULE,
	.set = &low_stack_kfuncs,
};

static int __init low_stack_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_UNSPEC, &low_stack_kfunc_set);
}

static void __exit low_stack_exit(void)
{
}

module_init(low_stack_init);
module_exit(low_stack_exit);

MODULE_DESCRIPTION("A full stack, for the tests of map_trace");
MODULE_IMPORT_NS("BPF_INTERNAL");
MODULE_LICENSE("GPL");
