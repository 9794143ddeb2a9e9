// SPDX-License-Identifier: GPL-2.0
/*
 * Tracers that write maps which may be traced themselves. Each is for one operation, and writes
 * one map. The test decides which map it traces.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "loops.h"
#include "operation.h"

char _license[] SEC("license") = "GPL";

struct traced_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
};

struct traced_map m0 SEC(".maps");
struct traced_map m1 SEC(".maps");
struct traced_map m2 SEC(".maps");
struct traced_map m3 SEC(".maps");
struct traced_map m4 SEC(".maps");
struct traced_map m5 SEC(".maps");
struct traced_map m6 SEC(".maps");
struct traced_map m7 SEC(".maps");
struct traced_map m8 SEC(".maps");
struct traced_map m9 SEC(".maps");

/* The same maps, for programs that find them at run time only */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NR_MAPS);
	__type(key, __u32);
	__array(values, struct traced_map);
} any_map SEC(".maps") = {
	.values = { &m0, &m1, &m2, &m3, &m4, &m5, &m6, &m7, &m8, &m9 },
};

__u64 sink;

/* How often the tracers ran that count */
__u64 runs;
__u64 second_runs;
__u64 runs_by_cookie[NR_MAPS + 1];

/* Operations, each on a map that is known when the program is loaded */

SEC("?syscall")
int operate_on_m0(struct operation *op)
{
	__u64 value = op->value;
	__u32 key = op->key;

	if (op->kind == OPERATION_UPDATE)
		op->ret = bpf_map_update_elem(&m0, &key, &value, op->flags);
	else
		op->ret = bpf_map_delete_elem(&m0, &key);
	return 0;
}

/* The plain tracers: one for each map that can be written */

#define UPDATE_THAT_UPDATES(map)						\
SEC("?map_trace/any/UPDATE_ELEM")						\
int update_updates_##map(struct bpf_map_trace_ctx__update_elem *ctx)		\
{										\
	return bpf_map_update_elem(&map, ctx->key, ctx->value, 0) ? 1 : 0;	\
}

UPDATE_THAT_UPDATES(m0)
UPDATE_THAT_UPDATES(m1)
UPDATE_THAT_UPDATES(m2)
UPDATE_THAT_UPDATES(m3)
UPDATE_THAT_UPDATES(m4)
UPDATE_THAT_UPDATES(m5)
UPDATE_THAT_UPDATES(m6)
UPDATE_THAT_UPDATES(m7)
UPDATE_THAT_UPDATES(m8)
UPDATE_THAT_UPDATES(m9)

#define UPDATE_THAT_DELETES(map)						\
SEC("?map_trace/any/UPDATE_ELEM")						\
int update_deletes_##map(struct bpf_map_trace_ctx__update_elem *ctx)		\
{										\
	bpf_map_delete_elem(&map, ctx->key);					\
	return 0;								\
}

UPDATE_THAT_DELETES(m0)
UPDATE_THAT_DELETES(m1)

#define DELETE_THAT_UPDATES(map)						\
SEC("?map_trace/any/DELETE_ELEM")						\
int delete_updates_##map(struct bpf_map_trace_ctx__delete_elem *ctx)		\
{										\
	__u64 value = 1;							\
										\
	return bpf_map_update_elem(&map, ctx->key, &value, 0) ? 1 : 0;		\
}

DELETE_THAT_UPDATES(m0)
DELETE_THAT_UPDATES(m1)

#define DELETE_THAT_DELETES(map)						\
SEC("?map_trace/any/DELETE_ELEM")						\
int delete_deletes_##map(struct bpf_map_trace_ctx__delete_elem *ctx)		\
{										\
	bpf_map_delete_elem(&map, ctx->key);					\
	return 0;								\
}

DELETE_THAT_DELETES(m0)
DELETE_THAT_DELETES(m1)

/* Tracers that write nothing */

SEC("?map_trace/any/UPDATE_ELEM")
int update_counts(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&runs, 1);
	return 0;
}

SEC("?map_trace/any/DELETE_ELEM")
int delete_counts(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__sync_fetch_and_add(&runs, 1);
	return 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_counts_second(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&second_runs, 1);
	return 0;
}

static long add_up(struct bpf_map *map, __u32 *key, __u64 *value, void *data)
{
	sink += *value;
	return 0;
}

