// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 2, 3 and 4 under load: tracers are attached, detached and changed while CPUs change
 * the map
 */
#include "testing_helpers.h"

#include <pthread.h>

#include "load.skel.h"

#define CYCLES 1000
#define WORKERS 2
/* How long a link's program changes for, and how often it has to at least */
#define SWAP_NS (2 * NSEC_PER_SEC)
#define MIN_SWAPS 200
/* How many maps get their first two tracers */
#define FIRST_ATTACHES 40

FIXTURE(stress) {
	struct load_bpf *skel;
};

FIXTURE_SETUP(stress)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = load_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(stress)
{
	load_bpf__destroy(self->skel);
}

struct worker {
	pthread_t thread;
	const struct bpf_program *prog;
	int cpu;
	int err;
	__u32 stop;
};

static void *work(void *argument)
{
	struct worker *worker = argument;

	worker->err = pin_to_cpu(worker->cpu);
	while (!worker->err && !__atomic_load_n(&worker->stop, __ATOMIC_RELAXED))
		worker->err = run_program(worker->prog, NULL, 0);
	return NULL;
}

static __u64 counter(__u64 *address)
{
	return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}

/* The bounds that the contract gives for what one attachment has to have seen */
struct bounds {
	__u64 done_before;	/* when BPF_LINK_CREATE was called */
	__u64 begun_attached;	/* when it had returned */
	__u64 done_attached;	/* when BPF_LINK_DETACH was called */
	__u64 begun_after;	/* when it had returned */
	__u64 traced;
};

TEST_F_TIMEOUT(stress, attach_and_detach_under_load, 800)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct worker workers[WORKERS] = {};
	__u64 certain = 0, traced = 0;
	int cycle, i, cpus = online_cpus();

	if (cpus < WORKERS)
		SKIP(return, "needs %d CPUs", WORKERS);
	for (i = 0; i < WORKERS; i++) {
		workers[i].prog = self->skel->progs.churn;
		workers[i].cpu = i;
		ASSERT_EQ(0, pthread_create(&workers[i].thread, NULL, work, &workers[i]));
	}
	while (!counter(&bss->deletes_done))
		usleep(1000);

	for (cycle = 0; cycle < CYCLES; cycle++) {
		bool delete = cycle % 2;
		__u64 *begun = delete ? &bss->deletes_begun : &bss->updates_begun;
		__u64 *done = delete ? &bss->deletes_done : &bss->updates_done;
		__u64 *count = delete ? &bss->deletes_traced : &bss->updates_traced;
		struct bounds seen;
		int link;

		seen.traced = counter(count);
		seen.done_before = counter(done);
		link = attach_to(delete ? self->skel->progs.count_delete :
					  self->skel->progs.count_update,
				 self->skel->maps.source);
		ASSERT_LE(0, link) TH_LOG("cycle %d: %s", cycle, strerror(-link));
		seen.begun_attached = counter(begun);
		/* Let some operations pass, now and then. */
		if (cycle % 4 < 2)
			usleep(1000);
		seen.done_attached = counter(done);
		ASSERT_EQ(0, map_trace_detach(link));
		seen.begun_after = counter(begun);
		seen.traced = counter(count) - seen.traced;
		close(link);

		/*
		 * All that began after the attach and ended before the detach, and
		 * nothing that ended before the first or began after the second
		 */
		if (seen.done_attached > seen.begun_attached) {
			certain += seen.done_attached - seen.begun_attached;
			ASSERT_GE(seen.traced, seen.done_attached - seen.begun_attached)
				TH_LOG("cycle %d: too few", cycle);
		}
		ASSERT_LE(seen.traced, seen.begun_after - seen.done_before)
			TH_LOG("cycle %d: too many", cycle);
		traced += seen.traced;

		/* Contract 3: nothing runs after the detach. */
		if (cycle % 100 == 0) {
			__u64 before = counter(count);
			__u64 target = counter(done) + 100;

			while (counter(done) < target)
				sched_yield();
			ASSERT_EQ(before, counter(count)) TH_LOG("cycle %d: runs on", cycle);
		}
	}
	for (i = 0; i < WORKERS; i++) {
		__atomic_store_n(&workers[i].stop, 1, __ATOMIC_RELAXED);
		ASSERT_EQ(0, pthread_join(workers[i].thread, NULL));
		EXPECT_EQ(0, workers[i].err);
	}
	TH_LOG("%d cycles, %llu operations, %llu traced, %llu of them certain", CYCLES,
	       bss->updates_done + bss->deletes_done, traced, certain);
	EXPECT_EQ(0, bss->failures);
	EXPECT_EQ(0, bss->wrong_values);
	EXPECT_LT(0, certain);
	EXPECT_EQ(bss->updates_traced + bss->deletes_traced, traced);
}

/* Nothing is lost while nobody comes or goes. */
TEST_F(stress, every_operation_of_two_cpus_is_traced)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct worker workers[WORKERS] = {};
	struct map_trace_info info;
	int links[2], i;

	if (online_cpus() < WORKERS)
		SKIP(return, "needs %d CPUs", WORKERS);
	links[0] = attach_to(self->skel->progs.count_update, self->skel->maps.source);
	ASSERT_LE(0, links[0]);
	links[1] = attach_to(self->skel->progs.count_delete, self->skel->maps.source);
	ASSERT_LE(0, links[1]);
	for (i = 0; i < WORKERS; i++) {
		workers[i].prog = self->skel->progs.churn;
		workers[i].cpu = i;
		ASSERT_EQ(0, pthread_create(&workers[i].thread, NULL, work, &workers[i]));
	}
	sleep(2);
	for (i = 0; i < WORKERS; i++) {
		__atomic_store_n(&workers[i].stop, 1, __ATOMIC_RELAXED);
		ASSERT_EQ(0, pthread_join(workers[i].thread, NULL));
		EXPECT_EQ(0, workers[i].err);
	}
	EXPECT_LT(1000, bss->updates_done);
	EXPECT_EQ(0, bss->failures);
	EXPECT_EQ(0, bss->wrong_values);
	EXPECT_EQ(bss->updates_done, bss->updates_traced);
	EXPECT_EQ(bss->deletes_done, bss->deletes_traced);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, map_trace_get_info(links[i], &info));
		EXPECT_EQ(0, info.missed);
		EXPECT_EQ(0, info.failed);
		close(links[i]);
	}
}

