// SPDX-License-Identifier: GPL-2.0
/*
 * A map that everything writes to at once, and its tracers: sync tracers, event tracers, and
 * fexit programs.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "soak.h"

#define ENOENT 2
#define CLOCK_MONOTONIC 1

char _license[] SEC("license") = "GPL";

/* Whether there is a value for each CPU */
const volatile bool percpu;
const volatile __u32 nr_cpus = 1;
const volatile __u32 nr_keys = HOT_KEYS;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

/* Each value has a key of its own, that of each CPU, too: see mirror_key() */
struct mirror {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS * MAX_CPUS);
	__type(key, __u32);
	__type(value, __u64);
};

/* Of the link that stays, and of the one that comes and goes */
struct mirror mirror SEC(".maps");
struct mirror late_mirror SEC(".maps");
/* Of what others would take in its place */
struct mirror events SEC(".maps");
struct mirror fexits SEC(".maps");

/* How often a sync tracer has run, by reason; the link that stays, and the other one */
__u64 runs[2][NR_REASONS];
/* Of this many runs, one fails */
__u32 fails_each, tries;

/* In a page of its own: who watches it under emulation pays for all that is there. */
__u64 watched SEC(".data.watched");
__u64 watched_address;

SEC("syscall")
int find_watched(void *ctx)
{
	watched_address = (__u64)&watched;
	return 0;
}

/* An NMI comes here, each so many times. */
static __always_inline void be_interrupted(__u64 number)
{
	if (number % 32 == 0)
		*(volatile __u64 *)&watched = number;
}

static __always_inline int store(void *map, __u32 key, __u64 value, __u32 cpu)
{
	key = mirror_key(key, percpu ? cpu : 0);
	return bpf_map_update_elem(map, &key, &value, BPF_ANY) ? 1 : 0;
}

static __always_inline int forget(void *map, __u32 key)
{
	__u32 cpu;

	bpf_for(cpu, 0, percpu ? nr_cpus : 1) {
		__u32 mirrored = mirror_key(key, cpu);
		long err = bpf_map_delete_elem(map, &mirrored);

		if (err && err != -ENOENT)
			return 1;
	}
	return 0;
}

static __always_inline int sync_to(void *map, __u64 *count,
				   struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u32 try = __sync_fetch_and_add(&tries, 1);
	__u32 key = *(__u32 *)ctx->key;
	__u64 *value = ctx->value;

	__sync_fetch_and_add(&count[ctx->reason % NR_REASONS], 1);
	be_interrupted(try);
	if (fails_each && try % fails_each == 0)
		return 1;
	return value ? store(map, key, *value, ctx->cpu) : forget(map, key);
}

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	return sync_to(&mirror, runs[0], ctx);
}

SEC("map_trace/source/SYNC_ELEM")
int synced_late(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	return sync_to(&late_mirror, runs[1], ctx);
}

/* The next version of it */
SEC("map_trace/source/SYNC_ELEM")
int synced_late_too(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	return sync_to(&late_mirror, runs[1], ctx);
}

SEC("map_trace/source/UPDATE_ELEM")
int updated(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return store(&events, *(__u32 *)ctx->key, *(__u64 *)ctx->value, ctx->cpu);
}

SEC("map_trace/source/DELETE_ELEM")
int deleted(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	return forget(&events, *(__u32 *)ctx->key);
}

static __always_inline int returns_from_update(struct bpf_map *map, void *key_ptr,
					       void *value_ptr, long err)
{
	__u64 value;
	__u32 key;

	if (err || map != (struct bpf_map *)&source ||
	    bpf_probe_read_kernel(&key, sizeof(key), key_ptr) ||
	    bpf_probe_read_kernel(&value, sizeof(value), value_ptr))
		return 0;
	store(&fexits, key, value, bpf_get_smp_processor_id());
	return 0;
}

static __always_inline int returns_from_delete(struct bpf_map *map, void *key_ptr, long err)
{
	__u32 key;

	if (!err && map == (struct bpf_map *)&source &&
	    !bpf_probe_read_kernel(&key, sizeof(key), key_ptr))
		forget(&fexits, key);
	return 0;
}

