// SPDX-License-Identifier: GPL-2.0
/* Slow tracers, and one that is interrupted by its own operation */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "contract.h"

char _license[] SEC("license") = "GPL";

#define CLOCK_MONOTONIC 1

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

struct timer_value {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct timer_value);
} timers SEC(".maps");

/* How long the tracers stay */
__u64 spin_ns;

__u32 entered;
__u64 left_ns;

/* What the timer did while a tracer ran, and what the tracers saw of it */
__u32 in_tracer;
__u32 tracer_cpu;
__u32 interrupted;
__u32 interruptions;
__u32 interrupt_failures;
__u32 traced_interruptions;

/* The update in a softirq is over. */
__u32 done;

__s64 timer_ret;
__s64 update_ret;

static int is_over(__u32 i, __u64 *deadline)
{
	return *(volatile __u32 *)&interrupted || bpf_ktime_get_ns() >= *deadline;
}

static int spin_on(__u32 i, __u64 *deadline)
{
	bpf_loop(1 << 23, is_over, deadline, 0);
	return is_over(0, deadline);
}

/*
 * Bounded, as preemption is off. By the clock: one loop has an end, which a fast machine
 * reaches before the deadline.
 */
SEC("map_trace/source/UPDATE_ELEM")
int spins(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 deadline = bpf_ktime_get_ns() + spin_ns;

	if (*(__u32 *)ctx->key == KEY_OF_INTERRUPT) {
		if (in_tracer)
			traced_interruptions++;
		return 0;
	}
	*(volatile __u32 *)&entered = 1;
	tracer_cpu = ctx->cpu;
	*(volatile __u32 *)&in_tracer = 1;
	bpf_loop(1 << 23, spin_on, &deadline, 0);
	*(volatile __u32 *)&in_tracer = 0;
	left_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void update_as_interrupt(void)
{
	__u32 interrupt = KEY_OF_INTERRUPT;
	__u64 number = 1;
	bool inside = in_tracer;

	if (bpf_map_update_elem(&source, &interrupt, &number, 0))
		interrupt_failures++;
	else if (inside)
		interruptions++;
	*(volatile __u32 *)&interrupted = 1;
}

static int update_in_timer(void *map, __u32 *key, struct timer_value *value)
{
	update_as_interrupt();
	return 0;
}

static __always_inline void start_timer(int (*callback)(void *map, __u32 *key,
							struct timer_value *value))
{
	struct timer_value *value;
	__u32 key = 0;

	value = bpf_map_lookup_elem(&timers, &key);
	if (!value)
		return;
	/* Only the first time */
	bpf_timer_init(&value->timer, &timers, CLOCK_MONOTONIC);
	timer_ret = bpf_timer_set_callback(&value->timer, callback);
	if (!timer_ret)
		timer_ret = bpf_timer_start(&value->timer, TIMER_NS, BPF_F_TIMER_CPU_PIN);
}

static __always_inline void update_source(void)
{
	__u64 number = 1;
	__u32 key = 0;

	update_ret = bpf_map_update_elem(&source, &key, &number, 0);
}

/* Let the timer come in while the update's tracer runs */
SEC("syscall")
int update_and_be_interrupted(void *ctx)
{
	interrupted = 0;
	start_timer(update_in_timer);
	update_source();
	return 0;
}

static int update_and_be_done(void *map, __u32 *key, struct timer_value *value)
{
	update_source();
	*(volatile __u32 *)&done = 1;
	return 0;
}

/* The tracer runs in a softirq. */
SEC("syscall")
int update_in_softirq(void *ctx)
{
	start_timer(update_and_be_done);
	return 0;
}

/* The clock of the CPU, which comes in there as well */
SEC("perf_event")
int update_in_hardirq(void *ctx)
{
	if (in_tracer && bpf_get_smp_processor_id() == tracer_cpu)
		update_as_interrupt();
	return 0;
}

/* The interrupt does not count as one yet. */
SEC("fentry/irq_enter_rcu")
int update_before_interrupt(void *ctx)
{
	if (in_tracer && bpf_get_smp_processor_id() == tracer_cpu)
		update_as_interrupt();
	return 0;
}

SEC("raw_tp")
int update(void *ctx)
{
	update_source();
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int counts(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__sync_fetch_and_add(&traced_interruptions, 1);
	return 0;
}

SEC("map_trace/source/UPDATE_ELEM")
int reads_past_value(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return *((volatile __u8 *)ctx->value + 8) == 1;
}

/* A cycle where it traces the source */
SEC("map_trace/source/UPDATE_ELEM")
int updates_source(struct bpf_map_trace_ctx__update_elem *ctx)
{
	return bpf_map_update_elem(&source, ctx->key, ctx->value, 0) ? 1 : 0;
}
