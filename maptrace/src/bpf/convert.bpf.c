// SPDX-License-Identifier: GPL-2.0
/*
 * The tracer that "maptrace migrate" attaches to a map: it keeps another map what the
 * layout of that makes of this one. What is done to keys and values is a table of steps,
 * which conversion.rs derives and puts into .rodata before this is loaded: the verifier
 * goes through them, one by one, and sees how far each of them reaches.
 */
#include "follow.h"

/* conversion.rs has the same */
#define MAX_STEPS 1024

enum operation {
	COPY,
	NUMBER,
};

#define FROM_SIGNED 1
#define FROM_BIG 2
#define TO_SIGNED 4
#define TO_BIG 8

struct step {
	__u32 from;
	__u32 to;
	__u32 size;
	__u8 operation;
	__u8 flags;
	__u8 from_shift;
	__u8 from_bits;
	__u8 to_shift;
	__u8 to_bits;
	/* 0: it has to be the number ->to */
	__u8 to_size;
	__u8 pad;
};

/* migration.rs has the same */
enum percpu {
	NOT_PERCPU,
	FIRST_CPU,
	/* The one whose value it is in the old map */
	SAME_CPU,
};

/* migration.rs has the same, and fills it in before it loads the program */
const volatile struct config {
	__u32 old_key_size;
	__u32 old_value_size;
	__u32 new_key_size;
	__u32 new_value_size;
	/* Where the new key is in the scratch memory, behind the new value */
	__u32 key_offset;
	__u32 key_steps;
	__u32 value_steps;
	/* The new one is the same bytes: nothing is copied */
	__u32 same_key;
	__u32 same_value;
	/* Whose value is written of a new map that has one for each CPU */
	__u32 percpu;
	/* That map is a hash: an element is there once it is put there. */
	__u32 creates;
	/* The values of all these CPUs are not zero then, in new fields. */
	__u32 fills;
	struct step steps[2][MAX_STEPS];
} config = {};

/*
 * A value and a key for each level of each CPU, with their new and constant parts: maps
 * with a value for each CPU have none that is larger than 32 KiB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LEVELS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} scratch SEC(".maps");

/* What a new value and a new key are before the steps are done; and zeroes */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} template SEC(".maps");

static __always_inline __u64 low(__u64 number, __u32 bits)
{
	return bits < 64 ? number & ((1ULL << bits) - 1) : number;
}

static __always_inline __u64 sign_extend(__u64 number, __u32 bits)
{
	__u32 shift = 64 - bits;

	return bits && bits < 64 ? (__u64)((__s64)(number << shift) >> shift) : number;
}

/* Step::apply() in conversion.rs does the same. */
static __always_inline int move_number(const volatile struct step *step, const __u8 *from,
				       __u8 *to)
{
	__u32 size = step->size, to_size = step->to_size, flags = step->flags, i, at;
	__u64 number = 0, kept, back;

	for (i = 0; i < 8; i++) {
		if (i >= size)
			break;
		at = flags & FROM_BIG ? size - 1 - i : i;
		number |= (__u64)from[i] << (8 * at);
	}
	number = low(number >> step->from_shift, step->from_bits);
	if (flags & FROM_SIGNED)
		number = sign_extend(number, step->from_bits);
	if (!to_size)
		return number == step->to ? 0 : -ERANGE;
	kept = low(number, step->to_bits);
	back = flags & TO_SIGNED ? sign_extend(kept, step->to_bits) : kept;
	if (back != number)
		return -ERANGE;
	if (!(flags & FROM_SIGNED) != !(flags & TO_SIGNED) && (__s64)number < 0)
		return -ERANGE;
	kept <<= step->to_shift;
	for (i = 0; i < 8; i++) {
		if (i >= to_size)
			break;
		at = flags & TO_BIG ? to_size - 1 - i : i;
		to[i] |= kept >> (8 * at);
	}
	return 0;
}

static __always_inline int convert(const volatile struct step *steps, __u32 count,
				   const __u8 *from, __u8 *to)
{
	const volatile struct step *step;
	__u32 i;
	int err;

#pragma clang loop unroll(disable)
	for (i = 0; i < MAX_STEPS; i++) {
		if (i >= count)
			break;
		step = &steps[i];
		if (step->operation == COPY)
			err = bpf_probe_read_kernel(to + step->to, step->size, from + step->from);
		else
			err = move_number(step, from + step->from, to + step->to);
		if (err)
			return err;
	}
	return 0;
}

