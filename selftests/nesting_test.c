// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 7 to 9: tracers that run inside one another, and inside of something that holds a
 * lock. A chain that is known to be too long is refused at the attach. A loop that cannot be
 * known at the attach ends at run time, and is counted.
 */
#include "testing_helpers.h"

#include <sys/syscall.h>
#include <time.h>

#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>

#include "graph.h"

/* How many tracers may follow each other in an interrupt */
#define MAX_CHAIN_LITTLE_STACK 3

#define KPROBES_OPTIMIZATION "/proc/sys/debug/kprobes-optimization"

FIXTURE(nesting) {
	struct graph *graph;
};

FIXTURE_SETUP(nesting)
{
	/* Each test is a process of its own. */
	static struct graph graph;

	ASSERT_EQ(0, map_trace_setup());
	ASSERT_EQ(0, graph_open(&graph));
	self->graph = &graph;
}

FIXTURE_TEARDOWN(nesting)
{
	graph_close(self->graph);
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
static int extend(struct graph *graph, int i)
{
	graph->chain[i] = attach(graph, updates[i + 1], i);
	return graph->chain[i];
}

/* All maps of the chain follow m0, and nobody missed anything. */
static void expect_chain_follows(struct __test_metadata *_metadata, struct graph *graph,
				 int tracers)
{
	int i;

	ASSERT_EQ(0, operate(graph, OPERATION_UPDATE, 7, 77));
	for (i = 0; i < tracers; i++) {
		EXPECT_TRUE(holds(graph, i + 1, 7)) TH_LOG("m%d", i + 1);
		EXPECT_EQ(0, missed(graph->chain[i])) TH_LOG("tracer %d", i);
	}
}

TEST_F(nesting, chain_of_eight_built_from_the_top)
{
	int i;

	LOAD_CHAIN();
	for (i = 0; i < MAX_CHAIN; i++) {
		ASSERT_LE(0, extend(self->graph, i)) TH_LOG("tracer %d", i);
	}
	EXPECT_EQ(-ELOOP, extend(self->graph, MAX_CHAIN));
	expect_chain_follows(_metadata, self->graph, MAX_CHAIN);
	EXPECT_FALSE(holds(self->graph, 9, 7));
}

TEST_F(nesting, chain_of_eight_built_from_the_bottom)
{
	int i;

	LOAD_CHAIN();
	/* m1 to m9 */
	for (i = MAX_CHAIN; i > 0; i--) {
		ASSERT_LE(0, extend(self->graph, i)) TH_LOG("tracer %d", i);
	}
	EXPECT_EQ(-ELOOP, extend(self->graph, 0));
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 7, 77));
	EXPECT_FALSE(holds(self->graph, 1, 7));
}

TEST_F(nesting, chain_of_eight_joined_in_the_middle)
{
	int i;

	LOAD_CHAIN();
	for (i = 0; i < 4; i++) {
		ASSERT_LE(0, extend(self->graph, i)) TH_LOG("tracer %d", i);
	}
	for (i = 5; i < 9; i++) {
		ASSERT_LE(0, extend(self->graph, i)) TH_LOG("tracer %d", i);
	}
	EXPECT_EQ(-ELOOP, extend(self->graph, 4));

	/* Shorter by one at either end, it may be joined. */
	ASSERT_EQ(0, map_trace_detach(self->graph->chain[8]));
	ASSERT_LE(0, extend(self->graph, 4));
	expect_chain_follows(_metadata, self->graph, MAX_CHAIN);
	/* Now it is as long as it may be. */
	close(self->graph->chain[8]);
	EXPECT_EQ(-ELOOP, extend(self->graph, 8));
}

TEST_F(nesting, update_of_a_link_in_a_full_chain)
{
	int i;

	LOAD_CHAIN();
	for (i = 0; i < MAX_CHAIN; i++) {
		ASSERT_LE(0, extend(self->graph, i)) TH_LOG("tracer %d", i);
	}
	/* As long as before */
	EXPECT_EQ(0, map_trace_update(self->graph->chain[3], prog_fd(self->graph, updates[4]), -1));
	/* A way that is shorter */
	EXPECT_EQ(0, map_trace_update(self->graph->chain[3], prog_fd(self->graph, updates[5]), -1));
	ASSERT_LE(0, extend(self->graph, MAX_CHAIN));
	/* And not longer again, now that there is a ninth */
	EXPECT_EQ(-ELOOP, map_trace_update(self->graph->chain[3], prog_fd(self->graph, updates[4]),
					   -1));
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 7, 77));
	EXPECT_TRUE(holds(self->graph, 9, 7));
	EXPECT_FALSE(holds(self->graph, 4, 7));
	EXPECT_EQ(0, missed(self->graph->chain[MAX_CHAIN]));
}

