// SPDX-License-Identifier: GPL-2.0
/* A sync tracer runs for each key until what it got last is what the map holds. */
#include "testing_helpers.h"

#include <poll.h>
#include <pthread.h>

#include "progs/sync.h"
#include "sync.skel.h"

/* How many keys wait for each CPU, see delete_queue.rs */
#define KEYS_PER_CPU 256
/* Some time for the worker, which rests for a second at most, or for long after it has gone
 * through all elements
 */
#define SETTLE_MS 120000
/* How long the CPUs race */
#define RACE_NS (5 * NSEC_PER_SEC)
#define MAX_RACERS 4

enum reason { OPERATION, EVICTION, RECHECK, REPLAY, FLUSH, WRITE };

FIXTURE(sync) {
	struct sync_bpf *skel;
	__typeof__(((struct sync_bpf *)0)->bss) bss;
	int source, mirror, events;
	int link;
};

FIXTURE_VARIANT(sync) {
	enum bpf_map_type type;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(sync, hash) {
	.type = BPF_MAP_TYPE_HASH,
};

FIXTURE_VARIANT_ADD(sync, hash_no_prealloc) {
	.type = BPF_MAP_TYPE_HASH, .flags = BPF_F_NO_PREALLOC,
};

FIXTURE_VARIANT_ADD(sync, lru_hash) {
	.type = BPF_MAP_TYPE_LRU_HASH,
};

FIXTURE_VARIANT_ADD(sync, lru_hash_of_each_cpu) {
	.type = BPF_MAP_TYPE_LRU_HASH, .flags = BPF_F_NO_COMMON_LRU,
};

FIXTURE_VARIANT_ADD(sync, rhash) {
	.type = BPF_MAP_TYPE_RHASH, .flags = BPF_F_NO_PREALLOC,
};

FIXTURE_VARIANT_ADD(sync, array) {
	.type = BPF_MAP_TYPE_ARRAY,
};

FIXTURE_SETUP(sync)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = sync_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.source, variant->type));
	ASSERT_EQ(0, bpf_map__set_map_flags(self->skel->maps.source, variant->flags));
	if (variant->type == BPF_MAP_TYPE_LRU_HASH)
		ASSERT_EQ(0, bpf_map__set_max_entries(self->skel->maps.source, CAPACITY_LRU));
	ASSERT_EQ(0, sync_bpf__load(self->skel));
	self->bss = self->skel->bss;
	self->source = bpf_map__fd(self->skel->maps.source);
	self->mirror = bpf_map__fd(self->skel->maps.mirror);
	self->events = bpf_map__fd(self->skel->maps.events);
}

FIXTURE_TEARDOWN(sync)
{
	close(self->link);
	sync_bpf__destroy(self->skel);
}

static bool deletes(const FIXTURE_VARIANT(sync) *variant)
{
	return variant->type != BPF_MAP_TYPE_ARRAY;
}

/* Nothing to see in this kind of map, which is no test left out */
#define NOT_APPLICABLE(reason) do {						\
	TH_LOG("not applicable: %s", reason);					\
	return;									\
} while (0)

/* Whether all that was there is told: poll(2) on the link says so */
static bool is_replayed(int link)
{
	struct pollfd pollfd = { .fd = link, .events = POLLIN };

	return poll(&pollfd, 1, SETTLE_MS) == 1 && pollfd.revents == POLLIN;
}

static void attach(struct __test_metadata *_metadata, FIXTURE_DATA(sync) *self,
		   const struct bpf_program *prog)
{
	self->link = attach_to(prog, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_TRUE(is_replayed(self->link));
}

static int run_range(struct sync_bpf *skel, const struct bpf_program *prog, __u32 from, __u32 to)
{
	skel->bss->from = from;
	skel->bss->to = to;
	return run_program(prog, NULL, 0);
}

/* How many keys are in one of the maps only, or with another value */
static __u32 count_wrong(int source, int mirror)
{
	__u32 key, wrong = 0;

	for (key = 0; key < NR_KEYS; key++) {
		__u64 expected = 0, value = 0;
		int absent = bpf_map_lookup_elem(source, &key, &expected);

		wrong += !absent != !bpf_map_lookup_elem(mirror, &key, &value) ||
			 (!absent && expected != value);
	}
	return wrong;
}

/* The same, once nothing is left to do, without a flush */
static __u32 count_wrong_in_the_end(FIXTURE_DATA(sync) *self)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	__u32 wrong;

	do {
		wrong = count_wrong(self->source, self->mirror);
	} while (wrong && now_ns() < end && !usleep(10000));
	return wrong;
}

