// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 1: if key or value lie in an element, the tracer gets what the operation was given,
 * even if the element is reused meanwhile.
 */
#include "testing_helpers.h"

#include <pthread.h>

#include "progs/foreach.h"
#include "foreach.skel.h"
#include "huge.skel.h"

#define RUN_MS 1000
#define ENOUGH 10000

FIXTURE(foreach) {
	struct foreach_bpf *skel;
	const struct bpf_program *insert;
	pthread_t thread;
	__u32 stop;
	int err;
};

/* What fits on the stack is copied there, and else to a slot of the CPU. */
FIXTURE_VARIANT(foreach) {
	bool large;
};

FIXTURE_VARIANT_ADD(foreach, small) { .large = false };
FIXTURE_VARIANT_ADD(foreach, large) { .large = true };

FIXTURE_SETUP(foreach)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = foreach_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->insert = variant->large ? self->skel->progs.insert_large :
					self->skel->progs.insert;
	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
}

FIXTURE_TEARDOWN(foreach)
{
	foreach_bpf__destroy(self->skel);
}

static void *insert(void *argument)
{
	FIXTURE_DATA(foreach) *self = argument;

	self->err = pin_to_cpu(1);
	while (!self->err && !__atomic_load_n(&self->stop, __ATOMIC_RELAXED))
		self->err = run_program(self->insert, NULL, 0);
	return NULL;
}

static void race(struct __test_metadata *_metadata, FIXTURE_DATA(foreach) *self,
		 const struct bpf_program *deleter)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	__u64 deadline;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, insert, self));
	ASSERT_EQ(0, pin_to_cpu(0));
	deadline = now_ns() + RUN_MS * NSEC_PER_MSEC;
	/* Slow machines get longer, to do as much. */
	while (now_ns() < deadline ||
	       (bss->deleted < ENOUGH && now_ns() < deadline + 60 * NSEC_PER_SEC)) {
		ASSERT_EQ(0, run_program(deleter, NULL, 0));
	}
	__atomic_store_n(&self->stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(self->thread, NULL));
	ASSERT_EQ(0, self->err);
	TH_LOG("%llu inserted, %llu deleted, %llu traced", bss->inserted, bss->deleted,
	       bss->traced);
	EXPECT_LE(ENOUGH, bss->deleted);
}

TEST_F(foreach, callback_that_deletes_its_own_key)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	int link;

	link = attach_to(self->skel->progs.trace_delete, variant->large ?
			 self->skel->maps.large_source : self->skel->maps.source);
	ASSERT_LE(0, link);
	race(_metadata, self, variant->large ? self->skel->progs.delete_all_large :
					       self->skel->progs.delete_all);
	EXPECT_EQ(bss->deleted, bss->traced);
	EXPECT_EQ(0, bss->torn_keys);
	EXPECT_EQ(0, bss->wrong_keys) TH_LOG("last: %llu", bss->last_wrong_key);
	close(link);
}

TEST_F(foreach, update_from_an_element_that_changes)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	int link;

	if (variant->large)
		link = attach_to(self->skel->progs.trace_large_copy, self->skel->maps.large_copy);
	else
		link = attach_to(self->skel->progs.trace_copy, self->skel->maps.copy);
	ASSERT_LE(0, link);
	race(_metadata, self, variant->large ? self->skel->progs.copy_and_delete_all_large :
					       self->skel->progs.copy_and_delete_all);
	EXPECT_LT(0, bss->copied);
	EXPECT_EQ(bss->copied, bss->copies_traced);
	EXPECT_EQ(0, bss->copies_that_differ);
	close(link);
}

/*
 * Large arguments of operations that are done within one another: a context has slots for
 * two of them.
 */
FIXTURE(nested) {
	struct foreach_bpf *skel;
	struct bpf_link *fentry[MAX_DEPTH];
	int link;
};

