/* SPDX-License-Identifier: GPL-2.0 */
/* Maps, and tracers that lead from one map to the other. */
#ifndef GRAPH_H
#define GRAPH_H

#include <stdbool.h>

#include <linux/types.h>

#include "progs/loops.h"
#include "progs/operation.h"
#include "loops.skel.h"

struct graph {
	struct loops_bpf *skel;
	int maps[NR_MAPS];
	/* Tracers of the chain: the i-th traces map i and updates map i + 1. */
	int chain[NR_MAPS];
};

/* 0 or a negative errno */
int graph_open(struct graph *graph);
void graph_close(struct graph *graph);

/* Load what is named, and m0's operations. 0 or a negative errno */
int graph_load(struct graph *graph, const char *const names[]);

#define LOAD(...) do {								\
	static const char *const _names[] = { __VA_ARGS__, NULL };		\
										\
	ASSERT_EQ(0, graph_load(self->graph, _names));				\
} while (0)

int prog_fd(struct graph *graph, const char *name);

/* A link, or a negative errno */
int attach_with_cookie(struct graph *graph, const char *name, int map, __u64 cookie);
int attach(struct graph *graph, const char *name, int map);

#define EXPECT_ATTACHES(name, map) ({						\
	int _link = attach(self->graph, name, map);				\
										\
	EXPECT_LE(0, _link) TH_LOG("%s on m%d: %s", name, map, strerror(-_link));\
	_link;									\
})

#define EXPECT_LOOP(name, map) do {						\
	int _link = attach(self->graph, name, map);				\
										\
	EXPECT_EQ(-ELOOP, _link) TH_LOG("%s on m%d", name, map);		\
	if (_link >= 0)								\
		close(_link);							\
} while (0)

/* An operation of a program on m0. What it returned, or an errno */
__s64 operate(struct graph *graph, __u32 kind, __u32 key, __u64 value);

/* Whether a map has the key */
bool holds(struct graph *graph, int map, __u32 key);

/* What a link tells; -1 if it does not */
__u64 failed(int link);
__u64 missed(int link);

#endif
