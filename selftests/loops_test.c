// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 7: no tracer runs because of itself. What a tracer writes is known when it
 * attaches, and a cycle is refused; what is not known is bounded when it runs.
 */
#include "testing_helpers.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "progs/loops.h"
#include "progs/operation.h"
#include "loops.skel.h"

/* A close may defer. */
#define GONE_AFTER_NS (10 * NSEC_PER_SEC)
#define RACES 60

/* How many tracers may follow each other in an interrupt and in an NMI */
#define MAX_CHAIN_LITTLE_STACK 3

#define KPROBES_OPTIMIZATION "/proc/sys/debug/kprobes-optimization"

static char log_buf[1 << 16];

FIXTURE(loops) {
	struct loops_bpf *skel;
	int maps[NR_MAPS];
	/* Tracers of the chain: the i-th traces map i and updates map i + 1. */
	int chain[NR_MAPS];
};

FIXTURE_SETUP(loops)
{
	int i;

	ASSERT_EQ(0, map_trace_setup());
	self->skel = loops_bpf__open();
	ASSERT_NE(NULL, self->skel);
	for (i = 0; i < NR_MAPS; i++)
		self->chain[i] = -1;
}

FIXTURE_TEARDOWN(loops)
{
	int i;

	for (i = 0; i < NR_MAPS; i++)
		if (self->chain[i] >= 0)
			close(self->chain[i]);
	loops_bpf__destroy(self->skel);
}

/* Load what is named, and m0's operations. 0 or a negative errno */
static int load(FIXTURE_DATA(loops) *self, const char *const names[])
{
	struct bpf_program *prog;
	char name[8];
	int i, err;

	bpf_program__set_autoload(self->skel->progs.operate_on_m0, true);
	for (i = 0; names[i]; i++) {
		prog = bpf_object__find_program_by_name(self->skel->obj, names[i]);
		if (!prog) {
			fprintf(stderr, "# no program %s\n", names[i]);
			return -ENOENT;
		}
		bpf_program__set_autoload(prog, true);
		bpf_program__set_log_buf(prog, log_buf, sizeof(log_buf));
	}
	err = loops_bpf__load(self->skel);
	if (err)
		fprintf(stderr, "# load: %s\n%s\n", strerror(-err), log_buf);
	for (i = 0; !err && i < NR_MAPS; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		self->maps[i] = bpf_object__find_map_fd_by_name(self->skel->obj, name);
	}
	return err;
}

#define LOAD(...) do {								\
	static const char *const _names[] = { __VA_ARGS__, NULL };		\
										\
	ASSERT_EQ(0, load(self, _names));					\
} while (0)

static int prog_fd(FIXTURE_DATA(loops) *self, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(self->skel->obj, name));
}

static int attach_with_cookie(FIXTURE_DATA(loops) *self, const char *name, int map, __u64 cookie)
{
	/* Programs are named after their operation. */
	__u32 type = strncmp(name, "delete_", 7) ? UPDATE : DELETE;

	return map_trace_attach(prog_fd(self, name), self->maps[map], type, cookie);
}

static int attach(FIXTURE_DATA(loops) *self, const char *name, int map)
{
	return attach_with_cookie(self, name, map, 0);
}

#define EXPECT_ATTACHES(name, map) ({						\
	int _link = attach(self, name, map);					\
										\
	EXPECT_LE(0, _link) TH_LOG("%s on m%d: %s", name, map, strerror(-_link));\
	_link;									\
})

#define EXPECT_LOOP(name, map) do {						\
	int _link = attach(self, name, map);					\
										\
	EXPECT_EQ(-ELOOP, _link) TH_LOG("%s on m%d", name, map);		\
	if (_link >= 0)								\
		close(_link);							\
} while (0)

static __s64 operate(FIXTURE_DATA(loops) *self, __u32 kind, __u32 key, __u64 value)
{
	struct operation op = { .kind = kind, .key = key, .value = value };
	int ret = run_program(self->skel->progs.operate_on_m0, &op, sizeof(op));

	return ret ? ret : op.ret;
}