/* A tracer that writes nothing ends a chain. What attaches has to run. */
TEST_F(nesting, tracer_at_the_end_of_a_full_chain_runs_or_is_refused)
{
	int i, link;

	LOAD_CHAIN();
	for (i = 0; i < MAX_CHAIN; i++) {
		ASSERT_LE(0, extend(self->graph, i)) TH_LOG("tracer %d", i);
	}
	link = attach(self->graph, "update_counts", MAX_CHAIN);
	if (link < 0) {
		EXPECT_EQ(-ELOOP, link);
		return;
	}
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 7, 77));
	EXPECT_EQ(1, self->graph->skel->bss->runs);
	EXPECT_EQ(0, missed(link));
	close(link);
}

/* Many ways lead to the end, and there is no need to go all of them. */
TEST_F_TIMEOUT(nesting, check_takes_no_longer_where_many_ways_lead, 300)
{
	int links[MAX_CHAIN][6], i, j;

	LOAD_CHAIN();
	/* 6 to the 8th, seen from m0 */
	for (i = 0; i < MAX_CHAIN; i++) {
		for (j = 0; j < 6; j++) {
			links[i][j] = attach(self->graph, updates[i + 1], i);
			ASSERT_LE(0, links[i][j]) TH_LOG("%d, %d", i, j);
		}
	}
	EXPECT_LOOP("update_updates_m1", MAX_CHAIN);
	EXPECT_LOOP("update_updates_m9", MAX_CHAIN);
	for (i = 0; i < MAX_CHAIN; i++)
		for (j = 0; j < 6; j++)
			close(links[i][j]);
}

/* What cannot be known at load is bounded at run time, and counted. */

TEST_F(nesting, unknown_write_to_the_traced_map_runs_once_and_is_missed_once)
{
	int link, i;

	LOAD("update_updates_dynamic");
	link = attach_with_cookie(self->graph, "update_updates_dynamic", 0, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	for (i = 1; i <= 3; i++) {
		ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, i, i));
		EXPECT_EQ(i, self->graph->skel->bss->runs_by_cookie[0]);
		EXPECT_EQ(i, missed(link));
		EXPECT_TRUE(holds(self->graph, 0, i));
	}
	/* Contract 9: no lock of the map is held, not even that of the same key. */
	EXPECT_EQ(0, failed(link));
	close(link);
}

TEST_F(nesting, unknown_delete_in_the_traced_map_runs_once_and_is_missed_once)
{
	int link;

	LOAD("delete_deletes_dynamic");
	link = attach_with_cookie(self->graph, "delete_deletes_dynamic", 0, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 2, 2));
	/* The tracer deletes 2. */
	ASSERT_EQ(0, operate(self->graph, OPERATION_DELETE, 1, 0));
	EXPECT_EQ(1, self->graph->skel->bss->runs_by_cookie[0]);
	EXPECT_EQ(1, missed(link));
	EXPECT_FALSE(holds(self->graph, 0, 1));
	EXPECT_FALSE(holds(self->graph, 0, 2));

	/* What fails is not traced, and so not missed either. */
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	ASSERT_EQ(0, operate(self->graph, OPERATION_DELETE, 1, 0));
	EXPECT_EQ(2, self->graph->skel->bss->runs_by_cookie[0]);
	EXPECT_EQ(1, missed(link));
	close(link);
}

/* m0 -> m1 -> m2 -> m0, none of which anybody could know */
TEST_F(nesting, unknown_loop_over_three_maps_goes_round_once)
{
	int links[3], i;

	LOAD("update_updates_dynamic");
	for (i = 0; i < 3; i++) {
		links[i] = attach_with_cookie(self->graph, "update_updates_dynamic", i,
					      (i + 1) % 3);
		ASSERT_LE(0, links[i]) TH_LOG("attach: %s", strerror(-links[i]));
	}
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 5, 55));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(1, self->graph->skel->bss->runs_by_cookie[i]) TH_LOG("%d", i);
		EXPECT_TRUE(holds(self->graph, i, 5));
		EXPECT_EQ(i == 0, missed(links[i]));
	}

	/* From another map of the circle, and from user space: the same */
	ASSERT_EQ(0, bpf_map_update_elem(self->graph->maps[1], &(__u32){ 6 }, &(__u64){ 66 }, 0));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(2, self->graph->skel->bss->runs_by_cookie[i]) TH_LOG("%d", i);
		EXPECT_TRUE(holds(self->graph, i, 6));
		EXPECT_EQ(i <= 1, missed(links[i]));
		close(links[i]);
	}
}

