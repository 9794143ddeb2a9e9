/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For the conversion of one's own that "maptrace migrate --with" takes, as
 * Documentation/maptrace-migrate.rst describes it. vmlinux.h or linux/bpf.h comes before.
 */
#ifndef MAPTRACE_CONVERT_H
#define MAPTRACE_CONVERT_H

#include <bpf/bpf_helpers.h>

/* What these stand for is known when the conversion is loaded, and how large it is. */
typedef struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} maptrace_new_t;

typedef struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} maptrace_noted_t;

typedef struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} maptrace_slots_t;

/* The new map, for lookups; whoever writes it does so as below. */
extern maptrace_new_t maptrace_new SEC(".maps");

/* The rest is between maptrace and what is below. */
extern maptrace_noted_t maptrace_noted SEC(".maps");
extern maptrace_slots_t maptrace_old SEC(".maps");
extern maptrace_slots_t maptrace_built SEC(".maps");
extern int maptrace_slot(void);
extern int maptrace_leaves(__u32 is_noted);
extern int maptrace_account(__u32 is_update, __s64 err);

/*
 * Puts an entry into the new map. Returns 0, or 1 if that was not possible: then the
 * conversion returns 1 as well, and is called again.
 */
static __always_inline int maptrace_update(const void *key, const void *value)
{
	if (maptrace_leaves(bpf_map_lookup_elem(&maptrace_noted, key) != NULL))
		return 0;
	return maptrace_account(1, bpf_map_update_elem(&maptrace_new, key, value, BPF_ANY));
}

/* Takes an entry out of the new map, which may not have it. Returns the same. */
static __always_inline int maptrace_delete(const void *key)
{
	if (maptrace_leaves(bpf_map_lookup_elem(&maptrace_noted, key) != NULL))
		return 0;
	return maptrace_account(0, bpf_map_delete_elem(&maptrace_new, key));
}

/*
 * Room for one new value, of zeroes, where the stack is too small for it. It is the same each
 * time, until the conversion returns. NULL for the verifier alone.
 */
static __always_inline void *maptrace_room(__u32 size)
{
	__u32 slot = maptrace_slot();
	void *room = bpf_map_lookup_elem(&maptrace_built, &slot);

	/* What cannot be read is zero, and nothing is there. */
	if (room)
		bpf_probe_read_kernel(room, size, NULL);
	return room;
}

#define MAPTRACE_BEHIND(type) ((sizeof(type) + 7) / 8 * 8)

/*
 * MAPTRACE_CONVERT(struct conn_key, key, struct conn, value)
 * {
 *	...
 * }
 *
 * converts an entry of the old map. @value is NULL if @key is not there any more.
 */
#define MAPTRACE_CONVERT(key_type, key, value_type, value)				\
int maptrace_convert(key_type *key __arg_nonnull, value_type *value);			\
											\
int maptrace_call(__u32 slot, __u32 is_there)						\
{											\
	__u8 *old = bpf_map_lookup_elem(&maptrace_old, &slot);				\
	value_type *value = NULL;							\
											\
	if (!old)									\
		return 1;								\
	if (is_there)									\
		value = (value_type *)(old + MAPTRACE_BEHIND(key_type));		\
	/* Or the compiler makes a function of its own for each, with other arguments. */\
	asm volatile("" : "+r"(value));							\
	return maptrace_convert((key_type *)old, value);				\
}											\
											\
__noinline int maptrace_convert(key_type *key __arg_nonnull, value_type *value)

#endif
