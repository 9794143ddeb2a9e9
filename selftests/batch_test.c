// SPDX-License-Identifier: GPL-2.0
/*
 * A batch of deletes runs the tracers for each element. Grace periods end meanwhile, however
 * many the tracers are, and however slow.
 */
#include "testing_helpers.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "batch.skel.h"

/* Many times what is deleted under one rcu_read_lock() */
#ifndef ELEMENTS
#define ELEMENTS 1024
#endif

FIXTURE(batch) {
	struct batch_bpf *skel;
	int link;
	__u32 *keys;
	__u64 *values;
	/* What the thread has deleted, and what stopped it */
	__u32 deleted;
	int err;
};

FIXTURE_VARIANT(batch) {
	enum bpf_map_type type;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(batch, hash) { .type = BPF_MAP_TYPE_HASH };
FIXTURE_VARIANT_ADD(batch, rhash) {
	.type = BPF_MAP_TYPE_RHASH, .flags = BPF_F_NO_PREALLOC,
};

FIXTURE_SETUP(batch)
{
	__u32 i, count = ELEMENTS;

	ASSERT_EQ(0, map_trace_setup());
	self->skel = batch_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.traced, variant->type));
	ASSERT_EQ(0, bpf_map__set_map_flags(self->skel->maps.traced, variant->flags));
	ASSERT_EQ(0, bpf_map__set_max_entries(self->skel->maps.traced, ELEMENTS));
	ASSERT_EQ(0, batch_bpf__load(self->skel));
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");

	self->keys = calloc(ELEMENTS, sizeof(*self->keys));
	self->values = calloc(ELEMENTS, sizeof(*self->values));
	ASSERT_NE(NULL, self->keys);
	ASSERT_NE(NULL, self->values);
	for (i = 0; i < ELEMENTS; i++)
		self->keys[i] = i;
	ASSERT_EQ(0, bpf_map_update_batch(bpf_map__fd(self->skel->maps.traced), self->keys,
					  self->values, &count, NULL));
	self->link = attach_to(self->skel->progs.trace_delete, self->skel->maps.traced);
	ASSERT_LE(0, self->link);
}

FIXTURE_TEARDOWN(batch)
{
	close(self->link);
	batch_bpf__destroy(self->skel);
	free(self->values);
	free(self->keys);
}

static void *delete_all(void *fixture)
{
	FIXTURE_DATA(batch) *self = fixture;
	__u32 token[4], count;
	int err;

	self->err = pin_to_cpu(1);
	if (self->err)
		return NULL;
	/* One of an RHASH ends early where somebody else wants the CPU. */
	do {
		count = ELEMENTS;
		err = bpf_map_lookup_and_delete_batch(bpf_map__fd(self->skel->maps.traced), NULL,
						      token, self->keys, self->values, &count,
						      NULL);
		/* It finds its end. */
		if (err && err != -ENOENT) {
			self->err = err;
			return NULL;
		}
		self->deleted += count;
	} while (count);
	return NULL;
}

TEST_F_TIMEOUT(batch, grace_period_ends_meanwhile, 600)
{
	const volatile __u64 *runs = &self->skel->bss->runs;
	pthread_t thread;
	__u64 begun;

	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, delete_all, self));
	begun = now_ns();
	while (!*runs && now_ns() - begun < 60 * NSEC_PER_SEC)
		;
	EXPECT_LT(0, *runs);
	/* It waits for a grace period. */
	EXPECT_EQ(0, syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
	TH_LOG("after %llu of %u deletes", *runs, ELEMENTS);
	EXPECT_GT(ELEMENTS / 2, *runs);

	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, self->err);
	/* An element can be reported twice while an RHASH shrinks. It is deleted once. */
	EXPECT_LE(ELEMENTS, self->deleted);
	EXPECT_EQ(ELEMENTS, *runs);
}

TEST_HARNESS_MAIN