/* A chain that nobody could know: each tracer updates the next map. */
static void attach_unknown_chain(struct __test_metadata *_metadata, struct graph *graph,
				 const char *name, int tracers)
{
	int i;

	for (i = 0; i < tracers; i++) {
		graph->chain[i] = attach_with_cookie(graph, name, i, i + 1);
		ASSERT_LE(0, graph->chain[i]) TH_LOG("attach: %s", strerror(-graph->chain[i]));
	}
}

TEST_F(nesting, unknown_chain_ends_after_eight_tracers)
{
	int i;

	LOAD("update_updates_dynamic");
	attach_unknown_chain(_metadata, self->graph, "update_updates_dynamic", NR_MAPS - 1);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 5, 55));
	for (i = 0; i < NR_MAPS - 1; i++) {
		EXPECT_EQ(i < MAX_CHAIN, self->graph->skel->bss->runs_by_cookie[i + 1])
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i >= MAX_CHAIN, missed(self->graph->chain[i])) TH_LOG("tracer %d", i);
		/* The ninth is not run, but what it would have traced was done. */
		EXPECT_EQ(i < MAX_CHAIN, holds(self->graph, i + 1, 5)) TH_LOG("m%d", i + 1);
	}
}

/* How many of them a stack has room for is the kernel's affair, but it is not all of it. */
TEST_F(nesting, unknown_chain_of_full_stacks_ends_with_one_that_is_missed)
{
	int i, runs = 0;

	LOAD("update_updates_dynamic_with_full_stack");
	attach_unknown_chain(_metadata, self->graph, "update_updates_dynamic_with_full_stack",
			     NR_MAPS - 1);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 5, 55));
	while (runs < NR_MAPS - 1 && self->graph->skel->bss->runs_by_cookie[runs + 1])
		runs++;
	TH_LOG("%d tracers run", runs);
	EXPECT_LE(MAX_CHAIN_LITTLE_STACK, runs);
	EXPECT_GE(MAX_CHAIN, runs);
	for (i = 0; i < NR_MAPS - 1; i++) {
		EXPECT_EQ(i < runs, self->graph->skel->bss->runs_by_cookie[i + 1])
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i == runs, missed(self->graph->chain[i])) TH_LOG("tracer %d", i);
		EXPECT_EQ(i < runs, holds(self->graph, i + 1, 5)) TH_LOG("m%d", i + 1);
	}
}

static int print_nothing(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return 0;
}

/*
 * What runs in a breakpoint counts as NMI. It is one where the probe is not at the beginning of the
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

/* Two tracers too many for where there is little stack */
static void attach_long_chain(struct __test_metadata *_metadata, struct graph *graph)
{
	attach_unknown_chain(_metadata, graph, "update_updates_dynamic",
			     MAX_CHAIN_LITTLE_STACK + 2);
}

static void expect_short_chain(struct __test_metadata *_metadata, struct graph *graph)
{
	int i;

	ASSERT_EQ(0, graph->skel->bss->output_ret);
	for (i = 0; i < MAX_CHAIN_LITTLE_STACK + 2; i++) {
		EXPECT_EQ(i < MAX_CHAIN_LITTLE_STACK, graph->skel->bss->runs_by_cookie[i + 1])
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i == MAX_CHAIN_LITTLE_STACK, missed(graph->chain[i]))
			TH_LOG("tracer %d", i);
		EXPECT_EQ(i <= MAX_CHAIN_LITTLE_STACK, holds(graph, i, 5)) TH_LOG("m%d", i);
	}

	/* A task has room for all of them. */
	ASSERT_EQ(0, operate(graph, OPERATION_UPDATE, 6, 66));
	for (i = 0; i < MAX_CHAIN_LITTLE_STACK + 2; i++) {
		EXPECT_TRUE(holds(graph, i + 1, 6)) TH_LOG("m%d", i + 1);
		EXPECT_EQ(i == MAX_CHAIN_LITTLE_STACK, missed(graph->chain[i]))
			TH_LOG("tracer %d", i);
	}
}

