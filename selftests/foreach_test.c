// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 1: where key or value lie in an element, the tracer gets what the operation
 * was given, although the element is reused meanwhile.
 */
#include "testing_helpers.h"

#include <pthread.h>

#include "foreach.skel.h"

#define RUN_MS 3000
#define ENOUGH 10000

FIXTURE(foreach) {
	struct foreach_bpf *skel;
	pthread_t thread;
	__u32 stop;
	int err;
};

FIXTURE_SETUP(foreach)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = foreach_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
}

FIXTURE_TEARDOWN(foreach)
{
	foreach_bpf__destroy(self->skel);
}

static void *insert(void *argument)
{
	FIXTURE_DATA(foreach) *self = argument;

	self->err = pin_to_cpu(1);
	while (!self->err && !__atomic_load_n(&self->stop, __ATOMIC_RELAXED))
		self->err = run_program(self->skel->progs.insert, NULL, 0);
	return NULL;
}

static void race(struct __test_metadata *_metadata, FIXTURE_DATA(foreach) *self,
		 const struct bpf_program *deleter)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	__u64 deadline;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, insert, self));
	ASSERT_EQ(0, pin_to_cpu(0));
	deadline = now_ns() + RUN_MS * NSEC_PER_MSEC;
	/* Slow machines get longer, to do as much. */
	while (now_ns() < deadline ||
	       (bss->deleted < ENOUGH && now_ns() < deadline + 60 * NSEC_PER_SEC)) {
		ASSERT_EQ(0, run_program(deleter, NULL, 0));
	}
	__atomic_store_n(&self->stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(self->thread, NULL));
	ASSERT_EQ(0, self->err);
	TH_LOG("%llu inserted, %llu deleted, %llu traced", bss->inserted, bss->deleted,
	       bss->traced);
	EXPECT_LE(ENOUGH, bss->deleted);
}

TEST_F(foreach, callback_that_deletes_its_own_key)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	int link;

	link = attach_to(self->skel->progs.trace_delete, self->skel->maps.source);
	ASSERT_LE(0, link);
	race(_metadata, self, self->skel->progs.delete_all);
	EXPECT_EQ(bss->deleted, bss->traced);
	EXPECT_EQ(0, bss->torn_keys);
	EXPECT_EQ(0, bss->wrong_keys) TH_LOG("last: %llu", bss->last_wrong_key);
	close(link);
}

TEST_F(foreach, update_from_an_element_that_changes)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	int link;

	link = attach_to(self->skel->progs.trace_copy, self->skel->maps.copy);
	ASSERT_LE(0, link);
	race(_metadata, self, self->skel->progs.copy_and_delete_all);
	EXPECT_LT(0, bss->copied);
	EXPECT_EQ(bss->copied, bss->copies_traced);
	EXPECT_EQ(0, bss->copies_that_differ);
	close(link);
}

TEST_HARNESS_MAIN
