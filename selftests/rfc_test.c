// SPDX-License-Identifier: GPL-2.0
/*
 * What the RFC's own tests showed, by their names, with the section handler of libbpf.
 * verifier_test.c shows that a program may use its whole stack, and not more.
 */
#include "testing_helpers.h"

#include <sys/syscall.h>

#include <linux/filter.h>

#include "progs/rfc.h"
#include "rfc.skel.h"
#include "rfc_new.skel.h"

FIXTURE(rfc) {
	struct rfc_bpf *skel;
	struct bpf_link *kprobe;
};

FIXTURE_SETUP(rfc)
{
	ASSERT_EQ(0, map_trace_module_load());
	self->skel = rfc_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->kprobe = bpf_program__attach(self->skel->progs.on_sys_bpf);
	ASSERT_NE(NULL, self->kprobe) TH_LOG("kprobe: %s", strerror(errno));
}

FIXTURE_TEARDOWN(rfc)
{
	self->skel->bss->pid = 0;
	bpf_link__destroy(self->kprobe);
	rfc_bpf__destroy(self->skel);
}

/* One system call for the kprobe, and one that changes nothing */
static __s64 trigger(struct rfc_bpf *skel, bool delete)
{
	skel->data->ret = 1;
	skel->bss->delete = delete;
	__atomic_store_n(&skel->bss->pid, getpid(), __ATOMIC_SEQ_CST);
	syscall(__NR_bpf, -1, NULL, 0);
	__atomic_store_n(&skel->bss->pid, 0, __ATOMIC_SEQ_CST);
	return skel->data->ret;
}

static int lookup(const struct bpf_map *map, __u32 key, __u32 *value)
{
	return bpf_map_lookup_elem(bpf_map__fd(map), &key, value) ? -errno : 0;
}

TEST_F(rfc, update_basic)
{
	struct bpf_link *link = bpf_program__attach(self->skel->progs.on_update);
	__u32 value = 0;

	ASSERT_NE(NULL, link) TH_LOG("attach: %s", strerror(errno));
	EXPECT_EQ(-ENOENT, lookup(self->skel->maps.tracer_map, RFC_KEY, &value));
	ASSERT_EQ(0, trigger(self->skel, false));
	ASSERT_EQ(0, lookup(self->skel->maps.tracer_map, RFC_KEY, &value));
	EXPECT_EQ(collatz(RFC_VALUE), value);
	/* The update itself is what it was. */
	ASSERT_EQ(0, lookup(self->skel->maps.traced_map, RFC_KEY, &value));
	EXPECT_EQ(RFC_VALUE, value);
	bpf_link__destroy(link);
}

TEST_F(rfc, update_basic_without_a_helper)
{
	struct bpf_link *link = bpf_program__attach(self->skel->progs.on_update_typed);
	__u32 value = 0;

	ASSERT_NE(NULL, link) TH_LOG("attach: %s", strerror(errno));
	ASSERT_EQ(0, trigger(self->skel, false));
	ASSERT_EQ(0, lookup(self->skel->maps.tracer_map, RFC_KEY, &value));
	EXPECT_EQ(collatz(RFC_VALUE), value);
	bpf_link__destroy(link);
}

TEST_F(rfc, delete_basic)
{
	struct bpf_link *link = bpf_program__attach(self->skel->progs.on_delete);
	__u32 value = 0;

	ASSERT_NE(NULL, link) TH_LOG("attach: %s", strerror(errno));
	/* Nothing to delete, nothing to trace */
	EXPECT_EQ(-ENOENT, trigger(self->skel, true));
	EXPECT_EQ(-ENOENT, lookup(self->skel->maps.tracer_map, collatz(RFC_KEY), &value));

	ASSERT_EQ(0, trigger(self->skel, false));
	EXPECT_EQ(-ENOENT, lookup(self->skel->maps.tracer_map, collatz(RFC_KEY), &value));
	ASSERT_EQ(0, trigger(self->skel, true));
	ASSERT_EQ(0, lookup(self->skel->maps.tracer_map, collatz(RFC_KEY), &value));
	EXPECT_EQ(getpid(), value);
	EXPECT_EQ(-ENOENT, lookup(self->skel->maps.traced_map, RFC_KEY, &value));
	bpf_link__destroy(link);
}

TEST_F(rfc, loop_direct)
{
	struct bpf_link *link = bpf_program__attach(self->skel->progs.updates_traced_map);

	EXPECT_EQ(NULL, link);
	EXPECT_EQ(ELOOP, errno);
	bpf_link__destroy(link);
	EXPECT_EQ(0, trigger(self->skel, false));
}

