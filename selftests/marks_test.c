// SPDX-License-Identifier: GPL-2.0
/* Writes of programs through pointers are reported to sync tracers, without a flush. */
#include "testing_helpers.h"

#include <poll.h>
#include <pthread.h>

#include "progs/marks.h"
#include "marks.skel.h"

/* Some time for the worker, and for the grace period of all programs that it waits for */
#define SETTLE_MS 120000
/* See marks.rs */
#define MOST_OWN 64

FIXTURE(marks) {
	struct marks_bpf *skel;
	__typeof__(((struct marks_bpf *)0)->bss) bss;
	int source, mirror;
	int link;
};

FIXTURE_VARIANT(marks) {
	enum bpf_map_type type;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(marks, hash) {
	.type = BPF_MAP_TYPE_HASH,
};

FIXTURE_VARIANT_ADD(marks, hash_no_prealloc) {
	.type = BPF_MAP_TYPE_HASH, .flags = BPF_F_NO_PREALLOC,
};

FIXTURE_VARIANT_ADD(marks, lru_hash) {
	.type = BPF_MAP_TYPE_LRU_HASH,
};

FIXTURE_VARIANT_ADD(marks, array) {
	.type = BPF_MAP_TYPE_ARRAY,
};

FIXTURE_SETUP(marks)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = marks_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.source, variant->type));
	ASSERT_EQ(0, bpf_map__set_map_flags(self->skel->maps.source, variant->flags));
	ASSERT_EQ(0, bpf_program__set_autoload(self->skel->progs.writes_its_source, false));
	if (variant->type == BPF_MAP_TYPE_ARRAY)
		AUTOLOAD(self->skel->progs.read_marks);
	ASSERT_EQ(0, marks_bpf__load(self->skel));
	self->bss = self->skel->bss;
	self->source = bpf_map__fd(self->skel->maps.source);
	self->mirror = bpf_map__fd(self->skel->maps.mirror);
}

FIXTURE_TEARDOWN(marks)
{
	close(self->link);
	marks_bpf__destroy(self->skel);
}

static bool deletes(const FIXTURE_VARIANT(marks) *variant)
{
	return variant->type != BPF_MAP_TYPE_ARRAY;
}

/* Nothing to see in this kind of map, which is no test left out */
#define NOT_APPLICABLE(reason) do {						\
	TH_LOG("not applicable: %s", reason);					\
	return;									\
} while (0)

/* Attach, and wait until all that was there is told */
static void attach(struct __test_metadata *_metadata, FIXTURE_DATA(marks) *self,
		   const struct bpf_program *prog, const struct bpf_map *map)
{
	struct pollfd pollfd = { .events = POLLIN };

	self->link = attach_to(prog, map);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	pollfd.fd = self->link;
	ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
	ASSERT_EQ(POLLIN, pollfd.revents);
}

/* An element with a value, and the tracer told of it */
static void attach_with(struct __test_metadata *_metadata, FIXTURE_DATA(marks) *self, __u32 key,
			__u64 value)
{
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	self->bss->key = key;
	attach(_metadata, self, self->skel->progs.synced, self->skel->maps.source);
}

static bool mirror_has(FIXTURE_DATA(marks) *self, __u32 key, __u64 value)
{
	__u64 seen;

	return !bpf_map_lookup_elem(self->mirror, &key, &seen) && seen == value;
}

/* The same, within some time */
static bool mirror_gets(FIXTURE_DATA(marks) *self, __u32 key, __u64 value)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	while (!mirror_has(self, key, value) && now_ns() < end)
		usleep(10000);
	return mirror_has(self, key, value);
}

/* A program writes to key 3, and the mirror gets that. */
#define EXPECT_TOLD_BY(name) do {						\
	attach_with(_metadata, self, 3, 1);					\
	self->bss->new_value = 7;						\
	ASSERT_EQ(0, run_program(self->skel->progs.name, NULL, 0));		\
	EXPECT_TRUE(mirror_gets(self, 3, 7));					\
	/* And again, with a mark that is old by then. */			\
	self->bss->new_value = 8;						\
	ASSERT_EQ(0, run_program(self->skel->progs.name, NULL, 0));		\
	EXPECT_TRUE(mirror_gets(self, 3, 8));					\
} while (0)

