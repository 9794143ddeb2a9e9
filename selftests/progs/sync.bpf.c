// SPDX-License-Identifier: GPL-2.0
/* A map, its sync tracers and its event tracers */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "sync.h"

char _license[] SEC("license") = "GPL";

extern void bpf_local_irq_save(unsigned long *flags) __weak __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __weak __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CAPACITY);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

struct mirror {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, __u64);
};

struct mirror mirror SEC(".maps");
/* Kept by the event tracers */
struct mirror events SEC(".maps");

/* How often the tracer was told, why, and how often that there is nothing */
__u32 reasons[NR_REASONS];
__u32 absent;
/* While set, the tracers cannot follow */
__u32 failing;
/* Of this many runs of each tracer, one fails */
__u32 fails_each, sync_runs, event_runs;
__u32 update_errors;

/* Told of this value, the tracer waits until it is let go, some seconds at most */
__u64 held_value;
__u32 held, released;

static void hold(__u64 value)
{
	__u64 end = bpf_ktime_get_ns() + 5000000000ULL;
	int i;

	if (!held_value || value != held_value)
		return;
	__sync_fetch_and_add(&held, 1);
	bpf_for(i, 0, 1 << 23)
		if (__sync_fetch_and_add(&released, 0) || bpf_ktime_get_ns() > end)
			break;
}

/* How long each run takes */
__u64 delay_ns;

static void delay(void)
{
	__u64 end = bpf_ktime_get_ns() + delay_ns;
	int i;

	bpf_for(i, 0, 1 << 23)
		if (bpf_ktime_get_ns() >= end)
			break;
}

/* While set, they cannot for this key alone */
__u32 fails_for_key, failing_key;

static bool fails(__u32 *runs)
{
	__u32 run = __sync_fetch_and_add(runs, 1);

	return failing || (fails_each && run % fails_each == 0);
}

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;
	long err;

	if (value)
		hold(*value);
	if (delay_ns)
		delay();
	if (fails_for_key && *(__u32 *)ctx->key == failing_key)
		return 1;
	__sync_fetch_and_add(&reasons[ctx->reason % NR_REASONS], 1);
	if (fails(&sync_runs))
		return 1;
	if (value)
		return bpf_map_update_elem(&mirror, ctx->key, value, BPF_ANY) ? 1 : 0;

	__sync_fetch_and_add(&absent, 1);
	err = bpf_map_delete_elem(&mirror, ctx->key);
	return err && err != -2 /* ENOENT */;
}

/* Another layout */
SEC("map_trace/source/SYNC_ELEM")
int synced_negated(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;
	__u64 negated;
	long err;

	if (value) {
		negated = ~*value;
		return bpf_map_update_elem(&mirror, ctx->key, &negated, BPF_ANY) ? 1 : 0;
	}
	err = bpf_map_delete_elem(&mirror, ctx->key);
	return err && err != -2 /* ENOENT */;
}

/* A layout with a lock, for those that will use it */
struct locked_value {
	struct bpf_spin_lock lock;
	__u64 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct locked_value);
} locked_mirror SEC(".maps");

SEC("map_trace/source/SYNC_ELEM")
int synced_with_lock(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct locked_value locked = {};
	__u64 *value = ctx->value;
	long err;

	if (value) {
		locked.value = *value;
		return bpf_map_update_elem(&locked_mirror, ctx->key, &locked, BPF_ANY) ? 1 : 0;
	}
	err = bpf_map_delete_elem(&locked_mirror, ctx->key);
	return err && err != -2 /* ENOENT */;
}

/* What has a lock is followed, too. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct locked_value);
} locked_source SEC(".maps");

SEC("map_trace/locked_source/SYNC_ELEM")
int synced_locked(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct locked_value *locked = ctx->value;
	__u64 value;
	long err;

	if (fails(&sync_runs))
		return 1;
	if (locked) {
		value = locked->value;
		return bpf_map_update_elem(&mirror, ctx->key, &value, BPF_ANY) ? 1 : 0;
	}
	err = bpf_map_delete_elem(&mirror, ctx->key);
	return err && err != -2 /* ENOENT */;
}