static struct map_trace_info info_of(int link)
{
	struct map_trace_info info;

	if (map_trace_get_info(link, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

TEST_F(sync, is_told_what_is_there)
{
	__u64 value = 7, seen;
	__u32 key = 3;

	attach(_metadata, self, self->skel->progs.synced);
	memset(self->bss->reasons, 0, sizeof(self->bss->reasons));
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));
	EXPECT_EQ(value, seen);
	EXPECT_EQ(1, self->bss->reasons[OPERATION]);
	if (!deletes(variant))
		return;
	ASSERT_EQ(0, bpf_map_delete_elem(self->source, &key));
	EXPECT_EQ(-ENOENT, bpf_map_lookup_elem(self->mirror, &key, &seen));
	EXPECT_EQ(2, self->bss->reasons[OPERATION]);
	EXPECT_EQ(1, self->bss->absent);
	/* Of an operation that fails nobody is told. */
	EXPECT_EQ(-ENOENT, bpf_map_delete_elem(self->source, &key));
	EXPECT_EQ(2, self->bss->reasons[OPERATION]);
}

TEST_F(sync, is_told_what_was_there_before)
{
	__u32 keys = variant->type == BPF_MAP_TYPE_ARRAY ? NR_KEYS : CAPACITY_LRU / 2, key;
	__u32 present = 0;
	__u64 value;

	self->bss->new_value = 100;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, keys));
	for (key = 0; key < NR_KEYS; key++)
		present += !bpf_map_lookup_elem(self->source, &key, &value);
	attach(_metadata, self, self->skel->progs.synced);
	EXPECT_EQ(0, count_wrong(self->source, self->mirror));
	EXPECT_EQ(present, self->bss->reasons[REPLAY]);
	EXPECT_EQ(present, info_of(self->link).replayed);
	EXPECT_EQ(0, info_of(self->link).pending);
	EXPECT_EQ(0, info_of(self->link).lost);
}

/* What the old program has made of it is not what the new one would. */
TEST_F(sync, new_program_of_a_link_is_told_all)
{
	__u64 value, seen;
	__u32 key = 5;

	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 10));
	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, map_trace_update(self->link,
				      bpf_program__fd(self->skel->progs.synced_negated), -1));
	ASSERT_TRUE(is_replayed(self->link));
	ASSERT_EQ(0, bpf_map_lookup_elem(self->source, &key, &value));
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));
	EXPECT_EQ(~value, seen);
}

TEST_F(sync, is_told_what_the_map_gives_up)
{
	__u32 key, present = 0;
	__u64 value;

	if (variant->type != BPF_MAP_TYPE_LRU_HASH)
		NOT_APPLICABLE("it gives up nothing");
	attach(_metadata, self, self->skel->progs.synced);
	for (key = 0; key < NR_KEYS; key += 64) {
		ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, key,
				       key + 64));
		usleep(10000);
	}
	for (key = 0; key < NR_KEYS; key++)
		present += !bpf_map_lookup_elem(self->source, &key, &value);
	ASSERT_LT(present, NR_KEYS);
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_EQ(0, info_of(self->link).lost);
}

/* Who is going to use it can take it: the tracer does not. */
TEST_F(sync, mirror_has_a_lock)
{
	const __u32 keys = CAPACITY_LRU / 4;
	int mirror = bpf_map__fd(self->skel->maps.locked_mirror);
	struct { __u32 lock; __u64 value; } locked;
	__u64 value;
	__u32 key;

	attach(_metadata, self, self->skel->progs.synced_with_lock);
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, keys));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.write_through_pointers, 0, keys));
	ASSERT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	for (key = 0; key < keys; key++) {
		ASSERT_EQ(0, bpf_map_lookup_elem(self->source, &key, &value));
		ASSERT_EQ(0, bpf_map_lookup_elem_flags(mirror, &key, &locked, BPF_F_LOCK));
		EXPECT_EQ(value, locked.value);
	}
}

