// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 7: no tracer leads to itself. It is known at the attach what a tracer writes, and a
 * cycle is refused, however long it is and whoever attaches at the same time.
 */
#include "testing_helpers.h"

#include <pthread.h>

#include "graph.h"

/* A close may defer. */
#define GONE_AFTER_NS (10 * NSEC_PER_SEC)
#define RACES 60

FIXTURE(loops) {
	struct graph *graph;
};

FIXTURE_SETUP(loops)
{
	/* Each test is a process of its own. */
	static struct graph graph;

	ASSERT_EQ(0, map_trace_setup());
	ASSERT_EQ(0, graph_open(&graph));
	self->graph = &graph;
}

FIXTURE_TEARDOWN(loops)
{
	graph_close(self->graph);
}

/* Refused on the map that it writes, fine on another one, and where it was refused all goes on */
static void direct(struct __test_metadata *_metadata, FIXTURE_DATA(loops) *self,
		   const char *name)
{
	int link;

	EXPECT_LOOP(name, 0);
	EXPECT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(0, operate(self->graph, OPERATION_DELETE, 1, 0));
	link = EXPECT_ATTACHES(name, 1);
	close(link);
	EXPECT_LOOP(name, 0);
}

#define DIRECT(test, name)							\
TEST_F(loops, test)								\
{										\
	LOAD(name);								\
	direct(_metadata, self, name);						\
}

DIRECT(direct_update_that_updates, "update_updates_m0")
DIRECT(direct_update_that_deletes, "update_deletes_m0")
DIRECT(direct_delete_that_updates, "delete_updates_m0")
DIRECT(direct_delete_that_deletes, "delete_deletes_m0")

/* Where a write can hide */
DIRECT(write_that_may_never_run, "update_updates_in_branch")
DIRECT(write_in_a_subprogram, "update_updates_in_subprogram")
DIRECT(write_in_a_global_subprogram, "update_updates_in_global_subprogram")
DIRECT(write_in_a_loop_callback, "update_updates_in_loop")
DIRECT(write_in_a_for_each_callback, "update_deletes_in_for_each")

/* Writes that come later count as the tracer's. */
DIRECT(write_in_a_timer_callback, "update_starts_timer")
DIRECT(write_in_a_workqueue_callback, "update_queues_work")
DIRECT(write_in_a_task_work_callback, "update_adds_task_work")

TEST_F(loops, one_call_for_two_maps_counts_for_both)
{
	LOAD("update_updates_one_of_two");
	EXPECT_LOOP("update_updates_one_of_two", 0);
	EXPECT_LOOP("update_updates_one_of_two", 1);
	close(EXPECT_ATTACHES("update_updates_one_of_two", 2));
}

TEST_F(loops, timer_closes_an_indirect_loop)
{
	int link;

	LOAD("update_updates_m1", "update_starts_timer");
	link = EXPECT_ATTACHES("update_updates_m1", 0);
	EXPECT_LOOP("update_starts_timer", 1);
	close(link);
}

/* Defect 3 of the RFC: only what is written counts. */

TEST_F(loops, defect_3_reading_the_traced_map_is_no_loop)
{
	int link;

	LOAD("update_reads_m0");
	link = EXPECT_ATTACHES("update_reads_m0", 0);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 11));
	EXPECT_EQ(1, self->graph->skel->bss->runs);
	/* It has found what it was called for, twice. */
	EXPECT_EQ(22, self->graph->skel->bss->sink);
	EXPECT_EQ(0, missed(link));
	close(link);
}

TEST_F(loops, defect_3_reading_one_map_and_writing_another_is_no_loop)
{
	int link, reader;

	LOAD("update_reads_m0_updates_m1", "update_reads_m0");
	link = EXPECT_ATTACHES("update_reads_m0_updates_m1", 0);
	/* m0 -> m1, and back only for a look */
	reader = EXPECT_ATTACHES("update_reads_m0", 1);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 11));
	EXPECT_EQ(2, self->graph->skel->bss->runs);
	EXPECT_TRUE(holds(self->graph, 1, 1));
	EXPECT_EQ(0, missed(link));
	EXPECT_EQ(0, missed(reader));
	/* What it writes does count. */
	EXPECT_LOOP("update_reads_m0_updates_m1", 1);
	close(link);
	close(reader);
}

/* Indirect */

TEST_F(loops, indirect_over_two_maps)
{
	int link;

	LOAD("update_updates_m0", "update_updates_m1");
	link = EXPECT_ATTACHES("update_updates_m1", 0);
	EXPECT_LOOP("update_updates_m0", 1);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_TRUE(holds(self->graph, 1, 1));
	EXPECT_EQ(0, missed(link));
	close(link);
}

TEST_F(loops, contract_7_indirect_over_three_maps)
{
	int links[2];

	LOAD("update_updates_m0", "update_updates_m1", "update_updates_m2");
	links[0] = EXPECT_ATTACHES("update_updates_m1", 0);
	links[1] = EXPECT_ATTACHES("update_updates_m2", 1);
	EXPECT_LOOP("update_updates_m0", 2);
	EXPECT_LOOP("update_updates_m1", 2);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_TRUE(holds(self->graph, 2, 1));
	close(links[0]);
	close(links[1]);
}

