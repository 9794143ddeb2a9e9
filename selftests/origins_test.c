// SPDX-License-Identifier: GPL-2.0
/* Defect 5 of the RFC: an operation is traced wherever it comes from */
#include "testing_helpers.h"

#include <unistd.h>

#include "progs/operation.h"
#include "basic.skel.h"
#include "instrumentation.skel.h"

#define JIT_HARDEN "/proc/sys/net/core/bpf_jit_harden"

FIXTURE(origins) {
	struct basic_bpf *skel;
	int update_link;
	int delete_link;
};

FIXTURE_SETUP(origins)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	AUTOLOAD(self->skel->progs.update_raw_tp, self->skel->progs.delete_raw_tp,
		 self->skel->progs.update_from_map_value, self->skel->progs.update_bpf2bpf,
		 self->skel->progs.update_in_loop, self->skel->progs.update_by_tail_call,
		 self->skel->progs.operate_on_inner);
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->update_link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->update_link);
	self->delete_link = attach_to(self->skel->progs.trace_delete, self->skel->maps.source);
	ASSERT_LE(0, self->delete_link);
	self->skel->bss->input_key = 5;
	self->skel->bss->input_value = 55;
}

FIXTURE_TEARDOWN(origins)
{
	close(self->update_link);
	close(self->delete_link);
	basic_bpf__destroy(self->skel);
}

#define EXPECT_UPDATE(i, expected_key, expected_value) do {		\
	const struct event *_event = &self->skel->bss->events[i];	\
									\
	ASSERT_LT(i, self->skel->bss->nr_events);			\
	EXPECT_EQ(OPERATION_UPDATE, _event->kind);			\
	EXPECT_EQ(expected_key, _event->key);				\
	EXPECT_EQ(expected_value, _event->value);			\
} while (0)

#define EXPECT_DELETE(i, expected_key) do {				\
	const struct event *_event = &self->skel->bss->events[i];	\
									\
	ASSERT_LT(i, self->skel->bss->nr_events);			\
	EXPECT_EQ(OPERATION_DELETE, _event->kind);			\
	EXPECT_EQ(expected_key, _event->key);				\
} while (0)

TEST_F(origins, tracing_program)
{
	ASSERT_EQ(0, run_program(self->skel->progs.update_raw_tp, NULL, 0));
	ASSERT_EQ(0, self->skel->bss->output_ret);
	ASSERT_EQ(0, run_program(self->skel->progs.delete_raw_tp, NULL, 0));
	ASSERT_EQ(0, self->skel->bss->output_ret);
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_UPDATE(0, 5, 55);
	EXPECT_DELETE(1, 5);
}

TEST_F(origins, key_and_value_in_a_map)
{
	ASSERT_EQ(0, run_program(self->skel->progs.update_from_map_value, NULL, 0));
	ASSERT_EQ(0, self->skel->bss->output_ret);
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_UPDATE(0, 5, 55);
}

/* Contract 8: that is no recursion, no tracer has led to it. */
TEST_F(origins, update_within_an_update)
{
	struct map_trace_info info;
	struct basic_bpf *skel;
	struct bpf_program *prog;
	struct bpf_link *link;
	int traced;

	skel = basic_bpf__open();
	ASSERT_NE(NULL, skel);
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.update_within_an_update ||
					  prog == skel->progs.trace_update ||
					  prog == skel->progs.update_from_map_value);
	ASSERT_EQ(0, basic_bpf__load(skel));
	traced = attach_to(skel->progs.trace_update, skel->maps.source);
	ASSERT_LE(0, traced);
	link = bpf_program__attach(skel->progs.update_within_an_update);
	ASSERT_NE(NULL, link);

	skel->bss->input_key = 5;
	skel->bss->input_value = 55;
	skel->bss->input_nested = 1;
	ASSERT_EQ(0, run_program(skel->progs.update_from_map_value, NULL, 0));
	ASSERT_EQ(0, skel->bss->output_ret);
	EXPECT_EQ(0, skel->bss->input_nested);
	EXPECT_EQ(2, skel->bss->nr_events);
	ASSERT_EQ(0, map_trace_get_info(traced, &info));
	EXPECT_EQ(0, info.missed);

	bpf_link__destroy(link);
	close(traced);
	basic_bpf__destroy(skel);
}