/* How many keys of the map whose values have a lock differ from the mirror */
static __u32 count_wrong_locked(FIXTURE_DATA(sync) *self)
{
	int source = bpf_map__fd(self->skel->maps.locked_source);
	struct { __u32 lock; __u64 value; } locked;
	__u32 key, wrong = 0;
	__u64 value;

	for (key = 0; key < NR_KEYS; key++) {
		int absent = bpf_map_lookup_elem_flags(source, &key, &locked, BPF_F_LOCK);

		wrong += !absent != !bpf_map_lookup_elem(self->mirror, &key, &value) ||
			 (!absent && locked.value != value);
	}
	return wrong;
}

static int run_tc_range(struct sync_bpf *skel, const struct bpf_program *prog, __u32 from,
			__u32 to)
{
	static const char packet[64];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));

	skel->bss->from = from;
	skel->bss->to = to;
	return bpf_prog_test_run_opts(bpf_program__fd(prog), &opts) ? -errno : opts.retval;
}

/* Only the worker and a flush can take it. */
TEST_F(sync, values_with_a_lock_are_told)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	if (variant->type != BPF_MAP_TYPE_HASH || variant->flags)
		NOT_APPLICABLE("one kind of map is enough");
	self->link = attach_to(self->skel->progs.synced_locked, self->skel->maps.locked_source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_TRUE(is_replayed(self->link));
	ASSERT_EQ(0, run_tc_range(self->skel, self->skel->progs.update_locked, 0, 64));
	EXPECT_EQ(0, count_wrong_locked(self));

	self->bss->failing = 1;
	self->bss->new_value = 500;
	ASSERT_EQ(0, run_tc_range(self->skel, self->skel->progs.update_locked, 0, 64));
	EXPECT_EQ(64, count_wrong_locked(self));
	self->bss->failing = 0;
	while (count_wrong_locked(self) && now_ns() < end)
		usleep(10000);
	EXPECT_EQ(0, count_wrong_locked(self));

	ASSERT_EQ(0, run_tc_range(self->skel, self->skel->progs.count_locked, 0, 64));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong_locked(self));
}

/* The tracer cannot follow for a while: it is told again, until it can. */
TEST_F(sync, what_has_failed_is_done_again)
{
	const __u32 keys = CAPACITY_LRU / 4;
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, keys));
	ASSERT_EQ(0, count_wrong_in_the_end(self));

	self->bss->failing = 1;
	self->bss->new_value = 1000;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, keys / 2));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.delete_range, keys / 2, keys));
	EXPECT_EQ(deletes(variant) ? keys : keys / 2, count_wrong(self->source, self->mirror));
	while (!info_of(self->link).pending && now_ns() < end)
		usleep(10000);
	EXPECT_LT(0, info_of(self->link).pending);
	EXPECT_LT(0, info_of(self->link).failed);

	self->bss->failing = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_EQ(0, info_of(self->link).lost);
	while (info_of(self->link).pending && now_ns() < end)
		usleep(10000);
	EXPECT_EQ(0, info_of(self->link).pending);
}

/* More than the queue has room for, but all of it is there. */
TEST_F(sync, nothing_that_is_there_is_lost)
{
	int i;

	if (variant->type == BPF_MAP_TYPE_LRU_HASH)
		NOT_APPLICABLE("what it gives up is not there");
	ASSERT_EQ(0, pin_to_cpu(0));
	attach(_metadata, self, self->skel->progs.synced);
	self->bss->failing = 1;
	for (i = 1; i < 4; i++) {
		self->bss->new_value = 1000 * i;
		ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, NR_KEYS));
	}
	EXPECT_LT(0, count_wrong(self->source, self->mirror));
	self->bss->failing = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_EQ(0, info_of(self->link).lost);
}