/* All the ways to read m0 */
SEC("?map_trace/any/UPDATE_ELEM")
int update_reads_m0(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 *value = bpf_map_lookup_elem(&m0, ctx->key);

	__sync_fetch_and_add(&runs, 1);
	if (value)
		sink = *value;
	bpf_for_each_map_elem(&m0, add_up, NULL, 0);
	return 0;
}

/* Reads m0, and writes to another map in the same breath */
SEC("?map_trace/any/UPDATE_ELEM")
int update_reads_m0_updates_m1(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 *value = bpf_map_lookup_elem(&m0, ctx->key);

	__sync_fetch_and_add(&runs, 1);
	if (!value)
		return 1;
	return bpf_map_update_elem(&m1, ctx->key, value, 0) ? 1 : 0;
}

/* Places where a write can hide */

SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_in_branch(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 value = 1;
	__u32 key = 1;

	/* A flag that no update can have: never run, and the verifier cannot know */
	if (ctx->flags & (1ULL << 63))
		bpf_map_update_elem(&m0, &key, &value, 0);
	return 0;
}

/* One call, which map it is for depends */
SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_one_of_two(struct bpf_map_trace_ctx__update_elem *ctx)
{
	void *map = &m1;

	if (ctx->flags)
		map = &m0;
	asm volatile ("" : "+r"(map));
	return bpf_map_update_elem(map, ctx->key, ctx->value, 0) ? 1 : 0;
}

