// SPDX-License-Identifier: GPL-2.0
/*
 * A callback deletes the element that it was called for. Its key lies in the element,
 * and the element belongs to somebody else as soon as it is deleted.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

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

static long delete_own_key(struct bpf_map *map, struct elem *key, struct elem *value, void *data)
{
	deleting = key->words[0];
	if (!bpf_map_delete_elem(&source, key))
		deleted++;
	return 0;
}

SEC("raw_tp")
int delete_all(void *ctx)
{
	bpf_for_each_map_elem(&source, delete_own_key, NULL, 0);
	return 0;
}

/* What the map holds after the update has to be what the tracer was given. */
SEC("map_trace/copy/UPDATE_ELEM")
int trace_copy(struct bpf_map_trace_ctx__update_elem *ctx)
{
	const struct elem *given = ctx->value;
	struct elem *stored;
	__u32 key = 0;
	int i;

	copies_traced++;
	stored = bpf_map_lookup_elem(&copy, &key);
	if (!stored) {
		copies_that_differ++;
		return 1;
	}
	for (i = 0; i < KEY_WORDS; i++) {
		if (given->words[i] != stored->words[i]) {
			copies_that_differ++;
			break;
		}
	}
	return 0;
}

static long copy_and_delete(struct bpf_map *map, struct elem *key, struct elem *value, void *data)
{
	__u32 zero = 0;

	/* Deleted first, so that the other CPU writes to it right now. */
	deleting = key->words[0];
	if (!bpf_map_delete_elem(&source, key))
		deleted++;
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
