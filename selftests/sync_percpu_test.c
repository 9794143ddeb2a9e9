// SPDX-License-Identifier: GPL-2.0
/* A sync tracer of a map with a value for each CPU: it gets the value of each CPU. */
#include "testing_helpers.h"

#include <poll.h>
#include <pthread.h>

#include "progs/sync.h"
#include "sync_percpu.skel.h"

/* Some time for the worker, which rests */
#define SETTLE_MS 120000
/* How long the CPUs race */
#define RACE_NS (3 * NSEC_PER_SEC)
#define KEYS 64

enum reason { OPERATION, EVICTION, RECHECK, REPLAY, FLUSH };

FIXTURE(sync_percpu) {
	struct sync_percpu_bpf *skel;
	__typeof__(((struct sync_percpu_bpf *)0)->bss) bss;
	int source, mirror;
	int link;
	int possible, online;
};

FIXTURE_VARIANT(sync_percpu) {
	enum bpf_map_type type;
};

FIXTURE_VARIANT_ADD(sync_percpu, hash) {
	.type = BPF_MAP_TYPE_PERCPU_HASH,
};

FIXTURE_VARIANT_ADD(sync_percpu, lru_hash) {
	.type = BPF_MAP_TYPE_LRU_PERCPU_HASH,
};

FIXTURE_VARIANT_ADD(sync_percpu, array) {
	.type = BPF_MAP_TYPE_PERCPU_ARRAY,
};

FIXTURE_SETUP(sync_percpu)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->possible = libbpf_num_possible_cpus();
	ASSERT_LT(0, self->possible);
	ASSERT_GE(MAX_CPUS, self->possible);
	self->online = online_cpus();
	self->skel = sync_percpu_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.source, variant->type));
	if (variant->type == BPF_MAP_TYPE_LRU_PERCPU_HASH)
		ASSERT_EQ(0, bpf_map__set_max_entries(self->skel->maps.source, CAPACITY_LRU));
	ASSERT_EQ(0, sync_percpu_bpf__load(self->skel));
	self->bss = self->skel->bss;
	self->bss->nr_cpus = self->possible;
	self->source = bpf_map__fd(self->skel->maps.source);
	self->mirror = bpf_map__fd(self->skel->maps.mirror);
}

FIXTURE_TEARDOWN(sync_percpu)
{
	close(self->link);
	sync_percpu_bpf__destroy(self->skel);
}

static void attach(struct __test_metadata *_metadata, FIXTURE_DATA(sync_percpu) *self)
{
	struct pollfd pollfd = { .events = POLLIN };

	self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	pollfd.fd = self->link;
	ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
	ASSERT_EQ(POLLIN, pollfd.revents);
}

/* Does it on each CPU in turn, each with values of its own */
static int run_on_each(FIXTURE_DATA(sync_percpu) *self, const struct bpf_program *prog,
		       __u32 from, __u32 to)
{
	int cpu, err = 0;

	self->bss->from = from;
	self->bss->to = to;
	for (cpu = 0; cpu < self->online && !err; cpu++) {
		self->bss->new_value = 10000 * (cpu + 1);
		err = pin_to_cpu(cpu) ?: run_program(prog, NULL, 0);
	}
	return err;
}

/* How many keys are in one of the maps only, or have another value for some CPU */
static __u32 count_wrong(FIXTURE_DATA(sync_percpu) *self)
{
	__u64 expected[MAX_CPUS], value;
	__u32 key, wrong = 0;

	for (key = 0; key < NR_KEYS; key++) {
		struct cpu_key cpu_key = { .key = key };
		bool absent, differs = false;

		absent = bpf_map_lookup_elem(self->source, &key, expected);
		for (cpu_key.cpu = 0; cpu_key.cpu < self->possible; cpu_key.cpu++) {
			/* What was never written is zero, and may go untold. */
			if (bpf_map_lookup_elem(self->mirror, &cpu_key, &value))
				differs |= !absent && expected[cpu_key.cpu];
			else
				differs |= absent || expected[cpu_key.cpu] != value;
		}
		wrong += differs;
	}
	return wrong;
}

/* The same, once nothing is left to do, without a flush */
static __u32 count_wrong_in_the_end(FIXTURE_DATA(sync_percpu) *self)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	__u32 wrong;

	do {
		wrong = count_wrong(self);
	} while (wrong && now_ns() < end && !usleep(10000));
	return wrong;
}

TEST_F(sync_percpu, is_told_the_value_of_each_cpu)
{
	attach(_metadata, self);
	ASSERT_EQ(0, run_on_each(self, self->skel->progs.update_range, 0, KEYS));
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_LE(KEYS * self->online, self->bss->reasons[OPERATION]);
}

