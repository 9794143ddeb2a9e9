// SPDX-License-Identifier: GPL-2.0
/* Each way in which a program operates on a map, and tracers that keep a mirror of the map */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "matrix.h"

char _license[] SEC("license") = "GPL";

/* User space sets the type and what goes with it, of this and the next two. */
struct source_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MATRIX_KEYS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct matrix_value));
} source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MATRIX_KEYS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct matrix_value));
} other SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct source_map);
} outer SEC(".maps") = {
	.values = { &source },
};

struct locked_value {
	struct bpf_spin_lock lock;
	__u32 number;
	__u32 complement;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MATRIX_KEYS);
	__type(key, __u32);
	__type(value, struct locked_value);
} locked_source SEC(".maps");

/* A hash, or a per-CPU hash, of the source's key_size. Larger: it is never full. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct matrix_value));
} mirror SEC(".maps");

/* What the tracers are to find in their context, and what they found */
__u64 expected_flags;
__u32 expected_map;
__u64 updates;
__u64 deletes;
__u64 updates_of_cpu[MATRIX_CPUS];
__u64 wrong_contexts;

static __always_inline void note_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u64 cpu = ctx->cpu;

	__sync_fetch_and_add(&updates, 1);
	/* Read once: the verifier does not know that it stays the same. */
	barrier_var(cpu);
	if (cpu < MATRIX_CPUS)
		__sync_fetch_and_add(&updates_of_cpu[cpu], 1);
	if (ctx->flags != expected_flags || ctx->map->id != expected_map)
		__sync_fetch_and_add(&wrong_contexts, 1);
}

SEC("map_trace/source/UPDATE_ELEM")
int mirror_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	note_update(ctx);
	return bpf_map_update_elem(&mirror, ctx->key, ctx->value, BPF_ANY) ? 1 : 0;
}

/*
 * A program updates the slice of its own CPU only. What was updated is that of
 * ctx->cpu: make sure that there is an element, and write to it.
 */
SEC("map_trace/source/UPDATE_ELEM")
int mirror_update_percpu(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct matrix_value zero = {};
	struct matrix_value *slice;

	note_update(ctx);
	bpf_map_update_elem(&mirror, ctx->key, &zero, BPF_NOEXIST);
	slice = bpf_map_lookup_percpu_elem(&mirror, ctx->key, ctx->cpu);
	if (!slice)
		return 1;
	__builtin_memcpy(slice, ctx->value, sizeof(*slice));
	return 0;
}

SEC("map_trace/source/DELETE_ELEM")
int mirror_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	__sync_fetch_and_add(&deletes, 1);
	if (ctx->map->id != expected_map)
		__sync_fetch_and_add(&wrong_contexts, 1);
	return bpf_map_delete_elem(&mirror, ctx->key) ? 1 : 0;
}

/* One operation, and what came of it */
struct matrix_key input_key;
struct matrix_value input_value;
__u64 input_flags;
__u32 input_either;
__u32 input_map_fd;
struct matrix_slice input_slices[MATRIX_CPUS];
__s64 output_ret;
__u64 output_deleted;

static __always_inline void update_map(void *map)
{
	struct matrix_value value = input_value;
	struct matrix_key key = input_key;

	output_ret = bpf_map_update_elem(map, &key, &value, input_flags);
}

static __always_inline void delete_map(void *map)
{
	struct matrix_key key = input_key;

	output_ret = bpf_map_delete_elem(map, &key);
}

SEC("raw_tp")
int update(void *ctx)
{
	update_map(&source);
	return 0;
}

SEC("raw_tp")
int delete(void *ctx)
{
	delete_map(&source);
	return 0;
}

/* Tracing programs cannot use maps with a bpf_spin_lock. */
SEC("syscall")
int update_locked(void *ctx)
{
	update_map(&locked_source);
	return 0;
}

SEC("syscall")
int delete_locked(void *ctx)
{
	delete_map(&locked_source);
	return 0;
}

/* Key and value lie in a map: the tracers get a copy. */
SEC("raw_tp")
int update_from_map(void *ctx)
{
	output_ret = bpf_map_update_elem(&source, &input_key, &input_value, input_flags);
	return 0;
}

SEC("raw_tp")
int delete_from_map(void *ctx)
{
	output_ret = bpf_map_delete_elem(&source, &input_key);
	return 0;
}

/* The map is not known when the program is loaded. */
SEC("raw_tp")
int update_inner(void *ctx)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&outer, &zero);

	if (map)
		update_map(map);
	return 0;
}

SEC("raw_tp")
int delete_inner(void *ctx)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&outer, &zero);

	if (map)
		delete_map(map);
	return 0;
}

/* It is one of two, for the same call. */
static __always_inline void *source_or_other(void)
{
	void *map = &source;

	if (input_either)
		map = &other;
	asm volatile("" : "+r"(map));
	return map;
}

SEC("raw_tp")
int update_either(void *ctx)
{
	update_map(source_or_other());
	return 0;
}

SEC("raw_tp")
int delete_either(void *ctx)
{
	delete_map(source_or_other());
	return 0;
}

static int update_in_callback(__u32 i, void *data)
{
	update_map(&source);
	return 0;
}

SEC("raw_tp")
int update_callback(void *ctx)
{
	bpf_loop(1, update_in_callback, NULL, 0);
	return 0;
}

static int delete_in_callback(__u32 i, void *data)
{
	delete_map(&source);
	return 0;
}

SEC("raw_tp")
int delete_callback(void *ctx)
{
	bpf_loop(1, delete_in_callback, NULL, 0);
	return 0;
}

static long delete_own_key(struct bpf_map *map, struct matrix_key *key,
			   struct matrix_value *value, void *data)
{
	output_ret = bpf_map_delete_elem(&source, key);
	if (!output_ret)
		output_deleted++;
	return 0;
}

SEC("raw_tp")
int delete_for_each(void *ctx)
{
	bpf_for_each_map_elem(&source, delete_own_key, NULL, 0);
	return 0;
}

/* A program that calls bpf(2), as light skeletons do. Its pointers are the kernel's. */
SEC("syscall")
int update_sys_bpf(void *ctx)
{
	/* map_fd, key, value, flags */
	__u64 attr[4] = {
		input_map_fd, (unsigned long)&input_key, (unsigned long)&input_slices,
		input_flags,
	};

	output_ret = bpf_sys_bpf(BPF_MAP_UPDATE_ELEM, attr, sizeof(attr));
	return 0;
}

SEC("syscall")
int delete_sys_bpf(void *ctx)
{
	__u64 attr[4] = { input_map_fd, (unsigned long)&input_key };

	output_ret = bpf_sys_bpf(BPF_MAP_DELETE_ELEM, attr, sizeof(attr));
	return 0;
}
