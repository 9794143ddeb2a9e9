/* SPDX-License-Identifier: GPL-2.0 */
/* The ways in which programs write; included by sync_matrix.bpf.c */

/* --- operations */

static __always_inline long update_with(__u64 flags)
{
	struct cell_value value = input_value;
	struct cell_key key = input_key;
	void *map = the_map();

	return map ? bpf_map_update_elem(map, &key, &value, flags) : -1;
}

WAY(update)
{
	return update_with(BPF_ANY);
}

WAY(update_absent)
{
	return update_with(BPF_NOEXIST);
}

WAY(update_present)
{
	return update_with(BPF_EXIST);
}

WAY(delete)
{
	struct cell_key key = input_key;
	void *map = the_map();

	return map ? bpf_map_delete_elem(map, &key) : -1;
}

WAY_OF_SLEEPABLE(update_locked)
{
	struct locked_value value = { .value = input_value };
	struct cell_key key = input_key;

	return bpf_map_update_elem(&locked, &key, &value, BPF_F_LOCK);
}

/* More than fit */
WAY(evict)
{
	struct cell_value value = input_value;
	void *map = the_map();
	int i;

	if (!map)
		return -1;
	for (i = 0; i < EVICTING_KEYS; i++) {
		struct cell_key key = {{ FIRST_EVICTING_KEY + i }};
		long err = bpf_map_update_elem(map, &key, &value, BPF_ANY);

		if (err)
			return err;
	}
	return 0;
}

/* --- stores */

WAY(store)
{
	FIND(value);
	*value = input_value;
	return 0;
}

/* The element may have gone to another key by then. */
WAY(store_later)
{
	struct cell_key other = input_other_key;
	struct cell_value none = {};
	void *map = the_map();
	long err;
	FIND(value);

	if (!map)
		return -1;
	err = bpf_map_delete_elem(map, &key);
	if (!err)
		err = bpf_map_update_elem(map, &other, &none, BPF_ANY);
	*value = input_value;
	return err;
}

WAY(atomic_add)
{
	FIND(value);
	__sync_fetch_and_add((__u64 *)value, 1 + input_value.words[0]);
	return 0;
}

WAY(atomic_or)
{
	FIND(value);
	__sync_fetch_and_or(&value->words[4], 0x80000000);
	return 0;
}

WAY(atomic_exchange)
{
	FIND(value);
	__sync_lock_test_and_set((__u64 *)value, input_value.words[0]);
	return 0;
}

WAY(atomic_compare_exchange)
{
	FIND(value);
	__u32 old = value->words[1];

	return __sync_val_compare_and_swap(&value->words[1], old, ~old) == old ? 0 : -2;
}

/* store_release((u64 *)(r1 + 0), r2): the compiler is older than the instruction */
WAY(store_release)
{
	FIND(value);
	asm volatile("r1 = %[value]\n\t"
		     "r2 = %[new]\n\t"
		     ".8byte 0x00000110000021db"
		     :: [value] "r"(value), [new] "r"((__u64)input_value.words[0])
		     : "r1", "r2", "memory");
	return 0;
}

WAY(store_in_percpu_lookup)
{
	struct cell_key key = input_key;
	struct cell_value *value = bpf_map_lookup_percpu_elem(&source, &key, nr_cpus - 1);

	if (!value)
		return -1;
	*value = input_value;
	return 0;
}

WAY_OF_SLEEPABLE(store_under_lock)
{
	struct cell_value new = input_value;
	struct cell_key key = input_key;
	struct locked_value *value = bpf_map_lookup_elem(&locked, &key);

	if (!value)
		return -1;
	bpf_spin_lock(&value->lock);
	value->value = new;
	bpf_spin_unlock(&value->lock);
	return 0;
}

WAY(store_beside_kptr)
{
	struct cell_key key = input_key;
	struct pointing_value *value = bpf_map_lookup_elem(&pointing, &key);

	if (!value)
		return -1;
	value->value = input_value;
	return 0;
}

WAY(store_in_global)
{
	global = input_value;
	return 0;
}

/* --- helpers and kfuncs that write memory */

WAY(probe_read)
{
	FIND(value);
	return bpf_probe_read_kernel(value, sizeof(*value), &input_value);
}

WAY(current_comm)
{
	FIND(value);
	return bpf_get_current_comm(value, 16);
}

WAY(strtol)
{
	FIND(value);
	return bpf_strtol(input_digits, sizeof(input_digits), 0, (long *)value) == 10 ? 0 : -2;
}

WAY(dynptr_write)
{
	struct cell_value new = input_value;
	struct bpf_dynptr ptr;
	FIND(value);

	return bpf_dynptr_from_mem(value, sizeof(*value), 0, &ptr) ?:
	       bpf_dynptr_write(&ptr, 0, &new, sizeof(new), 0);
}

WAY(dynptr_data)
{
	struct bpf_dynptr ptr;
	__u32 *data;
	FIND(value);

	if (bpf_dynptr_from_mem(value, sizeof(*value), 0, &ptr))
		return -2;
	data = bpf_dynptr_data(&ptr, 8, 8);
	if (!data)
		return -3;
	data[1] = input_value.words[0];
	return 0;
}