FIXTURE_SETUP(nested)
{
	struct bpf_program *prog;

	ASSERT_EQ(0, map_trace_setup());
	self->skel = foreach_bpf__open();
	ASSERT_NE(NULL, self->skel);
	bpf_object__for_each_program(prog, self->skel->obj)
		bpf_program__set_autoload(prog, prog == self->skel->progs.update_large ||
					  prog == self->skel->progs.update_within_1 ||
					  prog == self->skel->progs.update_within_2 ||
					  prog == self->skel->progs.trace_nested);
	ASSERT_EQ(0, foreach_bpf__load(self->skel));
	self->link = attach_to(self->skel->progs.trace_nested, self->skel->maps.large_copy);
	ASSERT_LE(0, self->link);
	self->fentry[1] = bpf_program__attach(self->skel->progs.update_within_1);
	ASSERT_NE(NULL, self->fentry[1]);
	self->fentry[2] = bpf_program__attach(self->skel->progs.update_within_2);
	ASSERT_NE(NULL, self->fentry[2]);
}

FIXTURE_TEARDOWN(nested)
{
	bpf_link__destroy(self->fentry[1]);
	bpf_link__destroy(self->fentry[2]);
	close(self->link);
	foreach_bpf__destroy(self->skel);
}

/* Each one down to @depth is done as it would be untraced, and the outer two are traced. */
static void check_depth(struct __test_metadata *_metadata, FIXTURE_DATA(nested) *self,
			__u32 depth)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct map_trace_info before, info;
	__u32 i, traced = depth > 1 ? 2 : depth + 1;
	struct large value;

	ASSERT_EQ(0, map_trace_get_info(self->link, &before));
	bss->nr_seen = 0;
	bss->input_depth = depth;
	memset(bss->update_rets, 1, sizeof(bss->update_rets));
	ASSERT_EQ(0, run_program(self->skel->progs.update_large, NULL, 0));

	for (i = 0; i <= depth; i++) {
		EXPECT_EQ(0, bss->update_rets[i]) TH_LOG("depth %u of %u", i, depth);
		ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(self->skel->maps.large_copy), &i,
						 &value)) TH_LOG("depth %u of %u", i, depth);
		EXPECT_EQ(i, value.words[0]);
		EXPECT_EQ(i, value.words[LARGE_WORDS - 1]);
	}
	EXPECT_EQ(traced, bss->nr_seen) TH_LOG("depth %u", depth);
	for (i = 0; i < traced; i++) {
		EXPECT_EQ(traced - 1 - i, bss->keys_seen[i]) TH_LOG("depth %u", depth);
		EXPECT_EQ(traced - 1 - i, bss->values_seen[i]) TH_LOG("depth %u", depth);
	}
	EXPECT_EQ(0, bss->torn_values);
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(depth + 1 - traced, info.missed - before.missed) TH_LOG("depth %u", depth);
	EXPECT_EQ(0, info.failed);
}

TEST_F(nested, two_operations_with_large_arguments_are_traced)
{
	check_depth(_metadata, self, 0);
	check_depth(_metadata, self, 1);
}

/* Where the contract ends: the third is done, and counted. */
TEST_F(nested, third_operation_with_large_arguments_is_missed)
{
	check_depth(_metadata, self, 2);
	/* The slots are free again. */
	check_depth(_metadata, self, 1);
	check_depth(_metadata, self, 2);
}

/* What there is no room for at all is done, and counted. */
TEST(operation_with_arguments_too_large_to_be_copied_is_missed)
{
	static __u64 value[(16 << 20) / sizeof(__u64)];
	struct map_trace_info info;
	struct huge_bpf *skel;
	__u32 key = 0;
	int link;

	ASSERT_EQ(0, map_trace_setup());
	skel = huge_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	link = attach_to(skel->progs.trace_copy, skel->maps.copy);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	skel->bss->update_ret = 1;
	ASSERT_EQ(0, run_program(skel->progs.update_from_element, NULL, 0));
	EXPECT_EQ(0, skel->bss->update_ret);
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(skel->maps.copy), &key, value));
	EXPECT_EQ(42, value[0]);
	EXPECT_EQ(0, skel->bss->traced);
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(1, info.missed);

	/* What user space gave lies in no element. */
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.copy), &key, value, 0));
	EXPECT_EQ(42, skel->bss->traced);
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(1, info.missed);
	close(link);
	huge_bpf__destroy(skel);
}

TEST_HARNESS_MAIN
