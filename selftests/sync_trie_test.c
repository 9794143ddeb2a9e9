// SPDX-License-Identifier: GPL-2.0
/* Sync tracers of a trie: each prefix is a key, and the bits after the prefix are no part of it. */
#include "testing_helpers.h"

#include <poll.h>
#include <pthread.h>

#include "progs/sync_trie.h"
#include "sync_trie.skel.h"

/* Some time for the worker */
#define SETTLE_MS 120000
#define RACE_NS (3 * NSEC_PER_SEC)
#define CPUS 2
/* More than are read at once */
#define NR_PREFIXES 700

FIXTURE(sync_trie) {
	struct sync_trie_bpf *skel;
	__typeof__(((struct sync_trie_bpf *)0)->bss) bss;
	int source, mirror;
	int link;
};

FIXTURE_SETUP(sync_trie)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = sync_trie_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->bss = self->skel->bss;
	self->source = bpf_map__fd(self->skel->maps.source);
	self->mirror = bpf_map__fd(self->skel->maps.mirror);
}

FIXTURE_TEARDOWN(sync_trie)
{
	close(self->link);
	sync_trie_bpf__destroy(self->skel);
}

static bool is_replayed(int link)
{
	struct pollfd pollfd = { .fd = link, .events = POLLIN };

	return poll(&pollfd, 1, SETTLE_MS) == 1 && pollfd.revents == POLLIN;
}

static void attach(struct __test_metadata *_metadata, FIXTURE_DATA(sync_trie) *self)
{
	self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_TRUE(is_replayed(self->link));
}

static struct map_trace_info info_of(int link)
{
	struct map_trace_info info;

	if (map_trace_get_info(link, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

/* Without what is behind the prefix */
static struct prefix normal(struct prefix prefix)
{
	__u32 bit;

	for (bit = prefix.prefixlen; bit < 32; bit++)
		prefix.data[bit / 8] &= ~(0x80 >> bit % 8);
	return prefix;
}

static int count(int map)
{
	struct prefix key, *prev = NULL;
	int n = 0;

	for (; !bpf_map_get_next_key(map, prev, &key); prev = &key)
		n++;
	return n;
}

/* How many prefixes are in one of the maps only, or with another value. A lookup of the trie itself
 * could find a shorter one: but what it is asked for here is there.
 */
static int count_wrong(FIXTURE_DATA(sync_trie) *self)
{
	struct prefix key, *prev = NULL;
	int wrong = 0, found = 0;

	for (; !bpf_map_get_next_key(self->source, prev, &key); prev = &key) {
		struct prefix in_mirror = normal(key);
		__u64 expected, value;

		if (bpf_map_lookup_elem(self->source, &key, &expected))
			return -errno;
		if (bpf_map_lookup_elem(self->mirror, &in_mirror, &value)) {
			wrong++;
			continue;
		}
		found++;
		wrong += expected != value;
	}
	return wrong + count(self->mirror) - found;
}

static int count_wrong_in_the_end(FIXTURE_DATA(sync_trie) *self)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	int wrong;

	do {
		wrong = count_wrong(self);
	} while (wrong && now_ns() < end && !usleep(10000));
	return wrong;
}

static void run_with(struct __test_metadata *_metadata, FIXTURE_DATA(sync_trie) *self,
		     const struct bpf_program *prog, struct prefix key, __u64 value)
{
	self->bss->key = key;
	self->bss->new_value = value;
	ASSERT_EQ(0, run_program(prog, NULL, 0));
	ASSERT_EQ(0, self->bss->err);
}

TEST_F(sync_trie, what_is_behind_a_prefix_is_no_key)
{
	struct prefix first = { 12, { 10, 0x1f, 3, 4 } }, same = { 12, { 10, 0x12, 99 } };
	struct prefix told = { 12, { 10, 0x10 } }, third = { 12, { 10, 0x1a, 1, 1 } };
	__u64 value, new_value = 5;

	attach(_metadata, self);
	run_with(_metadata, self, self->skel->progs.update_one, first, 3);
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &told, &value));
	EXPECT_EQ(3, value);
	run_with(_metadata, self, self->skel->progs.update_one, same, 4);
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &told, &value));
	EXPECT_EQ(4, value);
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &third, &new_value, BPF_ANY));
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &told, &value));
	EXPECT_EQ(5, value);
	EXPECT_EQ(1, count(self->mirror));
	ASSERT_EQ(0, bpf_map_delete_elem(self->source, &first));
	EXPECT_EQ(0, count(self->mirror));

	/* By a batch, whose tracers come after the operation; of bytes that are whole */
	told = (struct prefix){ 16, { 10, 0x12 } };
	same.prefixlen = 16;
	value = 1;
	ASSERT_EQ(0, bpf_map_update_batch(self->source, &same, &value, &(__u32){ 1 }, NULL));
	EXPECT_EQ(0, bpf_map_lookup_elem(self->mirror, &told, &value));
	EXPECT_EQ(0, count_wrong(self));
	ASSERT_EQ(0, bpf_map_delete_batch(self->source, &same, &(__u32){ 1 }, NULL));
	EXPECT_EQ(0, count(self->mirror));
}

