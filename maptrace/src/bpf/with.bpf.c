// SPDX-License-Identifier: GPL-2.0
/*
 * The tracer that "maptrace migrate --with" attaches to a map. What it is told is handed to
 * the conversion of the user, which is linked to this. It has no license: that of the user's
 * is the one of both.
 */
#include "follow.h"

/* with.rs has the same, and fills it in before it loads the program */
const volatile struct {
	__u32 key_size;
	__u32 value_size;
	/* Where the value is behind the key */
	__u32 value_offset;
	/* What it would write is to be compared: there is one slot, and no tracer */
	__u32 is_dry;
} maptrace_config SEC(".rodata.with") = {};

/* A key and a value of the old map, and room for a new value, for each level of each CPU */
maptrace_slots_t maptrace_old SEC(".maps"), maptrace_built SEC(".maps");

/* The user's */
int maptrace_call(__u32 slot, __u32 is_there);

int maptrace_slot(void)
{
	__u32 zero = 0;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);

	if (!cpu || maptrace_config.is_dry)
		return 0;
	return bpf_get_smp_processor_id() * LEVELS + cpu->level - 1;
}

int maptrace_leaves(__u32 is_noted)
{
	__u32 zero = 0;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);

	return cpu && is_left(cpu, is_noted);
}

int maptrace_account(__u32 is_update, __s64 err)
{
	__u32 zero = 0;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);

	return cpu ? account(cpu, is_update, err) : 1;
}

/* What could not be written, as far as it was said */
static __always_inline __u64 misses(struct cpu_state *cpu)
{
	return *(volatile __u64 *)&cpu->full + *(volatile __u64 *)&cpu->failed;
}

static __always_inline int tell(struct bpf_map_trace_ctx__sync_elem *ctx, struct cpu_state *cpu,
				__u32 level)
{
	/* Loaded once: the verifier has to know that it was looked at. */
	const __u8 *key = ctx->key, *value = ctx->value;
	__u32 slot = bpf_get_smp_processor_id() * LEVELS + level;
	__u64 before;
	__u8 *old;

	/* The kernel refuses to attach it to a map that has less. */
	if (maptrace_config.key_size)
		(void)*(const volatile __u8 *)(key + maptrace_config.key_size - 1);
	if (value && maptrace_config.value_size)
		(void)*(const volatile __u8 *)(value + maptrace_config.value_size - 1);

	old = bpf_map_lookup_elem(&maptrace_old, &slot);
	if (!old)
		return could_not_follow(cpu, -ENOMEM);
	if (bpf_probe_read_kernel(old, maptrace_config.key_size, key) ||
	    (value && bpf_probe_read_kernel(old + maptrace_config.value_offset,
					    maptrace_config.value_size, value)))
		return could_not_follow(cpu, -EFAULT);
	before = misses(cpu);
	if (maptrace_call(slot, value != NULL))
		/* If it says so by itself, an entry does not fit, for whatever reason. */
		return misses(cpu) == before ? could_not_follow(cpu, -ERANGE) : 1;
	/* It has not looked at what an operation returned. */
	return misses(cpu) != before;
}

/* Converts what is in the slot. Returns 1 if it does not fit, 2 if it could not be written. */
SEC("syscall")
int maptrace_dry_run(void *ctx)
{
	__u32 zero = 0;
	struct cpu_state *cpu = bpf_map_lookup_elem(&maptrace_cpus, &zero);
	__u64 before;
	int result;

	if (!cpu)
		return 2;
	before = misses(cpu);
	result = maptrace_call(0, 1);
	if (misses(cpu) != before)
		return 2;
	return result ? 1 : 0;
}
