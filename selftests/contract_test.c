// SPDX-License-Identifier: GPL-2.0
/* Points of the contract that are not about one operation, one program or one attach */
#include "testing_helpers.h"

#include <pthread.h>

#include "progs/contract.h"
#include "contract.skel.h"

/* As Documentation/contract.rst has it */
#define MAX_TRACERS 64
#define SPIN_MS 300

FIXTURE(contract) {
	struct contract_bpf *skel;
};

FIXTURE_SETUP(contract)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = contract_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->skel->bss->spin_ns = SPIN_MS * NSEC_PER_MSEC;
}

FIXTURE_TEARDOWN(contract)
{
	contract_bpf__destroy(self->skel);
}

static void *update_on_another_cpu(void *argument)
{
	struct contract_bpf *skel = argument;

	if (pin_to_cpu(1))
		return (void *)1;
	return (void *)(long)run_program(skel->progs.update, NULL, 0);
}

/* Take the tracer away while it runs: by a detach, or by an update of its link */
static void expect_wait_for_tracer(struct __test_metadata *_metadata,
				   FIXTURE_DATA(contract) *self, bool by_update)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	pthread_t thread;
	void *ret;
	int link;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	link = attach_to(self->skel->progs.spins, self->skel->maps.source);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	ASSERT_EQ(0, pthread_create(&thread, NULL, update_on_another_cpu, self->skel));
	ASSERT_TRUE(wait_for_flag(&bss->entered, 10000));
	/* It has most of its time before it. */
	ASSERT_EQ(0, bss->left_ns);
	if (by_update) {
		ASSERT_EQ(0, map_trace_update(link, bpf_program__fd(self->skel->progs.counts), -1));
	} else {
		ASSERT_EQ(0, map_trace_detach(link));
	}
	EXPECT_NE(0, bss->left_ns);
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(NULL, ret);
	EXPECT_EQ(0, bss->update_ret);
	close(link);
}

/* When BPF_LINK_DETACH returns, the tracer runs no more, not even for an old operation. */
TEST_F(contract, contract_3_detach_waits_for_a_tracer_that_runs)
{
	expect_wait_for_tracer(_metadata, self, false);
}

TEST_F(contract, contract_4_update_waits_for_the_old_program)
{
	expect_wait_for_tracer(_metadata, self, true);
}

/* There were some, and each of them was traced. Closes the link. */
static void expect_traced_interruptions(struct __test_metadata *_metadata,
					FIXTURE_DATA(contract) *self, int link)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct map_trace_info info;

	EXPECT_LT(0, bss->interruptions);
	EXPECT_EQ(0, bss->interrupt_failures);
	EXPECT_EQ(bss->interruptions, bss->traced_interruptions);
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(0, info.missed);
	EXPECT_EQ(0, info.failed);
	close(link);
}

/* What interrupts a tracer is not recursion: its own operation is traced. */
TEST_F(contract, contract_8_interrupt_of_a_tracer_is_traced)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	int link, i;

	ASSERT_EQ(0, pin_to_cpu(0));
	link = attach_to(self->skel->progs.spins, self->skel->maps.source);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	/* The timer may be early, or late: once has to be enough. */
	for (i = 0; i < 50 && bss->interruptions < 5; i++) {
		ASSERT_EQ(0, run_program(self->skel->progs.update_and_be_interrupted, NULL, 0));
		ASSERT_EQ(0, bss->timer_ret);
		ASSERT_EQ(0, bss->update_ret);
		ASSERT_TRUE(wait_for_flag(&bss->interrupted, 10000));
	}
	TH_LOG("%u of %d tracers were interrupted", bss->interruptions, i);
	expect_traced_interruptions(_metadata, self, link);
}

/* Nor is what does so where the kernel does not count it as an interrupt yet. */
TEST_F(contract, contract_8_beginning_of_an_interrupt_of_a_tracer_is_traced)
{
	struct bpf_link *probe;
	int link;

	link = attach_to(self->skel->progs.spins, self->skel->maps.source);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	probe = bpf_program__attach(self->skel->progs.update_before_interrupt);
	ASSERT_NE(NULL, probe);
	/* Longer than the clock takes to its next tick */
	EXPECT_EQ(0, run_program(self->skel->progs.update, NULL, 0));
	bpf_link__destroy(probe);
	expect_traced_interruptions(_metadata, self, link);
}

/* Nor is a hardirq that interrupts the tracer of a softirq: neither is on a task's stack. */
TEST_F(contract, contract_8_hardirq_in_a_tracer_of_a_softirq_is_traced)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct bpf_link *clock;
	int link, fd;

	ASSERT_EQ(0, pin_to_cpu(0));
	link = attach_to(self->skel->progs.spins, self->skel->maps.source);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	fd = open_cpu_clock(-1, 0);
	ASSERT_LE(0, fd) TH_LOG("perf event: %s", strerror(-fd));
	clock = bpf_program__attach_perf_event(self->skel->progs.update_in_hardirq, fd);
	ASSERT_NE(NULL, clock);
	ASSERT_EQ(0, run_program(self->skel->progs.update_in_softirq, NULL, 0));
	ASSERT_EQ(0, bss->timer_ret);
	ASSERT_TRUE(wait_for_flag(&bss->done, 10000));
	bpf_link__destroy(clock);
	ASSERT_EQ(0, bss->update_ret);
	expect_traced_interruptions(_metadata, self, link);
}

