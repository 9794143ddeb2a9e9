/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by progs/stack.bpf.c and stack_test.c */
#ifndef STACK_H
#define STACK_H

/*
 * How many programs are on htab_map_update_elem(), each within what the one before does. Each
 * holds up to two locks as lockdep sees it, which counts to 48, with those of what it interrupts.
 */
#define MAX_LEVELS 16

/* What bpf_low_stack() does not use: KEPT in test_modules/low_stack.c */
#define STACK_KEPT 16

/* Nothing nests at the moment. */
#define NO_LEVEL 1000

#endif
