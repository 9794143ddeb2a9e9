// SPDX-License-Identifier: GPL-2.0
/* Values that grow, and are too large for the stack: each CPU has a scratch value */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "upgrade_layouts.h"

char _license[] SEC("license") = "GPL";

#define ENOENT 2

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_DATAGRAMS);
	__type(key, __u32);
	__type(value, struct datagram);
} datagrams SEC(".maps");

struct datagrams_v2 {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_DATAGRAMS);
	__type(key, __u32);
	__type(value, struct datagram_v2);
};

struct datagrams_v2 datagrams_v2 SEC(".maps");
/* Of the tracer that shares its scratch */
struct datagrams_v2 mixed_v2 SEC(".maps");

struct scratch {
	__u32 taken;
	struct datagram_v2 datagram;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* How long a tracer is at what a task has written: an interrupt comes meanwhile */
__u64 delay_ns;
/* How often the scratch was taken */
__u64 taken;

#define KEY_OF_INTERRUPT (NR_DATAGRAMS - 1)

static void delay(__u64 key)
{
	__u64 end = bpf_ktime_get_ns() + delay_ns;
	int i;

	if (!delay_ns || key == KEY_OF_INTERRUPT)
		return;
	bpf_for(i, 0, 1 << 23)
		if (bpf_ktime_get_ns() >= end)
			break;
}

static __always_inline int convert(struct scratch *scratch, const struct datagram *old,
				   const void *key, void *map)
{
	scratch->datagram.tag = old->tag;
	bpf_probe_read_kernel(scratch->datagram.data, sizeof(old->data), old->data);
	delay(old->tag);
	return bpf_map_update_elem(map, key, &scratch->datagram, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/datagrams/SYNC_ELEM")
int follow(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct datagram *old = ctx->value;
	struct scratch *scratch;
	__u32 index = 0;
	long err;

	if (!old) {
		err = bpf_map_delete_elem(&datagrams_v2, ctx->key);
		return err && err != -ENOENT;
	}
	scratch = bpf_map_lookup_elem(&scratches, &index);
	if (!scratch)
		return 1;
	if (__sync_lock_test_and_set(&scratch->taken, 1)) {
		__sync_fetch_and_add(&taken, 1);
		return 1;
	}
	err = convert(scratch, old, ctx->key, &datagrams_v2);
	__sync_lock_test_and_set(&scratch->taken, 0);
	return err;
}

/* The same, but for that it takes the scratch as if nobody else could */
SEC("map_trace/datagrams/SYNC_ELEM")
int follow_sharing(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct datagram *old = ctx->value;
	struct scratch *scratch;
	__u32 index = 1;
	long err;

	if (!old) {
		err = bpf_map_delete_elem(&mixed_v2, ctx->key);
		return err && err != -ENOENT;
	}
	scratch = bpf_map_lookup_elem(&scratches, &index);
	return scratch ? convert(scratch, old, ctx->key, &mixed_v2) : 1;
}

/* What the old version fills its values in: a task, and an interrupt */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct datagram);
} filled SEC(".maps");

static int receive(__u32 index, __u32 key)
{
	struct datagram *datagram = bpf_map_lookup_elem(&filled, &index);
	int i;

	if (!datagram)
		return 1;
	datagram->tag = key;
	bpf_for(i, 0, 188)
		datagram->data[i] = key;
	return bpf_map_update_elem(&datagrams, &key, datagram, BPF_ANY) ? 1 : 0;
}

__u32 datagram_key;

SEC("raw_tp")
int receive_in_task(void *ctx)
{
	return receive(0, datagram_key);
}

__u64 interrupts;

SEC("perf_event")
int receive_in_interrupt(void *ctx)
{
	__sync_fetch_and_add(&interrupts, 1);
	receive(1, KEY_OF_INTERRUPT);
	return 0;
}

/* A fragment: written through the pointer */
SEC("raw_tp")
int fragment(void *ctx)
{
	__u32 key = datagram_key;
	struct datagram *datagram = bpf_map_lookup_elem(&datagrams, &key);

	if (!datagram)
		return 1;
	datagram->data[187] = 4711;
	return 0;
}
