/* SPDX-License-Identifier: GPL-2.0 */
/* What is measured, a file each */
#ifndef BENCH_H
#define BENCH_H

void bench_operations(void);
void bench_links(void);
void bench_programs(void);

#endif