/* Whatever is done to it meanwhile */
TEST_F(sync, key_waits_once)
{
	int i;

	if (!deletes(variant))
		NOT_APPLICABLE("elements of an array stay");
	if (variant->type == BPF_MAP_TYPE_LRU_HASH)
		NOT_APPLICABLE("what it gives up would wait as well");
	ASSERT_EQ(0, pin_to_cpu(0));
	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, NR_KEYS));
	ASSERT_EQ(0, count_wrong_in_the_end(self));

	self->bss->failing = 1;
	for (i = 0; i < 2 * KEYS_PER_CPU; i++)
		ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 3, 4));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.delete_alone, 10,
			       10 + KEYS_PER_CPU / 2));
	self->bss->failing = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	EXPECT_EQ(0, info_of(self->link).lost);
}

/* Each operation tells it once more, and not as often as it may tell keys. */
TEST_F(sync, key_that_fails_is_told_once)
{
	__u64 failed;

	if (!deletes(variant))
		NOT_APPLICABLE("elements of an array stay");
	ASSERT_EQ(0, pin_to_cpu(0));
	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 10));
	self->bss->failing_key = 3;
	self->bss->fails_for_key = 1;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.delete_alone, 3, 4));
	failed = info_of(self->link).failed;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_alone, 10, 30));
	failed = info_of(self->link).failed - failed;
	/* The worker may have come before. */
	EXPECT_LE(20, failed);
	EXPECT_GE(20 + 10, failed);
	if (variant->type != BPF_MAP_TYPE_LRU_HASH)
		EXPECT_EQ(0, self->bss->reasons[EVICTION]);
	self->bss->fails_for_key = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
}

/* Nothing is there that could be looked for: that is said, and a flush with the keys heals it. */
TEST_F(sync, lost_keys_are_said_and_flushed)
{
	struct pollfd pollfd = { .events = POLLIN };
	__u32 keys[NR_KEYS], key;

	if (variant->type != BPF_MAP_TYPE_HASH)
		NOT_APPLICABLE("one kind of map is enough");
	for (key = 0; key < NR_KEYS; key++)
		keys[key] = key;
	ASSERT_EQ(0, pin_to_cpu(0));
	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, NR_KEYS));
	ASSERT_EQ(0, count_wrong_in_the_end(self));

	self->skel->links.on_lost = bpf_program__attach(self->skel->progs.on_lost);
	ASSERT_NE(NULL, self->skel->links.on_lost);
	self->bss->failing = 1;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.delete_alone, 0, NR_KEYS));
	self->bss->failing = 0;
	EXPECT_EQ(NR_KEYS - KEYS_PER_CPU, info_of(self->link).lost);
	EXPECT_EQ(NR_KEYS - KEYS_PER_CPU, self->bss->lost_events);
	pollfd.fd = self->link;
	ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
	EXPECT_EQ(POLLERR, pollfd.revents & POLLERR);

	/* Not by a flush that does not know them */
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	ASSERT_EQ(1, poll(&pollfd, 1, 0));
	EXPECT_EQ(POLLERR, pollfd.revents & POLLERR);
	EXPECT_EQ(0, map_trace_flush(self->link, keys, NR_KEYS, 0, NULL));
	EXPECT_EQ(0, count_wrong(self->source, self->mirror));
	ASSERT_EQ(1, poll(&pollfd, 1, 0));
	EXPECT_EQ(0, pollfd.revents & POLLERR);
	EXPECT_EQ(NR_KEYS - KEYS_PER_CPU, info_of(self->link).lost);
}

/* What was there before in the mirror is none of the map's, unless somebody asks for it. */
TEST_F(sync, flush_with_keys_prunes_the_mirror)
{
	__u32 keys[] = { 400, 401 };
	__u64 value = 1;

	if (!deletes(variant))
		NOT_APPLICABLE("elements of an array stay");
	ASSERT_EQ(0, bpf_map_update_elem(self->mirror, &keys[0], &value, BPF_ANY));
	ASSERT_EQ(0, bpf_map_update_elem(self->mirror, &keys[1], &value, BPF_ANY));
	attach(_metadata, self, self->skel->progs.synced);
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(2, count_wrong(self->source, self->mirror));
	EXPECT_EQ(0, map_trace_flush(self->link, keys, 2, 0, NULL));
	EXPECT_EQ(0, count_wrong(self->source, self->mirror));
}

