// SPDX-License-Identifier: GPL-2.0
/*
 * A walk over all elements of a map visits each element that stays, while the map grows and
 * shrinks.
 */
#include "testing_helpers.h"

#include <poll.h>
#include <pthread.h>

#include "progs/sync_resize.h"
#include "sync_resize.skel.h"

#define SETTLE_MS 120000
#define ROUNDS 8

FIXTURE(sync_resize) {
	struct sync_resize_bpf *skel;
	__typeof__(((struct sync_resize_bpf *)0)->bss) bss;
	int source, mirror;
	int link;
};

FIXTURE_SETUP(sync_resize)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = sync_resize_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->bss = self->skel->bss;
	self->source = bpf_map__fd(self->skel->maps.source);
	self->mirror = bpf_map__fd(self->skel->maps.mirror);
}

FIXTURE_TEARDOWN(sync_resize)
{
	close(self->link);
	sync_resize_bpf__destroy(self->skel);
}

static int run_range(struct sync_resize_bpf *skel, const struct bpf_program *prog, __u32 from,
		     __u32 to)
{
	skel->bss->from = from;
	skel->bss->to = to;
	return run_program(prog, NULL, 0) ?: -(int)skel->bss->errors;
}

/* How many of the keys that stay are in one of the maps only, or with another value */
static __u32 count_wrong(FIXTURE_DATA(sync_resize) *self)
{
	__u32 key, wrong = 0;

	for (key = 0; key < RESIZE_STAY; key++) {
		__u64 expected = 0, value = 0;
		int absent = bpf_map_lookup_elem(self->source, &key, &expected);

		wrong += !absent != !bpf_map_lookup_elem(self->mirror, &key, &value) ||
			 (!absent && expected != value);
	}
	return wrong;
}

/* Has the map resized again and again, the others deleted and put in again */
struct resizer {
	pthread_t thread;
	struct sync_resize_bpf *skel;
	__u32 stop;
	__u32 rounds;
	int err;
};

static void *resize(void *argument)
{
	struct resizer *resizer = argument;
	struct sync_resize_bpf *skel = resizer->skel;

	resizer->err = pin_to_cpu(1);
	while (!resizer->err && !__atomic_load_n(&resizer->stop, __ATOMIC_RELAXED)) {
		resizer->err = run_range(skel, skel->progs.update_range, RESIZE_STAY,
					 RESIZE_KEYS) ?:
			       run_range(skel, skel->progs.delete_range, RESIZE_STAY,
					 RESIZE_KEYS);
		__atomic_fetch_add(&resizer->rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Nobody tells of what was written through pointers, so it takes a flush to meet each of them. */
TEST_F(sync_resize, flush_meets_all_that_stays)
{
	struct resizer resizer = { .skel = self->skel };
	__u32 key;
	int i;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, RESIZE_STAY));
	self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	ASSERT_EQ(0, count_wrong(self));

	ASSERT_EQ(0, pthread_create(&resizer.thread, NULL, resize, &resizer));
	for (i = 0; i < ROUNDS; i++) {
		/* As if somebody had missed all of them */
		for (key = 0; key < RESIZE_STAY; key++)
			ASSERT_EQ(0, bpf_map_delete_elem(self->mirror, &key));
		ASSERT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
		EXPECT_EQ(0, count_wrong(self)) TH_LOG("in round %d", i);
	}
	__atomic_store_n(&resizer.stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(resizer.thread, NULL));
	EXPECT_EQ(0, resizer.err);
	EXPECT_LT(0, resizer.rounds);
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong(self));
	TH_LOG("grown and shrunk %u times during %d flushes", resizer.rounds, ROUNDS);
}

/* The map is resized while what was there before is told. */
TEST_F(sync_resize, replay_meets_all_that_stays)
{
	struct resizer resizer = { .skel = self->skel };
	struct pollfd pollfd = { .events = POLLIN };
	__u32 key;
	int i;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, RESIZE_STAY));
	ASSERT_EQ(0, pthread_create(&resizer.thread, NULL, resize, &resizer));
	for (i = 0; i < ROUNDS || !__atomic_load_n(&resizer.rounds, __ATOMIC_RELAXED); i++) {
		for (key = 0; key < RESIZE_STAY; key++)
			bpf_map_delete_elem(self->mirror, &key);
		self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
		ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
		pollfd.fd = self->link;
		ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
		EXPECT_EQ(POLLIN, pollfd.revents);
		EXPECT_EQ(0, count_wrong(self)) TH_LOG("in round %d", i);
		close(self->link);
		self->link = -1;
	}
	__atomic_store_n(&resizer.stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(resizer.thread, NULL));
	EXPECT_EQ(0, resizer.err);
}

TEST_F(sync_resize, flush_tells_what_was_written_through_pointers)
{
	self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 64));
	EXPECT_EQ(0, count_wrong(self));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.write_through_pointers, 0, 64));
	EXPECT_EQ(64, count_wrong(self));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong(self));
}

TEST_HARNESS_MAIN
