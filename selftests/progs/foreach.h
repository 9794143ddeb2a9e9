/* SPDX-License-Identifier: GPL-2.0 */
#ifndef FOREACH_H
#define FOREACH_H

#define LARGE_WORDS 64

/* Too large to be copied to the stack */
struct large {
	__u64 words[LARGE_WORDS];
};

/* An operation, one within it, and one within that */
#define MAX_DEPTH 3

#endif
