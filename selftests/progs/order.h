/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by progs/order.bpf.c and order_test.c */
#ifndef ORDER_H
#define ORDER_H

#define MAX_RUNS 16

#endif
