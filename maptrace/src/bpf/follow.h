/* SPDX-License-Identifier: GPL-2.0 */
/* The tracer on the old map of a migration: what is done before and after one entry is told */
#ifndef MAPTRACE_FOLLOW_H
#define MAPTRACE_FOLLOW_H

#include "types.h"
#include "migration.h"

#include <linux/errno.h>

/*
 * The new program has begun to write the new map: what the old one holds is not news any
 * more, only what is done to it. migration.rs has the same. It has a map of its own, and
 * a name that nobody else has, as other variables may be linked to this.
 */
#define NEW_WINS 1
#define OLD_WINS 2
__u32 maptrace_handed_over SEC(".data.handover");

static __always_inline __u32 handing_over(void)
{
	return *(volatile __u32 *)&maptrace_handed_over;
}

/* The new map takes its place. */
maptrace_new_t maptrace_new SEC(".maps");

#define COUNT(counter) __sync_fetch_and_add(&(counter), 1)

/* Why the tracer could not follow. Returns 1, so that it is told again. */
static __always_inline int could_not_follow(struct cpu_state *cpu, long err)
{
	if (err == -ERANGE) {
		COUNT(cpu->cut);
	} else if (err == -E2BIG || err == -ENOSPC) {
		COUNT(cpu->full);
	} else {
		COUNT(cpu->failed);
		cpu->error = err;
	}
	return 1;
}

/* Whether a key of the new map is left to the new program, which may have written it. */
static __always_inline bool is_left(struct cpu_state *cpu, bool is_noted)
{
	__u32 winner = handing_over();

	if (!winner || !is_noted)
		return false;
	COUNT(cpu->both);
	return winner == NEW_WINS;
}

/* What came of an operation on the new map. Returns 1 if it has to be done again. */
static __always_inline int account(struct cpu_state *cpu, bool is_update, long err)
{
	if (!err && is_update)
		COUNT(cpu->updates);
	else if (!err)
		COUNT(cpu->deletes);
	else if (is_update || err != -ENOENT)
		return could_not_follow(cpu, err);
	return 0;
}

/* Does to the new map what the old one's entry says. Returns 1 to be told again. */
static __always_inline int tell(struct bpf_map_trace_ctx__sync_elem *ctx, struct cpu_state *cpu,
				__u32 level);

SEC("map_trace/sync")
int convert_state(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u32 zero = 0;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);
	volatile __u64 *level;
	__u64 this_level;
	int result;

	if (!cpu)
		return 1;
	if (handing_over() && ctx->reason == MAP_TRACE_REASON_FLUSH)
		return 0;
	/* Whatever interrupts this leaves it as it was. */
	level = &cpu->level;
	this_level = *level;
	if (this_level >= LEVELS)
		return could_not_follow(cpu, -EBUSY);
	*level = this_level + 1;
	result = tell(ctx, cpu, this_level);
	*level = this_level;
	return result;
}

#endif
