// SPDX-License-Identifier: GPL-2.0
/* Contract 1 and 13: an update is traced as it was done, and only if it succeeded */
#include "testing_helpers.h"

#include "progs/operation.h"
#include "basic.skel.h"

FIXTURE(update) {
	struct basic_bpf *skel;
	int link;
};

FIXTURE_SETUP(update)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	AUTOLOAD(self->skel->progs.trace_update_second, self->skel->progs.mirror_update,
		 self->skel->progs.could_not_follow, self->skel->progs.operate_on_other);
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
}

FIXTURE_TEARDOWN(update)
{
	close(self->link);
	basic_bpf__destroy(self->skel);
}

static __s64 update(struct basic_bpf *skel, __u32 key, __u64 value, __u64 flags)
{
	struct operation op = {
		.kind = OPERATION_UPDATE, .key = key, .value = value, .flags = flags,
	};
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

TEST_F(update, contract_1_tracer_gets_key_value_and_flags)
{
	static const __u64 flags[] = { BPF_ANY, BPF_EXIST };
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	unsigned int i;

	ASSERT_EQ(0, bpf_map_get_info_by_fd(bpf_map__fd(self->skel->maps.source), &info, &len));
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		const struct event *event = &self->skel->bss->events[i];

		ASSERT_EQ(0, update(self->skel, 5, 0xdeadbeef00000000 + i, flags[i]));
		ASSERT_EQ(i + 1, self->skel->bss->nr_events);
		EXPECT_EQ(OPERATION_UPDATE, event->kind);
		EXPECT_EQ(5, event->key);
		EXPECT_EQ(0xdeadbeef00000000 + i, event->value);
		EXPECT_EQ(flags[i], event->flags);
		EXPECT_EQ(info.id, event->map_id);
	}
}

TEST_F(update, tracer_gets_flags_of_an_insertion)
{
	ASSERT_EQ(0, update(self->skel, 6, 1, BPF_NOEXIST));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(BPF_NOEXIST, self->skel->bss->events[0].flags);
}

TEST_F(update, element_is_there_after_the_operation)
{
	__u64 value = 0;
	__u32 key = 7;

	ASSERT_EQ(0, update(self->skel, key, 77, BPF_ANY));
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(self->skel->maps.source), &key, &value));
	EXPECT_EQ(77, value);
}

TEST_F(update, defect_4_failed_insertion_is_not_traced)
{
	ASSERT_EQ(0, update(self->skel, 8, 1, BPF_ANY));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(-EEXIST, update(self->skel, 8, 2, BPF_NOEXIST));
	EXPECT_EQ(1, self->skel->bss->nr_events);
}

TEST_F(update, failed_update_of_an_absent_key_is_not_traced)
{
	EXPECT_EQ(-ENOENT, update(self->skel, 9, 1, BPF_EXIST));
	EXPECT_EQ(0, self->skel->bss->nr_events);
	ASSERT_EQ(0, update(self->skel, 9, 1, BPF_ANY));
	EXPECT_EQ(1, self->skel->bss->nr_events);
}

TEST_F(update, failed_update_of_a_full_map_is_not_traced)
{
	__u32 key, size = bpf_map__max_entries(self->skel->maps.source);
	__u32 before;

	for (key = 0; key < size; key++) {
		ASSERT_EQ(0, update(self->skel, key, key, BPF_ANY));
	}
	before = self->skel->bss->nr_events;
	ASSERT_EQ(size, before);
	EXPECT_EQ(-E2BIG, update(self->skel, size, 1, BPF_ANY));
	EXPECT_EQ(before, self->skel->bss->nr_events);
}

TEST_F(update, update_with_bad_flags_is_not_traced)
{
	EXPECT_EQ(-EINVAL, update(self->skel, 9, 1, 1ULL << 40));
	EXPECT_EQ(0, self->skel->bss->nr_events);
}

TEST_F(update, delete_does_not_run_an_update_tracer)
{
	struct operation op = { .kind = OPERATION_DELETE, .key = 5 };

	ASSERT_EQ(0, update(self->skel, 5, 1, BPF_ANY));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	ASSERT_EQ(0, run_program(self->skel->progs.operate, &op, sizeof(op)));
	ASSERT_EQ(0, op.ret);
	EXPECT_EQ(1, self->skel->bss->nr_events);
}

TEST_F(update, another_map_is_not_traced)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = 5, .value = 1 };

	ASSERT_EQ(0, run_program(self->skel->progs.operate_on_other, &op, sizeof(op)));
	ASSERT_EQ(0, op.ret);
	EXPECT_EQ(0, self->skel->bss->nr_events);
	ASSERT_EQ(0, update(self->skel, 5, 1, BPF_ANY));
	EXPECT_EQ(1, self->skel->bss->nr_events);
}

TEST_F(update, tracer_runs_on_the_cpu_of_the_operation)
{
	int cpu;

	for (cpu = 0; cpu < online_cpus() && cpu < MAX_EVENTS; cpu++) {
		ASSERT_EQ(0, pin_to_cpu(cpu));
		ASSERT_EQ(0, update(self->skel, 5, 1, BPF_ANY));
		ASSERT_EQ(cpu + 1, self->skel->bss->nr_events);
		EXPECT_EQ(cpu, self->skel->bss->events[cpu].cpu);
	}
}

TEST_F(update, two_tracers_run_in_attach_order)
{
	const struct event *events = self->skel->bss->events;
	int second, i;

	second = attach_to(self->skel->progs.trace_update_second, self->skel->maps.source);
	ASSERT_LE(0, second);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, update(self->skel, i, i, BPF_ANY));
	}
	ASSERT_EQ(8, self->skel->bss->nr_events);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(i % 2 + 1, events[i].tracer);
		EXPECT_EQ(i / 2, events[i].key);
	}

	/* Attached again, the first one is the last. */
	close(self->link);
	self->link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->link);
	self->skel->bss->nr_events = 0;
	ASSERT_EQ(0, update(self->skel, 1, 1, BPF_ANY));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_EQ(2, events[0].tracer);
	EXPECT_EQ(1, events[1].tracer);
	close(second);
}

TEST_F(update, mirror_follows_by_passing_key_and_value_on)
{
	int mirror = bpf_map__fd(self->skel->maps.mirror);
	__u64 value;
	__u32 key;
	int link;

	link = attach_to(self->skel->progs.mirror_update, self->skel->maps.source);
	ASSERT_LE(0, link);
	for (key = 0; key < 16; key++) {
		ASSERT_EQ(0, update(self->skel, key, key * 1000003ULL, BPF_ANY));
	}
	for (key = 0; key < 16; key++) {
		ASSERT_EQ(0, bpf_map_lookup_elem(mirror, &key, &value));
		EXPECT_EQ(key * 1000003ULL, value);
	}
	close(link);
}

TEST_F(update, contract_13_tracer_that_returns_one_changes_nothing)
{
	struct map_trace_info info;
	__u64 value = 0;
	__u32 key = 3;
	int link;

	link = attach_to(self->skel->progs.could_not_follow, self->skel->maps.source);
	ASSERT_LE(0, link);
	EXPECT_EQ(0, update(self->skel, key, 33, BPF_ANY));
	EXPECT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(self->skel->maps.source), &key, &value));
	EXPECT_EQ(33, value);
	EXPECT_EQ(1, self->skel->bss->nr_events);

	/* The link counts it. */
	ASSERT_EQ(0, map_trace_get_info(link, &info));
	EXPECT_EQ(1, info.failed);
	EXPECT_EQ(0, info.missed);
	close(link);
}

TEST_HARNESS_MAIN
