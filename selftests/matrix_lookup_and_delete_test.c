// SPDX-License-Identifier: GPL-2.0
/*
 * The matrix, see matrix_update_test.c: LOOKUP_AND_DELETE, which only a system call can do, of
 * one element and in batches, on each type of map.
 */
#include "matrix_fixture.h"

#include <pthread.h>

/* How often two CPUs delete all elements */
#define RIVAL_ROUNDS 20

/* None but the tracers */
static void __attribute__((constructor)) load(void)
{
	load_map_types(NULL);
}

static int take_by_syscall(struct cell *cell, __u32 key)
{
	struct matrix_key map_key = key_of(cell, key);
	struct matrix_slice value[MATRIX_CPUS] = {};
	int cpu;

	if (bpf_map_lookup_and_delete_elem_flags(source_fd(cell), &map_key, value, cell->flags))
		return -errno;
	for (cpu = 0; cpu < slices(cell); cpu++) {
		if (value[cpu].value.number != cell->numbers[key][cpu])
			return -EBADMSG;
	}
	expect_delete(cell, key);
	return 0;
}

/* Where a batch goes on, a bucket or a key */
struct position {
	struct matrix_key key;
	bool end;
};

/* Take at most @wanted elements, the first ones or from @in on. How many, or an errno */
static int take_batch(struct cell *cell, struct position *in, struct position *out, void *values,
		      __u32 wanted)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = cell->flags);
	struct position next = {};
	__u32 count = wanted;
	int err;

	err = bpf_map_lookup_and_delete_batch(source_fd(cell), in ? &in->key : NULL, &next.key,
					      batch.keys, values, &count, &opts);
	err = err ? -errno : 0;
	next.end = err == -ENOENT;
	if (out)
		*out = next;
	return err && err != -ENOENT ? err : (int)count;
}

/* How many elements these are, of which none is told of twice but by a table that is resized */
static __u32 taken_elements(struct cell *cell, int count)
{
	__u32 size = key_size(cell->type), elements = 0;
	int i, earlier;

	if (!has(cell, RESIZES))
		return count;
	for (i = 0; i < count; i++) {
		for (earlier = 0; earlier < i; earlier++)
			if (!memcmp(batch.keys + i * size, batch.keys + earlier * size, size))
				break;
		elements += earlier == i;
	}
	return elements;
}

static void take_all(struct __test_metadata *_metadata, struct cell *cell)
{
	__u64 deadline = now_ns() + RESIZED_AFTER_NS;
	struct position next = {}, *position = NULL;

	do {
		int count = take_batch(cell, position, &next, batch.values, MATRIX_KEYS);

		/* The element to go on from was taken already: start again. */
		if (count == -EAGAIN && position && has(cell, RESIZES)) {
			position = NULL;
			continue;
		}
		ASSERT_LE(0, count);
		EXPECT_EQ(taken_elements(cell, count), expect_deletes_of_what_is_gone(cell));
		compare(_metadata, cell);
		position = next.end ? NULL : &next;
	} while (!next.end ||
		 (has(cell, RESIZES) && cell->deletes < USED_KEYS && now_ns() < deadline));
	EXPECT_EQ(USED_KEYS, cell->deletes);
	EXPECT_EQ(0, count_elements_at_rest(source_fd(cell), 0));
}

static bool gives_back(struct __test_metadata *_metadata, struct cell *cell)
{
	if (has(cell, GIVES_BACK))
		return true;
	NOT_APPLICABLE("this type has no LOOKUP_AND_DELETE");
	EXPECT_EQ(-ENOTSUPP, take_by_syscall(cell, 0));
	EXPECT_EQ(-ENOTSUPP, take_batch(cell, NULL, NULL, batch.values, MATRIX_KEYS));
	compare(_metadata, cell);
	return false;
}

TEST_F(matrix, lookup_and_delete_by_syscall)
{
	batch_begin(self->cell);
	trace(_metadata, self->cell, NULL, false);
	if (gives_back(_metadata, self->cell))
		check_deletes(_metadata, self->cell, take_by_syscall, 0);
}

TEST_F(matrix, lookup_and_delete_by_syscall_with_lock)
{
	batch_begin(self->cell);
	if (load_locked(_metadata, self->cell, NULL)) {
		if (gives_back(_metadata, self->cell))
			check_deletes(_metadata, self->cell, take_by_syscall, 0);
		return;
	}
	self->cell->flags = 0;
	ASSERT_EQ(0, update_by_syscall(self->cell, 1, 1));
	self->cell->flags = BPF_F_LOCK;
	EXPECT_EQ(-EINVAL, take_by_syscall(self->cell, 1));
	compare(_metadata, self->cell);
}

/* The element is gone, although user space does not get it. */
TEST_F(matrix, lookup_and_delete_by_syscall_with_a_bad_pointer)
{
	struct matrix_key key = key_of(self->cell, 3);
	int err;

	batch_begin(self->cell);
	trace(_metadata, self->cell, NULL, false);
	fill(_metadata, self->cell);
	if (!gives_back(_metadata, self->cell))
		return;
	err = bpf_map_lookup_and_delete_elem(source_fd(self->cell), &key, (void *)8);
	EXPECT_EQ(-EFAULT, err ? -errno : 0);
	EXPECT_EQ(1, expect_deletes_of_what_is_gone(self->cell));
	compare(_metadata, self->cell);
}