TEST_F(sync, flush_tells_what_was_written_through_pointers)
{
	__u64 left = 1;

	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, CAPACITY_LRU / 4));
	ASSERT_EQ(0, count_wrong_in_the_end(self));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.write_through_pointers, 0,
			       CAPACITY_LRU / 4));
	EXPECT_LT(0, count_wrong(self->source, self->mirror));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, &left));
	EXPECT_EQ(0, left);
	EXPECT_EQ(0, count_wrong(self->source, self->mirror));
	EXPECT_LT(0, self->bss->reasons[FLUSH]);
}

TEST_F(sync, flush_says_what_is_left)
{
	__u64 left = 0;

	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 10));
	attach(_metadata, self, self->skel->progs.synced);
	self->bss->failing = 1;
	EXPECT_EQ(-EAGAIN, map_trace_flush(self->link, NULL, 0, 0, &left));
	EXPECT_LE(10, left);
	self->bss->failing = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
}

/* With an attr that has no room for what is left */
static int flush_without_left(int link)
{
	union bpf_attr attr = { .link_flush = { .link_fd = link, .left = 4711 } };
	int err = syscall(__NR_bpf, BPF_LINK_FLUSH, &attr,
			  offsetof(union bpf_attr, link_flush.left)) ? -errno : 0;

	return attr.link_flush.left == 4711 ? err : -EOVERFLOW;
}

/* A run takes its time, and others wait: the time is looked at between two keys. */
TEST_F(sync, flush_ends_when_its_time_is_over)
{
	__u64 left = 1;

	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 10));
	attach(_metadata, self, self->skel->progs.synced);
	self->bss->delay_ns = 50 * NSEC_PER_MSEC;
	EXPECT_EQ(-ETIME, map_trace_flush(self->link, NULL, 0, 60, &left));
	EXPECT_EQ(0, left);
	self->bss->delay_ns = 0;
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, SETTLE_MS, &left));
}

TEST_F(sync, flush_refuses_what_it_cannot_do)
{
	int link = attach_to(self->skel->progs.updated, self->skel->maps.source);

	ASSERT_LE(0, link);
	EXPECT_EQ(-EOPNOTSUPP, map_trace_flush(link, NULL, 0, 0, NULL));
	EXPECT_EQ(-EBADF, map_trace_flush(-1, NULL, 0, 0, NULL));
	EXPECT_EQ(-EINVAL, map_trace_flush(self->source, NULL, 0, 0, NULL));
	close(link);

	attach(_metadata, self, self->skel->progs.synced);
	EXPECT_EQ(-EFAULT, map_trace_flush(self->link, NULL, 1, 0, NULL));
	EXPECT_EQ(-EINVAL, flush_without_left(self->link));
	ASSERT_EQ(0, map_trace_detach(self->link));
	EXPECT_EQ(-ENOLINK, map_trace_flush(self->link, NULL, 0, 0, NULL));
}

struct racer {
	pthread_t thread;
	const struct bpf_program *prog;
	const __u32 *stop;
	int cpu;
	int err;
};

static void *race_once(void *argument)
{
	struct racer *racer = argument;

	racer->err = pin_to_cpu(racer->cpu) ?: run_program(racer->prog, NULL, 0);
	return NULL;
}

static void *race(void *argument)
{
	struct racer *racer = argument;

	racer->err = pin_to_cpu(racer->cpu);
	while (!racer->err && !__atomic_load_n(racer->stop, __ATOMIC_RELAXED))
		racer->err = run_program(racer->prog, NULL, 0);
	return NULL;
}

