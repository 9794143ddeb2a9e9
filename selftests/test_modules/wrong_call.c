// SPDX-License-Identifier: GPL-2.0
/*
 * Calls a function through a pointer to a function of another type. With a working CONFIG_CFI,
 * this kills the process that inserts the module. Otherwise nothing happens.
 */
#include <linux/compiler.h>
#include <linux/module.h>

static noinline int takes_nothing(void)
{
	barrier();
	return 0;
}

static int __init wrong_call_init(void)
{
	int (*call)(u64 argument) = (void *)takes_nothing;

	/* The compiler would call it directly. */
	OPTIMIZER_HIDE_VAR(call);
	return call(1);
}

static void __exit wrong_call_exit(void)
{
}

module_init(wrong_call_init);
module_exit(wrong_call_exit);

MODULE_DESCRIPTION("A call of a function of another type, for the tests of map_trace");
MODULE_LICENSE("GPL");