#define FEXIT_OF_UPDATE(function)						\
SEC("?fexit/" #function)							\
int BPF_PROG(function##_returns, struct bpf_map *map, void *key, void *value,	\
	     __u64 flags, long err)						\
{										\
	return returns_from_update(map, key, value, err);			\
}

#define FEXIT_OF_DELETE(function)						\
SEC("?fexit/" #function)							\
int BPF_PROG(function##_returns, struct bpf_map *map, void *key, long err)	\
{										\
	return returns_from_delete(map, key, err);				\
}

FEXIT_OF_UPDATE(htab_map_update_elem)
FEXIT_OF_UPDATE(htab_lru_map_update_elem)
FEXIT_OF_UPDATE(htab_percpu_map_update_elem)
FEXIT_OF_UPDATE(array_map_update_elem)
FEXIT_OF_DELETE(htab_map_delete_elem)
FEXIT_OF_DELETE(htab_lru_map_delete_elem)

/* For a copy that user space keeps: each element is a key and its values */
SEC("iter/bpf_map_elem")
int copied(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	__u32 *key_ptr = ctx->key, key;
	void *values = ctx->value;

	if (!key_ptr || !values)
		return 0;
	key = *key_ptr;
	bpf_seq_write(seq, &key, sizeof(key));
	bpf_seq_write(seq, values, percpu ? nr_cpus * sizeof(__u64) : sizeof(__u64));
	return 0;
}

struct stream streams[NR_STREAMS];
__u32 running;
/* Whether they write through pointers, too */
__u32 pointers;

static __always_inline __u32 pick_key(__u32 random)
{
	return random % 4 ? (random >> 2) % HOT_KEYS : (random >> 2) % nr_keys;
}

/* The pointer is to what is in the map, to what was, or by now to another key's. */
static __always_inline void write_through_pointer(__u32 way, __u32 key, __u32 other, __u64 value)
{
	__u64 *ptr = bpf_map_lookup_elem(&source, &key), zero = 0;

	if (!ptr)
		return;
	switch (way) {
	case WRITE:
		be_interrupted(value);
		*ptr = value;
		break;
	case ADD:
		__sync_fetch_and_add(ptr, 1);
		break;
	case WRITE_DELETED:
		bpf_map_delete_elem(&source, &key);
		bpf_map_update_elem(&source, &other, &zero, BPF_ANY);
		be_interrupted(value);
		*ptr = value;
		break;
	case WRITE_REPLACED:
		bpf_map_update_elem(&source, &key, &zero, BPF_ANY);
		*ptr = value;
		break;
	}
}

static __always_inline void write_other_cpu(__u32 key, __u32 cpu, __u64 value)
{
	__u64 *ptr = bpf_map_lookup_percpu_elem(&source, &key, cpu);

	if (ptr)
		*ptr = value;
}

/* Without pointers there are no lookups: they mark what they find, and that heals. */
static const __u8 ways[2][16] = {
	{
		UPDATE_ANY, UPDATE_ANY, UPDATE_ANY, UPDATE_ANY, UPDATE_ANY, UPDATE_ANY,
		UPDATE_NOEXIST, UPDATE_NOEXIST, UPDATE_EXIST, UPDATE_EXIST,
		REMOVE, REMOVE, REMOVE, RECREATE, RECREATE, RECREATE,
	}, {
		UPDATE_ANY, UPDATE_ANY, UPDATE_ANY, UPDATE_NOEXIST, UPDATE_EXIST,
		REMOVE, REMOVE, RECREATE, LOOKUP,
		WRITE, ADD, WRITE_DELETED, WRITE_DELETED, WRITE_REPLACED, WRITE_OTHER_CPU, WRITE,
	}
};

/* The next one of a stream. A function of its own, which is verified once */
__noinline int operate(__u32 index)
{
	struct stream *stream = &streams[index % NR_STREAMS];
	__u32 key, other, way;
	__u64 random, value;

	if (!running)
		return 0;
	random = NEXT_RANDOM(stream->random);
	way = ways[!!pointers][random % 16];
	key = pick_key(random >> 8);
	other = pick_key(random >> 32);
	value = (__u64)index << STREAM_SHIFT | (__u64)way << WAY_SHIFT | ++stream->operations;

	switch (way) {
	case UPDATE_ANY:
		be_interrupted(random >> 4);
		bpf_map_update_elem(&source, &key, &value, BPF_ANY);
		break;
	case UPDATE_NOEXIST:
		bpf_map_update_elem(&source, &key, &value, BPF_NOEXIST);
		break;
	case UPDATE_EXIST:
		bpf_map_update_elem(&source, &key, &value, BPF_EXIST);
		break;
	case REMOVE:
		bpf_map_delete_elem(&source, &key);
		break;
	case RECREATE:
		bpf_map_delete_elem(&source, &key);
		be_interrupted(random >> 4);
		bpf_map_update_elem(&source, &key, &value, BPF_NOEXIST);
		break;
	case LOOKUP:
		bpf_map_lookup_elem(&source, &key);
		break;
	case WRITE_OTHER_CPU:
		if (percpu) {
			write_other_cpu(key, (random >> 4) % nr_cpus, value);
			break;
		}
		way = WRITE;
		/* fallthrough */
	default:
		write_through_pointer(way, key, other, value);
	}
	return 0;
}

static long add_to_some(struct bpf_map *map, __u32 *key, __u64 *value, void *ctx)
{
	if (*key % 8 == 0)
		__sync_fetch_and_add(value, 1);
	return 0;
}

/* ctx: which stream */
static __always_inline int operate_often(__u64 *ctx)
{
	__u32 index = LOAD_STREAM + ctx[0] % STREAMS_EACH;
	int i;

	bpf_for(i, 0, 100)
		operate(index);
	return 0;
}

SEC("raw_tp")
int churn(__u64 *ctx)
{
	operate_often(ctx);
	if (pointers)
		bpf_for_each_map_elem(&source, add_to_some, NULL, 0);
	return 0;
}

SEC("syscall")
int churn_sleepable(__u64 *ctx)
{
	return operate_often(ctx);
}

SEC("perf_event")
int in_hardirq(void *ctx)
{
	return operate(CLOCK_STREAM + bpf_get_smp_processor_id() % STREAMS_EACH);
}

SEC("perf_event")
int in_nmi(void *ctx)
{
	return operate(NMI_STREAM + bpf_get_smp_processor_id() % STREAMS_EACH);
}

struct timer {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__type(key, __u32);
	__type(value, struct timer);
} timers SEC(".maps");

#define TIMER_NS 500000

static int in_timer(void *map, __u32 *index, struct timer *timer)
{
	operate(TIMER_STREAM + *index % STREAMS_EACH);
	if (running)
		bpf_timer_start(&timer->timer, TIMER_NS, BPF_F_TIMER_CPU_PIN);
	return 0;
}

/* ctx: which one. It stays on this CPU. */
SEC("syscall")
int start_timer(__u64 *ctx)
{
	__u32 index = ctx[0] % MAX_CPUS;
	struct timer *timer = bpf_map_lookup_elem(&timers, &index);

	if (!timer)
		return 1;
	/* -EBUSY: it is there from the last time */
	bpf_timer_init(&timer->timer, &timers, CLOCK_MONOTONIC);
	return bpf_timer_set_callback(&timer->timer, in_timer) ||
	       bpf_timer_start(&timer->timer, TIMER_NS, BPF_F_TIMER_CPU_PIN);
}

/* The same, and waits for what it does */
SEC("syscall")
int cancel_timer(__u64 *ctx)
{
	__u32 index = ctx[0] % MAX_CPUS;
	struct timer *timer = bpf_map_lookup_elem(&timers, &index);

	if (timer)
		bpf_timer_cancel(&timer->timer);
	return !timer;
}
