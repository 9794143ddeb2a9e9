// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 8 and 13 where little of the stack is left: the operation is what it is without
 * tracers, and they are counted as missed. In each context that has a stack of its own.
 */
#include "testing_helpers.h"

#include <unistd.h>

#include "progs/stack.h"
#include "stack.skel.h"

enum context { TASK, SOFTIRQ, HARDIRQ, NMI };

FIXTURE(stack) {
	struct stack_bpf *skel;
	int link;
	int clock;
	struct bpf_link *in_context;
};

FIXTURE_VARIANT(stack) {
	enum context context;
	/* How many programs can nest there, on an untraced map as well */
	__u32 levels;
};

/* The stacks of NMIs have half the size of the others. */
FIXTURE_VARIANT_ADD(stack, task) { .context = TASK, .levels = MAX_LEVELS };
FIXTURE_VARIANT_ADD(stack, softirq) { .context = SOFTIRQ, .levels = MAX_LEVELS };
FIXTURE_VARIANT_ADD(stack, hardirq) { .context = HARDIRQ, .levels = MAX_LEVELS };
FIXTURE_VARIANT_ADD(stack, nmi) { .context = NMI, .levels = MAX_LEVELS / 2 };

FIXTURE_SETUP(stack)
{
	ASSERT_EQ(0, map_trace_setup());
	self->clock = -1;
	self->skel = stack_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	/* NMIs are sent to the other CPU. */
	self->skel->bss->cpu = variant->context == NMI;
	self->link = attach_to(self->skel->progs.follow, self->skel->maps.traced);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	self->skel->bss->done = 1;
}

FIXTURE_TEARDOWN(stack)
{
	bpf_link__destroy(self->in_context);
	if (self->clock >= 0)
		close(self->clock);
	stack_bpf__destroy(self->skel);
}

/* Let the programs nest that are on htab_map_update_elem(). */
static void attach_levels(struct __test_metadata *_metadata, FIXTURE_DATA(stack) *self)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, self->skel->obj) {
		const char *name = bpf_program__name(prog);

		if (strncmp(name, "nest_", 5))
			continue;
		ASSERT_NE(NULL, bpf_program__attach(prog)) TH_LOG("%s", name);
	}
}

/* One outermost update in the context, and all that is nested in it */
static void run(struct __test_metadata *_metadata, FIXTURE_DATA(stack) *self,
		enum context context)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;

	bss->last_ret = 1;
	bss->failures = 0;
	bss->done = 0;
	switch (context) {
	case TASK:
		ASSERT_EQ(0, run_program(self->skel->progs.in_task, NULL, 0));
		break;
	case SOFTIRQ:
		if (!self->in_context)
			self->in_context = bpf_program__attach(self->skel->progs.in_softirq);
		ASSERT_NE(NULL, self->in_context);
		break;
	case HARDIRQ:
		if (self->clock < 0) {
			self->clock = open_cpu_clock(0, -1);
			ASSERT_LE(0, self->clock) TH_LOG("%s", strerror(-self->clock));
		}
		self->in_context = bpf_program__attach_perf_event(self->skel->progs.in_hardirq,
								  self->clock);
		ASSERT_NE(NULL, self->in_context);
		/* Closed with the link */
		self->clock = -1;
		break;
	case NMI:
		if (!self->in_context)
			self->in_context = bpf_program__attach(self->skel->progs.in_nmi);
		ASSERT_NE(NULL, self->in_context);
		ASSERT_EQ(0, send_nmis());
		break;
	}
	/* A clock of this thread ticks while it runs. */
	while (context == HARDIRQ && !*(volatile __u32 *)&bss->done)
		;
	ASSERT_TRUE(wait_for_flag(&bss->done, 10000));
	if (context == HARDIRQ) {
		bpf_link__destroy(self->in_context);
		self->in_context = NULL;
	}
	EXPECT_EQ(0, bss->failures);
	EXPECT_EQ(0, bss->last_ret);
}

static __u64 missed(struct __test_metadata *_metadata, FIXTURE_DATA(stack) *self)
{
	struct map_trace_info info;

	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(0, info.failed);
	return info.missed;
}

/*
 * The operations on the traced map are within one another. As far as there is room, they are
 * traced, and each that is not is counted.
 */
TEST_F_TIMEOUT(stack, contract_13_operations_within_one_another, 600)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	__u64 all, before, runs;
	int on_stack;

	attach_levels(_metadata, self);
	bss->levels = variant->levels;
	bss->nest_in_traced = true;
	bss->last_is_traced = true;
	all = bss->levels + 1;
	for (on_stack = 0; on_stack < 2; on_stack++) {
		bss->arguments_on_stack = on_stack;
		before = missed(_metadata, self);
		runs = bss->runs;
		run(_metadata, self, variant->context);
		TH_LOG("of %llu operations %llu are traced; %llu bytes", all, bss->runs - runs,
		       bss->spots[0] - bss->spots[bss->levels]);
		EXPECT_LT(0, bss->runs - runs);
		EXPECT_EQ(all, bss->runs - runs + missed(_metadata, self) - before);
	}
}

TEST_HARNESS_MAIN