/* A trie looks for the longest prefix that it has. Who asks for the state of one does not. */
TEST_F(sync_trie, shorter_prefix_is_another_key)
{
	struct prefix shorter = { 8, { 10 } }, longer = { 16, { 10, 1 } };
	__u64 left, value;

	attach(_metadata, self);
	run_with(_metadata, self, self->skel->progs.update_one, shorter, 8);
	run_with(_metadata, self, self->skel->progs.update_one, longer, 16);
	self->bss->failing = 1;
	run_with(_metadata, self, self->skel->progs.delete_one, longer, 0);
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &longer, &value));
	self->bss->failing = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_EQ(1, count(self->mirror));

	/* Nor does a flush, which is given one with something behind it. */
	ASSERT_EQ(0, bpf_map_update_elem(self->mirror, &longer, &(__u64){ 1 }, BPF_ANY));
	longer.data[3] = 77;
	EXPECT_EQ(0, map_trace_flush(self->link, &longer, 1, 0, &left));
	EXPECT_EQ(1, count(self->mirror));
	EXPECT_EQ(0, count_wrong(self));
	/* What is no prefix is no key. */
	longer.prefixlen = 33;
	EXPECT_EQ(-EINVAL, map_trace_flush(self->link, &longer, 1, 0, &left));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, &left));
}

/* Of all lengths, one within the other, with nodes between them that are no elements */
TEST_F(sync_trie, is_told_what_was_there_before)
{
	__u32 i, present;

	srand(1);
	for (i = 0; i < NR_PREFIXES; i++) {
		struct prefix key = { rand() % 33, { rand() % 4, rand() % 4, rand(), rand() } };
		__u64 value = i;

		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	}
	present = count(self->source);
	ASSERT_LT(128, present);
	attach(_metadata, self);
	EXPECT_EQ(0, count_wrong(self));
	EXPECT_EQ(present, info_of(self->link).replayed);
	EXPECT_EQ(0, info_of(self->link).pending);
}

TEST_F(sync_trie, flush_tells_what_was_written_through_pointers)
{
	struct prefix key = { 24, { 192, 168, 1, 7 } };

	attach(_metadata, self);
	run_with(_metadata, self, self->skel->progs.update_one, key, 1);
	run_with(_metadata, self, self->skel->progs.write_through_pointer, key, 2);
	EXPECT_EQ(1, count_wrong(self));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong(self));
}

struct racer {
	pthread_t thread;
	const struct bpf_program *prog;
	const __u32 *stop;
	int cpu;
	int err;
};

static void *race(void *argument)
{
	struct racer *racer = argument;

	racer->err = pin_to_cpu(racer->cpu);
	while (!racer->err && !__atomic_load_n(racer->stop, __ATOMIC_RELAXED))
		racer->err = run_program(racer->prog, NULL, 0);
	return NULL;
}

/* Addresses that stay; what comes and goes between them is odd, or shorter. */
static struct prefix address(__u32 i)
{
	return (struct prefix){ 32, { i % 4, i / 4 % 4, i / 16, 2 * (i % 128) } };
}

/* A walk goes on behind prefixes that have gone meanwhile, and meets all that stay. */
TEST_F(sync_trie, flush_meets_all_that_stays)
{
	struct racer racer = { .prog = self->skel->progs.churn_between, .cpu = 1 };
	__u64 value, seen;
	__u32 i, stop = 0;
	int round;

	if (online_cpus() < CPUS)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	for (i = 0; i < NR_PREFIXES; i++) {
		struct prefix key = address(i);

		value = i;
		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	}
	attach(_metadata, self);
	racer.stop = &stop;
	ASSERT_EQ(0, pthread_create(&racer.thread, NULL, race, &racer));
	for (round = 0; round < 10; round++) {
		/* As if somebody had missed all of them */
		for (i = 0; i < NR_PREFIXES; i++) {
			struct prefix key = address(i);

			ASSERT_EQ(0, bpf_map_delete_elem(self->mirror, &key));
		}
		ASSERT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
		for (i = 0; i < NR_PREFIXES; i++) {
			struct prefix key = address(i);

			ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen))
				TH_LOG("%u in round %d", i, round);
			EXPECT_EQ(i, seen);
		}
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(racer.thread, NULL));
	EXPECT_EQ(0, racer.err);
	EXPECT_LT(0, self->bss->operations);
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong(self));
}

/* From before the attach, so that what it goes through changes meanwhile */
TEST_F(sync_trie, converges_where_cpus_race)
{
	struct racer racers[CPUS] = {};
	__u32 stop = 0;
	int i;

	if (online_cpus() < CPUS)
		SKIP(return, "needs 2 CPUs");
	self->bss->fails_each = 50;
	for (i = 0; i < CPUS; i++) {
		racers[i].prog = i ? self->skel->progs.churn : self->skel->progs.churn_sleepable;
		racers[i].stop = &stop;
		racers[i].cpu = i;
		ASSERT_EQ(0, pthread_create(&racers[i].thread, NULL, race, &racers[i]));
	}
	attach(_metadata, self);
	usleep(RACE_NS / 1000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < CPUS; i++) {
		ASSERT_EQ(0, pthread_join(racers[i].thread, NULL));
		EXPECT_EQ(0, racers[i].err);
	}
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	self->bss->fails_each = 0;
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong(self));
	EXPECT_GE(NR_HOT, count(self->mirror));
	EXPECT_EQ(0, info_of(self->link).lost);
	TH_LOG("%llu operations, %u runs", self->bss->operations, self->bss->runs);
}

TEST_HARNESS_MAIN
