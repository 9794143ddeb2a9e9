// SPDX-License-Identifier: GPL-2.0
/* The programs whose operations are measured. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

/* Type, flags and sizes are set before they are loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} measured SEC(".maps"), bystander SEC(".maps");

/* How many operations a run does, on so many keys: a power of 2 */
const volatile __u32 operations;
const volatile __u32 keys;

/* Whether the map is a trie, whose keys begin with the length of a prefix: all of it */
#define PREFIX_LEN 32
const volatile bool trie;

struct element_key {
	__u32 first;
	__u32 second;
};

/* Key and value are in memory, and the registers point there, as for a call. */
#define PREPARE(i, key, value)							\
	__u32 number = (i) & (keys - 1);					\
	struct element_key key = { trie ? PREFIX_LEN : number, number };	\
	__u64 value = (i);							\
	asm volatile("" : : "r"(&key), "r"(&value) : "memory")

static long empty(__u32 i, void *context)
{
	PREPARE(i, key, value);
	return 0;
}

static long update(__u32 i, void *context)
{
	PREPARE(i, key, value);
	bpf_map_update_elem(&measured, &key, &value, BPF_ANY);
	return 0;
}

static long delete(__u32 i, void *context)
{
	PREPARE(i, key, value);
	bpf_map_delete_elem(&measured, &key);
	return 0;
}

SEC("?raw_tp")
int run_empty(void *ctx)
{
	return bpf_loop(operations, empty, NULL, 0);
}

SEC("?raw_tp")
int run_update(void *ctx)
{
	return bpf_loop(operations, update, NULL, 0);
}

SEC("?raw_tp")
int run_delete(void *ctx)
{
	return bpf_loop(operations, delete, NULL, 0);
}

#define MAX_OPERATIONS 1024

/* The same for the interpreter, which runs no callbacks */
#define INTERPRETED(name)							\
SEC("?raw_tp")									\
int interpret_##name(void *ctx)							\
{										\
	__u32 i;								\
										\
	for (i = 0; i < MAX_OPERATIONS && i < operations; i++)			\
		name(i, NULL);							\
	return 0;								\
}

INTERPRETED(empty)
INTERPRETED(update)
INTERPRETED(delete)

/* The size of its code is measured: as small as a program with an update can be. */
SEC("raw_tp")
int one_update(void *ctx)
{
	struct element_key key = {};
	__u64 value = 0;

	return bpf_map_update_elem(&measured, &key, &value, BPF_ANY);
}

/* The same without: not to be changed in any way by map tracing */
SEC("raw_tp")
int no_update(void *ctx)
{
	struct element_key key = {};
	__u64 *value = bpf_map_lookup_elem(&measured, &key);

	return value ? *value : bpf_get_smp_processor_id();
}
