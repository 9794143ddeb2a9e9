/* SPDX-License-Identifier: GPL-2.0 */
#ifndef STATES_H
#define STATES_H

struct started {
	__u64 time;
	__u64 function;
};

#endif