TEST_F(sync_percpu, is_told_what_was_there_before)
{
	ASSERT_EQ(0, run_on_each(self, self->skel->progs.update_range, 0, KEYS));
	attach(_metadata, self);
	EXPECT_EQ(0, count_wrong(self));
	EXPECT_LE(KEYS * self->possible, self->bss->reasons[REPLAY]);
}

/* User space writes the values of all CPUs at once. */
TEST_F(sync_percpu, is_told_what_user_space_writes)
{
	__u64 values[MAX_CPUS];
	__u32 key = 7, i;

	attach(_metadata, self);
	for (i = 0; i < MAX_CPUS; i++)
		values[i] = 100 + i;
	self->bss->reasons[OPERATION] = 0;
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, values, BPF_ANY));
	EXPECT_EQ(0, count_wrong(self));
	EXPECT_EQ(self->possible, self->bss->reasons[OPERATION]);

	/* That of one CPU alone */
	values[0] = 4711;
	self->bss->reasons[OPERATION] = 0;
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, values,
					 BPF_F_CPU | (__u64)(self->possible - 1) << 32));
	EXPECT_EQ(0, count_wrong(self));
	EXPECT_EQ(1, self->bss->reasons[OPERATION]);
}

TEST_F(sync_percpu, delete_is_told_once)
{
	if (variant->type == BPF_MAP_TYPE_PERCPU_ARRAY) {
		TH_LOG("not applicable: elements of an array stay");
		return;
	}
	attach(_metadata, self);
	ASSERT_EQ(0, run_on_each(self, self->skel->progs.update_range, 0, KEYS));
	ASSERT_EQ(0, count_wrong_in_the_end(self));
	self->bss->absent = 0;
	self->bss->from = 0;
	self->bss->to = KEYS / 2;
	ASSERT_EQ(0, run_program(self->skel->progs.delete_range, NULL, 0));
	EXPECT_EQ(KEYS / 2, self->bss->absent);
	EXPECT_EQ(0, count_wrong_in_the_end(self));
}

TEST_F(sync_percpu, is_told_what_the_map_gives_up)
{
	if (variant->type != BPF_MAP_TYPE_LRU_PERCPU_HASH) {
		TH_LOG("not applicable: it gives up nothing");
		return;
	}
	attach(_metadata, self);
	ASSERT_EQ(0, run_on_each(self, self->skel->progs.update_range, 0, KEYS));
	self->bss->from = 0;
	self->bss->to = NR_KEYS;
	ASSERT_EQ(0, run_program(self->skel->progs.update_range, NULL, 0));
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_LT(0, self->bss->absent);
}

/* Evictions by updates that come by for one CPU alone, not this one */
TEST_F(sync_percpu, is_told_what_gives_way_to_the_value_of_another_cpu)
{
	struct map_trace_info info;
	__u64 value = 1;
	__u32 key;

	if (variant->type != BPF_MAP_TYPE_LRU_PERCPU_HASH) {
		TH_LOG("not applicable: it gives up nothing");
		return;
	}
	ASSERT_EQ(0, pin_to_cpu(0));
	attach(_metadata, self);
	for (key = 0; key < NR_KEYS; key++)
		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value,
						 BPF_F_CPU | (__u64)(self->possible - 1) << 32));
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(0, info.lost);
}

/* As counters are kept: a flush finds them. */
TEST_F(sync_percpu, flush_tells_what_each_cpu_has_counted)
{
	attach(_metadata, self);
	ASSERT_EQ(0, run_on_each(self, self->skel->progs.update_range, 0, KEYS));
	ASSERT_EQ(0, count_wrong_in_the_end(self));
	ASSERT_EQ(0, run_on_each(self, self->skel->progs.count_range, 0, KEYS));
	EXPECT_EQ(KEYS, count_wrong(self));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, SETTLE_MS, NULL));
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

TEST_F(sync_percpu, converges_where_cpus_race)
{
	struct racer racers[MAX_CPUS] = {};
	__u32 stop = 0;
	int i;

	if (self->online < 2)
		SKIP(return, "needs 2 CPUs");
	self->bss->hot_keys = variant->type == BPF_MAP_TYPE_LRU_PERCPU_HASH ? 400 : 8;
	self->bss->fails_each = 50;
	attach(_metadata, self);
	for (i = 0; i < self->online; i++) {
		racers[i].prog = self->skel->progs.churn;
		racers[i].stop = &stop;
		racers[i].cpu = i;
		ASSERT_EQ(0, pthread_create(&racers[i].thread, NULL, race, &racers[i]));
	}
	usleep(RACE_NS / 1000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < self->online; i++) {
		ASSERT_EQ(0, pthread_join(racers[i].thread, NULL));
		EXPECT_EQ(0, racers[i].err);
	}
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_LT(0, self->bss->reasons[RECHECK]);
}

TEST_HARNESS_MAIN
