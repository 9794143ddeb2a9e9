/* SPDX-License-Identifier: GPL-2.0 */
/* What progs/stack.bpf.c and stack_test.c share */
#ifndef STACK_H
#define STACK_H

/* How many programs are on htab_map_update_elem(), each within what the one before does. Each
 * holds up to two locks as lockdep sees it, which counts to 48.
 */
#define MAX_LEVELS 20

/* Nothing nests at the moment. */
#define NO_LEVEL 1000

#endif