TEST_F(nesting, unknown_chain_in_an_nmi_ends_after_three_tracers)
{
	struct bpf_link *probe;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	LOAD("update_updates_dynamic", "update_m0_in_nmi");
	attach_long_chain(_metadata, self->graph);
	/* NMIs are sent to the other CPU. */
	ASSERT_EQ(0, pin_to_cpu(0));
	self->graph->skel->bss->input_cpu = 1;
	self->graph->skel->bss->output_ret = 1;
	probe = bpf_program__attach(self->graph->skel->progs.update_m0_in_nmi);
	ASSERT_NE(NULL, probe);
	ASSERT_EQ(0, send_nmis());
	bpf_link__destroy(probe);
	expect_short_chain(_metadata, self->graph);
}

/* A tracer has led to what runs in a breakpoint that it hits. */
static void expect_recursion(struct __test_metadata *_metadata, struct graph *graph, int link)
{
	EXPECT_EQ(0, graph->skel->bss->output_ret);
	EXPECT_TRUE(holds(graph, 0, 5));
	EXPECT_TRUE(holds(graph, 0, 6));
	EXPECT_EQ(1, missed(link));
	close(link);
}

TEST_F(nesting, contract_7_breakpoint_in_what_a_tracer_does_is_recursion)
{
	struct bpf_link *probe;
	char old[8];
	int err, link;

	LOAD("update_updates_dynamic", "update_m0_in_kprobe");
	link = attach_with_cookie(self->graph, "update_updates_dynamic", 0, 1);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	err = write_proc(KPROBES_OPTIMIZATION, "0", old, sizeof(old));
	ASSERT_EQ(0, err) TH_LOG("%s: %s", KPROBES_OPTIMIZATION, strerror(-err));
	probe = attach_to_breakpoint(self->graph->skel->progs.update_m0_in_kprobe,
				     "htab_map_update_elem");
	EXPECT_NE(NULL, probe);
	self->graph->skel->bss->output_ret = 1;
	/* That is the traced update. The second one is what its tracer does. */
	self->graph->skel->bss->input_skip = 1;
	self->graph->skel->bss->input_pid = getpid();
	EXPECT_EQ(0, operate(self->graph, OPERATION_UPDATE, 6, 66));
	bpf_link__destroy(probe);
	write_proc(KPROBES_OPTIMIZATION, old, NULL, 0);
	EXPECT_EQ(1, self->graph->skel->bss->runs_by_cookie[1]);
	expect_recursion(_metadata, self->graph, link);
}

/* Such a breakpoint has a stack of its own. */
TEST_F(nesting, contract_7_watched_memory_that_a_tracer_writes_is_recursion)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_W,
		.bp_len = HW_BREAKPOINT_LEN_8,
		.sample_period = 1,
		.exclude_user = 1,
	};
	struct bpf_link *probe;
	int fd, link;

	LOAD("update_writes_watched", "update_m0_in_breakpoint", "find_watched");
	link = attach(self->graph, "update_writes_watched", 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	ASSERT_EQ(0, run_program(self->graph->skel->progs.find_watched, NULL, 0));
	attr.bp_addr = self->graph->skel->bss->watched_address;
	fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	ASSERT_LE(0, fd) TH_LOG("perf event: %s", strerror(errno));
	probe = bpf_program__attach_perf_event(self->graph->skel->progs.update_m0_in_breakpoint,
					       fd);
	ASSERT_NE(NULL, probe);
	self->graph->skel->bss->output_ret = 1;
	self->graph->skel->bss->input_pid = getpid();
	EXPECT_EQ(0, operate(self->graph, OPERATION_UPDATE, 6, 66));
	bpf_link__destroy(probe);
	EXPECT_EQ(1, self->graph->skel->bss->runs) TH_LOG("watched %llx", attr.bp_addr);
	expect_recursion(_metadata, self->graph, link);
}

/* A hardirq has what the softirq that it interrupts has left of its stack. */
TEST_F(nesting, unknown_chain_in_a_hardirq_ends_after_three_tracers)
{
	struct bpf_link *clock;
	time_t end;
	int fd;

	LOAD("update_updates_dynamic", "update_m0_in_hardirq");
	attach_long_chain(_metadata, self->graph);
	self->graph->skel->bss->output_ret = 1;
	self->graph->skel->bss->input_pid = getpid();
	fd = open_cpu_clock(0, -1);
	ASSERT_LE(0, fd) TH_LOG("perf event: %s", strerror(-fd));
	clock = bpf_program__attach_perf_event(self->graph->skel->progs.update_m0_in_hardirq, fd);
	ASSERT_NE(NULL, clock);
	/* It ticks while this thread runs. */
	for (end = time(NULL) + 60; time(NULL) < end;)
		if (*(volatile __s64 *)&self->graph->skel->bss->output_ret != 1)
			break;
	bpf_link__destroy(clock);
	expect_short_chain(_metadata, self->graph);
}

