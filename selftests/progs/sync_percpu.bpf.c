// SPDX-License-Identifier: GPL-2.0
/* A map with a value for each CPU, and its mirror */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "sync.h"

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, NR_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} source SEC(".maps");

/* A tracer updates the value of the CPU that it runs on, and so that of another one only through
 * a pointer, which can outlive the key. So each value has a key of its own here.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NR_KEYS * MAX_CPUS);
	__type(key, struct cpu_key);
	__type(value, __u64);
} mirror SEC(".maps");

/* How often the tracer was told, why, and how often that there is nothing */
__u32 reasons[NR_REASONS];
__u32 absent;
/* Of this many runs, one fails */
__u32 fails_each, runs;

/* How many CPUs there are: that a key is not there is told once. */
__u32 nr_cpus;

SEC("map_trace/source/SYNC_ELEM")
int synced(struct bpf_map_trace_ctx__sync_elem *ctx)
{
	struct cpu_key key = { .key = *(__u32 *)ctx->key, .cpu = ctx->cpu };
	__u64 *value = ctx->value;
	__u32 cpu;
	long err;

	__sync_fetch_and_add(&reasons[ctx->reason % NR_REASONS], 1);
	if (fails_each && __sync_fetch_and_add(&runs, 1) % fails_each == 0)
		return 1;
	if (value)
		return bpf_map_update_elem(&mirror, &key, value, BPF_ANY) ? 1 : 0;

	__sync_fetch_and_add(&absent, 1);
	bpf_for(cpu, 0, nr_cpus) {
		key.cpu = cpu;
		err = bpf_map_delete_elem(&mirror, &key);
		if (err && err != -2 /* ENOENT */)
			return 1;
	}
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
		__u64 value = new_value + i;
		__u32 key = i;

		bpf_map_update_elem(&source, &key, &value, BPF_ANY);
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

/* As counters are kept: nobody is told of these. */
SEC("raw_tp")
int count_range(void *ctx)
{
	__u32 i;

	bpf_for(i, from, to) {
		__u32 key = i;
		__u64 *value = bpf_map_lookup_elem(&source, &key);

		if (value)
			*value += 1000;
	}
	return 0;
}

/* Random operations on few keys */
__u32 hot_keys;

SEC("raw_tp")
int churn(void *ctx)
{
	int i;

	bpf_for(i, 0, 100) {
		__u32 random = bpf_get_prandom_u32();
		__u32 key = (random >> 8) % (hot_keys ?: 1);
		__u64 value = bpf_ktime_get_ns();

		if (random % 4)
			bpf_map_update_elem(&source, &key, &value, BPF_ANY);
		else
			bpf_map_delete_elem(&source, &key);
	}
	return 0;
}
