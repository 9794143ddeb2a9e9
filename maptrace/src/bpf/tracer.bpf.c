// SPDX-License-Identifier: GPL-2.0
/*
 * The tracers that "maptrace watch" and "maptrace record" attach to a map. They are
 * loaded once for each map, which is what the constants are of: the kernel refuses a
 * tracer that reads more than the map's key and value have.
 */
#include "types.h"

#define MAX_KEY_FILTER 512

/* tracer.rs has the same; key, value and stack follow, each at a multiple of 8 */
struct event {
	__u64 time_ns;
	__u64 flags;
	__u32 map;
	__u32 operation;
	__u32 pid;
	__u32 tid;
	__u32 cpu;
	__s32 error;
	__s32 stack_bytes;
	__u32 reason;
	char comm[16];
};

enum operation {
	OPERATION_UPDATE,
	OPERATION_DELETE,
};

/* tracer.rs has the same, and fills it in before it loads the programs */
const volatile struct config {
	__u32 map_index;
	__u32 map_id;
	__u32 key_size;
	/* As much as is copied of a value */
	__u32 value_size;
	/* Bytes of the stack that are taken; 0: none */
	__u32 stack_size;
	/* 0: of all processes */
	__u32 filter_pid;
	/* How many bytes of the key the filter is about */
	__u32 filter_bytes;
	/* Whether the contexts have ->reason */
	__u32 has_reason;
	__u8 filter_mask[MAX_KEY_FILTER];
	__u8 filter_want[MAX_KEY_FILTER];
} config = {};

/* Changes that the ring buffer had no room for */
__u64 lost;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

#define ALIGN8(size) (((size) + 7) & ~7U)
#define KEY_OFFSET sizeof(struct event)
#define VALUE_OFFSET (KEY_OFFSET + ALIGN8(config.key_size))

/*
 * Nobody has made a change that has a reason, as an eviction has: it is reported by whoever
 * comes next, and of no process.
 */
static __always_inline bool pid_is_wanted(__u32 reason)
{
	return !config.filter_pid ||
	       (!reason && bpf_get_current_pid_tgid() >> 32 == config.filter_pid);
}

static __always_inline bool key_is_wanted(const __u8 *key)
{
	__u32 i;

	for (i = 0; i < MAX_KEY_FILTER; i++) {
		if (i >= config.filter_bytes)
			break;
		if ((key[i] & config.filter_mask[i]) != config.filter_want[i])
			return false;
	}
	return true;
}

/* Fill in who and when. True if the record is complete. */
static __always_inline bool describe(void *ctx, struct bpf_dynptr *record, __u32 stack_offset,
				     enum operation operation, __u64 flags, __u32 cpu,
				     __u32 reason, __s32 error)
{
	__u64 pid_tgid = reason ? 0 : bpf_get_current_pid_tgid();
	struct event *event;
	void *stack;

	event = bpf_dynptr_data(record, 0, sizeof(*event));
	if (!event)
		return false;
	event->time_ns = bpf_ktime_get_ns();
	event->flags = flags;
	event->map = config.map_index;
	event->operation = operation;
	event->pid = pid_tgid >> 32;
	event->tid = pid_tgid;
	event->cpu = cpu;
	event->error = error;
	event->reason = reason;
	event->stack_bytes = 0;
	if (reason)
		__builtin_memset(event->comm, 0, sizeof(event->comm));
	else
		bpf_get_current_comm(event->comm, sizeof(event->comm));
	if (config.stack_size && !reason) {
		stack = bpf_dynptr_data(record, stack_offset, config.stack_size);
		if (!stack)
			return false;
		event->stack_bytes = bpf_get_stack(ctx, stack, config.stack_size, 0);
	}
	return true;
}

static __always_inline int finish(struct bpf_dynptr *record, bool complete)
{
	if (complete) {
		bpf_ringbuf_submit_dynptr(record, 0);
		return 0;
	}
	bpf_ringbuf_discard_dynptr(record, 0);
	__sync_fetch_and_add(&lost, 1);
	return 0;
}

