/* SPDX-License-Identifier: GPL-2.0 */
#ifndef PROG_TYPES_H
#define PROG_TYPES_H

#define PROG_TYPES_KEY 5
#define PROG_TYPES_VALUE 55

/* The congestion control that a program implements */
#define PROG_TYPES_CONGESTION "map_trace_test"

#endif