TEST_F(loops, update_tracer_that_deletes_meets_delete_tracer_that_updates)
{
	int link;

	LOAD("update_deletes_m1", "delete_updates_m0");
	link = EXPECT_ATTACHES("update_deletes_m1", 0);
	EXPECT_LOOP("delete_updates_m0", 1);
	close(link);

	/* And in the other order, where nobody has let go of the edge yet */
	link = EXPECT_ATTACHES("delete_updates_m0", 1);
	EXPECT_LOOP("update_deletes_m1", 0);
	close(link);
}

TEST_F(loops, delete_tracers_that_delete)
{
	int link;

	LOAD("delete_deletes_m0", "delete_deletes_m1");
	link = EXPECT_ATTACHES("delete_deletes_m1", 0);
	EXPECT_LOOP("delete_deletes_m0", 1);
	close(link);
}

/* m0 is written twice, and nothing comes back. */
TEST_F(loops, two_ways_to_one_map_are_no_loop)
{
	int links[4], i;

	LOAD("update_updates_m1", "update_updates_m2", "update_updates_m3", "update_updates_m0");
	links[0] = EXPECT_ATTACHES("update_updates_m1", 0);
	links[1] = EXPECT_ATTACHES("update_updates_m2", 0);
	links[2] = EXPECT_ATTACHES("update_updates_m3", 1);
	links[3] = EXPECT_ATTACHES("update_updates_m3", 2);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_TRUE(holds(self->graph, 3, 1));
	EXPECT_LOOP("update_updates_m0", 3);
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(0, missed(links[i]));
		close(links[i]);
	}
}

/* What is gone counts no more. */

TEST_F(loops, after_a_detach_the_way_is_free)
{
	int link, back, again;

	LOAD("update_updates_m0", "update_updates_m1");
	link = EXPECT_ATTACHES("update_updates_m1", 0);
	EXPECT_LOOP("update_updates_m0", 1);
	ASSERT_EQ(0, map_trace_detach(link));
	back = EXPECT_ATTACHES("update_updates_m0", 1);
	/* The other way round now */
	EXPECT_LOOP("update_updates_m1", 0);
	ASSERT_EQ(0, map_trace_detach(back));
	/* Nothing is left, of the one nor of the other: they would lead to each other. */
	again = EXPECT_ATTACHES("update_updates_m1", 0);
	close(link);
	close(back);
	close(again);
}

TEST_F(loops, after_the_last_close_the_way_is_free)
{
	__u64 deadline = now_ns() + GONE_AFTER_NS;
	int link, back;

	LOAD("update_updates_m0", "update_updates_m1");
	link = EXPECT_ATTACHES("update_updates_m1", 0);
	EXPECT_LOOP("update_updates_m0", 1);
	close(link);
	do {
		back = attach(self->graph, "update_updates_m0", 1);
	} while (back == -ELOOP && now_ns() < deadline);
	EXPECT_LE(0, back) TH_LOG("attach: %s", strerror(-back));
	close(back);
}

/* One of two tracers that make the edge is not enough. */
TEST_F(loops, the_way_is_closed_as_long_as_one_tracer_leads_there)
{
	int links[2], back;

	LOAD("update_updates_m0", "update_updates_m1", "delete_updates_m1");
	links[0] = EXPECT_ATTACHES("update_updates_m1", 0);
	links[1] = EXPECT_ATTACHES("delete_updates_m1", 0);
	EXPECT_LOOP("update_updates_m0", 1);
	ASSERT_EQ(0, map_trace_detach(links[0]));
	EXPECT_LOOP("update_updates_m0", 1);
	ASSERT_EQ(0, map_trace_detach(links[1]));
	back = EXPECT_ATTACHES("update_updates_m0", 1);
	close(links[0]);
	close(links[1]);
	close(back);
}

/* BPF_LINK_UPDATE */

TEST_F(loops, update_of_a_link_that_closes_a_loop_is_eloop)
{
	int links[2];

	LOAD("update_counts", "update_updates_m1", "update_updates_m0");
	links[0] = EXPECT_ATTACHES("update_updates_m1", 0);
	links[1] = EXPECT_ATTACHES("update_counts", 1);
	EXPECT_EQ(-ELOOP, map_trace_update(links[1], prog_fd(self->graph, "update_updates_m0"),
					   -1));
	EXPECT_EQ(-ELOOP, map_trace_update(links[1], prog_fd(self->graph, "update_updates_m0"),
					   prog_fd(self->graph, "update_counts")));
	/* Direct */
	EXPECT_EQ(-ELOOP, map_trace_update(links[1], prog_fd(self->graph, "update_updates_m1"),
					   -1));

	/* The old program runs on. */
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(1, self->graph->skel->bss->runs);
	EXPECT_EQ(0, missed(links[0]));
	EXPECT_EQ(0, missed(links[1]));
	close(links[0]);
	close(links[1]);
}

