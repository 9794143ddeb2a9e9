// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 8: an operation needs room only for those of its arguments that have to be copied.
 * None of these operations is missed, though copies of both key and value have room only twice.
 */
#include "testing_helpers.h"

#include "progs/room.h"
#include "room.skel.h"

FIXTURE(room) {
	struct room_bpf *skel;
	int update;
	int delete;
};

FIXTURE_SETUP(room)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = room_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->update = attach_to(self->skel->progs.see_update, self->skel->maps.source);
	ASSERT_LE(0, self->update) TH_LOG("attach: %s", strerror(-self->update));
	self->delete = attach_to(self->skel->progs.see_delete, self->skel->maps.source);
	ASSERT_LE(0, self->delete) TH_LOG("attach: %s", strerror(-self->delete));
}

FIXTURE_TEARDOWN(room)
{
	close(self->update);
	close(self->delete);
	room_bpf__destroy(self->skel);
}

static void fill(struct __test_metadata *_metadata, FIXTURE_DATA(room) *self)
{
	__u64 value[WIDE_WORDS] = {};
	__u32 key;

	for (key = 0; key < ROOM_DEPTH; key++) {
		value[0] = key;
		ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(self->skel->maps.source), &key,
						 value, BPF_ANY));
	}
}

/* All of them within one another: each is done, and traced. */
static void nest(struct __test_metadata *_metadata, FIXTURE_DATA(room) *self,
		 __u32 operation, struct bpf_program *first, struct bpf_program *second)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	struct bpf_link *links[] = { bpf_program__attach(first), bpf_program__attach(second) };
	struct map_trace_info info;
	int i;

	ASSERT_NE(NULL, links[0]);
	ASSERT_NE(NULL, links[1]);
	memset(bss->rets, 1, sizeof(bss->rets));
	bss->updated = 0;
	bss->deleted = 0;
	bss->operation = operation;
	bss->input_depth = ROOM_DEPTH - 1;
	ASSERT_EQ(0, run_program(self->skel->progs.operate, NULL, 0));
	for (i = 0; i < ROOM_DEPTH; i++)
		EXPECT_EQ(0, bss->rets[i]) TH_LOG("depth %d", i);
	EXPECT_EQ(operation == UPDATE_KEY_IN_MAP ? 7 : 0, bss->updated);
	EXPECT_EQ(operation == UPDATE_KEY_IN_MAP ? 0 : 7, bss->deleted);
	EXPECT_EQ(0, bss->wrong_values);
	ASSERT_EQ(0, map_trace_get_info(self->update, &info));
	EXPECT_EQ(0, info.missed);
	ASSERT_EQ(0, map_trace_get_info(self->delete, &info));
	EXPECT_EQ(0, info.missed);
	bpf_link__destroy(links[0]);
	bpf_link__destroy(links[1]);
}

TEST_F(room, contract_8_deletes_need_no_room_for_a_value)
{
	fill(_metadata, self);
	nest(_metadata, self, DELETE_KEY_IN_MAP, self->skel->progs.htab_map_delete_elem_1,
	     self->skel->progs.htab_map_delete_elem_2);
}

TEST_F(room, contract_8_what_is_on_the_stack_needs_no_room)
{
	fill(_metadata, self);
	nest(_metadata, self, DELETE_UNKNOWN_MAP, self->skel->progs.htab_map_delete_elem_1,
	     self->skel->progs.htab_map_delete_elem_2);
}

TEST_F(room, contract_8_updates_need_room_for_what_is_not_on_the_stack)
{
	nest(_metadata, self, UPDATE_KEY_IN_MAP, self->skel->progs.htab_map_update_elem_1,
	     self->skel->progs.htab_map_update_elem_2);
}

TEST_HARNESS_MAIN