TEST_F(marks, stores)
{
	EXPECT_TOLD_BY(stores);
}

TEST_F(marks, stores_in_tracepoint)
{
	EXPECT_TOLD_BY(stores_in_tracepoint);
}

TEST_F(marks, helper_writes)
{
	EXPECT_TOLD_BY(helper_writes);
}

TEST_F(marks, dynptr_writes)
{
	EXPECT_TOLD_BY(dynptr_writes);
}

TEST_F(marks, global_function_writes)
{
	EXPECT_TOLD_BY(global_function_writes);
}

TEST_F(marks, functions_write)
{
	EXPECT_TOLD_BY(functions_write);
}

TEST_F(marks, stores_in_one_of_two)
{
	EXPECT_TOLD_BY(store_in_one_of_two);
}

/* A flow is counted in place, and then taken out by user space. */
TEST_F(marks, counts_in_place)
{
	__u64 count, end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	__u32 key = 5;
	int i;

	attach_with(_metadata, self, key, 1);
	self->bss->new_value = 1;
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, run_program(self->skel->progs.add, NULL, 0));
	EXPECT_TRUE(mirror_gets(self, key, 101));
	if (!deletes(variant))
		return;
	ASSERT_EQ(0, bpf_map_lookup_and_delete_elem(self->source, &key, &count));
	EXPECT_EQ(101, count);
	while (!bpf_map_lookup_elem(self->mirror, &key, &count) && now_ns() < end)
		usleep(10000);
	EXPECT_EQ(-ENOENT, bpf_map_lookup_elem(self->mirror, &key, &count));
}

/* The element has gone to another key when the program writes. */
TEST_F(marks, pointer_outlives_its_key)
{
	__u32 key = 1, other = 2, tries;
	__u64 value = 1, seen;

	if (!deletes(variant))
		NOT_APPLICABLE("elements of an array keep their keys");
	/* Free elements are those of a CPU, and the last one is used again first. */
	ASSERT_EQ(0, pin_to_cpu(0));
	attach_with(_metadata, self, key, 1);
	self->bss->other_key = other;
	self->bss->new_value = 7;
	for (tries = 0; tries < 50 && value != 7; tries++) {
		bpf_map_delete_elem(self->source, &other);
		value = 1;
		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
		ASSERT_EQ(0, run_program(self->skel->progs.store_later, NULL, 0));
		EXPECT_EQ(-ENOENT, bpf_map_lookup_elem(self->source, &key, &value));
		ASSERT_EQ(0, bpf_map_lookup_elem(self->source, &other, &value));
		EXPECT_TRUE(mirror_gets(self, other, value));
		EXPECT_EQ(-ENOENT, bpf_map_lookup_elem(self->mirror, &key, &seen));
	}
	/* Else it was another element each time, and nothing was seen here. */
	EXPECT_EQ(7, value) TH_LOG("%u tries", tries);
}

struct runner {
	const struct bpf_program *prog;
	int result;
};

static void *run_in_thread(void *arg)
{
	struct runner *runner = arg;

	runner->result = run_program(runner->prog, NULL, 0);
	return NULL;
}

/* The worker waits for those that may write, and meanwhile operations are told. */
TEST_F(marks, pointer_is_held)
{
	struct runner runner = { .prog = self->skel->progs.store_when_released };
	__u64 value = 5, end;
	pthread_t thread;
	__u32 key = 4;

	attach_with(_metadata, self, 3, 1);
	self->bss->new_value = 7;
	ASSERT_EQ(0, pthread_create(&thread, NULL, run_in_thread, &runner));
	EXPECT_TRUE(wait_for_flag(&self->bss->held, SETTLE_MS));
	EXPECT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	EXPECT_TRUE(mirror_has(self, key, value));
	/* Some time for who does not wait */
	for (end = now_ns() + 2 * NSEC_PER_SEC; now_ns() < end;)
		usleep(10000);
	EXPECT_TRUE(mirror_has(self, 3, 1));
	self->bss->released = 1;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, runner.result);
	EXPECT_TRUE(mirror_gets(self, 3, 7));
}