/* Contract 4: the old program or the new one, never none and never both */
TEST_F(stress, contract_4_every_operation_runs_the_old_program_or_the_new_one)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct worker workers[WORKERS] = {};
	struct map_trace_info info;
	int progs[2], link, swaps, i;
	__u64 deadline;

	if (online_cpus() < WORKERS)
		SKIP(return, "needs %d CPUs", WORKERS);
	progs[0] = bpf_program__fd(self->skel->progs.count_update);
	progs[1] = bpf_program__fd(self->skel->progs.count_update_second);
	/* Attached before the first operation: all of them are traced. */
	link = attach_to(self->skel->progs.count_update, self->skel->maps.source);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	for (i = 0; i < WORKERS; i++) {
		workers[i].prog = self->skel->progs.churn;
		workers[i].cpu = i;
		ASSERT_EQ(0, pthread_create(&workers[i].thread, NULL, work, &workers[i]));
	}
	while (!counter(&bss->updates_done))
		usleep(1000);

	deadline = now_ns() + SWAP_NS;
	for (swaps = 0; swaps < MIN_SWAPS || now_ns() < deadline; swaps++) {
		ASSERT_EQ(0, map_trace_update(link, progs[(swaps + 1) % 2], progs[swaps % 2]));
	}
	for (i = 0; i < WORKERS; i++) {
		__atomic_store_n(&workers[i].stop, 1, __ATOMIC_RELAXED);
		ASSERT_EQ(0, pthread_join(workers[i].thread, NULL));
		EXPECT_EQ(0, workers[i].err);
	}
	TH_LOG("%d swaps, %llu updates: %llu and %llu", swaps, bss->updates_done,
	       bss->updates_traced, bss->updates_traced_by_second);
	EXPECT_LT(0, bss->updates_traced);
	EXPECT_LT(0, bss->updates_traced_by_second);
	EXPECT_EQ(bss->updates_done, bss->updates_traced + bss->updates_traced_by_second);
	EXPECT_EQ(0, bss->failures);
	EXPECT_EQ(0, bss->wrong_values);
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(0, info.missed);
	EXPECT_EQ(0, info.failed);
	close(link);
}

struct first_attach {
	pthread_t thread;
	/* How many of them are ready */
	__u32 *ready;
	int cpu;
	int prog;
	int map;
	int link;
};

static void *attach_first(void *argument)
{
	struct first_attach *attach = argument;
	int err = pin_to_cpu(attach->cpu);

	/* Not a barrier that sleeps: who is woken is late. */
	__atomic_add_fetch(attach->ready, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(attach->ready, __ATOMIC_SEQ_CST) < 2)
		;
	attach->link = err ? err : map_trace_attach(attach->prog, attach->map, UPDATE, 0);
	return NULL;
}

/* A map gets its list with the first tracer. Of two that race, each brings one along. */
TEST_F_TIMEOUT(stress, two_first_attaches_to_a_map_both_run, 300)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct first_attach attaches[2] = {
		{ .cpu = 0, .prog = bpf_program__fd(self->skel->progs.count_update) },
		{ .cpu = 1, .prog = bpf_program__fd(self->skel->progs.count_update_second) },
	};
	int round, map, i;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	for (round = 0; round < FIRST_ATTACHES; round++) {
		int gone = round % 2;
		__u64 value = ~0ULL;
		__u32 key = 0, ready = 0;

		bss->updates_traced = 0;
		bss->updates_traced_by_second = 0;
		map = bpf_map_create(BPF_MAP_TYPE_HASH, "fresh", sizeof(key), sizeof(value), 1,
				     NULL);
		ASSERT_LE(0, map);
		for (i = 0; i < 2; i++) {
			attaches[i].ready = &ready;
			attaches[i].map = map;
			ASSERT_EQ(0, pthread_create(&attaches[i].thread, NULL, attach_first,
						    &attaches[i]));
		}
		for (i = 0; i < 2; i++) {
			ASSERT_EQ(0, pthread_join(attaches[i].thread, NULL));
		}
		for (i = 0; i < 2; i++) {
			ASSERT_LE(0, attaches[i].link)
				TH_LOG("round %d: %s", round, strerror(-attaches[i].link));
		}
		ASSERT_EQ(0, bpf_map_update_elem(map, &key, &value, BPF_ANY));
		ASSERT_EQ(1, bss->updates_traced) TH_LOG("round %d", round);
		ASSERT_EQ(1, bss->updates_traced_by_second) TH_LOG("round %d", round);

		/* One goes, and the other one stays. */
		ASSERT_EQ(0, map_trace_detach(attaches[gone].link));
		ASSERT_EQ(0, bpf_map_update_elem(map, &key, &value, BPF_ANY));
		ASSERT_EQ(1 + (gone == 1), bss->updates_traced) TH_LOG("round %d", round);
		ASSERT_EQ(1 + (gone == 0), bss->updates_traced_by_second)
			TH_LOG("round %d", round);
		for (i = 0; i < 2; i++)
			close(attaches[i].link);
		close(map);
	}
	EXPECT_EQ(0, bss->wrong_values);
}

TEST_HARNESS_MAIN