static bool holds(FIXTURE_DATA(loops) *self, int map, __u32 key)
{
	__u64 value;

	return !bpf_map_lookup_elem(self->maps[map], &key, &value);
}

static __u64 failed(int link)
{
	struct map_trace_info info;

	return map_trace_get_info(link, &info) ? -1ULL : info.failed;
}

static __u64 missed(int link)
{
	struct map_trace_info info;

	return map_trace_get_info(link, &info) ? -1ULL : info.missed;
}

/* Refused on the map that it writes, fine on another one, and where it was refused all goes on */
static void direct(struct __test_metadata *_metadata, FIXTURE_DATA(loops) *self,
		   const char *name)
{
	int link;

	EXPECT_LOOP(name, 0);
	EXPECT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(0, operate(self, OPERATION_DELETE, 1, 0));
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
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 11));
	EXPECT_EQ(1, self->skel->bss->runs);
	/* It has found what it was called for, twice. */
	EXPECT_EQ(22, self->skel->bss->sink);
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
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 11));
	EXPECT_EQ(2, self->skel->bss->runs);
	EXPECT_TRUE(holds(self, 1, 1));
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
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_TRUE(holds(self, 1, 1));
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
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_TRUE(holds(self, 2, 1));
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
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_TRUE(holds(self, 3, 1));
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
		back = attach(self, "update_updates_m0", 1);
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
	EXPECT_EQ(-ELOOP, map_trace_update(links[1], prog_fd(self, "update_updates_m0"), -1));
	EXPECT_EQ(-ELOOP, map_trace_update(links[1], prog_fd(self, "update_updates_m0"),
					   prog_fd(self, "update_counts")));
	/* Direct */
	EXPECT_EQ(-ELOOP, map_trace_update(links[1], prog_fd(self, "update_updates_m1"), -1));

	/* The old program runs on. */
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(1, self->skel->bss->runs);
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
	ASSERT_EQ(0, map_trace_update(link, prog_fd(self, "update_counts"), -1));
	back = EXPECT_ATTACHES("update_updates_m0", 1);

	/* And now it is the link's new program that must not come back. */
	EXPECT_EQ(-ELOOP, map_trace_update(link, prog_fd(self, "update_updates_m1"), -1));
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(1, self->skel->bss->runs);
	EXPECT_FALSE(holds(self, 1, 1));
	close(link);
	close(back);
}

/* Chains */

static const char *const updates[NR_MAPS] = {
	"update_updates_m0", "update_updates_m1", "update_updates_m2", "update_updates_m3",
	"update_updates_m4", "update_updates_m5", "update_updates_m6", "update_updates_m7",
	"update_updates_m8", "update_updates_m9",
};

#define LOAD_CHAIN() LOAD("update_counts", "update_counts_second",		\
	"update_updates_m1", "update_updates_m2", "update_updates_m3",		\
	"update_updates_m4", "update_updates_m5", "update_updates_m6",		\
	"update_updates_m7", "update_updates_m8", "update_updates_m9")

/* Let updates of map @i update map @i + 1 */
static int extend(FIXTURE_DATA(loops) *self, int i)
{
	self->chain[i] = attach(self, updates[i + 1], i);
	return self->chain[i];
}

/* All maps of the chain follow m0, and nobody missed anything. */
static void expect_chain_follows(struct __test_metadata *_metadata, FIXTURE_DATA(loops) *self,
				 int tracers)
{
	int i;

	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 7, 77));
	for (i = 0; i < tracers; i++) {
		EXPECT_TRUE(holds(self, i + 1, 7)) TH_LOG("m%d", i + 1);
		EXPECT_EQ(0, missed(self->chain[i])) TH_LOG("tracer %d", i);
	}
}

