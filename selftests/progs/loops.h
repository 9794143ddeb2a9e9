/* SPDX-License-Identifier: GPL-2.0 */
#ifndef LOOPS_H
#define LOOPS_H

/* m0 to m9 */
#define NR_MAPS 10

/* How many tracers may follow each other */
#define MAX_CHAIN 8

#endif
