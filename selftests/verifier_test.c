// SPDX-License-Identifier: GPL-2.0
/* Contract 5 and 6: what tracers may do, checked at load and at the attach */
#include "testing_helpers.h"

#include <bpf/btf.h>

#include <linux/filter.h>

#include "verifier.skel.h"
#include "freplace.skel.h"

static char log_buf[1 << 20];

FIXTURE(verifier) {
	struct verifier_bpf *skel;
};

FIXTURE_SETUP(verifier)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = verifier_bpf__open();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(verifier)
{
	verifier_bpf__destroy(self->skel);
}

/* It loads, and what attaching it to @map gives is @expected, or a link if that is 0. */
#define EXPECT_ATTACH(program, map, expected) do {				\
	int _fd;								\
										\
	ASSERT_EQ(0, load_one_program(self->skel->obj, #program, log_buf,	\
				      sizeof(log_buf))) TH_LOG("%s", log_buf);	\
	_fd = attach_to(self->skel->progs.program, self->skel->maps.map);	\
	if (expected) {								\
		EXPECT_EQ(expected, _fd);					\
	} else {								\
		EXPECT_LE(0, _fd) TH_LOG("attach: %s", strerror(-_fd));		\
	}									\
	if (_fd >= 0)								\
		close(_fd);							\
} while (0)

#define EXPECT_LOAD_REFUSED(program, line) do {					\
	int _err = load_one_program(self->skel->obj, #program, log_buf,		\
				    sizeof(log_buf));				\
	EXPECT_GT(0, _err);							\
	ASSERT_LOG_HAS(log_buf, line);						\
} while (0)

TEST_F(verifier, contract_5_key_and_value_are_read_without_null_check)
{
	EXPECT_ATTACH(reads_key_and_value, source, 0);
}

TEST_F(verifier, key_and_value_are_passed_to_an_update)
{
	EXPECT_ATTACH(passes_key_and_value, source, 0);
}

TEST_F(verifier, read_past_key_size_does_not_attach)
{
	EXPECT_ATTACH(reads_past_key, source, -EACCES);
}

TEST_F(verifier, read_past_value_size_does_not_attach)
{
	EXPECT_ATTACH(reads_past_value, source, -EACCES);
}

TEST_F(verifier, read_past_key_size_of_a_delete_does_not_attach)
{
	EXPECT_ATTACH(reads_past_deleted_key, source, -EACCES);
}

TEST_F(verifier, read_past_key_size_attaches_to_a_map_with_longer_keys)
{
	EXPECT_ATTACH(reads_past_key, long_key_source, 0);
}

TEST_F(verifier, read_past_value_size_of_a_map_with_longer_keys_does_not_attach)
{
	/* 8 bytes of value are fine as key there, but not as value. */
	EXPECT_ATTACH(reads_key_and_value, long_key_source, -EACCES);
}

TEST_F(verifier, helper_that_reads_past_key_size_does_not_attach)
{
	EXPECT_ATTACH(passes_past_key, source, -EACCES);
}

TEST_F(verifier, helper_that_reads_past_value_size_does_not_attach)
{
	EXPECT_ATTACH(passes_past_value, source, -EACCES);
}

TEST_F(verifier, helper_that_reads_past_key_size_of_a_delete_does_not_attach)
{
	EXPECT_ATTACH(passes_past_deleted_key, source, -EACCES);
}

/* State pruning has to tell a key from a value: refused at load or at attach. */
#define EXPECT_NEVER_ATTACHED(program, map) do {				\
	int _fd = load_one_program(self->skel->obj, #program, log_buf,		\
				   sizeof(log_buf));				\
	if (!_fd) {								\
		_fd = attach_to(self->skel->progs.program, self->skel->maps.map);\
		EXPECT_EQ(-EACCES, _fd);					\
	} else {								\
		EXPECT_EQ(-EACCES, _fd) TH_LOG("%s", log_buf);			\
		/* For this reason, not by a slip of the test */		\
		ASSERT_LOG_HAS(log_buf, "rdonly_buf");				\
	}									\
} while (0)

TEST_F(verifier, key_merged_with_value_does_not_attach)
{
	EXPECT_NEVER_ATTACHED(merges_value_then_key, source);
}

TEST_F(verifier, value_merged_with_key_does_not_attach)
{
	EXPECT_NEVER_ATTACHED(merges_key_then_value, long_key_source);
}

TEST_F(verifier, key_merged_with_value_on_the_stack_does_not_attach)
{
	EXPECT_NEVER_ATTACHED(merges_spilled_pointers, source);
}

/* Defect 8 of the RFC */
TEST_F(verifier, defect_8_write_through_value_does_not_load)
{
	EXPECT_LOAD_REFUSED(writes_value, "cannot write into rdonly_buf");
}