static __noinline int update_m0(__u32 key)
{
	__u64 value = key;

	return bpf_map_update_elem(&m0, &key, &value, 0);
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_in_subprogram(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return update_m0(*(__u32 *)ctx->key) ? 1 : 0;
}

/* Verified on its own, not where it is called */
__noinline int update_m0_global(__u32 key)
{
	__u64 value = key;

	return bpf_map_update_elem(&m0, &key, &value, 0);
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_in_global_subprogram(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return update_m0_global(*(__u32 *)ctx->key) ? 1 : 0;
}

static int update_m0_in_loop(__u32 i, void *data)
{
	__u64 value = i;

	bpf_map_update_elem(&m0, &i, &value, 0);
	return 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_in_loop(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_loop(3, update_m0_in_loop, NULL, 0);
	return 0;
}

static long delete_from_m0(struct bpf_map *map, __u32 *key, __u64 *value, void *data)
{
	bpf_map_delete_elem(&m0, key);
	return 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_deletes_in_for_each(struct bpf_map_trace_ctx__update_elem *ctx)
{
	bpf_for_each_map_elem(&m5, delete_from_m0, NULL, 0);
	return 0;
}

/* Writes that come later, from a callback of the tracer */

struct timer_value {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct timer_value);
} timers SEC(".maps");

static int update_m0_in_timer(void *map, __u32 *key, struct timer_value *value)
{
	__u64 number = 1;

	bpf_map_update_elem(&m0, key, &number, 0);
	return 0;
}

#define CLOCK_MONOTONIC 1

SEC("?map_trace/any/UPDATE_ELEM")
int update_starts_timer(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct timer_value *value;
	__u32 zero = 0;

	value = bpf_map_lookup_elem(&timers, &zero);
	if (!value)
		return 1;
	bpf_timer_init(&value->timer, &timers, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&value->timer, update_m0_in_timer);
	return bpf_timer_start(&value->timer, 0, 0) ? 1 : 0;
}

struct work_value {
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work_value);
} works SEC(".maps");

static int delete_from_m0_in_work(void *map, int *key, void *value)
{
	__u32 number = 1;

	bpf_map_delete_elem(&m0, &number);
	return 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_queues_work(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct work_value *value;
	__u32 zero = 0;

	value = bpf_map_lookup_elem(&works, &zero);
	if (!value)
		return 1;
	bpf_wq_init(&value->work, &works, 0);
	bpf_wq_set_callback(&value->work, delete_from_m0_in_work, 0);
	return bpf_wq_start(&value->work, 0) ? 1 : 0;
}

struct task_work_value {
	struct bpf_task_work work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_work_value);
} task_works SEC(".maps");

static int update_m0_in_task_work(struct bpf_map *map, void *key, void *value)
{
	__u64 number = 1;
	__u32 one = 1;

	bpf_map_update_elem(&m0, &one, &number, 0);
	return 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_adds_task_work(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct task_work_value *value;
	__u32 zero = 0;

	value = bpf_map_lookup_elem(&task_works, &zero);
	if (!value)
		return 1;
	return bpf_task_work_schedule_resume(bpf_get_current_task_btf(), &value->work,
					     &task_works, update_m0_in_task_work) ? 1 : 0;
}

/* Writes that nobody can know when the tracer is loaded */

/* To the map in the slot that the cookie names */
static __always_inline int update_dynamic(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	__u32 slot = cookie;
	void *map;

	if (cookie <= NR_MAPS)
		__sync_fetch_and_add(&runs_by_cookie[cookie], 1);
	map = bpf_map_lookup_elem(&any_map, &slot);
	if (!map)
		return 1;
	return bpf_map_update_elem(map, ctx->key, ctx->value, 0) ? 1 : 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_dynamic(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return update_dynamic(ctx);
}

/* The same with all of the stack that a program can have, or nearly */
SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_dynamic_with_full_stack(struct bpf_map_trace_ctx__update_elem *ctx)
{
	char filler[432] = {};

	asm volatile("" : : "r"(filler) : "memory");
	return update_dynamic(ctx);
}

SEC("?map_trace/any/DELETE_ELEM")
int delete_deletes_dynamic(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	__u32 slot = cookie;
	__u32 other;
	void *map;

	if (cookie <= NR_MAPS)
		__sync_fetch_and_add(&runs_by_cookie[cookie], 1);
	map = bpf_map_lookup_elem(&any_map, &slot);
	if (!map)
		return 1;
	/* Not the key of the traced delete, which is gone */
	other = *(__u32 *)ctx->key + 1;
	bpf_map_delete_elem(map, &other);
	return 0;
}

/* Operations where no program was meant to be. Attached to a function of choice */

/* Once, and only in this process; but not the first so many times that they get there */
__u32 input_pid;
__u32 input_skip;
__s64 output_ret;

static __always_inline int update_m0_once(void)
{
	__u64 number = 5;
	__u32 key = 5;

	if ((bpf_get_current_pid_tgid() >> 32) != input_pid)
		return 0;
	if (input_skip) {
		input_skip--;
		return 0;
	}
	input_pid = 0;
	output_ret = bpf_map_update_elem(&m0, &key, &number, 0);
	return 0;
}

/* Where the tracer writes that a breakpoint watches */
__u64 watched;
__u64 watched_address;

SEC("?syscall")
int find_watched(void *ctx)
{
	watched_address = (__u64)&watched;
	return 0;
}

SEC("?map_trace/m0/UPDATE_ELEM")
int update_writes_watched(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&runs, 1);
	*(volatile __u64 *)&watched = 1;
	return 0;
}

SEC("?perf_event")
int update_m0_in_breakpoint(void *ctx)
{
	return update_m0_once();
}

/* Of an NMI that asks the other CPU for a backtrace, which says so */
__u32 input_cpu;

SEC("?fentry/vprintk_emit")
int update_m0_in_nmi(void *ctx)
{
	__u64 number = 5;
	__u32 key = 5;

	if (bpf_get_smp_processor_id() == input_cpu && output_ret == 1)
		output_ret = bpf_map_update_elem(&m0, &key, &number, 0);
	return 0;
}

SEC("?kprobe")
int update_m0_in_kprobe(void *ctx)
{
	return update_m0_once();
}

/* Of a clock of the CPU: in a hardirq */
SEC("?perf_event")
int update_m0_in_hardirq(void *ctx)
{
	return update_m0_once();
}

/*
 * Called by a map with timers, with the lock of the bucket, where an element takes the
 * place of another one
 */
SEC("?fentry/bpf_obj_cancel_fields")
int update_m0_in_fentry(void *ctx)
{
	return update_m0_once();
}

struct guarded_value {
	struct bpf_timer timer;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct guarded_value);
} guarded SEC(".maps");

__s64 guarded_ret;

static __always_inline long update_guarded_map(__u64 number)
{
	struct guarded_value value;
	__u32 key = 5;

	__builtin_memset(&value, 0, sizeof(value));
	value.number = number;
	return bpf_map_update_elem(&guarded, &key, &value, 0);
}

SEC("?syscall")
int update_guarded(void *ctx)
{
	return update_guarded_map(1) ? 1 : 0;
}

SEC("?map_trace/any/UPDATE_ELEM")
int update_updates_guarded(struct bpf_map_trace_ctx__update_elem *ctx)
{
	guarded_ret = update_guarded_map(2);
	return guarded_ret ? 1 : 0;
}
