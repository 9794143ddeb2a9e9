// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 1 and defect 5 of the RFC, for each update, from each origin, on each type of map. A
 * cell does the update under tracers that keep a mirror. Afterwards the map holds what it
 * should, the mirror holds the same, and the tracers have run exactly once for each element, or
 * for each value of a CPU, that was changed. If a type does not have the operation, the cell
 * says so, and checks that it is refused.
 */
#include "matrix_fixture.h"

/* The programs that update */
static void __attribute__((constructor)) load(void)
{
	load_map_types("update");
}

/* On each CPU in turn: it is that one's slice that is updated. */
static int update_by_program(struct cell *cell, __u32 key, __u32 number)
{
	int cpu = key % online_cpus();
	int err = pin_to_cpu(cpu);

	if (err)
		return err;
	cell->skel->bss->input_value = value_of(number);
	err = run_operation(cell, key);
	if (!err)
		expect_update_of_slice(cell, key, has(cell, PER_CPU) ? cpu : 0, number);
	return err;
}

static int update_by_sys_bpf(struct cell *cell, __u32 key, __u32 number)
{
	int err;

	fill_value(cell, cell->skel->bss->input_slices, number);
	err = run_operation(cell, key);
	if (!err)
		expect_update(cell, key, number);
	return err;
}

/* BPF_F_CPU: the slice of a CPU, which the caller need not run on */
static int update_by_syscall_of_cpu(struct cell *cell, __u32 key, __u32 number)
{
	cell->flags = BPF_F_CPU | (__u64)(key % cell->cpus) << 32;
	return update_by_syscall(cell, key, number);
}

static void check_updates(struct __test_metadata *_metadata, struct cell *cell, update_t update)
{
	__u32 key;

	for (key = 0; key < USED_KEYS; key++) {
		ASSERT_EQ(0, update(cell, key, 100 + key));
	}
	compare(_metadata, cell);
	/* Another value, and one that changes nothing */
	for (key = 0; key < USED_KEYS; key += 2) {
		ASSERT_EQ(0, update(cell, key, 200 + key));
		ASSERT_EQ(0, update(cell, key, 200 + key));
	}
	compare(_metadata, cell);
}

/* The whole row, for a program */
static void check_updates_by(struct __test_metadata *_metadata, struct cell *cell, const char *name)
{
	trace(_metadata, cell, name, false);
	check_updates(_metadata, cell, update_by_program);
}

static void check_refused(struct __test_metadata *_metadata, struct cell *cell, update_t update,
			  int err)
{
	__u64 flags = cell->flags;
	__u32 key;

	for (key = 0; key < USED_KEYS; key++) {
		EXPECT_EQ(err, update(cell, key, 100 + key));
	}
	compare(_metadata, cell);
	/* The map is traced, only this is not done. */
	cell->flags = 0;
	ASSERT_EQ(0, update_by_syscall(cell, 1, 1));
	compare(_metadata, cell);
	cell->flags = flags;
}

static int batch_update(struct cell *cell, __u32 *count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = cell->flags);

	cell->skel->bss->expected_flags = cell->flags;
	*count = batch.count;
	return bpf_map_update_batch(source_fd(cell), batch.keys, batch.values, count, &opts) ?
	       -errno : 0;
}

/* A batch that does all it is asked for */
static void check_update_batch(struct __test_metadata *_metadata, struct cell *cell)
{
	__u32 key, count;

	batch_begin(cell);
	for (key = 0; key < USED_KEYS; key++)
		batch_add(cell, key, 100 + key);
	/* The same twice, and then once more what is there already */
	batch_add(cell, 3, 203);
	batch_add(cell, 3, 203);
	ASSERT_EQ(0, batch_update(cell, &count));
	ASSERT_EQ(USED_KEYS + 2, count);
	for (key = 0; key < USED_KEYS; key++)
		expect_update(cell, key, 100 + key);
	expect_update(cell, 3, 203);
	expect_update(cell, 3, 203);
	compare(_metadata, cell);
}

