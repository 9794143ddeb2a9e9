/* SPDX-License-Identifier: GPL-2.0 */
#ifndef EVICTION_H
#define EVICTION_H

/* Each key is inserted once, in turn */
#define NR_KEYS 4096
/* A common LRU gives up 128 elements at once */
#define CAPACITY 512

#endif
