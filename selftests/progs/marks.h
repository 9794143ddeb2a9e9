/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MARKS_H
#define MARKS_H

#define NR_KEYS 16

#endif