TEST_F(loops, chain_of_eight_built_from_the_top)
{
	int i;

	LOAD_CHAIN();
	for (i = 0; i < MAX_CHAIN; i++) {
		ASSERT_LE(0, extend(self, i)) TH_LOG("tracer %d", i);
	}
	EXPECT_EQ(-ELOOP, extend(self, MAX_CHAIN));
	expect_chain_follows(_metadata, self, MAX_CHAIN);
	EXPECT_FALSE(holds(self, 9, 7));
}

TEST_F(loops, chain_of_eight_built_from_the_bottom)
{
	int i;

	LOAD_CHAIN();
	/* m1 to m9 */
	for (i = MAX_CHAIN; i > 0; i--) {
		ASSERT_LE(0, extend(self, i)) TH_LOG("tracer %d", i);
	}
	EXPECT_EQ(-ELOOP, extend(self, 0));
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 7, 77));
	EXPECT_FALSE(holds(self, 1, 7));
}

TEST_F(loops, chain_of_eight_joined_in_the_middle)
{
	int i;

	LOAD_CHAIN();
	for (i = 0; i < 4; i++) {
		ASSERT_LE(0, extend(self, i)) TH_LOG("tracer %d", i);
	}
	for (i = 5; i < 9; i++) {
		ASSERT_LE(0, extend(self, i)) TH_LOG("tracer %d", i);
	}
	EXPECT_EQ(-ELOOP, extend(self, 4));

	/* Shorter by one at either end, it may be joined. */
	ASSERT_EQ(0, map_trace_detach(self->chain[8]));
	ASSERT_LE(0, extend(self, 4));
	expect_chain_follows(_metadata, self, MAX_CHAIN);
	/* Now it is as long as it may be. */
	close(self->chain[8]);
	EXPECT_EQ(-ELOOP, extend(self, 8));
}

TEST_F(loops, update_of_a_link_in_a_full_chain)
{
	int i;

	LOAD_CHAIN();
	for (i = 0; i < MAX_CHAIN; i++) {
		ASSERT_LE(0, extend(self, i)) TH_LOG("tracer %d", i);
	}
	/* As long as before */
	EXPECT_EQ(0, map_trace_update(self->chain[3], prog_fd(self, updates[4]), -1));
	/* A way that is shorter */
	EXPECT_EQ(0, map_trace_update(self->chain[3], prog_fd(self, updates[5]), -1));
	ASSERT_LE(0, extend(self, MAX_CHAIN));
	/* And not longer again, now that there is a ninth */
	EXPECT_EQ(-ELOOP, map_trace_update(self->chain[3], prog_fd(self, updates[4]), -1));
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 7, 77));
	EXPECT_TRUE(holds(self, 9, 7));
	EXPECT_FALSE(holds(self, 4, 7));
	EXPECT_EQ(0, missed(self->chain[MAX_CHAIN]));
}

/* A tracer that writes nothing ends a chain. What attaches has to run. */
TEST_F(loops, tracer_at_the_end_of_a_full_chain_runs_or_is_refused)
{
	int i, link;

	LOAD_CHAIN();
	for (i = 0; i < MAX_CHAIN; i++) {
		ASSERT_LE(0, extend(self, i)) TH_LOG("tracer %d", i);
	}
	link = attach(self, "update_counts", MAX_CHAIN);
	if (link < 0) {
		EXPECT_EQ(-ELOOP, link);
		return;
	}
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 7, 77));
	EXPECT_EQ(1, self->skel->bss->runs);
	EXPECT_EQ(0, missed(link));
	close(link);
}

/* Many ways lead to the end, and there is no need to go all of them. */
TEST_F_TIMEOUT(loops, check_takes_no_longer_where_many_ways_lead, 300)
{
	int links[MAX_CHAIN][6], i, j;

	LOAD_CHAIN();
	/* 6 to the 8th, seen from m0 */
	for (i = 0; i < MAX_CHAIN; i++) {
		for (j = 0; j < 6; j++) {
			links[i][j] = attach(self, updates[i + 1], i);
			ASSERT_LE(0, links[i][j]) TH_LOG("%d, %d", i, j);
		}
	}
	EXPECT_LOOP("update_updates_m1", MAX_CHAIN);
	EXPECT_LOOP("update_updates_m9", MAX_CHAIN);
	for (i = 0; i < MAX_CHAIN; i++)
		for (j = 0; j < 6; j++)
			close(links[i][j]);
}