/* Its tracer is not done when another CPU's is. */
TEST_F(sync, operation_that_is_overtaken_is_told_again)
{
	struct racer racer = { .prog = self->skel->progs.update_range, .cpu = 1 };
	__u64 value = 2, seen;
	__u32 key = 3;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	attach(_metadata, self, self->skel->progs.synced);
	ASSERT_EQ(0, pin_to_cpu(0));
	self->bss->new_value = 1000;
	self->bss->held_value = 1003;
	self->bss->from = 3;
	self->bss->to = 4;
	ASSERT_EQ(0, pthread_create(&racer.thread, NULL, race_once, &racer));
	ASSERT_TRUE(wait_for_flag(&self->bss->held, 10000));
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	__atomic_store_n(&self->bss->released, 1, __ATOMIC_SEQ_CST);
	ASSERT_EQ(0, pthread_join(racer.thread, NULL));
	EXPECT_EQ(0, racer.err);
	ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));
	EXPECT_EQ(value, seen);
	EXPECT_LT(0, self->bss->reasons[RECHECK]);
}

/*
 * All CPUs change few keys, in programs of two kinds and in an interrupt, while tracers fail
 * now and then. In the end the mirror is the map, without a flush. What the event tracers have
 * made of it is not.
 */
TEST_F(sync, converges_where_cpus_race)
{
	int i, cpus = online_cpus(), clock_fd, links[2];
	struct racer racers[MAX_RACERS] = {};
	struct bpf_link *clock = NULL;
	__u32 stop = 0;

	if (cpus > MAX_RACERS)
		cpus = MAX_RACERS;
	if (cpus < 2)
		SKIP(return, "needs 2 CPUs");
	/* Of an LRU map more than it has room for */
	self->bss->hot_keys = variant->type == BPF_MAP_TYPE_LRU_HASH ? 400 : 8;
	self->bss->fails_each = 50;
	links[0] = attach_to(self->skel->progs.updated, self->skel->maps.source);
	ASSERT_LE(0, links[0]);
	links[1] = attach_to(self->skel->progs.deleted, self->skel->maps.source);
	if (deletes(variant))
		ASSERT_LE(0, links[1]);
	attach(_metadata, self, self->skel->progs.synced);

	/* An RHASH that grows allocates where it is written, under locks that an interrupt must not
	 * take: not to be done there, traced or not.
	 */
	if (variant->type != BPF_MAP_TYPE_RHASH) {
		clock_fd = open_cpu_clock(-1, 0);
		ASSERT_LE(0, clock_fd) TH_LOG("perf event: %s", strerror(-clock_fd));
		clock = bpf_program__attach_perf_event(self->skel->progs.churn_in_hardirq,
						       clock_fd);
		ASSERT_NE(NULL, clock);
	}
	for (i = 0; i < cpus; i++) {
		racers[i].prog = i % 2 ? self->skel->progs.churn :
				 self->skel->progs.churn_sleepable;
		racers[i].stop = &stop;
		racers[i].cpu = i;
		ASSERT_EQ(0, pthread_create(&racers[i].thread, NULL, race, &racers[i]));
	}
	usleep(RACE_NS / 1000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < cpus; i++) {
		ASSERT_EQ(0, pthread_join(racers[i].thread, NULL));
		EXPECT_EQ(0, racers[i].err);
	}
	bpf_link__destroy(clock);

	/* The last word of a tracer that fails */
	self->bss->failing = 1;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 1));
	self->bss->failing = 0;
	EXPECT_EQ(0, count_wrong_in_the_end(self));
	TH_LOG("%d CPUs, %llu operations, %u rechecks; events: %u of %u keys are wrong", cpus,
	       self->bss->operations, self->bss->reasons[RECHECK],
	       count_wrong(self->source, self->events), self->bss->hot_keys);
	EXPECT_EQ(0, info_of(self->link).lost);
	EXPECT_LT(0, self->bss->reasons[RECHECK]);
	EXPECT_LT(0, count_wrong(self->source, self->events));
	close(links[0]);
	close(links[1]);
}