TEST_F(marks, callback_writes)
{
	__u64 value = 1;
	__u32 key;

	for (key = 0; key < NR_KEYS / 2; key++)
		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	attach_with(_metadata, self, 3, 1);
	self->bss->new_value = 100;
	ASSERT_EQ(0, run_program(self->skel->progs.callback_writes, NULL, 0));
	for (key = 0; key < NR_KEYS / 2; key++)
		EXPECT_TRUE(mirror_gets(self, key, 100 + key));
}

TEST_F(marks, iterator_writes)
{
	union bpf_iter_link_info info = { .map.map_fd = self->source };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link;
	char buffer[64];
	int iter;

	attach_with(_metadata, self, 3, 1);
	self->bss->new_value = 7;
	link = bpf_program__attach_iter(self->skel->progs.iterator_writes, &opts);
	ASSERT_NE(NULL, link);
	iter = bpf_iter_create(bpf_link__fd(link));
	EXPECT_LE(0, iter);
	while (read(iter, buffer, sizeof(buffer)) > 0)
		;
	close(iter);
	bpf_link__destroy(link);
	EXPECT_TRUE(mirror_gets(self, 3, 7));
}

/* Nobody looks at a map into which nobody has written. */
TEST_F(marks, readers_do_not_mark)
{
	attach_with(_metadata, self, 3, 1);
	self->bss->runs = 0;
	self->bss->new_value = 1;
	ASSERT_EQ(1, run_program(self->skel->progs.read, NULL, 0));
	sleep(2);
	EXPECT_EQ(0, self->bss->runs);
	/* Who comes later is told once, and nothing before that. */
	self->bss->new_value = 7;
	ASSERT_EQ(0, run_program(self->skel->progs.stores, NULL, 0));
	EXPECT_TRUE(mirror_gets(self, 3, 7));
	EXPECT_GE(2, self->bss->runs);
}

/* What the tracer could not follow is done again. */
TEST_F(marks, tracer_fails)
{
	attach_with(_metadata, self, 3, 1);
	self->bss->failing = 1;
	self->bss->runs = 0;
	self->bss->new_value = 7;
	ASSERT_EQ(0, run_program(self->skel->progs.stores, NULL, 0));
	EXPECT_TRUE(wait_for_flag(&self->bss->runs, SETTLE_MS));
	sleep(1);
	EXPECT_TRUE(mirror_has(self, 3, 1));
	self->bss->failing = 0;
	EXPECT_TRUE(mirror_gets(self, 3, 7));
}

/* A round that has taken long is followed by a rest, in which nothing is marked at first. */
TEST_F(marks, written_while_the_worker_rests)
{
	attach_with(_metadata, self, 3, 1);
	self->bss->delay_ns = 200 * NSEC_PER_MSEC;
	self->bss->new_value = 7;
	ASSERT_EQ(0, run_program(self->skel->progs.stores, NULL, 0));
	EXPECT_TRUE(mirror_gets(self, 3, 7));
	/* The rest is 19 times as long as the round. */
	usleep(500000);
	self->bss->new_value = 8;
	ASSERT_EQ(0, run_program(self->skel->progs.stores, NULL, 0));
	EXPECT_TRUE(mirror_gets(self, 3, 8));
}

/* The mark of an index in an epoch, as bpf_map_trace_short_mark() has it */
static __u8 short_mark(__u32 epoch)
{
	return epoch % 255 + 1;
}

/* An index that has the mark of this epoch, or -1 */
static int find_mark(FIXTURE_DATA(marks) *self, __u32 epoch)
{
	int i;

	for (i = 0; i < NR_KEYS; i++)
		if (self->bss->marks[i] == short_mark(epoch))
			return i;
	return -1;
}

static void read_marks(struct __test_metadata *_metadata, FIXTURE_DATA(marks) *self)
{
	ASSERT_EQ(0, run_program(self->skel->progs.read_marks, NULL, 0));
}

/* Whether the worker has cleared all marks but those of this epoch */
static bool is_settled(FIXTURE_DATA(marks) *self)
{
	int i;

	for (i = 0; i < NR_KEYS; i++)
		if (self->bss->marks[i] && self->bss->marks[i] != short_mark(self->bss->epoch))
			return false;
	return !self->bss->armed;
}