/* Contract 7 and defect 2 of the RFC: the decision and the insertion are one. */

struct racer {
	FIXTURE_DATA(loops) *self;
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
	racer->ret = attach(racer->self, racer->name, racer->map);
	return NULL;
}

static void *race_to_update(void *argument)
{
	struct racer *racer = argument;

	pthread_barrier_wait(racer->barrier);
	racer->ret = map_trace_update(racer->link, prog_fd(racer->self, racer->name), -1);
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
		{ .self = self, .name = "update_updates_m1", .map = 0 },
		{ .self = self, .name = "update_updates_m0", .map = 1 },
	};
	int round, i, wins[2] = {};

	LOAD("update_updates_m0", "update_updates_m1");
	for (round = 0; round < RACES; round++) {
		race(_metadata, racers, 2, race_to_attach);
		ASSERT_EQ(0, operate(self, OPERATION_UPDATE, round % 64, 1));
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
		{ .self = self, .name = "update_updates_m1", .map = 0 },
		{ .self = self, .name = "update_updates_m2", .map = 1 },
		{ .self = self, .name = "update_updates_m0", .map = 2 },
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
		{ .self = self, .name = "update_updates_m1", .map = 0 },
		{ .self = self, .name = "update_updates_m0", .map = 1 },
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
						      prog_fd(self, "update_counts"), -1));
		}
	}
	for (i = 0; i < 2; i++)
		close(racers[i].link);
}

/* What cannot be known at load is bounded at run time, and counted. */

TEST_F(loops, unknown_write_to_the_traced_map_runs_once_and_is_missed_once)
{
	int link, i;

	LOAD("update_updates_dynamic");
	link = attach_with_cookie(self, "update_updates_dynamic", 0, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	for (i = 1; i <= 3; i++) {
		ASSERT_EQ(0, operate(self, OPERATION_UPDATE, i, i));
		EXPECT_EQ(i, self->skel->bss->runs_by_cookie[0]);
		EXPECT_EQ(i, missed(link));
		EXPECT_TRUE(holds(self, 0, i));
	}
	/* Contract 9: no lock of the map is held, not even that of the same key. */
	EXPECT_EQ(0, failed(link));
	close(link);
}

TEST_F(loops, unknown_delete_in_the_traced_map_runs_once_and_is_missed_once)
{
	int link;

	LOAD("delete_deletes_dynamic");
	link = attach_with_cookie(self, "delete_deletes_dynamic", 0, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 2, 2));
	/* The tracer deletes 2. */
	ASSERT_EQ(0, operate(self, OPERATION_DELETE, 1, 0));
	EXPECT_EQ(1, self->skel->bss->runs_by_cookie[0]);
	EXPECT_EQ(1, missed(link));
	EXPECT_FALSE(holds(self, 0, 1));
	EXPECT_FALSE(holds(self, 0, 2));

	/* What fails is not traced, and so not missed either. */
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	ASSERT_EQ(0, operate(self, OPERATION_DELETE, 1, 0));
	EXPECT_EQ(2, self->skel->bss->runs_by_cookie[0]);
	EXPECT_EQ(1, missed(link));
	close(link);
}

