// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 8 and 13 with little of the stack left: the operation does what it does without
 * tracers, and the tracers count a miss. In each context that has its own stack.
 */
#include "testing_helpers.h"

#include <unistd.h>

#include "progs/stack.h"
#include "stack.skel.h"

enum context { TASK, SOFTIRQ, HARDIRQ, NMI };

/* How many bytes more of the stack a missed operation may take than one that nobody traces */
#define MISS_LIMIT 192

/* How a stack is aligned: so much can be used in one run, and not in another one. */
#define STACK_ALIGNMENT 16

/* So much, too, where lockdep is: in an NMI it looks up each lock, but not if the NMI came while
 * it was at work itself.
 */
#define LOCKDEP_ROOM 256

FIXTURE(stack) {
	struct stack_bpf *skel;
	/* Of an update's tracer, and of a delete's */
	int links[2];
	/* Below that, no tracer runs. */
	__u32 quarter;
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
	FILE *file;
	int i;

	ASSERT_EQ(0, map_trace_setup());
	ASSERT_EQ(0, insert_module("low_stack.ko"));
	self->clock = -1;
	self->skel = stack_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, pin_to_cpu(0));
	/* NMIs are sent to the other CPU. */
	self->skel->bss->cpu = variant->context == NMI;
	self->links[0] = attach_to(self->skel->progs.follow_update, self->skel->maps.traced);
	self->links[1] = attach_to(self->skel->progs.follow_delete, self->skel->maps.traced);
	for (i = 0; i < 2; i++)
		ASSERT_LE(0, self->links[i]) TH_LOG("attach: %s", strerror(-self->links[i]));
	file = fopen("/sys/module/low_stack/parameters/limit", "r");
	ASSERT_NE(NULL, file);
	EXPECT_EQ(1, fscanf(file, "%u", &self->quarter));
	fclose(file);
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

static __u64 missed(struct __test_metadata *_metadata, FIXTURE_DATA(stack) *self, bool deletes)
{
	struct map_trace_info info;

	ASSERT_EQ(0, map_trace_get_info(self->links[deletes], &info));
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
		before = missed(_metadata, self, false);
		runs = bss->runs;
		run(_metadata, self, variant->context);
		TH_LOG("of %llu operations %llu are traced; %llu bytes", all, bss->runs - runs,
		       bss->spots[0] - bss->spots[bss->levels]);
		EXPECT_LT(0, bss->runs - runs);
		EXPECT_EQ(all, bss->runs - runs + missed(_metadata, self, false) - before);
	}
}

/*
 * The last operation with so much of the stack left. It has to be done. Returns how much of
 * the stack it used, and tells whether it was traced: where it was not, it is missed.
 */
static __u32 run_on_low_stack(struct __test_metadata *_metadata, FIXTURE_DATA(stack) *self,
			      enum context context, __u32 left, bool *traced)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct bpf_map *map = bss->last_is_traced ? self->skel->maps.traced :
						    self->skel->maps.untraced;
	__u64 before, runs, value;
	__u32 key = self->skel->data->last_key;

	/* A delete has something to delete; where it is traced, in the mirror, too. */
	value = self->skel->data->value + 1;
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(map), &key, &value, BPF_ANY));
	before = missed(_metadata, self, bss->last_deletes);
	runs = bss->runs;
	bss->left = left;
	bss->used = 0;
	run(_metadata, self, context);
	ASSERT_LT(0, bss->used) TH_LOG("%u bytes: %s", left, strerror(-bss->used));
	EXPECT_GE(left, bss->used);

	EXPECT_EQ(bss->last_deletes ? -ENOENT : 0,
		  bpf_map_lookup_elem(bpf_map__fd(map), &key, &value));
	if (!bss->last_deletes)
		EXPECT_EQ(self->skel->data->value, value);
	*traced = bss->runs != runs;
	EXPECT_EQ(bss->last_is_traced, bss->runs - runs +
		  missed(_metadata, self, bss->last_deletes) - before);
	return bss->used;
}

/* With what is on a stack, and with what is not. In an operation's own work, too */
TEST_F_TIMEOUT(stack, contract_13_a_miss_needs_little_of_the_stack, 600)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	__u32 alone, missed, used, little, varies, quarter = self->quarter;
	bool traced;
	int i;

	varies = STACK_ALIGNMENT;
	if (variant->context == NMI && !access("/proc/lockdep", F_OK))
		varies += LOCKDEP_ROOM;

	attach_levels(_metadata, self);
	ASSERT_NE(NULL, bpf_program__attach(self->skel->progs.on_low_stack));
	for (i = 0; i < 8; i++) {
		bss->last_deletes = i & 1;
		bss->arguments_on_stack = i & 2;
		bss->levels = !!(i & 4);
		/* No tracer may run there. */
		little = quarter - 1;

		bss->last_is_traced = false;
		alone = run_on_low_stack(_metadata, self, variant->context, little, &traced);
		bss->last_is_traced = true;
		missed = run_on_low_stack(_metadata, self, variant->context, little, &traced);
		EXPECT_FALSE(traced);
		TH_LOG("%s, arguments %s a stack%s: %u bytes, missed %d more",
		       bss->last_deletes ? "delete" : "update",
		       bss->arguments_on_stack ? "on" : "not on",
		       bss->levels ? ", within an operation" : "", alone, missed - alone);
		EXPECT_GE(MISS_LIMIT, (int)(missed - alone));

		/* That much does, and nothing is left then. */
		used = run_on_low_stack(_metadata, self, variant->context,
					missed + STACK_KEPT + varies - STACK_ALIGNMENT, &traced);
		EXPECT_FALSE(traced);
		EXPECT_GE(varies, abs((int)(missed - used)));
	}
}

/* The tracers, what they do and the copies have enough of a quarter of the stack. */
TEST_F_TIMEOUT(stack, contract_8_a_quarter_of_the_stack_is_enough, 600)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	__u32 alone, used;
	bool traced;
	int i;

	ASSERT_NE(NULL, bpf_program__attach(self->skel->progs.on_low_stack));
	for (i = 0; i < 4; i++) {
		bss->last_deletes = i & 1;
		bss->arguments_on_stack = i & 2;

		bss->last_is_traced = false;
		alone = run_on_low_stack(_metadata, self, variant->context, self->quarter,
					 &traced);
		bss->last_is_traced = true;
		/* The operation finds a quarter, and some of what it needs itself. */
		used = run_on_low_stack(_metadata, self, variant->context, self->quarter + alone,
					&traced);
		EXPECT_TRUE(traced);
		TH_LOG("%s, arguments %s a stack: %u of %u bytes",
		       bss->last_deletes ? "delete" : "update",
		       bss->arguments_on_stack ? "on" : "not on", used, self->quarter + alone);
	}
}

TEST_HARNESS_MAIN