TEST_F(verifier, write_through_key_does_not_load)
{
	EXPECT_LOAD_REFUSED(writes_key, "cannot write into rdonly_buf");
}

TEST_F(verifier, write_through_deleted_key_does_not_load)
{
	EXPECT_LOAD_REFUSED(writes_deleted_key, "cannot write into rdonly_buf");
}

TEST_F(verifier, atomic_write_through_value_does_not_load)
{
	EXPECT_LOAD_REFUSED(writes_value_atomically, "rdonly_buf");
}

TEST_F(verifier, helper_that_writes_through_value_does_not_load)
{
	EXPECT_LOAD_REFUSED(writes_value_by_helper, "rdonly_buf");
}

TEST_F(verifier, write_to_the_context_does_not_load)
{
	EXPECT_LOAD_REFUSED(writes_context, "invalid bpf_context access");
}

TEST_F(verifier, return_value_two_does_not_load)
{
	EXPECT_LOAD_REFUSED(returns_two, "At program exit the register R0 has");
}

TEST_F(verifier, contract_6_tail_call_does_not_load)
{
	EXPECT_LOAD_REFUSED(tail_calls, "tail call");
}

TEST_F(verifier, spin_lock_does_not_load)
{
	EXPECT_LOAD_REFUSED(takes_spin_lock, "bpf_spin_lock");
}

TEST_F(verifier, map_with_a_spin_lock_is_read)
{
	EXPECT_ATTACH(reads_beside_a_spin_lock, source, 0);
}

TEST_F(verifier, map_with_a_spin_lock_is_updated_without_it)
{
	EXPECT_ATTACH(updates_beside_a_spin_lock, source, 0);
}

TEST_F(verifier, map_with_a_spin_lock_is_updated_with_flags_known_as_far_as_it_matters)
{
	EXPECT_ATTACH(updates_with_some_flags_beside_a_spin_lock, source, 0);
}

TEST_F(verifier, inner_map_with_a_spin_lock_is_updated_without_it)
{
	EXPECT_ATTACH(updates_an_inner_map_beside_its_lock, source, 0);
}

TEST_F(verifier, update_under_a_spin_lock_does_not_load)
{
	EXPECT_LOAD_REFUSED(updates_under_a_spin_lock, "R4 can have BPF_F_LOCK");
}

TEST_F(verifier, update_with_flags_of_the_context_beside_a_spin_lock_does_not_load)
{
	EXPECT_LOAD_REFUSED(updates_perhaps_under_a_spin_lock, "R4 can have BPF_F_LOCK");
}

TEST_F(verifier, spin_lock_of_an_inner_map_does_not_load)
{
	EXPECT_LOAD_REFUSED(takes_spin_lock_of_an_inner_map, "bpf_spin_lock");
}

TEST_F(verifier, spin_lock_of_an_object_does_not_load)
{
	EXPECT_LOAD_REFUSED(takes_spin_lock_of_an_object, "bpf_spin_lock");
}

TEST_F(verifier, update_under_the_spin_lock_of_an_inner_map_does_not_load)
{
	EXPECT_LOAD_REFUSED(updates_an_inner_map_under_its_lock, "R4 can have BPF_F_LOCK");
}

TEST_F(verifier, sleepable_tracer_does_not_load)
{
	bpf_program__set_flags(self->skel->progs.is_sleepable, BPF_F_SLEEPABLE);
	EXPECT_LOAD_REFUSED(is_sleepable, "sleepable");
}

TEST_F(verifier, the_same_tracer_loads_when_not_sleepable)
{
	EXPECT_ATTACH(is_sleepable, source, 0);
}

TEST_F(verifier, tracer_is_not_put_into_a_prog_array)
{
	__u32 zero = 0;
	int fd;

	ASSERT_EQ(0, load_one_program(self->skel->obj, "reads_key_and_value", NULL, 0));
	fd = bpf_program__fd(self->skel->progs.reads_key_and_value);
	EXPECT_EQ(-EINVAL,
		  bpf_map_update_elem(bpf_map__fd(self->skel->maps.programs), &zero, &fd, 0));
}

/* Not one of them is called through these maps. */
TEST_F(verifier, tracer_refers_to_maps_of_programs)
{
	int err = load_one_program(self->skel->obj, "refers_to_maps_of_programs", log_buf,
				   sizeof(log_buf));

	EXPECT_EQ(0, err) TH_LOG("%s: %s", strerror(-err), log_buf);
}