/* m0 -> m1 -> m2 -> m0, none of which anybody could know */
TEST_F(loops, unknown_loop_over_three_maps_goes_round_once)
{
	int links[3], i;

	LOAD("update_updates_dynamic");
	for (i = 0; i < 3; i++) {
		links[i] = attach_with_cookie(self, "update_updates_dynamic", i, (i + 1) % 3);
		ASSERT_LE(0, links[i]) TH_LOG("attach: %s", strerror(-links[i]));
	}
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 5, 55));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(1, self->skel->bss->runs_by_cookie[i]) TH_LOG("%d", i);
		EXPECT_TRUE(holds(self, i, 5));
		EXPECT_EQ(i == 0, missed(links[i]));
	}

	/* From another map of the circle, and from user space: the same */
	ASSERT_EQ(0, bpf_map_update_elem(self->maps[1], &(__u32){ 6 }, &(__u64){ 66 }, 0));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(2, self->skel->bss->runs_by_cookie[i]) TH_LOG("%d", i);
		EXPECT_TRUE(holds(self, i, 6));
		EXPECT_EQ(i <= 1, missed(links[i]));
		close(links[i]);
	}
}

TEST_F(loops, unknown_chain_ends_after_eight_tracers)
{
	int i;

	LOAD("update_updates_dynamic");
	for (i = 0; i < NR_MAPS - 1; i++) {
		self->chain[i] = attach_with_cookie(self, "update_updates_dynamic", i, i + 1);
		ASSERT_LE(0, self->chain[i]) TH_LOG("attach: %s", strerror(-self->chain[i]));
	}
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 5, 55));
	for (i = 0; i < NR_MAPS - 1; i++) {
		EXPECT_EQ(i < MAX_CHAIN, self->skel->bss->runs_by_cookie[i + 1])
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i >= MAX_CHAIN, missed(self->chain[i])) TH_LOG("tracer %d", i);
		/* The ninth is not run, but what it would have traced was done. */
		EXPECT_EQ(i < MAX_CHAIN, holds(self, i + 1, 5)) TH_LOG("m%d", i + 1);
	}
}

/* How many of them a stack has room for is the kernel's affair, but it is not all of it. */
TEST_F(loops, unknown_chain_of_full_stacks_ends_with_one_that_is_missed)
{
	int i, runs = 0;

	LOAD("update_updates_dynamic_with_full_stack");
	for (i = 0; i < NR_MAPS - 1; i++) {
		self->chain[i] = attach_with_cookie(self, "update_updates_dynamic_with_full_stack",
						    i, i + 1);
		ASSERT_LE(0, self->chain[i]) TH_LOG("attach: %s", strerror(-self->chain[i]));
	}
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 5, 55));
	while (runs < NR_MAPS - 1 && self->skel->bss->runs_by_cookie[runs + 1])
		runs++;
	TH_LOG("%d tracers run", runs);
	EXPECT_LE(MAX_CHAIN_LITTLE_STACK, runs);
	EXPECT_GE(MAX_CHAIN, runs);
	for (i = 0; i < NR_MAPS - 1; i++) {
		EXPECT_EQ(i < runs, self->skel->bss->runs_by_cookie[i + 1]) TH_LOG("tracer %d", i);
		EXPECT_EQ(i == runs, missed(self->chain[i])) TH_LOG("tracer %d", i);
		EXPECT_EQ(i < runs, holds(self, i + 1, 5)) TH_LOG("m%d", i + 1);
	}
}

static int print_nothing(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return 0;
}

/*
 * A breakpoint counts as NMI. It is one where the probe is not at the beginning of the
 * function, which ftrace has a way into, and where the kernel makes no jump of it.
 * Where its first instructions end is found out by trying.
 */
static struct bpf_link *attach_to_breakpoint(const struct bpf_program *prog, const char *function)
{
	LIBBPF_OPTS(bpf_kprobe_opts, opts);
	libbpf_print_fn_t print = libbpf_set_print(print_nothing);
	struct bpf_link *link = NULL;

	for (opts.offset = 5; !link && opts.offset < 32; opts.offset++)
		link = bpf_program__attach_kprobe_opts(prog, function, &opts);
	libbpf_set_print(print);
	return link;
}