TEST_F(matrix, lookup_and_delete_by_batch)
{
	batch_begin(self->cell);
	trace(_metadata, self->cell, NULL, false);
	fill(_metadata, self->cell);
	if (gives_back(_metadata, self->cell))
		take_all(_metadata, self->cell);
}

TEST_F(matrix, lookup_and_delete_by_batch_with_lock)
{
	bool locks;

	batch_begin(self->cell);
	locks = load_locked(_metadata, self->cell, NULL);
	self->cell->flags = 0;
	fill(_metadata, self->cell);
	self->cell->flags = BPF_F_LOCK;
	if (locks) {
		if (gives_back(_metadata, self->cell))
			take_all(_metadata, self->cell);
		return;
	}
	EXPECT_EQ(has(self->cell, GIVES_BACK) ? -EINVAL : -ENOTSUPP,
		  take_batch(self->cell, NULL, NULL, batch.values, MATRIX_KEYS));
	compare(_metadata, self->cell);
}

TEST_F(matrix, lookup_and_delete_by_batch_of_a_few)
{
	int wanted, count = -ENOSPC;

	batch_begin(self->cell);
	trace(_metadata, self->cell, NULL, false);
	fill(_metadata, self->cell);
	if (!gives_back(_metadata, self->cell))
		return;
	/* Never less than what is in a bucket, which may be more than two. */
	for (wanted = 2; count == -ENOSPC && wanted < USED_KEYS; wanted++) {
		compare(_metadata, self->cell);
		count = take_batch(self->cell, NULL, NULL, batch.values, wanted);
	}
	ASSERT_LT(0, count);
	EXPECT_GT(USED_KEYS, count);
	EXPECT_EQ(taken_elements(self->cell, count), expect_deletes_of_what_is_gone(self->cell));
	compare(_metadata, self->cell);
}

struct rival {
	struct cell *cell;
	pthread_t thread;
	pthread_barrier_t *barrier;
	int deleted;
	int err;
};

/* Delete one element after the other, while somebody else takes them all. */
static void *delete_meanwhile(void *argument)
{
	struct rival *rival = argument;
	__u32 key;

	rival->err = pin_to_cpu(1);
	pthread_barrier_wait(rival->barrier);
	for (key = 0; key < MATRIX_KEYS && !rival->err; key++) {
		struct matrix_key map_key = key_of(rival->cell, key);

		if (!bpf_map_delete_elem(source_fd(rival->cell), &map_key))
			rival->deleted++;
		else if (errno != ENOENT)
			rival->err = -errno;
	}
	return NULL;
}

/* Take what there is. How many user space was told of, or an errno */
static int take_until_empty(struct cell *cell)
{
	__u32 numbers[MATRIX_CPUS], key = 0;
	int count, total = 0;

	do {
		struct position next = {}, *position = NULL;

		while (!next.end) {
			count = take_batch(cell, position, &next, batch.values, MATRIX_KEYS);
			/* Where it was to go on, there is nothing any more. */
			if (count == -EAGAIN)
				break;
			if (count < 0)
				return count;
			total += count;
			position = &next;
		}
		/* While a table is resized, a batch can pass over an element. */
		while (key < MATRIX_KEYS && !lookup(cell, source_fd(cell), key, numbers))
			key++;
	} while (key < MATRIX_KEYS);
	return total;
}

/* Whoever deletes an element, it is traced once. */
TEST_F(matrix, lookup_and_delete_by_batch_while_another_cpu_deletes)
{
	struct rival rival = { .cell = self->cell };
	pthread_barrier_t barrier;
	int round, taken = 0;
	__u32 key;

	batch_begin(self->cell);
	trace(_metadata, self->cell, NULL, false);
	if (!gives_back(_metadata, self->cell))
		return;
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, 2));
	rival.barrier = &barrier;
	for (round = 0; round < RIVAL_ROUNDS; round++) {
		int count;

		for (key = 0; key < MATRIX_KEYS; key++) {
			ASSERT_EQ(0, update_by_syscall(self->cell, key, 100 + key));
		}
		ASSERT_EQ(0, pthread_create(&rival.thread, NULL, delete_meanwhile, &rival));
		pthread_barrier_wait(&barrier);
		count = take_until_empty(self->cell);
		ASSERT_EQ(0, pthread_join(rival.thread, NULL));
		ASSERT_EQ(0, rival.err);
		ASSERT_LE(0, count) TH_LOG("round %d: %s", round, strerror(-count));
		taken += count;
		ASSERT_EQ(MATRIX_KEYS, expect_deletes_of_what_is_gone(self->cell));
		ASSERT_EQ(self->cell->deletes, self->cell->skel->bss->deletes)
			TH_LOG("round %d", round);
	}
	/* A batch of a resizable table tells user space of all that it has seen. */
	TH_LOG("%d taken, %d deleted, %d in all", taken, rival.deleted,
	       RIVAL_ROUNDS * MATRIX_KEYS);
	compare(_metadata, self->cell);
	pthread_barrier_destroy(&barrier);
}

/* They are gone, although user space does not get them. */
TEST_F(matrix, lookup_and_delete_by_batch_with_a_bad_pointer)
{
	batch_begin(self->cell);
	trace(_metadata, self->cell, NULL, false);
	fill(_metadata, self->cell);
	if (!gives_back(_metadata, self->cell))
		return;
	EXPECT_EQ(-EFAULT, take_batch(self->cell, NULL, NULL, (void *)8, MATRIX_KEYS));
	EXPECT_LT(0, expect_deletes_of_what_is_gone(self->cell));
	compare(_metadata, self->cell);
}

TEST_HARNESS_MAIN