/*
 * Contract 9: a tracer runs wherever its operation may run. Here that is where the lock is
 * held which the tracer needs.
 */
static void meet_a_lock(struct __test_metadata *_metadata, struct graph *graph,
			struct bpf_link *probe, int link)
{
	ASSERT_NE(NULL, probe);
	/* From the second time on, there is an element that another one takes the place of. */
	ASSERT_EQ(0, run_program(graph->skel->progs.update_guarded, NULL, 0));
	graph->skel->bss->output_ret = 1;
	graph->skel->bss->input_pid = getpid();
	ASSERT_EQ(0, run_program(graph->skel->progs.update_guarded, NULL, 0));
	bpf_link__destroy(probe);

	/* The tracer could not follow. The operation is what it would have been without. */
	EXPECT_EQ(0, graph->skel->bss->output_ret);
	EXPECT_TRUE(holds(graph, 0, 5));
	EXPECT_EQ(-EDEADLK, graph->skel->bss->guarded_ret);
	EXPECT_EQ(1, failed(link));
	EXPECT_EQ(0, missed(link));

	/* Anywhere else it can. */
	EXPECT_EQ(0, operate(graph, OPERATION_UPDATE, 6, 66));
	EXPECT_EQ(0, graph->skel->bss->guarded_ret);
	EXPECT_EQ(1, failed(link));
}

TEST_F(nesting, tracer_that_meets_a_held_lock_fails_and_its_operation_does_not)
{
	struct bpf_link *probe;
	int link;

	LOAD("update_updates_guarded", "update_guarded", "update_m0_in_fentry");
	link = EXPECT_ATTACHES("update_updates_guarded", 0);
	probe = bpf_program__attach(self->graph->skel->progs.update_m0_in_fentry);
	meet_a_lock(_metadata, self->graph, probe, link);
	close(link);
}

TEST_F(nesting, contract_9_tracer_that_meets_a_held_lock_fails_alone)
{
	struct bpf_link *probe;
	char old[8];
	int link, err;

	LOAD("update_updates_guarded", "update_guarded", "update_m0_in_kprobe");
	link = EXPECT_ATTACHES("update_updates_guarded", 0);
	err = write_proc(KPROBES_OPTIMIZATION, "0", old, sizeof(old));
	ASSERT_EQ(0, err) TH_LOG("%s: %s", KPROBES_OPTIMIZATION, strerror(-err));
	probe = attach_to_breakpoint(self->graph->skel->progs.update_m0_in_kprobe,
				     "bpf_obj_cancel_fields");
	meet_a_lock(_metadata, self->graph, probe, link);
	write_proc(KPROBES_OPTIMIZATION, old, NULL, 0);
	close(link);
}

/* The depth is given back: what ran into the limit once does not stay there. */
TEST_F(nesting, nesting_is_over_when_the_operation_is)
{
	int i, j;

	LOAD("update_updates_dynamic");
	attach_unknown_chain(_metadata, self->graph, "update_updates_dynamic", NR_MAPS - 1);
	for (j = 0; j < online_cpus(); j++) {
		ASSERT_EQ(0, pin_to_cpu(j));
		for (i = 0; i < 5; i++) {
			ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, i, j));
		}
	}
	EXPECT_EQ(5 * online_cpus(), self->graph->skel->bss->runs_by_cookie[MAX_CHAIN]);
	EXPECT_EQ(5 * online_cpus(), missed(self->graph->chain[MAX_CHAIN]));
	EXPECT_EQ(0, missed(self->graph->chain[MAX_CHAIN - 1]));
}

/* The guard is for each tracer: another one of the same map is not held back by it. */
TEST_F(nesting, another_tracer_of_the_map_sees_what_a_tracer_does_to_it)
{
	int link, other;

	LOAD("update_updates_dynamic", "update_counts");
	link = attach_with_cookie(self->graph, "update_updates_dynamic", 0, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	other = EXPECT_ATTACHES("update_counts", 0);
	ASSERT_EQ(0, operate(self->graph, OPERATION_UPDATE, 1, 1));
	EXPECT_EQ(1, self->graph->skel->bss->runs_by_cookie[0]);
	EXPECT_EQ(2, self->graph->skel->bss->runs);
	EXPECT_EQ(1, missed(link));
	EXPECT_EQ(0, missed(other));
	close(link);
	close(other);
}

TEST_HARNESS_MAIN