/* Waits for a round of the worker, which begins epochs. The next one comes a while later. */
static void wait_for_round(struct __test_metadata *_metadata, FIXTURE_DATA(marks) *self)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC, changed = 0;
	__u32 epoch;

	read_marks(_metadata, self);
	do {
		epoch = self->bss->epoch;
		usleep(5000);
		read_marks(_metadata, self);
		if (self->bss->epoch != epoch)
			changed = now_ns();
		ASSERT_LT(now_ns(), end);
	} while (!changed || now_ns() - changed < 100 * NSEC_PER_MSEC);
}

/*
 * Has the tracer fail until an index has a mark that looks like one of the epoch that there will be,
 * and then lets it be told all. Returns the index, or -1 where the worker has begun one more.
 */
static int make_old_mark(struct __test_metadata *_metadata, FIXTURE_DATA(marks) *self)
{
	__u64 end, round = 0;
	int i, index = -1;

	self->bss->failing = 1;
	self->bss->new_value = 1;
	/* Each attach begins an epoch. */
	for (i = 0; index < 0; i++) {
		ASSERT_LT(i, 2000);
		self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
		ASSERT_LE(0, self->link);
		if (i < NR_KEYS) {
			self->bss->key = i;
			ASSERT_EQ(0, run_program(self->skel->progs.stores, NULL, 0));
		}
		/* The pauses between rounds that fail grow to a second. */
		while (!i && round++ < 10)
			wait_for_round(_metadata, self);
		/* A round that finds no tracer clears the marks: it is not to meet the detach. */
		if (now_ns() - round > 500 * NSEC_PER_MSEC) {
			wait_for_round(_metadata, self);
			round = now_ns();
		}
		ASSERT_EQ(0, bpf_link_detach(self->link));
		ASSERT_EQ(0, close(self->link));
		self->link = -1;
		read_marks(_metadata, self);
		if (i > NR_KEYS)
			index = find_mark(self, self->bss->epoch + (self->bss->armed ? 2 : 1));
	}
	self->bss->failing = 0;
	attach(_metadata, self, self->skel->progs.synced, self->skel->maps.source);
	end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	do {
		usleep(10000);
		read_marks(_metadata, self);
		ASSERT_LT(now_ns(), end);
	} while (!is_settled(self));
	if (find_mark(self, self->bss->epoch) == index)
		return index;
	ASSERT_EQ(0, bpf_link_detach(self->link));
	ASSERT_EQ(0, close(self->link));
	return -1;
}

/*
 * The marks of an array repeat after 255 epochs. One of then is still there where the tracer has
 * failed since, and looks like one of now: what is written now wakes the worker all the same.
 */
TEST_F_TIMEOUT(marks, mark_of_long_ago_hides_none_of_now, 900)
{
	int tries, index = -1;

	if (deletes(variant))
		NOT_APPLICABLE("elements of a hash table have marks that do not repeat");
	for (tries = 0; index < 0; tries++) {
		ASSERT_LT(tries, 5);
		index = make_old_mark(_metadata, self);
	}
	self->bss->key = index;
	self->bss->new_value = 7;
	ASSERT_EQ(0, run_program(self->skel->progs.stores, NULL, 0));
	EXPECT_TRUE(mirror_gets(self, index, 7)) TH_LOG("index %d, try %d", index, tries);
}

/* Maps with values of their own */
FIXTURE(layout) {
	struct marks_bpf *skel;
	__typeof__(((struct marks_bpf *)0)->bss) bss;
	int mirror;
	int link;
};

FIXTURE_SETUP(layout)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = marks_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_program__set_autoload(self->skel->progs.writes_its_source, false));
	ASSERT_EQ(0, marks_bpf__load(self->skel));
	self->bss = self->skel->bss;
	self->mirror = bpf_map__fd(self->skel->maps.mirror);
}

FIXTURE_TEARDOWN(layout)
{
	close(self->link);
	marks_bpf__destroy(self->skel);
}