TEST_F(loops, update_of_a_link_away_from_a_write_frees_the_way)
{
	int link, back;

	LOAD("update_counts", "update_updates_m1", "update_updates_m0");
	link = EXPECT_ATTACHES("update_updates_m1", 0);
	EXPECT_LOOP("update_updates_m0", 1);
	ASSERT_EQ(0, map_trace_update(link, prog_fd(self->graph, "update_counts"), -1));
	back = EXPECT_ATTACHES("update_updates_m0", 1);

	/* And now it is the link's new program that must not come back. */
	EXPECT_EQ(-ELOOP, map_trace_update(link, prog_fd(self->graph, "update_updates_m1"), -1));
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(1, self->graph->skel->bss->runs);
	EXPECT_FALSE(holds(self->graph, 1, 1));
	close(link);
	close(back);
}

/* Contract 7 and defect 2 of the RFC: the decision and the insertion are one. */

struct racer {
	struct graph *graph;
	pthread_t thread;
	pthread_barrier_t *barrier;
	/* Attach this, or make it the program of a link */
	const char *name;
	int map;
	int link;
	int ret;
};

static void *race_to_attach(void *argument)
{
	struct racer *racer = argument;

	pthread_barrier_wait(racer->barrier);
	racer->ret = attach(racer->graph, racer->name, racer->map);
	return NULL;
}

static void *race_to_update(void *argument)
{
	struct racer *racer = argument;

	pthread_barrier_wait(racer->barrier);
	racer->ret = map_trace_update(racer->link, prog_fd(racer->graph, racer->name), -1);
	return NULL;
}

/* All but one of @count racers get what they want. */
static void race(struct __test_metadata *_metadata, struct racer *racers, int count,
		 void *(*run)(void *))
{
	pthread_barrier_t barrier;
	int i, refused = 0;

	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, count));
	for (i = 0; i < count; i++) {
		racers[i].barrier = &barrier;
		ASSERT_EQ(0, pthread_create(&racers[i].thread, NULL, run, &racers[i]));
	}
	for (i = 0; i < count; i++) {
		ASSERT_EQ(0, pthread_join(racers[i].thread, NULL));
	}
	for (i = 0; i < count; i++) {
		if (racers[i].ret >= 0)
			continue;
		ASSERT_EQ(-ELOOP, racers[i].ret) TH_LOG("racer %d", i);
		refused++;
	}
	ASSERT_EQ(1, refused);
	pthread_barrier_destroy(&barrier);
}

TEST_F_TIMEOUT(loops, defect_2_two_attaches_race_into_a_loop, 600)
{
	struct racer racers[2] = {
		{ .graph = self->graph, .name = "update_updates_m1", .map = 0 },
		{ .graph = self->graph, .name = "update_updates_m0", .map = 1 },
	};
	int round, i, wins[2] = {};

	LOAD("update_updates_m0", "update_updates_m1");
	for (round = 0; round < RACES; round++) {
		race(_metadata, racers, 2, race_to_attach);
		ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, round % 64, 1));
		for (i = 0; i < 2; i++) {
			if (racers[i].ret < 0)
				continue;
			wins[i]++;
			ASSERT_EQ(0, missed(racers[i].ret));
			ASSERT_EQ(0, map_trace_detach(racers[i].ret));
			close(racers[i].ret);
		}
	}
	TH_LOG("%d and %d wins", wins[0], wins[1]);
}

TEST_F_TIMEOUT(loops, defect_2_three_attaches_race_into_a_loop, 600)
{
	struct racer racers[3] = {
		{ .graph = self->graph, .name = "update_updates_m1", .map = 0 },
		{ .graph = self->graph, .name = "update_updates_m2", .map = 1 },
		{ .graph = self->graph, .name = "update_updates_m0", .map = 2 },
	};
	int round, i;

	LOAD("update_updates_m0", "update_updates_m1", "update_updates_m2");
	for (round = 0; round < RACES / 2; round++) {
		race(_metadata, racers, 3, race_to_attach);
		for (i = 0; i < 3; i++) {
			if (racers[i].ret < 0)
				continue;
			ASSERT_EQ(0, map_trace_detach(racers[i].ret));
			close(racers[i].ret);
		}
	}
}

TEST_F_TIMEOUT(loops, two_updates_of_links_race_into_a_loop, 600)
{
	struct racer racers[2] = {
		{ .graph = self->graph, .name = "update_updates_m1", .map = 0 },
		{ .graph = self->graph, .name = "update_updates_m0", .map = 1 },
	};
	int round, i;

	LOAD("update_counts", "update_updates_m0", "update_updates_m1");
	for (i = 0; i < 2; i++)
		racers[i].link = EXPECT_ATTACHES("update_counts", racers[i].map);
	/* Shorter waits than for an attach: more rounds */
	for (round = 0; round < 10 * RACES; round++) {
		race(_metadata, racers, 2, race_to_update);
		for (i = 0; i < 2; i++) {
			ASSERT_EQ(0, map_trace_update(racers[i].link,
						      prog_fd(self->graph, "update_counts"), -1));
		}
	}
	for (i = 0; i < 2; i++)
		close(racers[i].link);
}

TEST_HARNESS_MAIN