/* What was written before is told, though others go on. */
TEST_F(sync, flush_returns_while_others_write)
{
	struct racer racer = { .prog = self->skel->progs.churn };
	__u32 key = NR_KEYS - 1, stop = 0;
	__u64 value, seen;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	if (variant->type == BPF_MAP_TYPE_LRU_HASH)
		key = 100;
	attach(_metadata, self, self->skel->progs.synced);
	self->bss->hot_keys = 4;
	racer.stop = &stop;
	racer.cpu = 1;
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, pthread_create(&racer.thread, NULL, race, &racer));
	for (value = 1; value <= 20; value++) {
		__u64 written = 1000 + value;

		/* As a pointer would: while it fails, nobody is told. */
		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &written, BPF_ANY));
		ASSERT_EQ(0, run_range(self->skel, self->skel->progs.write_through_pointers, key,
				       key + 1));
		ASSERT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
		ASSERT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));
		EXPECT_EQ(written + 1000, seen);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(racer.thread, NULL));
	EXPECT_EQ(0, racer.err);
	EXPECT_EQ(0, count_wrong_in_the_end(self));
}

/* The map goes away while keys of it wait for a tracer that fails. */
TEST_F(sync, keys_that_wait_go_with_the_map)
{
	struct loaded *loaded = note_loaded(self->skel->obj);

	ASSERT_NE(NULL, loaded);
	attach(_metadata, self, self->skel->progs.synced);
	self->bss->failing = 1;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, CAPACITY_LRU / 2));
	close(self->link);
	self->link = -1;
	sync_bpf__destroy(self->skel);
	self->skel = NULL;
	EXPECT_TRUE(loaded_is_gone(loaded));
}

struct poller {
	pthread_t thread;
	int link;
	short revents;
};

#define NEWS_MS 20000

/* Waits for what does not come: an error. A poll(2) that times out looks once more. */
static void *wait_for_news(void *argument)
{
	struct poller *poller = argument;
	struct pollfd pollfd = { .fd = poller->link };
	__u64 begin = now_ns();

	if (poll(&pollfd, 1, NEWS_MS) == 1 && now_ns() - begin < NEWS_MS * 1000000ULL)
		poller->revents = pollfd.revents;
	return NULL;
}

/* Who waits in poll(2) hears of a detach, and the map can go away before. */
TEST_F(sync, detach_wakes_who_waits)
{
	struct loaded *loaded = note_loaded(self->skel->obj);
	struct poller poller = {};

	ASSERT_NE(NULL, loaded);
	attach(_metadata, self, self->skel->progs.synced);
	/* That wakes as well, and must not come after the detach. */
	ASSERT_TRUE(is_replayed(self->link));
	poller.link = self->link;
	ASSERT_EQ(0, pthread_create(&poller.thread, NULL, wait_for_news, &poller));
	usleep(200000);
	sync_bpf__destroy(self->skel);
	self->skel = NULL;
	ASSERT_EQ(0, map_trace_detach(self->link));
	ASSERT_EQ(0, pthread_join(poller.thread, NULL));
	EXPECT_EQ(POLLHUP, poller.revents);
	close(self->link);
	self->link = -1;
	EXPECT_TRUE(loaded_is_gone(loaded));
}

FIXTURE(sync_refused) {
	struct sync_bpf *skel;
};

FIXTURE_SETUP(sync_refused)
{
	ASSERT_EQ(0, map_trace_setup());
	self->skel = sync_bpf__open();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(sync_refused)
{
	sync_bpf__destroy(self->skel);
}

TEST_F(sync_refused, value_has_to_be_checked)
{
	static char log[1 << 16];

	EXPECT_GT(0, load_one_program(self->skel->obj, "unchecked", log, sizeof(log)));
	ASSERT_LOG_HAS(log, "invalid mem access 'rdonly_buf_or_null'");
}

TEST_F(sync_refused, reads_past_the_value_do_not_attach)
{
	static char log[1 << 16];

	ASSERT_EQ(0, load_one_program(self->skel->obj, "reads_past_value", log, sizeof(log)))
		TH_LOG("%s", log);
	EXPECT_EQ(-EACCES, attach_to(self->skel->progs.reads_past_value,
				     self->skel->maps.source));
}

/* Where the value cannot be read as it is, nothing is told. */
TEST_F(sync_refused, values_with_a_resilient_lock_are_not_followed)
{
	ASSERT_EQ(0, sync_bpf__load(self->skel));
	EXPECT_EQ(-EOPNOTSUPP, attach_to(self->skel->progs.synced,
					 self->skel->maps.resilient_source));
}

TEST_HARNESS_MAIN