static void check_update_batch_refused(struct __test_metadata *_metadata, struct cell *cell)
{
	__u32 count;

	batch_begin(cell);
	batch_add(cell, 1, 1);
	EXPECT_EQ(-EINVAL, batch_update(cell, &count));
	compare(_metadata, cell);
	cell->flags = 0;
	ASSERT_EQ(0, update_by_syscall(cell, 1, 1));
	compare(_metadata, cell);
}

TEST_F(matrix, update_by_program)
{
	check_updates_by(_metadata, self->cell, "update");
}

TEST_F(matrix, update_by_program_with_key_and_value_in_a_map)
{
	check_updates_by(_metadata, self->cell, "update_from_map");
}

TEST_F(matrix, update_by_program_of_an_inner_map)
{
	check_updates_by(_metadata, self->cell, "update_inner");
}

TEST_F(matrix, update_by_program_of_one_of_two_maps)
{
	check_updates_by(_metadata, self->cell, "update_either");
	/* The other one is not traced. */
	self->cell->skel->bss->input_either = 1;
	ASSERT_EQ(0, run_operation(self->cell, 1));
	EXPECT_LT(0, count_elements(bpf_map__fd(self->cell->skel->maps.other)));
	compare(_metadata, self->cell);
}

TEST_F(matrix, update_by_callback)
{
	check_updates_by(_metadata, self->cell, "update_callback");
}

TEST_F(matrix, update_by_program_with_lock)
{
	if (load_locked(_metadata, self->cell, "update_locked"))
		check_updates(_metadata, self->cell, update_by_program);
	else
		check_refused(_metadata, self->cell, update_by_syscall, -EINVAL);
}

/* Of a map that it knows, and of one that it does not */
TEST_F(matrix, update_by_interpreted_program)
{
	if (!load_without_jit(_metadata, self->cell, "update", "update_inner"))
		SKIP(return, "kernel without BPF interpreter (CONFIG_BPF_JIT_ALWAYS_ON)");
	check_updates_by(_metadata, self->cell, "update");
	EXPECT_FALSE(is_jited(self->cell->prog));
	begin_again(_metadata, self->cell);
	check_updates_by(_metadata, self->cell, "update_inner");
	EXPECT_FALSE(is_jited(self->cell->prog));
}

TEST_F(matrix, update_by_bpf_sys_bpf)
{
	trace(_metadata, self->cell, "update_sys_bpf", false);
	check_updates(_metadata, self->cell, update_by_sys_bpf);
}

TEST_F(matrix, update_by_syscall)
{
	trace(_metadata, self->cell, NULL, false);
	check_updates(_metadata, self->cell, update_by_syscall);
}

TEST_F(matrix, update_by_syscall_with_lock)
{
	if (load_locked(_metadata, self->cell, NULL))
		check_updates(_metadata, self->cell, update_by_syscall);
	else
		check_refused(_metadata, self->cell, update_by_syscall, -EINVAL);
}