TEST_F(rfc, loop_indirect)
{
	struct bpf_link *links[2];

	links[0] = bpf_program__attach(self->skel->progs.tracer0);
	ASSERT_NE(NULL, links[0]) TH_LOG("attach: %s", strerror(errno));
	links[1] = bpf_program__attach(self->skel->progs.tracer1);
	EXPECT_EQ(NULL, links[1]);
	EXPECT_EQ(ELOOP, errno);
	bpf_link__destroy(links[0]);
	bpf_link__destroy(links[1]);
}

/* All at once, as a skeleton's attach function does it */
TEST_F(rfc, all_attach_at_once)
{
	__u32 value = 0;

	bpf_program__set_autoattach(self->skel->progs.updates_traced_map, false);
	bpf_program__set_autoattach(self->skel->progs.tracer1, false);
	bpf_link__destroy(self->kprobe);
	self->kprobe = NULL;
	ASSERT_EQ(0, rfc_bpf__attach(self->skel));
	ASSERT_EQ(0, trigger(self->skel, false));
	ASSERT_EQ(0, trigger(self->skel, true));
	EXPECT_EQ(0, lookup(self->skel->maps.tracer_map, RFC_KEY, &value));
	EXPECT_EQ(collatz(RFC_VALUE), value);
	EXPECT_EQ(0, lookup(self->skel->maps.tracer_map, collatz(RFC_KEY), &value));
	EXPECT_EQ(getpid(), value);
}

static int elements(int map)
{
	struct rfc_new_key key, *previous = NULL;
	int count = 0;

	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		count++;
	}
	return count;
}

static __u32 lookup_new(int map, __u32 number)
{
	struct rfc_new_key key = { .number = number };
	__u32 value = 0;

	return bpf_map_lookup_elem(map, &key, &value) ? 0 : value;
}

/*
 * The example: tracers and a copy, from an object that reuses the old map and the new one
 * of two versions of a program, which call them the same, and not as the object does
 */
TEST_F(rfc, real_world_example_follows_the_map_that_is_reused)
{
	int map = bpf_map__fd(self->skel->maps.traced_map), new_map, iter;
	union bpf_iter_link_info info = { .map.map_fd = map };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts,
		.link_info = &info, .link_info_len = sizeof(info),
	);
	__u32 before = 1, value = 11;
	struct rfc_new_bpf *new;
	char buffer[64];

	ASSERT_EQ(0, bpf_map_update_elem(map, &before, &value, 0));
	new_map = bpf_map_create(BPF_MAP_TYPE_HASH, "traced_map", sizeof(struct rfc_new_key),
				 sizeof(__u32), 16, NULL);
	ASSERT_LE(0, new_map);

	new = rfc_new_bpf__open();
	ASSERT_NE(NULL, new);
	ASSERT_EQ(0, bpf_map__reuse_fd(new->maps.old_map, map));
	ASSERT_EQ(0, bpf_map__reuse_fd(new->maps.new_map, new_map));
	bpf_program__set_autoattach(new->progs.bulk_migration, false);
	ASSERT_EQ(0, rfc_new_bpf__load(new));
	ASSERT_EQ(0, rfc_new_bpf__attach(new));

	/* The tracers, before the copy */
	EXPECT_EQ(0, elements(new_map));
	ASSERT_EQ(0, trigger(self->skel, false));
	EXPECT_EQ(1, elements(new_map));
	EXPECT_EQ(RFC_VALUE, lookup_new(new_map, RFC_KEY));

	/* The copy */
	new->links.bulk_migration = bpf_program__attach_iter(new->progs.bulk_migration, &opts);
	ASSERT_NE(NULL, new->links.bulk_migration);
	iter = bpf_iter_create(bpf_link__fd(new->links.bulk_migration));
	ASSERT_LE(0, iter);
	EXPECT_EQ(0, read(iter, buffer, sizeof(buffer)));
	close(iter);
	EXPECT_EQ(2, elements(new_map));
	EXPECT_EQ(RFC_VALUE, lookup_new(new_map, RFC_KEY));
	EXPECT_EQ(11, lookup_new(new_map, before));

	/* And after it */
	ASSERT_EQ(0, trigger(self->skel, true));
	EXPECT_EQ(1, elements(new_map));
	EXPECT_EQ(11, lookup_new(new_map, before));
	rfc_new_bpf__destroy(new);
	close(new_map);
}

static int traced_bytes(struct rfc_bpf *skel)
{
	int err = run_program(skel->progs.read_traced_bytes, NULL, 0);

	return err ? err : skel->bss->update_byte | skel->bss->delete_byte << 1;
}

/*
 * Contract 11 and defect 10 of the RFC: after the last detach operations are done as
 * they were before the first attach. What they test says so.
 */
