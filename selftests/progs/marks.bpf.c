// SPDX-License-Identifier: GPL-2.0
/* Programs that write through pointers, each in another way, and the tracers of the maps */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "marks.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, __u64);
};

struct inner other SEC(".maps"), mirror SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, struct inner);
} outer SEC(".maps");

/* Of another size than the one that a program was loaded with, too */
struct inner_array {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} other_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, struct inner_array);
} outer_of_arrays SEC(".maps");

/* Values as in connection tables */
struct timed {
	__u64 value;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct timed);
} timers SEC(".maps");

struct worked {
	__u64 value;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct worked);
} works SEC(".maps");

struct tasked {
	__u64 value;
	struct bpf_task_work work;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct tasked);
} tasks SEC(".maps");

struct locked {
	struct bpf_spin_lock lock;
	__u64 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct locked);
} locks SEC(".maps");

/* What the programs write, and where */
__u64 new_value;
__u32 key, other_key;
/* While set, the tracer cannot follow */
__u32 failing;
__u32 runs;
/* How long each run takes: the worker rests for longer then */
__u64 delay_ns;
/* Those for what may have been written through a pointer */
__u32 writes;
/* A program that holds a pointer waits until it is let go, some seconds at most */
__u32 held, released;

static void delay(void)
{
	__u64 end = bpf_ktime_get_ns() + delay_ns;
	int i;

	bpf_for(i, 0, 1 << 23)
		if (bpf_ktime_get_ns() >= end)
			break;
}

/* Whoever waits for all programs waits for this one. */
SEC("syscall")
int takes_time(void *ctx)
{
	delay();
	return 0;
}

static int follow(void *key, __u64 *value)
{
	long err;

	__sync_fetch_and_add(&runs, 1);
	if (delay_ns)
		delay();
	if (failing)
		return 1;
	if (value)
		return bpf_map_update_elem(&mirror, key, value, BPF_ANY) ? 1 : 0;
	err = bpf_map_delete_elem(&mirror, key);
	return err && err != -2 /* ENOENT */;
}

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;

	return follow(ctx->key, value);
}

SEC("map_trace/locks/SYNC_ELEM")
int locks_synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct locked *locked = ctx->value;
	__u64 value;

	if (ctx->reason == BPF_MAP_TRACE_REASON_WRITE)
		__sync_fetch_and_add(&writes, 1);
	if (!locked)
		return follow(ctx->key, NULL);
	value = locked->value;
	return follow(ctx->key, &value);
}

/* A tracer that runs itself again, by way of the worker */
SEC("map_trace/source/SYNC_ELEM")
int writes_its_source(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	if (value)
		*value += 1;
	return 0;
}

static long reads_value(struct bpf_map *map, __u32 *index, __u64 *value, __u64 *sum)
{
	*sum += *value;
	return 0;
}

/* The same, as the elements that it passes are marked */
SEC("map_trace/source/SYNC_ELEM")
int passes_its_source(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 sum = 0;

	bpf_for_each_map_elem(&source, reads_value, &sum, 0);
	return sum == 4711;
}

SEC("syscall")
int stores(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	if (!value)
		return 1;
	*value = new_value;
	return 0;
}

/* Not sleepable */
SEC("raw_tp")
int stores_in_tracepoint(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	if (!value)
		return 1;
	*value = new_value;
	return 0;
}

SEC("syscall")
int add(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	if (!value)
		return 1;
	__sync_fetch_and_add(value, new_value);
	return 0;
}

/* The pointer is older than what the key has then. */
SEC("syscall")
int store_later(void *ctx)
{
	__u32 index = key, other_index = other_key;
	__u64 *value = bpf_map_lookup_elem(&source, &index), zero = 0;

	if (!value)
		return 1;
	if (bpf_map_delete_elem(&source, &index) ||
	    bpf_map_update_elem(&source, &other_index, &zero, BPF_ANY))
		return 2;
	*value = new_value;
	return 0;
}

SEC("syscall")
int store_when_released(void *ctx)
{
	__u64 end = bpf_ktime_get_ns() + 60000000000ULL;
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);
	int i, j;

	if (!value)
		return 1;
	__sync_fetch_and_add(&held, 1);
	/* A loop has a limit, which a fast machine reaches before the time is over. */
	bpf_for(i, 0, 1 << 10)
		bpf_for(j, 0, 1 << 23)
			if (__sync_fetch_and_add(&released, 0) || bpf_ktime_get_ns() > end)
				goto done;
done:
	*value = new_value;
	return 0;
}

SEC("syscall")
int helper_writes(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	if (!value)
		return 1;
	return bpf_probe_read_kernel(value, sizeof(*value), &new_value) ? 2 : 0;
}

SEC("syscall")
int dynptr_writes(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index), new = new_value;
	struct bpf_dynptr dynptr;

	if (!value)
		return 1;
	if (bpf_dynptr_from_mem(value, sizeof(*value), 0, &dynptr))
		return 2;
	return bpf_dynptr_write(&dynptr, 0, &new, sizeof(new), 0) ? 3 : 0;
}

__noinline int global_store(__u64 *value)
{
	if (!value)
		return 1;
	*value = new_value;
	return 0;
}

SEC("syscall")
int global_function_writes(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	return value ? global_store(value) : 1;
}

static __noinline __u64 *find(__u32 index)
{
	return bpf_map_lookup_elem(&source, &index);
}

static __noinline void write(__u64 *value)
{
	*value = new_value;
}

SEC("syscall")
int functions_write(void *ctx)
{
	__u64 *value = find(key);

	if (!value)
		return 1;
	write(value);
	return 0;
}