TEST_F(matrix, update_by_syscall_of_one_cpu)
{
	trace(_metadata, self->cell, NULL, false);
	if (has(self->cell, PER_CPU)) {
		check_updates(_metadata, self->cell, update_by_syscall_of_cpu);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_refused(_metadata, self->cell, update_by_syscall_of_cpu, -EINVAL);
}

TEST_F(matrix, update_by_syscall_of_all_cpus)
{
	trace(_metadata, self->cell, NULL, false);
	self->cell->flags = BPF_F_ALL_CPUS;
	if (has(self->cell, PER_CPU)) {
		check_updates(_metadata, self->cell, update_by_syscall);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_refused(_metadata, self->cell, update_by_syscall, -EINVAL);
}

TEST_F(matrix, update_by_batch)
{
	trace(_metadata, self->cell, NULL, false);
	check_update_batch(_metadata, self->cell);
}

TEST_F(matrix, update_by_batch_with_lock)
{
	if (load_locked(_metadata, self->cell, NULL))
		check_update_batch(_metadata, self->cell);
	else
		check_update_batch_refused(_metadata, self->cell);
}

TEST_F(matrix, update_by_batch_of_one_cpu)
{
	trace(_metadata, self->cell, NULL, false);
	self->cell->flags = BPF_F_CPU | (__u64)(self->cell->cpus - 1) << 32;
	if (has(self->cell, PER_CPU)) {
		check_update_batch(_metadata, self->cell);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_update_batch_refused(_metadata, self->cell);
}

TEST_F(matrix, update_by_batch_of_all_cpus)
{
	trace(_metadata, self->cell, NULL, false);
	self->cell->flags = BPF_F_ALL_CPUS;
	if (has(self->cell, PER_CPU)) {
		check_update_batch(_metadata, self->cell);
		return;
	}
	NOT_APPLICABLE("this type is not per CPU");
	check_update_batch_refused(_metadata, self->cell);
}

TEST_F(matrix, update_by_batch_of_absent_keys_only)
{
	__u32 key, count;

	trace(_metadata, self->cell, NULL, false);
	ASSERT_EQ(0, update_by_syscall(self->cell, 5, 1));
	self->cell->flags = BPF_NOEXIST;
	batch_begin(self->cell);
	for (key = 0; key < USED_KEYS; key++)
		batch_add(self->cell, key, 100 + key);
	NOT_APPLICABLE("a batch takes no BPF_NOEXIST");
	EXPECT_EQ(-EINVAL, batch_update(self->cell, &count));
	compare(_metadata, self->cell);
}

TEST_F(matrix, update_by_batch_that_stops_at_max_entries)
{
	__u32 key, count, before;
	int err;

	trace(_metadata, self->cell, NULL, false);
	batch_begin(self->cell);
	for (key = 0; key < bpf_map__max_entries(self->cell->source) + 3; key++)
		batch_add(self->cell, key, 100 + key);
	err = batch_update(self->cell, &count);
	if (has(self->cell, EVICTS)) {
		NOT_APPLICABLE("a map that evicts is never full");
		EXPECT_EQ(0, err);
		EXPECT_EQ(batch.count, count);
		EXPECT_EQ(batch.count * slices(self->cell), self->cell->skel->bss->updates);
		before = count_elements(source_fd(self->cell));
		EXPECT_GE(bpf_map__max_entries(self->cell->source), before);
		/* Some of the evictions are told a bit later. */
		EXPECT_EQ(before, count_elements_at_rest(bpf_map__fd(self->cell->skel->maps.mirror),
							 before));
		EXPECT_EQ(batch.count - before, self->cell->skel->bss->deletes);
		return;
	}
	EXPECT_EQ(has(self->cell, PREFIXES) ? -ENOSPC : -E2BIG, err);
	EXPECT_EQ(MATRIX_KEYS, count);
	for (key = 0; key < MATRIX_KEYS; key++)
		expect_update(self->cell, key, 100 + key);
	compare(_metadata, self->cell);
}

/* The keys are there, but the values of the second half are not. */
TEST_F(matrix, update_by_batch_that_stops_at_a_bad_pointer)
{
	long page = sysconf(_SC_PAGESIZE);
	size_t len;
	__u32 key, count;
	char *memory;

	trace(_metadata, self->cell, NULL, false);
	batch_begin(self->cell);
	for (key = 0; key < USED_KEYS / 2; key++)
		batch_add(self->cell, key, 100 + key);
	len = batch.value_len;
	ASSERT_GT(page, len);
	for (; key < USED_KEYS; key++)
		batch_add(self->cell, key, 100 + key);

	memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, memory);
	ASSERT_EQ(0, mprotect(memory + page, page, PROT_NONE));
	memcpy(memory + page - len, batch_values, len);
	batch.values = memory + page - len;
	EXPECT_EQ(-EFAULT, batch_update(self->cell, &count));
	EXPECT_EQ(USED_KEYS / 2, count);
	for (key = 0; key < USED_KEYS / 2; key++)
		expect_update(self->cell, key, 100 + key);
	compare(_metadata, self->cell);
	munmap(memory, 2 * page);
}

TEST_HARNESS_MAIN
