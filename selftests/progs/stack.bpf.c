// SPDX-License-Identifier: GPL-2.0
/*
 * Operations with little of the stack left: nested ones, by programs on htab_map_update_elem()
 * which update a map themselves, and operations where bpf_low_stack() of
 * test_modules/low_stack.c has left a given number of bytes.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "stack.h"

char _license[] SEC("license") = "GPL";

struct map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
};

struct map traced SEC(".maps");
struct map untraced SEC(".maps");
struct map mirror SEC(".maps");

extern long bpf_low_stack(__u32 left) __ksym;

/*
 * What is asked for: the CPU, how many programs nest, and which map they update, by a key and
 * a value on the stack or not. The last one changes a map of its own, with so much of the stack
 * left, or 0 for as much as there is.
 */
__u32 cpu;
__u32 levels;
__u32 left;
bool nest_in_traced;
bool last_is_traced;
bool last_deletes;
bool arguments_on_stack;

/* What is in the way */
__u32 level = NO_LEVEL;
__u32 key = 1;
__u32 last_key = 2;
__u64 value = 1;

/* An address on the stack: in each program */
__u64 spots[MAX_LEVELS + 1];

/* What was found. */
__u32 failures;
__s64 last_ret;
__s64 used;
__u32 done;

__u64 runs;
__u64 sink;

static __always_inline long update(bool in_traced, __u32 *at)
{
	if (arguments_on_stack) {
		__u32 k = *at;
		__u64 v = value;

		return in_traced ? bpf_map_update_elem(&traced, &k, &v, BPF_ANY) :
				   bpf_map_update_elem(&untraced, &k, &v, BPF_ANY);
	}
	return in_traced ? bpf_map_update_elem(&traced, at, &value, BPF_ANY) :
			   bpf_map_update_elem(&untraced, at, &value, BPF_ANY);
}

static __always_inline long delete(bool in_traced, __u32 *at)
{
	if (arguments_on_stack) {
		__u32 k = *at;

		return in_traced ? bpf_map_delete_elem(&traced, &k) :
				   bpf_map_delete_elem(&untraced, &k);
	}
	return in_traced ? bpf_map_delete_elem(&traced, at) :
			   bpf_map_delete_elem(&untraced, at);
}

static __always_inline long change(void)
{
	return last_deletes ? delete(last_is_traced, &last_key) :
			      update(last_is_traced, &last_key);
}

static __always_inline void nest(__u32 this_level)
{
	volatile __u64 here;

	if (level != this_level || bpf_get_smp_processor_id() != cpu)
		return;
	spots[this_level] = (__u64)&here;
	if (this_level < levels) {
		level = this_level + 1;
		if (update(nest_in_traced, &key))
			failures++;
	} else {
		level = NO_LEVEL - 1;
		if (left)
			used = bpf_low_stack(left);
		else
			last_ret = change();
	}
	level = NO_LEVEL;
}

#define NEST(i)								\
SEC("fentry/htab_map_update_elem")					\
int nest_##i(void *ctx)							\
{									\
	nest(i + 1);							\
	return 0;							\
}

NEST(0) NEST(1) NEST(2) NEST(3) NEST(4) NEST(5) NEST(6) NEST(7) NEST(8) NEST(9)
NEST(10) NEST(11) NEST(12) NEST(13) NEST(14) NEST(15)

SEC("fentry/low_stack_hook")
int on_low_stack(void *ctx)
{
	if (level == NO_LEVEL - 1 && bpf_get_smp_processor_id() == cpu)
		last_ret = change();
	return 0;
}

/* The outermost update */
static __always_inline void begin(void)
{
	level = 0;
	nest(0);
	done = 1;
}

/* The program of a context */
#define IN_CONTEXT(name, section)						\
SEC(section)									\
int name(void *ctx)								\
{										\
	if (!done && level == NO_LEVEL && bpf_get_smp_processor_id() == cpu)	\
		begin();							\
	return 0;								\
}

IN_CONTEXT(in_task, "raw_tp")
IN_CONTEXT(in_softirq, "fentry/run_timer_softirq")
/* Of a clock of the CPU */
IN_CONTEXT(in_hardirq, "perf_event")
/* Of an NMI that asks for a backtrace */
IN_CONTEXT(in_nmi, "fentry/vprintk_emit")

/* An ordinary tracer: it has functions, and something on the stack. */
static __noinline int count(__u64 *words, __u32 n)
{
	sink += n + words[0];
	return 0;
}

static __noinline int convert(__u64 *to, const __u64 *from)
{
	to[0] = from[0];
	return count(to, 0);
}

SEC("map_trace/traced/UPDATE_ELEM")
int follow_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 *from = ctx->value;
	__u64 words[24] = {};

	words[1] = *from;
	convert(words, &words[1]);
	__sync_fetch_and_add(&runs, 1);
	return bpf_map_update_elem(&mirror, ctx->key, words, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/traced/DELETE_ELEM")
int follow_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u64 words[24] = {};

	convert(words, &words[1]);
	__sync_fetch_and_add(&runs, 1);
	return bpf_map_delete_elem(&mirror, ctx->key) ? 1 : 0;
}