TEST_F(origins, bpf2bpf_subprogram)
{
	ASSERT_EQ(0, run_program(self->skel->progs.update_bpf2bpf, NULL, 0));
	ASSERT_EQ(0, self->skel->bss->output_ret);
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_UPDATE(0, 5, 55);
}

TEST_F(origins, callback)
{
	__u32 i;

	ASSERT_EQ(0, run_program(self->skel->progs.update_in_loop, NULL, 0));
	ASSERT_EQ(0, self->skel->bss->output_ret);
	ASSERT_EQ(3, self->skel->bss->nr_events);
	for (i = 0; i < 3; i++) {
		EXPECT_UPDATE(i, 5 + i, 55 + i);
	}
}

TEST_F(origins, tail_called_program)
{
	int fd = bpf_program__fd(self->skel->progs.update_raw_tp);
	__u32 zero = 0;

	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(self->skel->maps.programs), &zero, &fd, 0));
	ASSERT_EQ(0, run_program(self->skel->progs.update_by_tail_call, NULL, 0));
	ASSERT_EQ(0, self->skel->bss->output_ret);
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_UPDATE(0, 5, 55);
}

TEST_F(origins, inner_map_that_the_program_does_not_know_at_load)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = 6, .value = 66 };
	int link;

	/* Not traced yet: only the source is. */
	ASSERT_EQ(0, run_program(self->skel->progs.operate_on_inner, &op, sizeof(op)));
	ASSERT_EQ(0, op.ret);
	ASSERT_EQ(0, self->skel->bss->nr_events);

	link = attach_to(self->skel->progs.trace_update, self->skel->maps.inner);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, run_program(self->skel->progs.operate_on_inner, &op, sizeof(op)));
	ASSERT_EQ(0, op.ret);
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_UPDATE(0, 6, 66);
	close(link);

	link = attach_to(self->skel->progs.trace_delete, self->skel->maps.inner);
	ASSERT_LE(0, link);
	op.kind = OPERATION_DELETE;
	ASSERT_EQ(0, run_program(self->skel->progs.operate_on_inner, &op, sizeof(op)));
	ASSERT_EQ(0, op.ret);
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_DELETE(1, 6);
	close(link);
}

TEST_F(origins, defect_5_bpf_syscall)
{
	int source = bpf_map__fd(self->skel->maps.source);
	__u64 value = 77;
	__u32 key = 7;

	ASSERT_EQ(0, bpf_map_update_elem(source, &key, &value, BPF_ANY));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	EXPECT_UPDATE(0, 7, 77);
	EXPECT_NE(0, bpf_map_update_elem(source, &key, &value, BPF_NOEXIST));
	EXPECT_EQ(1, self->skel->bss->nr_events);
	ASSERT_EQ(0, bpf_map_delete_elem(source, &key));
	ASSERT_EQ(2, self->skel->bss->nr_events);
	EXPECT_DELETE(1, 7);
	EXPECT_NE(0, bpf_map_delete_elem(source, &key));
	EXPECT_EQ(2, self->skel->bss->nr_events);
}

/* Load what operates, and perhaps what traces, with the sysctl set */
FIXTURE(origins_sysctl) {
	char old[16];
};

FIXTURE_VARIANT(origins_sysctl) {
	const char *path;
	const char *value;
	bool tracer_too;
	bool jited;
};

FIXTURE_VARIANT_ADD(origins_sysctl, interpreter) {
	.path = JIT_ENABLE, .value = "0", .jited = false,
};

FIXTURE_VARIANT_ADD(origins_sysctl, interpreted_tracer) {
	.path = JIT_ENABLE, .value = "0", .tracer_too = true, .jited = false,
};

FIXTURE_VARIANT_ADD(origins_sysctl, constant_blinding) {
	.path = JIT_HARDEN, .value = "2", .tracer_too = true, .jited = true,
};

FIXTURE_SETUP(origins_sysctl)
{
	int err;

	ASSERT_EQ(0, map_trace_setup());
	err = write_proc(variant->path, variant->value, self->old, sizeof(self->old));
	if (err && !variant->jited)
		SKIP(return, "kernel without BPF interpreter (CONFIG_BPF_JIT_ALWAYS_ON)");
	ASSERT_EQ(0, err) TH_LOG("%s: %s", variant->path, strerror(-err));
}