TEST_F(rfc, defect_10_no_operation_pays_after_the_last_detach)
{
	int update[2], delete;

	EXPECT_EQ(0, traced_bytes(self->skel));
	update[0] = attach_to(self->skel->progs.on_update, self->skel->maps.traced_map);
	ASSERT_LE(0, update[0]);
	EXPECT_EQ(1, traced_bytes(self->skel));
	update[1] = attach_to(self->skel->progs.on_update_typed, self->skel->maps.traced_map);
	ASSERT_LE(0, update[1]);
	delete = attach_to(self->skel->progs.on_delete, self->skel->maps.traced_map);
	ASSERT_LE(0, delete);
	EXPECT_EQ(3, traced_bytes(self->skel));

	ASSERT_EQ(0, map_trace_detach(update[0]));
	EXPECT_EQ(3, traced_bytes(self->skel));
	ASSERT_EQ(0, map_trace_detach(update[1]));
	EXPECT_EQ(2, traced_bytes(self->skel));
	ASSERT_EQ(0, map_trace_detach(delete));
	EXPECT_EQ(0, traced_bytes(self->skel));

	close(update[0]);
	close(update[1]);
	/* And again from there */
	update[0] = attach_to(self->skel->progs.on_update, self->skel->maps.traced_map);
	ASSERT_LE(0, update[0]);
	EXPECT_EQ(1, traced_bytes(self->skel));
	close(update[0]);
	close(delete);
}

#define INSN(_code, _dst, _src, _off, _imm) ((struct bpf_insn){			\
	.code = (_code), .dst_reg = (_dst), .src_reg = (_src), .off = (_off), .imm = (_imm) })

#define MAX_INSNS 64
#define SOURCE_INSNS 12

/*
 * What the kernel makes of one update or delete, as it is at run time. Returns how many
 * instructions that is, or a negative errno.
 */
static int translate(enum bpf_map_type type, int function, struct bpf_insn *translated)
{
	int map = bpf_map_create(type, "operated_on", 4, 8, 1, NULL);
	struct bpf_insn insns[SOURCE_INSNS] = {
		INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
		INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, -16, 0),
		INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_3, 0, 0, -16),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_4, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	struct bpf_prog_info info = {
		.xlated_prog_insns = (unsigned long)translated,
		.xlated_prog_len = MAX_INSNS * sizeof(*translated),
	};
	__u32 len = sizeof(info);
	int prog, err;

	if (map < 0)
		return -errno;
	prog = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "operates", "GPL", insns,
			     ARRAY_SIZE(insns), NULL);
	close(map);
	if (prog < 0)
		return prog;
	err = bpf_prog_get_info_by_fd(prog, &info, &len) ? -errno : 0;
	close(prog);
	if (err)
		return err;
	return info.jited_prog_len ? info.xlated_prog_len / sizeof(*translated) : -EOPNOTSUPP;
}

/*
 * Contract 11: the address that is called is another one, and that is all: what the verifier
 * makes of the program is as long as its source, whatever the map's type.
 */
TEST_F(rfc, contract_11_program_with_an_operation_does_not_grow)
{
	static const struct {
		enum bpf_map_type type;
		int function;
	} operations[] = {
		{ BPF_MAP_TYPE_HASH, BPF_FUNC_map_update_elem },
		{ BPF_MAP_TYPE_HASH, BPF_FUNC_map_delete_elem },
		{ BPF_MAP_TYPE_ARRAY, BPF_FUNC_map_update_elem },
		{ BPF_MAP_TYPE_ARRAY, BPF_FUNC_map_delete_elem },
		{ BPF_MAP_TYPE_LRU_HASH, BPF_FUNC_map_delete_elem },
		{ BPF_MAP_TYPE_PERCPU_HASH, BPF_FUNC_map_update_elem },
	};
	struct bpf_insn insns[MAX_INSNS];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(operations); i++)
		EXPECT_EQ(SOURCE_INSNS, translate(operations[i].type, operations[i].function,
						  insns)) TH_LOG("operation %u", i);
}

/* An attach that is refused leaves no byte set. */
TEST_F(rfc, refused_attach_costs_nothing)
{
	EXPECT_EQ(-ELOOP, attach_to(self->skel->progs.updates_traced_map,
				    self->skel->maps.traced_map));
	EXPECT_EQ(0, traced_bytes(self->skel));
	EXPECT_EQ(-EINVAL, map_trace_attach(bpf_program__fd(self->skel->progs.on_update),
					    bpf_map__fd(self->skel->maps.traced_map), DELETE, 0));
	EXPECT_EQ(0, traced_bytes(self->skel));
}

TEST_HARNESS_MAIN
