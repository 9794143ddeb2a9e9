/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CONTRACT_H
#define CONTRACT_H

#define KEY_OF_INTERRUPT 1
#define TIMER_NS 2000000

#endif