TEST_F_TIMEOUT(contract, more_tracers_than_documented_are_e2big, 300)
{
	int links[MAX_TRACERS], i, err;

	for (i = 0; i < MAX_TRACERS; i++) {
		links[i] = attach_to(self->skel->progs.counts, self->skel->maps.source);
		ASSERT_LE(0, links[i]) TH_LOG("%d: %s", i, strerror(-links[i]));
	}
	EXPECT_EQ(-E2BIG, attach_to(self->skel->progs.counts, self->skel->maps.source));
	ASSERT_EQ(0, run_program(self->skel->progs.update, NULL, 0));
	EXPECT_EQ(MAX_TRACERS, self->skel->bss->traced_interruptions);

	/* One goes, one comes. */
	ASSERT_EQ(0, map_trace_detach(links[5]));
	close(links[5]);
	links[5] = attach_to(self->skel->progs.counts, self->skel->maps.source);
	EXPECT_LE(0, links[5]) TH_LOG("attach: %s", strerror(-links[5]));
	err = attach_to(self->skel->progs.counts, self->skel->maps.source);
	EXPECT_EQ(-E2BIG, err);
	for (i = 0; i < MAX_TRACERS; i++)
		close(links[i]);
}

static void get_ids(struct __test_metadata *_metadata, const struct bpf_program *prog,
		    const struct bpf_map *map, __u32 *prog_id, __u32 *map_id)
{
	*prog_id = id_of_program(bpf_program__fd(prog));
	*map_id = id_of_map(bpf_map__fd(map));
	ASSERT_NE(0, *prog_id);
	ASSERT_NE(0, *map_id);
}

static void expect_gone(struct __test_metadata *_metadata, FIXTURE_DATA(contract) *self,
			__u32 prog_id, __u32 map_id)
{
	contract_bpf__destroy(self->skel);
	self->skel = NULL;
	EXPECT_TRUE(is_gone(bpf_prog_get_next_id, prog_id)) TH_LOG("program %u", prog_id);
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, map_id)) TH_LOG("map %u", map_id);
}

/* Contract 12 */
TEST_F(contract, defect_6_refused_attach_keeps_neither_map_nor_program)
{
	const struct bpf_map *source = self->skel->maps.source;
	struct map_trace_link_info info = { .map_fd = bpf_map__fd(source), .trace_type = UPDATE };
	struct map_trace_link_create create = {
		.prog_fd = bpf_program__fd(self->skel->progs.reads_past_value),
		.attach_type = map_trace_attach_type(),
		.info = (unsigned long)&info,
		.info_len = sizeof(info),
	};
	__u32 prog_id, map_id;

	get_ids(_metadata, self->skel->progs.reads_past_value, source, &prog_id, &map_id);
	EXPECT_EQ(-EACCES, map_trace_link_create(&create));
	info.trace_type = DELETE;
	EXPECT_EQ(-EINVAL, map_trace_link_create(&create));
	info.trace_type = 7;
	EXPECT_EQ(-EINVAL, map_trace_link_create(&create));
	info.trace_type = UPDATE;
	create.info_len = 4;
	EXPECT_EQ(-EINVAL, map_trace_link_create(&create));
	create.info_len = sizeof(info);
	create.info = 1;
	EXPECT_EQ(-EFAULT, map_trace_link_create(&create));
	expect_gone(_metadata, self, prog_id, map_id);
}

/* The latest refusal: all of the link is made by then. */
TEST_F(contract, defect_6_refused_loop_keeps_neither_map_nor_program)
{
	__u32 prog_id, map_id;

	get_ids(_metadata, self->skel->progs.updates_source, self->skel->maps.source, &prog_id,
		&map_id);
	EXPECT_EQ(-ELOOP, attach_to(self->skel->progs.updates_source, self->skel->maps.source));
	expect_gone(_metadata, self, prog_id, map_id);
}

TEST_F(contract, defect_6_link_that_is_closed_keeps_neither_map_nor_program)
{
	__u32 prog_id, map_id;
	int links[2];

	get_ids(_metadata, self->skel->progs.counts, self->skel->maps.source, &prog_id, &map_id);
	links[0] = attach_to(self->skel->progs.counts, self->skel->maps.source);
	ASSERT_LE(0, links[0]);
	links[1] = attach_to(self->skel->progs.counts, self->skel->maps.source);
	ASSERT_LE(0, links[1]);
	/* In and out of a link, by either way, refused and not */
	EXPECT_EQ(0, map_trace_update(links[0], bpf_program__fd(self->skel->progs.spins), -1));
	EXPECT_EQ(0, map_trace_update(links[0], bpf_program__fd(self->skel->progs.counts), -1));
	EXPECT_EQ(-EPERM, map_trace_update(links[0], bpf_program__fd(self->skel->progs.counts),
					   bpf_program__fd(self->skel->progs.spins)));
	ASSERT_EQ(0, map_trace_detach(links[0]));
	EXPECT_EQ(-ENOLINK, map_trace_update(links[0], bpf_program__fd(self->skel->progs.counts),
					     -1));
	close(links[0]);
	close(links[1]);
	expect_gone(_metadata, self, prog_id, map_id);
}

TEST_HARNESS_MAIN
