// SPDX-License-Identifier: GPL-2.0
/* The matrix, see matrix_update_test.c: each delete, from each origin, on each type of map. */
#include "matrix_fixture.h"

static char log_buf[1 << 16];

/* The programs that delete */
static void __attribute__((constructor)) load(void)
{
	load_map_types("delete");
}

static int delete_by_program(struct cell *cell, __u32 key)
{
	int err = run_operation(cell, key);

	if (!err)
		expect_delete(cell, key);
	return err;
}

static int delete_by_syscall(struct cell *cell, __u32 key)
{
	struct matrix_key map_key = key_of(cell, key);

	if (bpf_map_delete_elem(source_fd(cell), &map_key))
		return -errno;
	expect_delete(cell, key);
	return 0;
}

/* Whether a delete gives @missing, and why */
static int without_delete(struct __test_metadata *_metadata, const struct cell *cell, int missing)
{
	if (!has(cell, ALL_ELEMENTS))
		return 0;
	NOT_APPLICABLE("an array has no delete");
	return missing;
}

static void check_deletes_by(struct __test_metadata *_metadata, struct cell *cell, const char *name)
{
	trace(_metadata, cell, name, false);
	check_deletes(_metadata, cell, delete_by_program,
		      without_delete(_metadata, cell, -EINVAL));
}

static int batch_delete(struct cell *cell, __u32 *count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = cell->flags);

	*count = batch.count;
	return bpf_map_delete_batch(source_fd(cell), batch.keys, count, &opts) ? -errno : 0;
}

static void check_delete_batch(struct __test_metadata *_metadata, struct cell *cell)
{
	__u64 flags = cell->flags;
	__u32 key, count;

	cell->flags = 0;
	fill(_metadata, cell);
	cell->flags = flags;
	batch_begin(cell);
	for (key = 0; key < USED_KEYS; key += 2)
		batch_add(cell, key, 0);
	if (without_delete(_metadata, cell, -ENOTSUPP)) {
		EXPECT_EQ(-ENOTSUPP, batch_delete(cell, &count));
		compare(_metadata, cell);
		return;
	}
	ASSERT_EQ(0, batch_delete(cell, &count));
	ASSERT_EQ(USED_KEYS / 2, count);
	for (key = 0; key < USED_KEYS; key += 2)
		expect_delete(cell, key);
	compare(_metadata, cell);
}

TEST_F(matrix, delete_by_program)
{
	check_deletes_by(_metadata, self->cell, "delete");
}

TEST_F(matrix, delete_by_program_with_key_in_a_map)
{
	check_deletes_by(_metadata, self->cell, "delete_from_map");
}

TEST_F(matrix, delete_by_program_of_an_inner_map)
{
	check_deletes_by(_metadata, self->cell, "delete_inner");
}

TEST_F(matrix, delete_by_program_of_one_of_two_maps)
{
	check_deletes_by(_metadata, self->cell, "delete_either");
}

TEST_F(matrix, delete_by_callback)
{
	check_deletes_by(_metadata, self->cell, "delete_callback");
}

TEST_F(matrix, delete_by_for_each_callback)
{
	__u32 gone;

	if (!has(self->cell, FOR_EACH)) {
		struct matrix_bpf *skel = matrix_bpf__open();

		NOT_APPLICABLE("this type has no bpf_for_each_map_elem()");
		ASSERT_NE(NULL, skel);
		ASSERT_EQ(0, prepare(skel, self->cell->type));
		EXPECT_GT(0, load_one_program(skel->obj, "delete_for_each", log_buf,
					      sizeof(log_buf)));
		ASSERT_LOG_HAS(log_buf, "callback function not allowed for map");
		matrix_bpf__destroy(skel);
		return;
	}
	trace(_metadata, self->cell, "delete_for_each", false);
	fill(_metadata, self->cell);
	ASSERT_EQ(0, run_program(self->cell->prog, NULL, 0));
	gone = expect_deletes_of_what_is_gone(self->cell);
	EXPECT_EQ(gone, self->cell->skel->bss->output_deleted);
	if (without_delete(_metadata, self->cell, -EINVAL)) {
		EXPECT_EQ(-EINVAL, self->cell->skel->bss->output_ret);
		EXPECT_EQ(0, gone);
	} else {
		EXPECT_LT(0, gone);
	}
	compare(_metadata, self->cell);
}

TEST_F(matrix, delete_by_program_with_lock)
{
	if (!load_locked(_metadata, self->cell, "delete_locked"))
		return;
	self->cell->flags = 0;
	check_deletes(_metadata, self->cell, delete_by_program,
		      without_delete(_metadata, self->cell, -EINVAL));
}

TEST_F(matrix, delete_by_interpreted_program)
{
	if (!load_without_jit(_metadata, self->cell, "delete", "delete_inner"))
		SKIP(return, "kernel without BPF interpreter (CONFIG_BPF_JIT_ALWAYS_ON)");
	check_deletes_by(_metadata, self->cell, "delete");
	EXPECT_FALSE(is_jited(self->cell->prog));
	begin_again(_metadata, self->cell);
	check_deletes_by(_metadata, self->cell, "delete_inner");
	EXPECT_FALSE(is_jited(self->cell->prog));
}

TEST_F(matrix, delete_by_bpf_sys_bpf)
{
	check_deletes_by(_metadata, self->cell, "delete_sys_bpf");
}

TEST_F(matrix, delete_by_syscall)
{
	trace(_metadata, self->cell, NULL, false);
	check_deletes(_metadata, self->cell, delete_by_syscall,
		      without_delete(_metadata, self->cell, -EINVAL));
}

TEST_F(matrix, delete_by_batch)
{
	trace(_metadata, self->cell, NULL, false);
	check_delete_batch(_metadata, self->cell);
}

TEST_F(matrix, delete_by_batch_with_lock)
{
	__u32 count;

	if (load_locked(_metadata, self->cell, NULL)) {
		check_delete_batch(_metadata, self->cell);
		return;
	}
	batch_begin(self->cell);
	batch_add(self->cell, 1, 1);
	EXPECT_EQ(has(self->cell, ALL_ELEMENTS) ? -ENOTSUPP : -EINVAL,
		  batch_delete(self->cell, &count));
	compare(_metadata, self->cell);
}

TEST_F(matrix, delete_by_batch_that_stops_at_an_absent_key)
{
	__u32 key, count;

	trace(_metadata, self->cell, NULL, false);
	fill(_metadata, self->cell);
	batch_begin(self->cell);
	for (key = 0; key < 4; key++)
		batch_add(self->cell, key, 0);
	batch_add(self->cell, USED_KEYS, 0);
	batch_add(self->cell, 5, 0);
	if (without_delete(_metadata, self->cell, -ENOTSUPP)) {
		EXPECT_EQ(-ENOTSUPP, batch_delete(self->cell, &count));
		compare(_metadata, self->cell);
		return;
	}
	EXPECT_EQ(-ENOENT, batch_delete(self->cell, &count));
	EXPECT_EQ(4, count);
	for (key = 0; key < 4; key++)
		expect_delete(self->cell, key);
	compare(_metadata, self->cell);
}

TEST_HARNESS_MAIN