/* What has such a one is not. */
struct resilient_value {
	struct bpf_res_spin_lock lock;
	__u64 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, struct resilient_value);
} resilient_source SEC(".maps");

SEC("map_trace/source/UPDATE_ELEM")
int updated(struct bpf_map_trace_ctx__update_elem *ctx)
{
	if (fails(&event_runs))
		return 1;
	return bpf_map_update_elem(&events, ctx->key, ctx->value, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/source/DELETE_ELEM")
int deleted(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	if (fails(&event_runs))
		return 1;
	bpf_map_delete_elem(&events, ctx->key);
	return 0;
}

/* The verifier has to insist. */
SEC("?map_trace/source/SYNC_ELEM")
int unchecked(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;

	return *value == 1;
}

SEC("?map_trace/source/SYNC_ELEM")
int reads_past_value(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	__u64 *value = ctx->value;

	return value && value[1] == 1;
}

/* How often a key was lost, of this map */
__u32 lost_events;

SEC("tp_btf/bpf_map_trace_lost")
int BPF_PROG(on_lost, const struct bpf_map *map, __u64 cookie, __u64 lost)
{
	if (map == (const struct bpf_map *)&source && lost == lost_events + 1)
		lost_events++;
	return 0;
}

/* What the programs below do it with */
__u32 from, to;
__u64 new_value;

SEC("raw_tp")
int update_range(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;
		__u64 value = new_value + i;

		if (bpf_map_update_elem(&source, &key, &value, BPF_ANY))
			__sync_fetch_and_add(&update_errors, 1);
	}
	return 0;
}

SEC("raw_tp")
int delete_range(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;

		bpf_map_delete_elem(&source, &key);
	}
	return 0;
}

/* The same where no worker can come between */
SEC("raw_tp")
int update_alone(void *ctx)
{
	unsigned long flags;
	__u32 i;

	bpf_local_irq_save(&flags);
	bpf_for(i, from, to) {
		__u64 value = new_value + i;
		__u32 key = i;

		bpf_map_update_elem(&source, &key, &value, BPF_ANY);
	}
	bpf_local_irq_restore(&flags);
	return 0;
}

SEC("raw_tp")
int delete_alone(void *ctx)
{
	unsigned long flags;
	__u32 i;

	bpf_local_irq_save(&flags);
	bpf_for(i, from, to) {
		__u32 key = i;

		bpf_map_delete_elem(&source, &key);
	}
	bpf_local_irq_restore(&flags);
	return 0;
}

/* Nobody is told of these. */
SEC("raw_tp")
int write_through_pointers(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;
		__u64 *value = bpf_map_lookup_elem(&source, &key);

		if (value)
			__sync_fetch_and_add(value, 1000);
	}
	return 0;
}

SEC("tc")
int update_locked(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		struct locked_value locked = { .value = new_value + i };
		__u32 key = i;

		bpf_map_update_elem(&locked_source, &key, &locked, i % 2 ? BPF_F_LOCK : BPF_ANY);
	}
	return 0;
}

SEC("tc")
int count_locked(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		struct locked_value *locked;
		__u32 key = i;

		locked = bpf_map_lookup_elem(&locked_source, &key);
		if (!locked)
			continue;
		bpf_spin_lock(&locked->lock);
		locked->value += 1000;
		bpf_spin_unlock(&locked->lock);
	}
	return 0;
}

/* Random operations on few keys */
__u32 hot_keys;
__u64 operations;

static void churn_once(void)
{
	__u32 random = bpf_get_prandom_u32();
	__u32 key = (random >> 8) % (hot_keys ?: 1);
	__u64 value = bpf_ktime_get_ns();

	if (random % 4)
		bpf_map_update_elem(&source, &key, &value, BPF_ANY);
	else
		bpf_map_delete_elem(&source, &key);
	__sync_fetch_and_add(&operations, 1);
}

SEC("raw_tp")
int churn(void *ctx)
{
	int i;

	bpf_for(i, 0, 100)
		churn_once();
	return 0;
}

SEC("syscall")
int churn_sleepable(void *ctx)
{
	int i;

	bpf_for(i, 0, 100)
		churn_once();
	return 0;
}

SEC("perf_event")
int churn_in_hardirq(void *ctx)
{
	churn_once();
	return 0;
}