/* Key 3 of @map has a zeroed value, @run writes 7 there, and the mirror gets it. */
static bool told_by(FIXTURE_DATA(layout) *self, const struct bpf_map *map,
		    const struct bpf_program *tracer, const struct bpf_program *run)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC, seen = 0;
	struct pollfd pollfd = { .events = POLLIN };
	char value[64] = {};
	__u32 key = 3;

	if (bpf_map__value_size(map) > sizeof(value) ||
	    bpf_map_update_elem(bpf_map__fd(map), &key, value, BPF_ANY))
		return false;
	self->link = attach_to(tracer, map);
	if (self->link < 0)
		return false;
	pollfd.fd = self->link;
	if (poll(&pollfd, 1, SETTLE_MS) != 1)
		return false;
	self->bss->key = key;
	self->bss->new_value = 7;
	if (run_program(run, NULL, 0))
		return false;
	while (now_ns() < end && (bpf_map_lookup_elem(self->mirror, &key, &seen) || seen != 7))
		usleep(10000);
	return seen == 7;
}

TEST_F(layout, timer_writes)
{
	EXPECT_TRUE(told_by(self, self->skel->maps.timers, self->skel->progs.timers_synced,
			    self->skel->progs.start_timer));
}

TEST_F(layout, work_writes)
{
	EXPECT_TRUE(told_by(self, self->skel->maps.works, self->skel->progs.works_synced,
			    self->skel->progs.start_work));
}

TEST_F(layout, task_work_writes)
{
	EXPECT_TRUE(told_by(self, self->skel->maps.tasks, self->skel->progs.tasks_synced,
			    self->skel->progs.start_task_work));
	/* It was the callback that has written. */
	EXPECT_EQ(1, self->bss->held);
}

TEST_F(layout, writes_under_a_lock)
{
	EXPECT_TRUE(told_by(self, self->skel->maps.locks, self->skel->progs.locks_synced,
			    self->skel->progs.store_under_lock));
}

/* The map that is written is in another one, and not known at load. */
TEST_F(layout, inner_map)
{
	int inner = bpf_map__fd(self->skel->maps.other);
	__u32 zero = 0;

	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(self->skel->maps.outer), &zero, &inner,
					 BPF_ANY));
	EXPECT_TRUE(told_by(self, self->skel->maps.other, self->skel->progs.synced,
			    self->skel->progs.store_in_inner_map));
}

/* Marks of an array are where its operations put them, which are others in an inner map. */
TEST_F(layout, inner_array)
{
	int inner = bpf_map__fd(self->skel->maps.other_array);
	__u32 zero = 0;

	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(self->skel->maps.outer_of_arrays), &zero,
					 &inner, BPF_ANY));
	EXPECT_TRUE(told_by(self, self->skel->maps.other_array, self->skel->progs.synced,
			    self->skel->progs.store_in_inner_array));
}

/* It finds its element without the lock of the bucket: it can be another key's by then. */
TEST_F(layout, update_with_a_lock_marks)
{
	int locks = bpf_map__fd(self->skel->maps.locks);
	struct { __u32 lock; __u64 value; } value = { .value = 1 };
	struct pollfd pollfd = { .events = POLLIN };
	__u64 seen;
	__u32 key = 3;

	ASSERT_EQ(0, bpf_map_update_elem(locks, &key, &value, BPF_ANY));
	self->link = attach_to(self->skel->progs.locks_synced, self->skel->maps.locks);
	ASSERT_LE(0, self->link);
	pollfd.fd = self->link;
	ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
	/* Who takes the lock of the bucket is told at once, and never again. */
	value.value = 2;
	ASSERT_EQ(0, bpf_map_update_elem(locks, &key, &value, BPF_ANY));
	sleep(2);
	EXPECT_EQ(0, self->bss->writes);
	value.value = 3;
	ASSERT_EQ(0, bpf_map_update_elem(locks, &key, &value, BPF_F_LOCK));
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));
	EXPECT_EQ(3, seen);
	EXPECT_TRUE(wait_for_flag(&self->bss->writes, SETTLE_MS));
}

FIXTURE(marks_loop) {
	struct marks_bpf *skel;
	int link;
};

FIXTURE_SETUP(marks_loop)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = marks_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(marks_loop)
{
	close(self->link);
	marks_bpf__destroy(self->skel);
}

/* It would run itself, for ever. */
TEST_F(marks_loop, is_refused)
{
	struct marks_bpf *skel = self->skel;

	EXPECT_EQ(-ELOOP, attach_to(skel->progs.writes_its_source, skel->maps.source));
	/* Who passes all elements gets pointers to them. */
	EXPECT_EQ(-ELOOP, attach_to(skel->progs.passes_its_source, skel->maps.source));
}

