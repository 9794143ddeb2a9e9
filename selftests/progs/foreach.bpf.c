// SPDX-License-Identifier: GPL-2.0
/*
 * A callback deletes the element that it was called for. The key lies in the element, and the
 * element can be reused as soon as it is deleted.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "foreach.h"

char _license[] SEC("license") = "GPL";

#define KEY_WORDS 8

/* All words are the same number: a key that is half somebody else's shows. */
struct elem {
	__u64 words[KEY_WORDS];
};

/* Preallocated and small: what is deleted here is inserted there at once. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct elem);
	__type(value, struct elem);
} source SEC(".maps");

/* Updated from elements of the source while they are reused */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} copy SEC(".maps");

/* The same, with large values */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct elem);
	__type(value, struct large);
} large_source SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct large);
} large_copy SEC(".maps");

/* Only one CPU deletes, and its tracer runs before it goes on. */
__u64 deleting;

__u64 inserted;
__u64 deleted;
__u64 traced;
__u64 torn_keys;
__u64 wrong_keys;
__u64 last_wrong_key;

__u64 copied;
__u64 copies_traced;
__u64 copies_that_differ;

static bool all_the_same(const struct elem *key)
{
	int i;

	for (i = 1; i < KEY_WORDS; i++)
		if (key->words[i] != key->words[0])
			return false;
	return true;
}

SEC("map_trace/source/DELETE_ELEM")
int trace_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	const struct elem *key = ctx->key;

	traced++;
	if (!all_the_same(key)) {
		torn_keys++;
	} else if (key->words[0] != deleting) {
		wrong_keys++;
		last_wrong_key = key->words[0];
	}
	return 0;
}

static __always_inline void delete_from(void *map, struct elem *key)
{
	deleting = key->words[0];
	if (!bpf_map_delete_elem(map, key))
		deleted++;
}

static long delete_own_key(struct bpf_map *map, struct elem *key, struct elem *value, void *data)
{
	delete_from(&source, key);
	return 0;
}

SEC("raw_tp")
int delete_all(void *ctx)
{
	bpf_for_each_map_elem(&source, delete_own_key, NULL, 0);
	return 0;
}

static long delete_own_key_of_large(struct bpf_map *map, struct elem *key, struct large *value,
				    void *data)
{
	delete_from(&large_source, key);
	return 0;
}

SEC("raw_tp")
int delete_all_large(void *ctx)
{
	bpf_for_each_map_elem(&large_source, delete_own_key_of_large, NULL, 0);
	return 0;
}

/* What the map holds after the update has to be what the tracer was given. */
static __always_inline int compare(const __u64 *given, const __u64 *stored, int words)
{
	int i;

	copies_traced++;
	if (!stored) {
		copies_that_differ++;
		return 1;
	}
	for (i = 0; i < words; i++) {
		if (given[i] != stored[i]) {
			copies_that_differ++;
			break;
		}
	}
	return 0;
}

SEC("map_trace/copy/UPDATE_ELEM")
int trace_copy(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0;

	return compare(ctx->value, bpf_map_lookup_elem(&copy, &key), KEY_WORDS);
}

SEC("map_trace/large_copy/UPDATE_ELEM")
int trace_large_copy(struct bpf_map_trace_ctx__update_elem *ctx)
{
	__u32 key = 0;

	return compare(ctx->value, bpf_map_lookup_elem(&large_copy, &key), LARGE_WORDS);
}

/* Deleted first, so that the other CPU writes to it right now. */
static long copy_and_delete(struct bpf_map *map, struct elem *key, struct elem *value, void *data)
{
	__u32 zero = 0;

	delete_from(&source, key);
	if (!bpf_map_update_elem(&copy, &zero, value, 0))
		copied++;
	return 0;
}

SEC("raw_tp")
int copy_and_delete_all(void *ctx)
{
	bpf_for_each_map_elem(&source, copy_and_delete, NULL, 0);
	return 0;
}

static long copy_and_delete_large(struct bpf_map *map, struct elem *key, struct large *value,
				  void *data)
{
	__u32 zero = 0;

	delete_from(&large_source, key);
	if (!bpf_map_update_elem(&large_copy, &zero, value, 0))
		copied++;
	return 0;
}

SEC("raw_tp")
int copy_and_delete_all_large(void *ctx)
{
	bpf_for_each_map_elem(&large_source, copy_and_delete_large, NULL, 0);
	return 0;
}

static int insert_one(__u32 i, void *data)
{
	__u64 number = inserted + 1;
	struct elem key;
	int j;

	for (j = 0; j < KEY_WORDS; j++)
		key.words[j] = number;
	/* Fails while the map is full. */
	if (!bpf_map_update_elem(&source, &key, &key, BPF_NOEXIST))
		inserted = number;
	return 0;
}

SEC("raw_tp")
int insert(void *ctx)
{
	bpf_loop(256, insert_one, NULL, 0);
	return 0;
}

/* Too large for the stack of a program, too. Only one CPU inserts. */
struct large large_value;

static int insert_one_large(__u32 i, void *data)
{
	__u64 number = inserted + 1;
	struct elem key;
	int j;

	for (j = 0; j < KEY_WORDS; j++)
		key.words[j] = number;
	for (j = 0; j < LARGE_WORDS; j++)
		large_value.words[j] = number;
	if (!bpf_map_update_elem(&large_source, &key, &large_value, BPF_NOEXIST))
		inserted = number;
	return 0;
}

SEC("raw_tp")
int insert_large(void *ctx)
{
	bpf_loop(256, insert_one_large, NULL, 0);
	return 0;
}

/* Operations on the map with large values that are done within one another */

/* How deep they are to get, and are */
__u32 input_depth;
__u32 depth;
__s64 update_rets[MAX_DEPTH];
struct large values[MAX_DEPTH];

/* What the tracer saw, the innermost first */
__u32 nr_seen;
__u32 keys_seen[MAX_DEPTH];
__u64 values_seen[MAX_DEPTH];
__u32 torn_values;

/* The operation's key is its depth, and its value is full of it. */
static __always_inline void update_at(__u32 at)
{
	static const __u32 keys[MAX_DEPTH] = { 0, 1, 2 };
	int i;

	for (i = 0; i < LARGE_WORDS; i++)
		values[at].words[i] = at;
	update_rets[at] = bpf_map_update_elem(&large_copy, &keys[at], &values[at], BPF_ANY);
}

SEC("?raw_tp")
int update_large(void *ctx)
{
	update_at(0);
	return 0;
}

/* A program does not run within itself: one for each depth */
#define UPDATE_WITHIN(at)							\
SEC("?fentry/htab_map_update_elem")						\
int update_within_##at(void *ctx)						\
{										\
	if (input_depth < (at) || depth != (at) - 1)				\
		return 0;							\
	depth = (at);								\
	update_at(at);								\
	depth = (at) - 1;							\
	/* Once */								\
	input_depth = 0;							\
	return 0;								\
}

UPDATE_WITHIN(1)
UPDATE_WITHIN(2)

SEC("?map_trace/large_copy/UPDATE_ELEM")
int trace_nested(struct bpf_map_trace_ctx__update_elem *ctx)
{
	const struct large *value = ctx->value;
	__u32 i = nr_seen, j;

	if (i >= MAX_DEPTH)
		return 1;
	keys_seen[i] = *(__u32 *)ctx->key;
	values_seen[i] = value->words[0];
	for (j = 1; j < LARGE_WORDS; j++) {
		if (value->words[j] != value->words[0])
			torn_values = 1;
	}
	nr_seen = i + 1;
	return 0;
}