FIXTURE_TEARDOWN(origins_sysctl)
{
	write_proc(variant->path, self->old, NULL, 0);
}

/* How much code the JIT makes of a program. 0 if it makes none, or a negative errno */
static long long jited_size(const struct bpf_program *prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_prog_get_info_by_fd(bpf_program__fd(prog), &info, &len) ? -errno :
	       (long long)info.jited_prog_len;
}

/* Constants that are blinded are put together at run time, and take more code. */
TEST_F(origins_sysctl, the_setting_changes_what_is_loaded)
{
	struct basic_bpf *set, *not_set;

	set = basic_bpf__open();
	ASSERT_NE(NULL, set);
	ASSERT_EQ(0, load_one_program(set->obj, "update_raw_tp", NULL, 0));
	ASSERT_EQ(0, write_proc(variant->path, self->old, NULL, 0));
	not_set = basic_bpf__open();
	ASSERT_NE(NULL, not_set);
	ASSERT_EQ(0, load_one_program(not_set->obj, "update_raw_tp", NULL, 0));

	ASSERT_LT(0, jited_size(not_set->progs.update_raw_tp));
	if (variant->jited) {
		EXPECT_LT(jited_size(not_set->progs.update_raw_tp),
			  jited_size(set->progs.update_raw_tp));
	} else {
		EXPECT_EQ(0, jited_size(set->progs.update_raw_tp));
	}
	basic_bpf__destroy(set);
	basic_bpf__destroy(not_set);
}

TEST_F(origins_sysctl, update_and_delete_are_traced)
{
	struct basic_bpf *skel, *tracer;
	struct bpf_program *prog;
	int link[2];

	skel = basic_bpf__open();
	ASSERT_NE(NULL, skel);
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.update_raw_tp ||
					  prog == skel->progs.delete_raw_tp);
	ASSERT_EQ(0, basic_bpf__load(skel));
	EXPECT_EQ(variant->jited, is_jited(skel->progs.update_raw_tp));

	if (!variant->tracer_too) {
		ASSERT_EQ(0, write_proc(variant->path, self->old, NULL, 0));
	}
	tracer = basic_bpf__open();
	ASSERT_NE(NULL, tracer);
	bpf_object__for_each_program(prog, tracer->obj)
		bpf_program__set_autoload(prog, prog == tracer->progs.trace_update ||
					  prog == tracer->progs.trace_delete);
	ASSERT_EQ(0, bpf_map__reuse_fd(tracer->maps.source, bpf_map__fd(skel->maps.source)));
	ASSERT_EQ(0, basic_bpf__load(tracer));
	EXPECT_EQ(variant->jited || !variant->tracer_too, is_jited(tracer->progs.trace_update));

	link[0] = attach_to(tracer->progs.trace_update, tracer->maps.source);
	ASSERT_LE(0, link[0]);
	link[1] = attach_to(tracer->progs.trace_delete, tracer->maps.source);
	ASSERT_LE(0, link[1]);

	skel->bss->input_key = 0x01020304;
	skel->bss->input_value = 0x0102030405060708;
	ASSERT_EQ(0, run_program(skel->progs.update_raw_tp, NULL, 0));
	ASSERT_EQ(0, skel->bss->output_ret);
	ASSERT_EQ(0, run_program(skel->progs.delete_raw_tp, NULL, 0));
	ASSERT_EQ(0, skel->bss->output_ret);
	ASSERT_EQ(2, tracer->bss->nr_events);
	EXPECT_EQ(OPERATION_UPDATE, tracer->bss->events[0].kind);
	EXPECT_EQ(0x01020304, tracer->bss->events[0].key);
	EXPECT_EQ(0x0102030405060708, tracer->bss->events[0].value);
	EXPECT_EQ(OPERATION_DELETE, tracer->bss->events[1].kind);
	EXPECT_EQ(0x01020304, tracer->bss->events[1].key);

	close(link[0]);
	close(link[1]);
	basic_bpf__destroy(tracer);
	basic_bpf__destroy(skel);
}