WAY(dynptr_copy)
{
	struct bpf_dynptr to, from;
	FIND(value);

	return bpf_dynptr_from_mem(value, sizeof(*value), 0, &to) ?:
	       bpf_dynptr_from_mem(&input_value, sizeof(input_value), 0, &from) ?:
	       bpf_dynptr_copy(&to, 0, &from, 0, sizeof(*value));
}

/* From a ring buffer's record into the value */
WAY(ringbuf_read)
{
	struct cell_value new = input_value;
	struct bpf_dynptr record;
	long err;
	FIND(value);

	err = bpf_ringbuf_reserve_dynptr(&ringbuf, sizeof(new), 0, &record) ?:
	      bpf_dynptr_write(&record, 0, &new, sizeof(new), 0) ?:
	      bpf_dynptr_read(value, sizeof(*value), &record, 0, 0);
	bpf_ringbuf_discard_dynptr(&record, 0);
	return err;
}

/* From the system call's argument, in user space */
__u64 input_user_string;

WAY_OF_SLEEPABLE(copy_from_user_str)
{
	FIND(value);
	return bpf_copy_from_user_str(value, sizeof(*value), (void *)input_user_string, 0) > 0 ?
	       0 : -2;
}

/* --- functions */

__noinline int store_in_global_function(struct cell_value *value)
{
	if (!value)
		return -1;
	*value = input_value;
	return 0;
}

WAY(global_function)
{
	FIND(value);
	return store_in_global_function(value);
}

static __noinline struct cell_value *find_in_function(void)
{
	struct cell_key key = input_key;

	return find(&key);
}

static __noinline void store_in_function(struct cell_value *value)
{
	*value = input_value;
}

WAY(subprogram)
{
	struct cell_value *value = find_in_function();

	if (!value)
		return -1;
	store_in_function(value);
	return 0;
}

/* User space has it replaced by a program of type EXT. */
__noinline int replaced(struct cell_value *value)
{
	return value && value->words[0] == 0;
}

WAY(freplace)
{
	FIND(value);
	return replaced(value);
}

/* What it jumps to is the program that stores. */
#define TAIL_CALL(type)								\
SEC("?" #type)									\
int tail_call_##type(void *ctx)							\
{										\
	bpf_tail_call(ctx, &jumps_##type, 0);					\
	end_cell(-1);								\
	return 0;								\
}

TAIL_CALL(raw_tp)
TAIL_CALL(syscall)
TAIL_CALL(perf_event)

/* It ends before its last line, and says so before it ends. */
WAY(exception)
{
	FIND(value);
	*value = input_value;
	end_cell(0);
	bpf_throw(0);
	return -2;
}

static long store_each(struct bpf_map *map, void *key, struct cell_value *value, void *ctx)
{
	*value = input_value;
	return 0;
}

WAY(for_each)
{
	void *map = the_map();

	return map && bpf_for_each_map_elem(map, store_each, NULL, 0) > 0 ? 0 : -1;
}

/* All elements get it. */
SEC("?iter/bpf_map_elem")
int iterator(struct bpf_iter__bpf_map_elem *ctx)
{
	struct cell_value *value = ctx->value;

	if (value)
		*value = input_value;
	return 0;
}

/* --- callbacks, which write when the program has ended */

#define CALLBACK(name)								\
static int name(void *map, int *key, void *value)				\
{										\
	if (begin_cell()) {							\
		*(struct cell_value *)value = input_value;			\
		end_cell(0);							\
	}									\
	return 0;								\
}

CALLBACK(in_timer)
CALLBACK(in_work)

static int in_task_work(struct bpf_map *map, void *key, void *value)
{
	if (begin_cell()) {
		*(struct cell_value *)value = input_value;
		end_cell(0);
	}
	return 0;
}

#define STARTER(name)								\
static __always_inline long start_##name(struct deferring_value *value);	\
SEC("?syscall")									\
int name##_syscall(void *ctx)							\
{										\
	struct cell_key key = input_key;					\
	struct deferring_value *value = bpf_map_lookup_elem(&deferring, &key);	\
										\
	return value ? start_##name(value) : -1;				\
}										\
static __always_inline long start_##name(struct deferring_value *value)

STARTER(timer)
{
	bpf_timer_init(&value->timer, &deferring, 1 /* CLOCK_MONOTONIC */);
	return bpf_timer_set_callback(&value->timer, in_timer) ?:
	       bpf_timer_start(&value->timer, 0, 0);
}

STARTER(work)
{
	bpf_wq_init(&value->work, &deferring, 0);
	return bpf_wq_set_callback(&value->work, in_work, 0) ?: bpf_wq_start(&value->work, 0);
}

STARTER(task_work)
{
	return bpf_task_work_schedule_signal(bpf_get_current_task_btf(), &value->task_work,
					     &deferring, in_task_work);
}
