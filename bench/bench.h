/* SPDX-License-Identifier: GPL-2.0 */
/* What is measured, a file each */
#ifndef BENCH_H
#define BENCH_H

void bench_operations(void);
/* Needs a kernel with an interpreter and without IBT. Turns the JIT off for a while. */
void bench_interpreter(void);
void bench_links(void);
void bench_programs(void);
void bench_states(void);

#endif
