// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 13: programs of fentry, fexit and kprobes on a map's own operations see each
 * operation, and what it returned, whether the map is traced or not.
 */
#include "testing_helpers.h"

#include <errno.h>
#include <unistd.h>

#include "progs/hooks.h"
#include "hooks.skel.h"

FIXTURE(hooks) {
	struct hooks_bpf *skel;
	struct bpf_program *operate;
	struct bpf_link *links[3];
	int link;
};

FIXTURE_VARIANT(hooks) {
	enum bpf_map_type type;
	const char *function;
	bool is_delete;
};

#define VARIANT(name, map_type, operation, deletes)				\
FIXTURE_VARIANT_ADD(hooks, name) {						\
	.type = BPF_MAP_TYPE_##map_type, .function = #operation, .is_delete = deletes, \
}

/* Tries are not here: their functions are built without what such hooks need. */
VARIANT(hash_update, HASH, htab_map_update_elem, false);
VARIANT(hash_delete, HASH, htab_map_delete_elem, true);
VARIANT(lru_hash_update, LRU_HASH, htab_lru_map_update_elem, false);
VARIANT(lru_hash_delete, LRU_HASH, htab_lru_map_delete_elem, true);
VARIANT(percpu_hash_update, PERCPU_HASH, htab_percpu_map_update_elem, false);
VARIANT(percpu_hash_delete, PERCPU_HASH, htab_map_delete_elem, true);
VARIANT(lru_percpu_hash_update, LRU_PERCPU_HASH, htab_lru_percpu_map_update_elem, false);
VARIANT(array_update, ARRAY, array_map_update_elem, false);
VARIANT(percpu_array_update, PERCPU_ARRAY, array_map_update_elem, false);
VARIANT(rhash_update, RHASH, rhtab_map_update_elem, false);
VARIANT(rhash_delete, RHASH, rhtab_map_delete_elem, true);

FIXTURE_SETUP(hooks)
{
	struct bpf_program *tracer;

	ASSERT_EQ(0, map_trace_setup());
	self->skel = hooks_bpf__open();
	ASSERT_NE(NULL, self->skel);
	self->operate = variant->is_delete ? self->skel->progs.delete : self->skel->progs.update;
	tracer = variant->is_delete ? self->skel->progs.trace_delete :
				      self->skel->progs.trace_update;
	AUTOLOAD(self->operate, tracer, self->skel->progs.see_entry, self->skel->progs.see_exit,
		 self->skel->progs.see_probe);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.map, variant->type));
	if (variant->type == BPF_MAP_TYPE_RHASH)
		ASSERT_EQ(0, bpf_map__set_map_flags(self->skel->maps.map, BPF_F_NO_PREALLOC));
	ASSERT_EQ(0, bpf_program__set_attach_target(self->skel->progs.see_entry, 0,
						    variant->function));
	ASSERT_EQ(0, bpf_program__set_attach_target(self->skel->progs.see_exit, 0,
						    variant->function));
	ASSERT_EQ(0, hooks_bpf__load(self->skel));
	self->links[0] = bpf_program__attach(self->skel->progs.see_entry);
	ASSERT_NE(NULL, self->links[0]);
	self->links[1] = bpf_program__attach(self->skel->progs.see_exit);
	ASSERT_NE(NULL, self->links[1]);
	self->links[2] = bpf_program__attach_kprobe(self->skel->progs.see_probe, false,
						    variant->function);
	ASSERT_NE(NULL, self->links[2]);
	self->link = attach_to(tracer, self->skel->maps.map);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	self->skel->bss->input_tid = gettid();
}

FIXTURE_TEARDOWN(hooks)
{
	int i;

	for (i = 0; i < 3; i++)
		bpf_link__destroy(self->links[i]);
	close(self->link);
	hooks_bpf__destroy(self->skel);
}

/*
 * The operation is in the stack, and the program that does it, but for the stub, which stays
 * there where the kernel is built with frame pointers.
 */
static void expect_stack(struct __test_metadata *_metadata, FIXTURE_DATA(hooks) *self,
			 const char *function)
{
	char (*names)[HOOK_NAME] = self->skel->bss->names;
	int i;

	EXPECT_STREQ(function, names[0]);
	for (i = 1; i < HOOK_STACK && strncmp(names[i], "bpf_prog_", strlen("bpf_prog_")); i++)
		;
	EXPECT_LT(i, HOOK_STACK) TH_LOG("%s is called by %s, %s, %s", function, names[1],
					names[2], names[3]);
}

static void operate(struct __test_metadata *_metadata, FIXTURE_DATA(hooks) *self,
		    const char *function, __s64 ret)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;

	memset(&bss->at_entry, 0, sizeof(bss->at_entry));
	memset(&bss->at_exit, 0, sizeof(bss->at_exit));
	memset(&bss->at_probe, 0, sizeof(bss->at_probe));
	bss->ret = 1;
	ASSERT_EQ(0, run_program(self->operate, NULL, 0));
	EXPECT_EQ(ret, bss->ret);
	EXPECT_EQ(1, bss->at_entry.calls);
	EXPECT_EQ(1, bss->at_exit.calls);
	EXPECT_EQ(1, bss->at_probe.calls);
	EXPECT_EQ(ret, bss->at_exit.ret);
	EXPECT_EQ(HOOK_KEY, bss->at_entry.key);
	EXPECT_EQ(HOOK_KEY, bss->at_exit.key);
	EXPECT_EQ(HOOK_KEY, bss->at_probe.key);
	EXPECT_NE(0, bss->at_entry.map);
	EXPECT_EQ(bss->at_entry.map, bss->at_exit.map);
	EXPECT_EQ(bss->at_entry.map, bss->at_probe.map);
	expect_stack(_metadata, self, function);
}

/* One operation that succeeds and one that fails */
static void operate_twice(struct __test_metadata *_metadata, FIXTURE_DATA(hooks) *self,
			  const FIXTURE_VARIANT(hooks) *variant)
{
	int map = bpf_map__fd(self->skel->maps.map);
	__u64 values[64] = {};
	__u32 key = HOOK_KEY;

	self->skel->bss->flags = 0;
	if (variant->is_delete)
		ASSERT_EQ(0, bpf_map_update_elem(map, &key, values, BPF_ANY));
	operate(_metadata, self, variant->function, 0);
	self->skel->bss->flags = BPF_NOEXIST;
	operate(_metadata, self, variant->function, variant->is_delete ? -ENOENT : -EEXIST);
}

TEST_F(hooks, contract_13_hooks_see_operations_as_they_are)
{
	operate_twice(_metadata, self, variant);
	ASSERT_EQ(0, map_trace_detach(self->link));
	operate_twice(_metadata, self, variant);
}

TEST_HARNESS_MAIN
