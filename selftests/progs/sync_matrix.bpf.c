// SPDX-License-Identifier: GPL-2.0
/*
 * A map of any type, its tracers, and each way in which a program writes it. For each way there
 * is one program for each type that supports it, as the verifier checks one program at a time.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "sync_matrix.h"

char _license[] SEC("license") = "GPL";

/* What user space says of the map before this is loaded: it sets the types, too. */
const volatile bool is_inner;
const volatile bool is_percpu;
const volatile __u32 key_words = 1;
const volatile __u32 nr_cpus = 1;

struct source_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HASH_ENTRIES);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct cell_value));
} source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct source_map);
} outer SEC(".maps") = {
	.values = { &source },
};

/* Values with special fields */
struct locked_value {
	struct cell_value value;
	struct bpf_spin_lock lock;
};

struct deferring_value {
	struct cell_value value;
	struct bpf_timer timer;
	struct bpf_wq work;
	struct bpf_task_work task_work;
};

struct pointing_value {
	struct cell_value value;
	struct task_struct __kptr *task;
};

#define SPECIAL_MAP(name, value_type)						\
struct {									\
	__uint(type, BPF_MAP_TYPE_HASH);					\
	__uint(max_entries, HASH_ENTRIES);					\
	__type(key, __u32);							\
	__type(value, value_type);						\
} name SEC(".maps")

SPECIAL_MAP(locked, struct locked_value);
SPECIAL_MAP(deferring, struct deferring_value);
SPECIAL_MAP(pointing, struct pointing_value);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CELL_KEYS);
	__type(key, __u32);
	__type(value, struct cell_value);
} mapped SEC(".maps");

/* A map of its own, with this as its value */
struct cell_value global SEC(".data.global");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ringbuf SEC(".maps");

/* Of programs of one type each */
#define JUMPS(name)								\
struct {									\
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);					\
	__uint(max_entries, 1);							\
	__uint(key_size, sizeof(__u32));					\
	__uint(value_size, sizeof(__u32));					\
} name SEC(".maps")

JUMPS(jumps_raw_tp);
JUMPS(jumps_syscall);
JUMPS(jumps_perf_event);

/* A value of each CPU has a key of its own here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024 * MAX_CPUS);
	__type(key, struct mirror_key);
	__type(value, struct cell_value);
} mirror SEC(".maps");

static __always_inline struct mirror_key mirror_key(__u32 *words, __u32 cpu)
{
	struct mirror_key key = { .key.words[0] = words[0] };

	if (key_words > 1)
		key.key.words[1] = words[1];
	if (is_percpu)
		key.cpu = cpu;
	return key;
}

static __always_inline int store_in_mirror(void *words, struct cell_value *from, __u32 cpu)
{
	struct mirror_key key = mirror_key(words, cpu);
	struct cell_value value = *from;

	return bpf_map_update_elem(&mirror, &key, &value, BPF_ANY) ? 1 : 0;
}

static __always_inline int take_from_mirror(void *words)
{
	struct mirror_key key = mirror_key(words, 0);
	int cpu;

	/* An interpreter takes no iterator. */
	for (cpu = 0; cpu < MAX_CPUS && cpu < nr_cpus; cpu++) {
		long err;

		key.cpu = cpu;
		err = bpf_map_delete_elem(&mirror, &key);
		if (err && err != -2 /* ENOENT */)
			return 1;
	}
	return 0;
}

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct cell_value *value = ctx->value;

	return value ? store_in_mirror(ctx->key, value, ctx->cpu) : take_from_mirror(ctx->key);
}

SEC("map_trace/source/UPDATE_ELEM")
int updated(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return store_in_mirror(ctx->key, ctx->value, ctx->cpu);
}

SEC("map_trace/source/DELETE_ELEM")
int deleted(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return take_from_mirror(ctx->key);
}

/* What the ways are given, and what came of it */
struct cell_key input_key, input_other_key;
struct cell_value input_value;
char input_digits[16] = "7777777777";
/* The context to write in is there once: an interrupt comes again. */
__u32 armed, done, seen;
__s64 result;

/* It stays away from what others write: who watches it under emulation pays for the page. */
__u64 watched SEC(".data.watched");
__u64 watched_address;

SEC("?syscall")
int find_watched(void *ctx)
{
	watched_address = (__u64)&watched;
	return 0;
}

/* A breakpoint is an NMI to the kernel. */
SEC("?raw_tp")
int touch_watched(void *ctx)
{
	*(volatile __u64 *)&watched = 1;
	return 0;
}

/* As in linux/preempt.h */
#define SOFTIRQ_OFFSET 0x100
#define HARDIRQ_MASK 0x0f000000
#define NMI_MASK 0xf0000000

extern const unsigned long __preempt_count __ksym;

static __always_inline enum seen seen_now(void)
{
	unsigned long count = *(unsigned long *)bpf_this_cpu_ptr(&__preempt_count);

	return count & NMI_MASK ? SEEN_NMI : count & HARDIRQ_MASK ? SEEN_HARDIRQ :
	       count & SOFTIRQ_OFFSET ? SEEN_SOFTIRQ : SEEN_TASK;
}

static __always_inline bool begin_cell(void)
{
	return __sync_val_compare_and_swap(&armed, 1, 0) == 1;
}

static __always_inline void end_cell(long err)
{
	seen = seen_now();
	result = err;
	__sync_val_compare_and_swap(&done, 0, 1);
}

/* The programs of a way, which is a function that returns 0 or what has failed */
#define PROGRAM(name, type)							\
SEC("?" #type)									\
int name##_##type(void *ctx)							\
{										\
	if (begin_cell())							\
		end_cell(do_##name());						\
	return 0;								\
}

#define WAY_OF_SLEEPABLE(name)							\
static __always_inline long do_##name(void);					\
PROGRAM(name, syscall)								\
static __always_inline long do_##name(void)

#define WAY(name)								\
static __always_inline long do_##name(void);					\
PROGRAM(name, raw_tp)								\
PROGRAM(name, syscall)								\
PROGRAM(name, perf_event)							\
static __always_inline long do_##name(void)

static __always_inline void *the_map(void)
{
	__u32 zero = 0;

	return is_inner ? bpf_map_lookup_elem(&outer, &zero) : &source;
}

static __always_inline struct cell_value *find(struct cell_key *key)
{
	void *map = the_map();

	return map ? bpf_map_lookup_elem(map, key) : NULL;
}

/* The pointer that the next lines write through */
#define FIND(value)								\
	struct cell_key key = input_key;					\
	struct cell_value *value = find(&key);					\
										\
	if (!value)								\
		return -1

#include "sync_matrix_ways.h"