/* Which map that is, is not known at load. */
SEC("syscall")
int store_in_one_of_two(void *ctx)
{
	void *map = new_value ? (void *)&source : (void *)&other;
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(map, &index);

	if (!value)
		return 1;
	*value = new_value;
	return 0;
}

SEC("syscall")
int store_in_inner_map(void *ctx)
{
	__u32 zero = 0, index = key;
	void *map = bpf_map_lookup_elem(&outer, &zero);
	__u64 *value;

	if (!map)
		return 1;
	value = bpf_map_lookup_elem(map, &index);
	if (!value)
		return 2;
	*value = new_value;
	return 0;
}

/* The check of loops does not know what is in another map. */
__u32 own_runs;

SEC("map_trace/other/SYNC_ELEM")
int writes_its_source_unseen(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u32 zero = 0, index = *(__u32 *)ctx->key;
	void *map = bpf_map_lookup_elem(&outer, &zero);
	__u64 *value;

	__sync_fetch_and_add(&own_runs, 1);
	if (!map)
		return 0;
	value = bpf_map_lookup_elem(map, &index);
	if (value)
		++*value;
	return 0;
}

SEC("syscall")
int store_in_inner_array(void *ctx)
{
	__u32 zero = 0, index = key;
	void *map = bpf_map_lookup_elem(&outer_of_arrays, &zero);
	__u64 *value;

	if (!map)
		return 1;
	value = bpf_map_lookup_elem(map, &index);
	if (!value)
		return 2;
	*value = new_value;
	return 0;
}

static long write_each(struct bpf_map *map, __u32 *index, __u64 *value, void *ctx)
{
	*value = new_value + *index;
	return 0;
}

SEC("syscall")
int callback_writes(void *ctx)
{
	return bpf_for_each_map_elem(&source, write_each, NULL, 0) < 0;
}

SEC("iter/bpf_map_elem")
int iterator_writes(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *value = ctx->value;

	if (value)
		*value = new_value;
	return 0;
}

static int timer_writes(void *map, __u32 *index, struct timed *timed)
{
	timed->value = new_value;
	__sync_fetch_and_add(&held, 1);
	return 0;
}

SEC("map_trace/timers/SYNC_ELEM")
int timers_synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct timed *timed = ctx->value;

	return follow(ctx->key, timed ? &timed->value : NULL);
}

SEC("syscall")
int start_timer(void *ctx)
{
	__u32 index = key;
	struct timed *timed = bpf_map_lookup_elem(&timers, &index);

	if (!timed)
		return 1;
	bpf_timer_init(&timed->timer, &timers, 1 /* CLOCK_MONOTONIC */);
	bpf_timer_set_callback(&timed->timer, timer_writes);
	return bpf_timer_start(&timed->timer, 0, 0) ? 2 : 0;
}

static int work_writes(void *map, int *index, void *value)
{
	struct worked *worked = value;

	worked->value = new_value;
	__sync_fetch_and_add(&held, 1);
	return 0;
}

SEC("map_trace/works/SYNC_ELEM")
int works_synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct worked *worked = ctx->value;

	return follow(ctx->key, worked ? &worked->value : NULL);
}

SEC("syscall")
int start_work(void *ctx)
{
	__u32 index = key;
	struct worked *worked = bpf_map_lookup_elem(&works, &index);

	if (!worked)
		return 1;
	bpf_wq_init(&worked->work, &works, 0);
	bpf_wq_set_callback(&worked->work, work_writes, 0);
	return bpf_wq_start(&worked->work, 0) ? 2 : 0;
}

static int task_writes(struct bpf_map *map, void *index, void *value)
{
	struct tasked *tasked = value;

	tasked->value = new_value;
	__sync_fetch_and_add(&held, 1);
	return 0;
}

SEC("map_trace/tasks/SYNC_ELEM")
int tasks_synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct tasked *tasked = ctx->value;

	return follow(ctx->key, tasked ? &tasked->value : NULL);
}

SEC("syscall")
int start_task_work(void *ctx)
{
	__u32 index = key;
	struct tasked *tasked = bpf_map_lookup_elem(&tasks, &index);

	if (!tasked)
		return 1;
	return bpf_task_work_schedule_signal(bpf_get_current_task_btf(), &tasked->work, &tasks,
					     task_writes) ? 2 : 0;
}

SEC("syscall")
int store_under_lock(void *ctx)
{
	__u32 index = key;
	struct locked *locked = bpf_map_lookup_elem(&locks, &index);

	if (!locked)
		return 1;
	bpf_spin_lock(&locked->lock);
	locked->value = new_value;
	bpf_spin_unlock(&locked->lock);
	return 0;
}

/* What the map has for its marks, where it is an array */
__u32 epoch;
bool armed;
__u8 marks[NR_KEYS];

SEC("?syscall")
int read_marks(void *ctx)
{
	const struct bpf_map_trace_marks *of_map = ((struct bpf_map *)&source)->trace_marks;

	if (!of_map)
		return 1;
	return bpf_probe_read_kernel(&epoch, sizeof(epoch), &of_map->epoch) ||
	       bpf_probe_read_kernel(&armed, sizeof(armed), &of_map->armed) ||
	       bpf_probe_read_kernel(marks, sizeof(marks), of_map->elems);
}

/* Reads only: its lookups are those of a kernel without marks. */
SEC("syscall")
int read(void *ctx)
{
	__u32 index = key;
	__u64 *value = bpf_map_lookup_elem(&source, &index);

	return value && *value == new_value;
}
