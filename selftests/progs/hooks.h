/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by progs/hooks.bpf.c and hooks_test.c */
#ifndef HOOKS_H
#define HOOKS_H

#define HOOK_KEY 2
/* How much of the stack is looked at, from the operation on */
#define HOOK_STACK 8
#define HOOK_NAME 64

struct hook {
	__u64 calls;
	__u64 map;
	__s64 ret;
	__u32 key;
};

#endif