TEST_F(verifier, tracer_is_not_replaced)
{
	struct freplace_bpf *freplace;
	int fd;

	ASSERT_EQ(0, load_one_program(self->skel->obj, "reads_key_and_value", NULL, 0));
	fd = bpf_program__fd(self->skel->progs.reads_key_and_value);
	freplace = freplace_bpf__open();
	ASSERT_NE(NULL, freplace);
	ASSERT_EQ(0, bpf_program__set_attach_target(freplace->progs.replacement, fd,
						    "reads_key_and_value"));
	EXPECT_GT(0, load_one_program(freplace->obj, "replacement", log_buf, sizeof(log_buf)));
	ASSERT_LOG_HAS(log_buf, "Cannot extend map tracers");
	freplace_bpf__destroy(freplace);
}

/* Return 0, with the licence that helpers ask for, and a target of choice */
static int load_return_zero(struct bpf_prog_load_opts *opts)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int fd;

	log_buf[0] = '\0';
	opts->expected_attach_type = map_trace_attach_type();
	opts->log_buf = log_buf;
	opts->log_size = sizeof(log_buf);
	opts->log_level = 1;
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "return_zero", "GPL", insns,
			   ARRAY_SIZE(insns), opts);
	return fd < 0 ? -errno : fd;
}

TEST_F(verifier, target_is_accepted)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	int fd;

	opts.attach_btf_id = map_trace_target_id("bpf_map_trace__update_elem");
	ASSERT_LT(0, (int)opts.attach_btf_id);
	fd = load_return_zero(&opts);
	EXPECT_LE(0, fd) TH_LOG("%s", log_buf);
	close(fd);
}

TEST_F(verifier, another_function_is_no_target)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	opts.attach_btf_id = map_trace_target_id("bpf_iter_bpf_map");
	ASSERT_LT(0, (int)opts.attach_btf_id);
	EXPECT_EQ(-EINVAL, load_return_zero(&opts));
	ASSERT_LOG_HAS(log_buf, "is not a map trace target");
}

TEST_F(verifier, no_target_is_refused)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	EXPECT_EQ(-EINVAL, load_return_zero(&opts));
}

TEST_F(verifier, attach_prog_fd_is_refused)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	struct btf *btf;

	ASSERT_EQ(0, load_one_program(self->skel->obj, "uses_all_of_the_stack", NULL, 0));
	opts.attach_prog_fd = bpf_program__fd(self->skel->progs.uses_all_of_the_stack);
	ASSERT_EQ(0, bpf_prog_get_info_by_fd(opts.attach_prog_fd, &info, &len));
	btf = btf__load_from_kernel_by_id(info.btf_id);
	ASSERT_NE(NULL, btf);
	opts.attach_btf_id = btf__find_by_name_kind(btf, "uses_all_of_the_stack", BTF_KIND_FUNC);
	ASSERT_LT(0, (int)opts.attach_btf_id);
	btf__free(btf);
	EXPECT_EQ(-EINVAL, load_return_zero(&opts));
	ASSERT_LOG_HAS(log_buf, "Map tracers cannot attach to a BPF program");
}

TEST_F(verifier, btf_of_a_module_is_refused)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	__u32 id = 0;
	int btf_fd = -1;

	/* The module's own BTF: ids beyond vmlinux's are its types. */
	while (btf_fd < 0 && !bpf_btf_get_next_id(id, &id)) {
		char name[64] = {};
		struct bpf_btf_info info = { .name = (unsigned long)name, .name_len = sizeof(name) };
		__u32 len = sizeof(info);
		int fd = bpf_btf_get_fd_by_id(id);

		if (fd < 0)
			continue;
		if (!bpf_btf_get_info_by_fd(fd, &info, &len) && info.kernel_btf &&
		    !strcmp(name, "map_trace"))
			btf_fd = fd;
		else
			close(fd);
	}
	if (btf_fd < 0)
		SKIP(return, "map_trace.ko has no BTF");
	opts.attach_btf_obj_fd = btf_fd;
	opts.attach_btf_id = map_trace_target_id("bpf_map_trace__update_elem");
	EXPECT_EQ(-EINVAL, load_return_zero(&opts));
	ASSERT_LOG_HAS(log_buf, "is not a map trace target");
	close(btf_fd);
}

TEST_F(verifier, program_that_uses_all_of_the_stack_is_traced)
{
	struct bpf_program *prog;
	__u64 word, value = 0;
	__u32 key;
	int link;

	bpf_object__for_each_program(prog, self->skel->obj)
		bpf_program__set_autoload(prog, prog == self->skel->progs.uses_all_of_the_stack ||
					  prog == self->skel->progs.passes_key_and_value);
	ASSERT_EQ(0, verifier_bpf__load(self->skel));
	link = attach_to(self->skel->progs.passes_key_and_value, self->skel->maps.source);
	ASSERT_LE(0, link);
	word = self->skel->data->word;
	key = word;
	EXPECT_EQ(0, run_program(self->skel->progs.uses_all_of_the_stack, NULL, 0));
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(self->skel->maps.mirror), &key, &value));
	EXPECT_EQ(word, value);
	close(link);
}