/* It does, where nobody has seen it; not for ever. */
TEST_F(marks_loop, is_given_up_where_it_was_not_seen)
{
	struct marks_bpf *skel = self->skel;
	int inner = bpf_map__fd(skel->maps.other);
	struct pollfd pollfd = { .events = 0 };
	struct map_trace_info info;
	__u32 zero = 0, runs;
	__u64 value = 1;

	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.outer), &zero, &inner, BPF_ANY));
	self->link = attach_to(skel->progs.writes_its_source_unseen, skel->maps.other);
	ASSERT_LE(0, self->link);
	pollfd.fd = self->link;
	ASSERT_EQ(0, bpf_map_update_elem(inner, &zero, &value, BPF_ANY));
	ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
	EXPECT_EQ(POLLERR, pollfd.revents);
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(1, info.lost);
	usleep(500000);
	runs = skel->bss->own_runs;
	EXPECT_LE(MOST_OWN, runs);
	usleep(1500000);
	EXPECT_EQ(runs, skel->bss->own_runs);

	/* What has changed is told by a flush. */
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(runs + 1, skel->bss->own_runs);
}

struct repeater {
	pthread_t thread;
	const struct bpf_program *prog;
	bool stop;
	int err;
};

static void *run_again_and_again(void *argument)
{
	struct repeater *repeater = argument;

	while (!repeater->err && !__atomic_load_n(&repeater->stop, __ATOMIC_RELAXED))
		repeater->err = run_program(repeater->prog, NULL, 0);
	return NULL;
}

/* The worker asks several times whether programs have ended: that is no end of the loop. */
TEST_F(marks_loop, is_given_up_where_programs_take_long)
{
	struct marks_bpf *skel = self->skel;
	struct repeater repeater = { .prog = skel->progs.takes_time };
	int inner = bpf_map__fd(skel->maps.other);
	struct pollfd pollfd = { .events = 0 };
	__u64 value = 1;
	__u32 zero = 0;

	skel->bss->delay_ns = 50 * NSEC_PER_MSEC;
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.outer), &zero, &inner, BPF_ANY));
	self->link = attach_to(skel->progs.writes_its_source_unseen, skel->maps.other);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, pthread_create(&repeater.thread, NULL, run_again_and_again, &repeater));
	ASSERT_EQ(0, bpf_map_update_elem(inner, &zero, &value, BPF_ANY));
	pollfd.fd = self->link;
	EXPECT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
	EXPECT_EQ(POLLERR, pollfd.revents);
	__atomic_store_n(&repeater.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(repeater.thread, NULL));
	EXPECT_EQ(0, repeater.err);
}

/* Others are told again once it has gone, though nobody else has come for what is armed. */
TEST_F(marks_loop, goes_with_its_tracer)
{
	struct marks_bpf *skel = self->skel;
	int inner = bpf_map__fd(skel->maps.other), innocent;
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC, value = 1;
	struct map_trace_info info = {};
	__u32 zero = 0, three = 3;

	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.outer), &zero, &inner, BPF_ANY));
	ASSERT_EQ(0, bpf_map_update_elem(inner, &three, &value, BPF_ANY));
	innocent = attach_to(skel->progs.synced, skel->maps.other);
	ASSERT_LE(0, innocent);
	self->link = attach_to(skel->progs.writes_its_source_unseen, skel->maps.other);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, bpf_map_update_elem(inner, &zero, &value, BPF_ANY));
	while (!info.lost && now_ns() < end && !usleep(10000))
		ASSERT_EQ(0, map_trace_get_info(innocent, &info));
	EXPECT_EQ(1, info.lost);

	skel->bss->key = 3;
	skel->bss->new_value = 7;
	ASSERT_EQ(0, run_program(skel->progs.store_in_inner_map, NULL, 0));
	usleep(500000);
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(skel->maps.mirror), &three, &value));
	EXPECT_NE(7, value);
	close(self->link);
	self->link = -1;
	while (value != 7 && now_ns() < end && !usleep(10000))
		ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(skel->maps.mirror), &three, &value));
	EXPECT_EQ(7, value);
	close(innocent);
}

TEST_HARNESS_MAIN