/* A chain that nobody could know, of two tracers too many for where there is little stack */
static void attach_long_chain(struct __test_metadata *_metadata, FIXTURE_DATA(loops) *self)
{
	int i;

	for (i = 0; i < MAX_CHAIN_LITTLE_STACK + 2; i++) {
		self->chain[i] = attach_with_cookie(self, "update_updates_dynamic", i, i + 1);
		ASSERT_LE(0, self->chain[i]) TH_LOG("attach: %s", strerror(-self->chain[i]));
	}
}

static void expect_short_chain(struct __test_metadata *_metadata, FIXTURE_DATA(loops) *self)
{
	int i;

	ASSERT_EQ(0, self->skel->bss->output_ret);
	for (i = 0; i < MAX_CHAIN_LITTLE_STACK + 2; i++) {
		EXPECT_EQ(i < MAX_CHAIN_LITTLE_STACK, self->skel->bss->runs_by_cookie[i + 1])
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i == MAX_CHAIN_LITTLE_STACK, missed(self->chain[i]))
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i <= MAX_CHAIN_LITTLE_STACK, holds(self, i, 5)) TH_LOG("m%d", i);
	}

	/* A task has room for all of them. */
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 6, 66));
	for (i = 0; i < MAX_CHAIN_LITTLE_STACK + 2; i++) {
		EXPECT_TRUE(holds(self, i + 1, 6)) TH_LOG("m%d", i + 1);
		EXPECT_EQ(i == MAX_CHAIN_LITTLE_STACK, missed(self->chain[i]))
			TH_LOG("tracer %d", i);
	}
}

/* The stack of an NMI is small. */
TEST_F(loops, unknown_chain_in_an_nmi_ends_after_three_tracers)
{
	struct bpf_link *probe;
	char old[8];
	int err;

	LOAD("update_updates_dynamic", "update_m0_in_kprobe");
	attach_long_chain(_metadata, self);
	err = write_proc(KPROBES_OPTIMIZATION, "0", old, sizeof(old));
	ASSERT_EQ(0, err) TH_LOG("%s: %s", KPROBES_OPTIMIZATION, strerror(-err));
	probe = attach_to_breakpoint(self->skel->progs.update_m0_in_kprobe, "__x64_sys_getpgid");
	EXPECT_NE(NULL, probe);
	self->skel->bss->output_ret = 1;
	self->skel->bss->input_pid = getpid();
	syscall(__NR_getpgid, 0);
	bpf_link__destroy(probe);
	write_proc(KPROBES_OPTIMIZATION, old, NULL, 0);
	expect_short_chain(_metadata, self);
}

/* A hardirq has what the softirq that it interrupts has left of its stack. */
TEST_F(loops, unknown_chain_in_a_hardirq_ends_after_three_tracers)
{
	struct bpf_link *clock;
	time_t end;
	int fd;

	LOAD("update_updates_dynamic", "update_m0_in_hardirq");
	attach_long_chain(_metadata, self);
	self->skel->bss->output_ret = 1;
	self->skel->bss->input_pid = getpid();
	fd = open_cpu_clock(0, -1);
	ASSERT_LE(0, fd) TH_LOG("perf event: %s", strerror(-fd));
	clock = bpf_program__attach_perf_event(self->skel->progs.update_m0_in_hardirq, fd);
	ASSERT_NE(NULL, clock);
	/* It ticks while this thread runs. */
	for (end = time(NULL) + 60; time(NULL) < end;)
		if (*(volatile __s64 *)&self->skel->bss->output_ret != 1)
			break;
	bpf_link__destroy(clock);
	expect_short_chain(_metadata, self);
}

/*
 * Contract 9: a tracer runs wherever its operation may run. Here that is where the lock is
 * held which the tracer needs.
 */