/* How far a jump reaches */
#define FARTHEST 32767

#define INSN(_code, _dst, _src, _off, _imm) ((struct bpf_insn){		\
	.code = (_code), .dst_reg = (_dst), .src_reg = (_src), .off = (_off), .imm = (_imm) })
#define MOV_REG(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOV_IMM(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define ADD_IMM(dst, imm) INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)

/*
 * Fill from @n up to @end, and return that: mostly with what takes the verifier as long
 * as any other instruction, and the room of two.
 */
static int fill(struct bpf_insn *insns, int n, int end)
{
	while (n + 1 < end) {
		insns[n++] = INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_0, 0, 0, 0);
		insns[n++] = INSN(0, 0, 0, 0, 0);
	}
	if (n < end)
		insns[n++] = MOV_IMM(BPF_REG_0, 0);
	return n;
}

/* What the lookup of a hash map takes more when it is inlined */
#define MORE_FOR_LOOKUP 4

/* A jump over an update, a lookup and as much else as can be */
static int load_far_jump(struct bpf_insn *insns, int map_fd)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	int n = 0, jump, fd;

	log_buf[0] = '\0';
	opts.log_buf = log_buf;
	opts.log_size = sizeof(log_buf);
	insns[n++] = INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -8, 5);
	insns[n++] = INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, -16, 55);
	insns[n++] = CALL(BPF_FUNC_get_prandom_u32);
	jump = n;
	/* Both ways are possible, one of them hardly ever taken. */
	insns[n++] = INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, FARTHEST - MORE_FOR_LOOKUP, 0x5eed);
	insns[n++] = INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd);
	insns[n++] = INSN(0, 0, 0, 0, 0);
	insns[n++] = MOV_REG(BPF_REG_2, BPF_REG_10);
	insns[n++] = ADD_IMM(BPF_REG_2, -8);
	insns[n++] = MOV_REG(BPF_REG_3, BPF_REG_10);
	insns[n++] = ADD_IMM(BPF_REG_3, -16);
	insns[n++] = MOV_IMM(BPF_REG_4, 0);
	insns[n++] = CALL(BPF_FUNC_map_update_elem);
	insns[n++] = INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd);
	insns[n++] = INSN(0, 0, 0, 0, 0);
	insns[n++] = MOV_REG(BPF_REG_2, BPF_REG_10);
	insns[n++] = ADD_IMM(BPF_REG_2, -8);
	insns[n++] = CALL(BPF_FUNC_map_lookup_elem);
	n = fill(insns, n, jump + 1 + FARTHEST - MORE_FOR_LOOKUP);
	insns[n++] = MOV_IMM(BPF_REG_0, 0);
	insns[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	fd = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "far_jump", "GPL", insns, n, &opts);
	return fd < 0 ? -errno : fd;
}

/* What loads without map tracing loads with it, and is traced. */
TEST_F(verifier, program_with_a_jump_near_the_limit_is_traced)
{
	struct bpf_insn *insns = calloc(FARTHEST + 64, sizeof(*insns));
	LIBBPF_OPTS(bpf_test_run_opts, run);
	struct bpf_program *prog;
	__u64 value = 0;
	__u32 key = 5;
	int link, fd;

	ASSERT_NE(NULL, insns);
	bpf_object__for_each_program(prog, self->skel->obj)
		bpf_program__set_autoload(prog, prog == self->skel->progs.passes_key_and_value);
	ASSERT_EQ(0, verifier_bpf__load(self->skel));
	link = attach_to(self->skel->progs.passes_key_and_value, self->skel->maps.source);
	ASSERT_LE(0, link);

	fd = load_far_jump(insns, bpf_map__fd(self->skel->maps.source));
	ASSERT_LE(0, fd) TH_LOG("%s: %s", strerror(-fd), log_buf);
	EXPECT_EQ(0, bpf_prog_test_run_opts(fd, &run));
	EXPECT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(self->skel->maps.mirror), &key, &value));
	EXPECT_EQ(55, value);
	close(fd);
	close(link);
	free(insns);
}

TEST_F(verifier, program_that_uses_more_than_the_stack_does_not_load)
{
	EXPECT_LOAD_REFUSED(uses_more_than_the_stack,
			    "invalid write to stack R10 off=-520 size=8");
}

TEST_HARNESS_MAIN
