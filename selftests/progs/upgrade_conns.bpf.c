// SPDX-License-Identifier: GPL-2.0
/* Connections that a timer in their value ends, in two layouts */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "upgrade_layouts.h"

char _license[] SEC("license") = "GPL";

#define ENOENT 2
#define CLOCK_MONOTONIC 1

struct conn_old {
	struct bpf_timer timer;
	__u64 last_seen;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_CONNS);
	__type(key, __u32);
	__type(value, struct conn_old);
} conns SEC(".maps");

struct conn_new {
	__u64 packets;
	__u64 last_seen;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_CONNS);
	__type(key, __u32);
	__type(value, struct conn_new);
} conns_v2 SEC(".maps");

/* How many the timers have ended, and whether one has found bits in a timer that it was told */
__u32 ended, ended_v2;
__u32 told_timers;

/* The old version */

static int on_idle(void *map, __u32 *key, struct conn_old *conn)
{
	__u64 end = conn->last_seen + IDLE_NS, now = bpf_ktime_get_ns();

	if (now < end) {
		bpf_timer_start(&conn->timer, end - now, 0);
		return 0;
	}
	bpf_map_delete_elem(map, key);
	__sync_fetch_and_add(&ended, 1);
	return 0;
}

__u32 conn_key;

SEC("syscall")
int packet(void *ctx)
{
	struct conn_old *conn, first = {};
	__u32 key = conn_key;

	conn = bpf_map_lookup_elem(&conns, &key);
	if (!conn) {
		first.last_seen = bpf_ktime_get_ns();
		if (bpf_map_update_elem(&conns, &key, &first, BPF_NOEXIST))
			return 1;
		conn = bpf_map_lookup_elem(&conns, &key);
		if (!conn || bpf_timer_init(&conn->timer, &conns, CLOCK_MONOTONIC) ||
		    bpf_timer_set_callback(&conn->timer, on_idle) ||
		    bpf_timer_start(&conn->timer, IDLE_NS, 0))
			return 1;
	}
	/* In place: nobody is told. */
	conn->last_seen = bpf_ktime_get_ns();
	__sync_fetch_and_add(&conn->packets, 1);
	return 0;
}

/* The new version */

SEC("map_trace/conns/SYNC_ELEM")
int follow(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct conn_old *old = ctx->value;
	struct conn_new new = {};
	__u64 *timer;
	long err;

	if (!old) {
		err = bpf_map_delete_elem(&conns_v2, ctx->key);
		return err && err != -ENOENT;
	}
	timer = (__u64 *)&old->timer;
	if (timer[0] || timer[1])
		__sync_fetch_and_add(&told_timers, 1);
	new.packets = old->packets;
	new.last_seen = old->last_seen;
	return bpf_map_update_elem(&conns_v2, ctx->key, &new, BPF_ANY) ? 1 : 0;
}

static int on_idle_v2(void *map, __u32 *key, struct conn_new *conn)
{
	__u64 end = conn->last_seen + IDLE_NS, now = bpf_ktime_get_ns();

	if (now < end) {
		bpf_timer_start(&conn->timer, end - now, 0);
		return 0;
	}
	bpf_map_delete_elem(map, key);
	__sync_fetch_and_add(&ended_v2, 1);
	return 0;
}

__u32 armed;

static long arm(void *map, __u32 *key, struct conn_new *conn, void *ctx)
{
	__u64 end = conn->last_seen + IDLE_NS, now = bpf_ktime_get_ns();

	if (bpf_timer_init(&conn->timer, &conns_v2, CLOCK_MONOTONIC) ||
	    bpf_timer_set_callback(&conn->timer, on_idle_v2) ||
	    bpf_timer_start(&conn->timer, now < end ? end - now : 0, 0))
		return 1;
	armed++;
	return 0;
}

/* Each timer begins with what its connection has left. */
SEC("syscall")
int arm_all(void *ctx)
{
	bpf_for_each_map_elem(&conns_v2, arm, NULL, 0);
	return 0;
}