/*
 * Contract 8: while bpf(2) changes a map, the kernel runs no programs of kprobes on that CPU,
 * in tracers either.
 */
FIXTURE(instrumentation) {
	struct instrumentation_bpf *skel;
	struct bpf_link *probe;
	int update_link;
	int delete_link;
};

FIXTURE_VARIANT(instrumentation) {
	enum bpf_map_type type;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(instrumentation, hash) { .type = BPF_MAP_TYPE_HASH };
FIXTURE_VARIANT_ADD(instrumentation, lru_hash) { .type = BPF_MAP_TYPE_LRU_HASH };
FIXTURE_VARIANT_ADD(instrumentation, percpu_hash) { .type = BPF_MAP_TYPE_PERCPU_HASH };
FIXTURE_VARIANT_ADD(instrumentation, lru_percpu_hash) { .type = BPF_MAP_TYPE_LRU_PERCPU_HASH };
FIXTURE_VARIANT_ADD(instrumentation, rhash) {
	.type = BPF_MAP_TYPE_RHASH, .flags = BPF_F_NO_PREALLOC,
};

FIXTURE_SETUP(instrumentation)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = instrumentation_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.traced, variant->type));
	ASSERT_EQ(0, bpf_map__set_map_flags(self->skel->maps.traced, variant->flags));
	ASSERT_EQ(0, instrumentation_bpf__load(self->skel));
	self->probe = bpf_program__attach(self->skel->progs.hit);
	ASSERT_NE(NULL, self->probe);
	self->update_link = attach_to(self->skel->progs.trace_update, self->skel->maps.traced);
	ASSERT_LE(0, self->update_link);
	self->delete_link = attach_to(self->skel->progs.trace_delete, self->skel->maps.traced);
	ASSERT_LE(0, self->delete_link);
	self->skel->bss->input_tid = gettid();
}

FIXTURE_TEARDOWN(instrumentation)
{
	bpf_link__destroy(self->probe);
	close(self->update_link);
	close(self->delete_link);
	instrumentation_bpf__destroy(self->skel);
}

#define EXPECT_NOT_INSTRUMENTED(what, expression) do {				\
	self->skel->bss->runs = 0;						\
	self->skel->bss->hits = 0;						\
	ASSERT_EQ(0, expression) TH_LOG("%s", what);				\
	EXPECT_LE(1, self->skel->bss->runs) TH_LOG("%s", what);			\
	EXPECT_EQ(0, self->skel->bss->hits) TH_LOG("%s", what);			\
} while (0)

TEST_F(instrumentation, tracers_of_system_calls_are_not_instrumented)
{
	int map = bpf_map__fd(self->skel->maps.traced);
	__u32 keys[2] = { 1, 2 }, token[4], count = 2;
	/* For a value of each CPU, of each key */
	__u64 values[2 * 64] = {};
	int err;

	/* A program's operation is, which shows that the probe works. */
	ASSERT_EQ(0, run_program(self->skel->progs.update, NULL, 0));
	EXPECT_EQ(1, self->skel->bss->runs);
	EXPECT_EQ(1, self->skel->bss->hits);

	EXPECT_NOT_INSTRUMENTED("update", bpf_map_update_elem(map, keys, values, BPF_ANY));
	EXPECT_NOT_INSTRUMENTED("delete", bpf_map_delete_elem(map, keys));
	EXPECT_NOT_INSTRUMENTED("update_batch",
				bpf_map_update_batch(map, keys, values, &count, NULL));
	EXPECT_NOT_INSTRUMENTED("lookup_and_delete",
				bpf_map_lookup_and_delete_elem(map, keys, values));
	count = 1;
	EXPECT_NOT_INSTRUMENTED("delete_batch", bpf_map_delete_batch(map, keys + 1, &count, NULL));
	count = 2;
	ASSERT_EQ(0, bpf_map_update_batch(map, keys, values, &count, NULL));
	count = 16;
	/* It finds its end. */
	err = -ENOENT;
	EXPECT_NOT_INSTRUMENTED("lookup_and_delete_batch",
				bpf_map_lookup_and_delete_batch(map, NULL, token, keys, values,
								&count, NULL) - err);
	EXPECT_EQ(2, self->skel->bss->runs);
}

TEST_HARNESS_MAIN
