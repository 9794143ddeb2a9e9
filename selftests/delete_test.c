// SPDX-License-Identifier: GPL-2.0
/* Contract 1 and 13: a delete is traced as it was done, and only if it succeeded */
#include "testing_helpers.h"

#include "progs/operation.h"
#include "basic.skel.h"

FIXTURE(delete) {
	struct basic_bpf *skel;
	int link;
};

static __s64 operate(struct basic_bpf *skel, __u32 kind, __u32 key)
{
	struct operation op = { .kind = kind, .key = key, .value = key };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

FIXTURE_SETUP(delete)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	AUTOLOAD(self->skel->progs.mirror_update, self->skel->progs.mirror_delete);
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->link = attach_to(self->skel->progs.trace_delete, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_EQ(0, operate(self->skel, OPERATION_UPDATE, 5));
}

FIXTURE_TEARDOWN(delete)
{
	close(self->link);
	basic_bpf__destroy(self->skel);
}

TEST_F(delete, tracer_gets_the_key)
{
	const struct event *event = &self->skel->bss->events[0];
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	ASSERT_EQ(0, bpf_map_get_info_by_fd(bpf_map__fd(self->skel->maps.source), &info, &len));
	ASSERT_EQ(0, operate(self->skel, OPERATION_DELETE, 5));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(OPERATION_DELETE, event->kind);
	EXPECT_EQ(5, event->key);
	EXPECT_EQ(info.id, event->map_id);
}

TEST_F(delete, delete_of_an_absent_key_is_not_traced)
{
	EXPECT_EQ(-ENOENT, operate(self->skel, OPERATION_DELETE, 6));
	EXPECT_EQ(0, self->skel->bss->nr_events);
	ASSERT_EQ(0, operate(self->skel, OPERATION_DELETE, 5));
	EXPECT_EQ(1, self->skel->bss->nr_events);
	EXPECT_EQ(-ENOENT, operate(self->skel, OPERATION_DELETE, 5));
	EXPECT_EQ(1, self->skel->bss->nr_events);
}

TEST_F(delete, update_does_not_run_a_delete_tracer)
{
	ASSERT_EQ(0, operate(self->skel, OPERATION_UPDATE, 7));
	EXPECT_EQ(0, self->skel->bss->nr_events);
	ASSERT_EQ(0, operate(self->skel, OPERATION_DELETE, 7));
	EXPECT_EQ(1, self->skel->bss->nr_events);
}

TEST_F(delete, both_operations_can_be_traced_at_once)
{
	const struct event *events = self->skel->bss->events;
	int link;

	link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, operate(self->skel, OPERATION_UPDATE, 8));
	ASSERT_EQ(0, operate(self->skel, OPERATION_DELETE, 8));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_EQ(OPERATION_UPDATE, events[0].kind);
	EXPECT_EQ(OPERATION_DELETE, events[1].kind);
	EXPECT_EQ(8, events[0].key);
	EXPECT_EQ(8, events[1].key);

	/* Each goes without the other. */
	ASSERT_EQ(0, map_trace_detach(link));
	ASSERT_EQ(0, operate(self->skel, OPERATION_UPDATE, 8));
	EXPECT_EQ(2, self->skel->bss->nr_events);
	ASSERT_EQ(0, operate(self->skel, OPERATION_DELETE, 8));
	EXPECT_EQ(3, self->skel->bss->nr_events);
	close(link);
}

TEST_F(delete, mirror_follows_updates_and_deletes)
{
	int mirror = bpf_map__fd(self->skel->maps.mirror);
	int update_link, delete_link;
	__u64 value;
	__u32 key;

	update_link = attach_to(self->skel->progs.mirror_update, self->skel->maps.source);
	ASSERT_LE(0, update_link);
	delete_link = attach_to(self->skel->progs.mirror_delete, self->skel->maps.source);
	ASSERT_LE(0, delete_link);
	for (key = 10; key < 20; key++) {
		ASSERT_EQ(0, operate(self->skel, OPERATION_UPDATE, key));
	}
	for (key = 10; key < 20; key += 2) {
		ASSERT_EQ(0, operate(self->skel, OPERATION_DELETE, key));
	}
	for (key = 10; key < 20; key++) {
		int ret = bpf_map_lookup_elem(mirror, &key, &value);

		EXPECT_EQ(key % 2 ? 0 : -ENOENT, ret ? -errno : 0);
	}
	close(update_link);
	close(delete_link);
}

TEST_HARNESS_MAIN