SEC("map_trace/update")
int watch_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 stack_offset = VALUE_OFFSET + ALIGN8(config.value_size);
	__u32 reason = config.has_reason ? ctx->reason : 0;
	struct bpf_dynptr record;
	bool complete;

	if (!pid_is_wanted(reason) || !key_is_wanted(ctx->key))
		return 0;
	complete = !bpf_ringbuf_reserve_dynptr(&events, stack_offset + config.stack_size, 0,
					       &record) &&
		   !bpf_dynptr_write(&record, KEY_OFFSET, ctx->key, config.key_size, 0) &&
		   !bpf_dynptr_write(&record, VALUE_OFFSET, ctx->value, config.value_size, 0) &&
		   describe(ctx, &record, stack_offset, OPERATION_UPDATE, ctx->flags, ctx->cpu,
			    reason, 0);
	return finish(&record, complete);
}

SEC("map_trace/delete")
int watch_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__u32 stack_offset = VALUE_OFFSET;
	__u32 reason = config.has_reason ? ctx->reason : 0;
	struct bpf_dynptr record;
	bool complete;

	if (!pid_is_wanted(reason) || !key_is_wanted(ctx->key))
		return 0;
	complete = !bpf_ringbuf_reserve_dynptr(&events, stack_offset + config.stack_size, 0,
					       &record) &&
		   !bpf_dynptr_write(&record, KEY_OFFSET, ctx->key, config.key_size, 0) &&
		   describe(ctx, &record, stack_offset, OPERATION_DELETE, 0, ctx->cpu,
			    reason, 0);
	return finish(&record, complete);
}

/* Read what an operation that has failed was given, of which nothing is known here. */
static __always_inline bool read_argument(struct bpf_dynptr *record, __u32 offset, __u32 size,
					  const void *from)
{
	void *to = bpf_dynptr_data(record, offset, size);

	return to && !bpf_probe_read_kernel(to, size, from);
}

/* @ctx: the arguments of the function that has failed: map, key, and value of an update */
static __always_inline int report_failed(__u64 *ctx, enum operation operation, __u64 flags,
					 __s32 error)
{
	struct bpf_map *map = (struct bpf_map *)ctx[0];
	__u32 stack_offset = VALUE_OFFSET;
	struct bpf_dynptr record;
	bool complete;
	__u8 *key;

	if (error >= 0 || map->id != config.map_id || !pid_is_wanted(0))
		return 0;
	if (operation == OPERATION_UPDATE)
		stack_offset += ALIGN8(config.value_size);
	complete = !bpf_ringbuf_reserve_dynptr(&events, stack_offset + config.stack_size, 0,
					       &record) &&
		   read_argument(&record, KEY_OFFSET, config.key_size, (void *)ctx[1]) &&
		   (operation == OPERATION_DELETE ||
		    read_argument(&record, VALUE_OFFSET, config.value_size, (void *)ctx[2])) &&
		   describe(ctx, &record, stack_offset, operation, flags,
			    bpf_get_smp_processor_id(), 0, error);
	key = complete ? bpf_dynptr_data(&record, KEY_OFFSET, config.key_size) : NULL;
	if (key && !key_is_wanted(key)) {
		bpf_ringbuf_discard_dynptr(&record, 0);
		return 0;
	}
	return finish(&record, complete);
}

SEC("fexit")
int watch_failed_update(__u64 *ctx)
{
	return report_failed(ctx, OPERATION_UPDATE, ctx[3], ctx[4]);
}

/* Maps with a value for each CPU have a second way in, for system calls. */
SEC("fexit")
int watch_failed_percpu_update(__u64 *ctx)
{
	return report_failed(ctx, OPERATION_UPDATE, ctx[3], ctx[4]);
}

SEC("fexit")
int watch_failed_delete(__u64 *ctx)
{
	return report_failed(ctx, OPERATION_DELETE, 0, ctx[2]);
}

char LICENSE[] SEC("license") = "GPL";