struct fill {
	void *key, *constant;
};

static long fill_once(__u32 cpu, struct fill *fill)
{
	void *slot = bpf_map_lookup_percpu_elem(&maptrace_new, fill->key, cpu);

	if (slot && fill->constant)
		bpf_probe_read_kernel(slot, config.new_value_size, fill->constant);
	return 0;
}

/*
 * Writes the value of one CPU. An update would write that of this CPU, whichever it is. If
 * the element of a hash is deleted meanwhile, it may be another one by then that is
 * written. A flush mends that while nobody writes the old map.
 */
static __always_inline int put_percpu(struct cpu_state *cpu, void *key, void *value, __u32 whose)
{
	/* If the value of one CPU alone is the new one, the others have no constants either. */
	__u32 first = config.percpu == FIRST_CPU;
	struct fill fill = { .key = key };
	void *slot;
	long err;

	slot = bpf_map_lookup_percpu_elem(&maptrace_new, key, whose);
	if (!slot && config.creates) {
		fill.constant = bpf_map_lookup_elem(&template, &first);
		if (!fill.constant)
			return could_not_follow(cpu, -ENOMEM);
		err = bpf_map_update_elem(&maptrace_new, key, fill.constant, BPF_NOEXIST);
		if (err && err != -EEXIST)
			return account(cpu, true, err);
		/*
		 * Values that are zero need not be told. Whoever tells one of this key meanwhile has
		 * all of them told again.
		 */
		if (!err && config.fills)
			bpf_loop(config.fills, fill_once, &fill, 0);
		slot = bpf_map_lookup_percpu_elem(&maptrace_new, key, whose);
		/* It has gone again. */
		if (!slot)
			return 1;
	}
	err = slot ? bpf_probe_read_kernel(slot, config.new_value_size, value) : -E2BIG;
	return account(cpu, true, err);
}

static __always_inline int put(struct cpu_state *cpu, void *key, void *value, __u32 whose)
{
	if (config.percpu != NOT_PERCPU)
		return put_percpu(cpu, key, value, config.percpu == SAME_CPU ? whose : 0);
	return account(cpu, true, bpf_map_update_elem(&maptrace_new, key, value, BPF_ANY));
}

static __always_inline int tell(struct bpf_map_trace_ctx__sync_elem *ctx, struct cpu_state *cpu,
				__u32 level)
{
	/* Loaded once: the verifier has to know that it was looked at. */
	const __u8 *key = ctx->key, *value = ctx->value;
	__u32 index = bpf_get_smp_processor_id() * LEVELS + level, zero = 0;
	void *new_key = (void *)key, *new_value = (void *)value;
	__u8 *room = NULL;
	int err;

	/* The kernel refuses to attach it to a map that has less. */
	if (config.old_key_size)
		(void)*(const volatile __u8 *)(key + config.old_key_size - 1);
	if (value && config.old_value_size)
		(void)*(const volatile __u8 *)(value + config.old_value_size - 1);

	if (!config.same_key || !config.same_value) {
		void *constant = bpf_map_lookup_elem(&template, &zero);

		room = bpf_map_lookup_elem(&scratch, &index);
		if (!room || !constant)
			return could_not_follow(cpu, -ENOMEM);
		err = bpf_probe_read_kernel(room, config.key_offset + config.new_key_size, constant);
		if (err)
			return could_not_follow(cpu, err);
	}
	if (!config.same_key) {
		if (!room)
			return 1;
		err = convert(config.steps[0], config.key_steps, key, room + config.key_offset);
		/* What was never put there need not be taken out. */
		if (err == -ERANGE && !value)
			return 0;
		if (err)
			return could_not_follow(cpu, err);
		new_key = room + config.key_offset;
	}
	if (handing_over() && is_left(cpu, bpf_map_lookup_elem(&maptrace_noted, new_key)))
		return 0;
	if (!value)
		return account(cpu, false, bpf_map_delete_elem(&maptrace_new, new_key));
	if (!config.same_value) {
		if (!room)
			return 1;
		err = convert(config.steps[1], config.value_steps, value, room);
		if (err)
			return could_not_follow(cpu, err);
		new_value = room;
	}
	return put(cpu, new_key, new_value, ctx->cpu);
}

char LICENSE[] SEC("license") = "GPL";