static void meet_a_lock(struct __test_metadata *_metadata, FIXTURE_DATA(loops) *self,
			struct bpf_link *probe, int link)
{
	ASSERT_NE(NULL, probe);
	/* From the second time on, there is an element that another one takes the place of. */
	ASSERT_EQ(0, run_program(self->skel->progs.update_guarded, NULL, 0));
	self->skel->bss->output_ret = 1;
	self->skel->bss->input_pid = getpid();
	ASSERT_EQ(0, run_program(self->skel->progs.update_guarded, NULL, 0));
	bpf_link__destroy(probe);

	/* The tracer could not follow. The operation is what it would have been without. */
	EXPECT_EQ(0, self->skel->bss->output_ret);
	EXPECT_TRUE(holds(self, 0, 5));
	EXPECT_EQ(-EDEADLK, self->skel->bss->guarded_ret);
	EXPECT_EQ(1, failed(link));
	EXPECT_EQ(0, missed(link));

	/* Anywhere else it can. */
	EXPECT_EQ(0, operate(self, OPERATION_UPDATE, 6, 66));
	EXPECT_EQ(0, self->skel->bss->guarded_ret);
	EXPECT_EQ(1, failed(link));
}

TEST_F(loops, tracer_that_meets_a_held_lock_fails_and_its_operation_does_not)
{
	int link;

	LOAD("update_updates_guarded", "update_guarded", "update_m0_in_fentry");
	link = EXPECT_ATTACHES("update_updates_guarded", 0);
	meet_a_lock(_metadata, self, bpf_program__attach(self->skel->progs.update_m0_in_fentry),
		    link);
	close(link);
}

TEST_F(loops, contract_9_tracer_that_meets_a_held_lock_fails_alone)
{
	char old[8];
	int link, err;

	LOAD("update_updates_guarded", "update_guarded", "update_m0_in_kprobe");
	link = EXPECT_ATTACHES("update_updates_guarded", 0);
	err = write_proc(KPROBES_OPTIMIZATION, "0", old, sizeof(old));
	ASSERT_EQ(0, err) TH_LOG("%s: %s", KPROBES_OPTIMIZATION, strerror(-err));
	meet_a_lock(_metadata, self, attach_to_breakpoint(self->skel->progs.update_m0_in_kprobe,
							  "bpf_obj_cancel_fields"), link);
	write_proc(KPROBES_OPTIMIZATION, old, NULL, 0);
	close(link);
}

/* The depth is given back: what ran into the limit once does not stay there. */
TEST_F(loops, nesting_is_over_when_the_operation_is)
{
	int i, j;

	LOAD("update_updates_dynamic");
	for (i = 0; i < NR_MAPS - 1; i++) {
		self->chain[i] = attach_with_cookie(self, "update_updates_dynamic", i, i + 1);
		ASSERT_LE(0, self->chain[i]) TH_LOG("attach: %s", strerror(-self->chain[i]));
	}
	for (j = 0; j < online_cpus(); j++) {
		ASSERT_EQ(0, pin_to_cpu(j));
		for (i = 0; i < 5; i++) {
			ASSERT_EQ(0, operate(self, OPERATION_UPDATE, i, j));
		}
	}
	EXPECT_EQ(5 * online_cpus(), self->skel->bss->runs_by_cookie[MAX_CHAIN]);
	EXPECT_EQ(5 * online_cpus(), missed(self->chain[MAX_CHAIN]));
	EXPECT_EQ(0, missed(self->chain[MAX_CHAIN - 1]));
}

/* The guard is for each tracer: another one of the same map is not held back by it. */
TEST_F(loops, another_tracer_of_the_map_sees_what_a_tracer_does_to_it)
{
	int link, other;

	LOAD("update_updates_dynamic", "update_counts");
	link = attach_with_cookie(self, "update_updates_dynamic", 0, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	other = EXPECT_ATTACHES("update_counts", 0);
	ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(1, self->skel->bss->runs_by_cookie[0]);
	EXPECT_EQ(2, self->skel->bss->runs);
	EXPECT_EQ(1, missed(link));
	EXPECT_EQ(0, missed(other));
	close(link);
	close(other);
}

TEST_HARNESS_MAIN
