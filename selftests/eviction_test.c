// SPDX-License-Identifier: GPL-2.0
/* An eviction of an LRU map is a delete: the delete tracers run for it, with that reason. */
#include "testing_helpers.h"

#include "progs/eviction.h"
#include "eviction.skel.h"

/* How many keys wait for each CPU, and how many an operation takes, see delete_queue.rs */
#define KEYS_PER_CPU 256
#define KEYS_PER_OPERATION 8
/* Some time for the worker, which others may keep from its CPU */
#define SETTLE_MS 20000

FIXTURE(eviction) {
	struct eviction_bpf *skel;
	__typeof__(((struct eviction_bpf *)0)->bss) bss;
	int source;
	int link;
};

FIXTURE_VARIANT(eviction) {
	enum bpf_map_type type;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(eviction, lru_hash) {
	.type = BPF_MAP_TYPE_LRU_HASH,
};

FIXTURE_VARIANT_ADD(eviction, lru_hash_of_each_cpu) {
	.type = BPF_MAP_TYPE_LRU_HASH, .flags = BPF_F_NO_COMMON_LRU,
};

FIXTURE_VARIANT_ADD(eviction, lru_percpu_hash) {
	.type = BPF_MAP_TYPE_LRU_PERCPU_HASH,
};

FIXTURE_VARIANT_ADD(eviction, lru_percpu_hash_of_each_cpu) {
	.type = BPF_MAP_TYPE_LRU_PERCPU_HASH, .flags = BPF_F_NO_COMMON_LRU,
};

/* A map of the variant's kind that was never traced */
static int load(FIXTURE_DATA(eviction) *self, const FIXTURE_VARIANT(eviction) *variant)
{
	self->skel = eviction_bpf__open();
	if (!self->skel || bpf_map__set_type(self->skel->maps.source, variant->type) ||
	    bpf_map__set_map_flags(self->skel->maps.source, variant->flags) ||
	    eviction_bpf__load(self->skel))
		return -1;
	self->bss = self->skel->bss;
	self->source = bpf_map__fd(self->skel->maps.source);
	return 0;
}

FIXTURE_SETUP(eviction)
{
	ASSERT_EQ(0, map_trace_setup());
	ASSERT_EQ(0, load(self, variant));
	self->link = attach_to(self->skel->progs.given_up, self->skel->maps.source);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
}

FIXTURE_TEARDOWN(eviction)
{
	close(self->link);
	eviction_bpf__destroy(self->skel);
}

static int fill(struct eviction_bpf *skel, const struct bpf_program *prog, __u32 from, __u32 to)
{
	skel->bss->from = from;
	skel->bss->to = to;
	return run_program(prog, NULL, 0);
}

static bool is_present(int map, __u32 key)
{
	static __u64 values[1024];

	return !bpf_map_lookup_elem(map, &key, values);
}

static __u32 count_present(int map, __u32 nr_keys)
{
	__u32 key, present = 0;

	for (key = 0; key < nr_keys; key++)
		present += is_present(map, key);
	return present;
}

static __u64 missed(int link)
{
	struct map_trace_info info = {};

	return map_trace_get_info(link, &info) ? -1 : info.missed;
}

/* Wait until @expected keys have been told; false if that takes too long */
static bool told(struct eviction_bpf *skel, __u32 expected)
{
	const volatile __u32 *nr_evicted = &skel->bss->nr_evicted;
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	while (*nr_evicted != expected && now_ns() < end)
		usleep(1000);
	/* None comes after the last one. */
	usleep(50000);
	return *nr_evicted == expected;
}

/* Fill without an update tracer, in steps for which there is room in the queue */
static bool fill_in_steps(struct eviction_bpf *skel, __u32 nr_keys)
{
	const __u32 step = KEYS_PER_CPU / 4;
	int map = bpf_map__fd(skel->maps.source);
	__u32 key;

	for (key = 0; key < nr_keys; key += step)
		if (fill(skel, skel->progs.fill_plain, key, key + step) ||
		    !told(skel, key + step - count_present(map, key + step)))
			return false;
	return true;
}

/* Of @nr_keys keys that were inserted once each, each is in the map or was told once. */
static void expect_each_once(struct __test_metadata *_metadata, FIXTURE_DATA(eviction) *self,
			     __u32 nr_keys)
{
	__u32 key, wrong = 0, present = count_present(self->source, nr_keys);

	ASSERT_GE(CAPACITY * libbpf_num_possible_cpus(), present);
	EXPECT_LT(present, nr_keys);
	EXPECT_TRUE(told(self->skel, nr_keys - present))
		TH_LOG("%u keys, %u there, %u told", nr_keys, present, self->bss->nr_evicted);
	for (key = 0; key < nr_keys; key++)
		wrong += self->bss->evicted[key] + is_present(self->source, key) != 1;
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(0, missed(self->link));
	EXPECT_EQ(0, self->bss->nr_other);
	EXPECT_EQ(0, self->bss->wrong_map);
}

/* Only deletes have a tracer: what a program's updates evict is told by the worker. */
TEST_F(eviction, is_told_where_updates_have_no_tracer)
{
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_TRUE(fill_in_steps(self->skel, 2 * CAPACITY));
	EXPECT_EQ(0, self->bss->update_errors);
	expect_each_once(_metadata, self, 2 * CAPACITY);
}

/* A mirror that follows both never has more than the map could have. */
TEST_F(eviction, is_told_before_the_tracers_of_the_operation)
{
	int link = attach_to(self->skel->progs.updated, self->skel->maps.source);

	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_alone, 0, NR_KEYS));
	EXPECT_EQ(0, self->bss->update_errors);
	EXPECT_EQ(NR_KEYS, self->bss->nr_updated);
	EXPECT_GE(CAPACITY, self->bss->most);
	expect_each_once(_metadata, self, NR_KEYS);
	close(link);
}

TEST_F(eviction, operation_takes_a_few_only)
{
	int link = attach_to(self->skel->progs.updated, self->skel->maps.source);

	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_alone, 0, NR_KEYS));
	EXPECT_LT(0, self->bss->burst);
	EXPECT_GE(KEYS_PER_OPERATION, self->bss->burst);
	close(link);
}

TEST_F(eviction, is_told_in_a_sleepable_program)
{
	int link = attach_to(self->skel->progs.updated, self->skel->maps.source);

	ASSERT_LE(0, link);
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_sleepable, 0, NR_KEYS));
	expect_each_once(_metadata, self, NR_KEYS);
	close(link);
}

TEST_F(eviction, by_a_system_call_is_told)
{
	static __u64 values[1024];
	__u32 key;

	for (key = 0; key < 2 * CAPACITY; key++) {
		ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, values, BPF_NOEXIST));
		if (key % 64 == 63)
			ASSERT_TRUE(told(self->skel, key + 1 - count_present(self->source, key + 1)));
	}
	expect_each_once(_metadata, self, 2 * CAPACITY);
}

/* It makes room before it finds out that the key is there. */
TEST_F(eviction, by_an_update_that_fails_is_told)
{
	__u32 nr_keys = CAPACITY, before, after;

	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_TRUE(fill_in_steps(self->skel, nr_keys));
	before = count_present(self->source, nr_keys);
	self->bss->update_flags = BPF_NOEXIST;
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_plain, nr_keys - 1, nr_keys));
	EXPECT_EQ(1, self->bss->update_errors);
	after = count_present(self->source, nr_keys);
	ASSERT_GT(before, after);
	EXPECT_TRUE(told(self->skel, nr_keys - after));
	EXPECT_EQ(0, missed(self->link));
}

/* The map has a list already, of update tracers only. */
TEST_F(eviction, is_told_to_a_delete_tracer_that_comes_second)
{
	int update, delete;

	close(self->link);
	self->link = -1;
	eviction_bpf__destroy(self->skel);
	ASSERT_EQ(0, load(self, variant));
	update = attach_to(self->skel->progs.updated, self->skel->maps.source);
	ASSERT_LE(0, update);
	delete = attach_to(self->skel->progs.given_up, self->skel->maps.source);
	ASSERT_LE(0, delete);
	self->link = delete;
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_plain, 0, NR_KEYS));
	expect_each_once(_metadata, self, NR_KEYS);
	close(update);
}

/* The interrupt evicts while the task below it does, and both while the worker traces. */
TEST_F(eviction, in_an_interrupt_is_told_as_well)
{
	__u32 half = NR_KEYS / 2, key, wrong = 0, total = 0;
	int link = attach_to(self->skel->progs.updated, self->skel->maps.source);
	struct bpf_link *clock;
	__u64 end;
	int fd;

	ASSERT_LE(0, link);
	ASSERT_EQ(0, pin_to_cpu(0));
	self->bss->next_key = half;
	self->bss->end_key = NR_KEYS;
	fd = open_cpu_clock(0, -1);
	ASSERT_LE(0, fd) TH_LOG("perf event: %s", strerror(-fd));
	clock = bpf_program__attach_perf_event(self->skel->progs.insert_in_hardirq, fd);
	ASSERT_NE(NULL, clock);
	end = now_ns() + 5 * NSEC_PER_SEC;
	for (key = 0; key < half && now_ns() < end; key += 16)
		ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_plain, key, key + 16));
	bpf_link__destroy(clock);
	ASSERT_LT(half, self->bss->next_key) TH_LOG("no interrupt came");

	/* An update that finds the lock taken by what it has interrupted fails. */
	usleep(500000);
	for (key = 0; key < NR_KEYS; key++) {
		wrong += self->bss->evicted[key] + is_present(self->source, key) > 1;
		total += self->bss->evicted[key] + is_present(self->source, key);
	}
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(self->bss->nr_updated, total + missed(self->link));
	EXPECT_EQ(0, missed(self->link));
	EXPECT_EQ(0, self->bss->nr_other);
	close(link);
}

/* Nobody takes a key before the queue is full: what has no room is counted. */
TEST_F(eviction, that_finds_no_room_is_missed)
{
	__u32 present, evicted;

	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_alone, 0, NR_KEYS));
	EXPECT_EQ(0, self->bss->update_errors);
	present = count_present(self->source, NR_KEYS);
	evicted = NR_KEYS - present;
	ASSERT_LT(KEYS_PER_CPU, evicted);
	EXPECT_TRUE(told(self->skel, KEYS_PER_CPU)) TH_LOG("told: %u", self->bss->nr_evicted);
	EXPECT_EQ(evicted - KEYS_PER_CPU, missed(self->link));
}

TEST_F(eviction, reason_tells_it_from_a_delete)
{
	__u32 key, nr_keys = 2 * CAPACITY, present;

	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_TRUE(fill_in_steps(self->skel, nr_keys));
	present = count_present(self->source, nr_keys);
	key = nr_keys - 1;
	ASSERT_TRUE(is_present(self->source, key));
	ASSERT_EQ(0, bpf_map_delete_elem(self->source, &key));
	EXPECT_EQ(1, self->bss->deleted[key]);
	EXPECT_EQ(0, self->bss->evicted[key]);
	EXPECT_EQ(nr_keys - present, self->bss->nr_evicted);
}

TEST_F(eviction, is_not_told_after_a_detach)
{
	__u32 before;

	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_plain, 0, NR_KEYS / 2));
	ASSERT_EQ(0, map_trace_detach(self->link));
	before = self->bss->nr_evicted;
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_plain, NR_KEYS / 2, NR_KEYS));
	usleep(100000);
	EXPECT_EQ(before, self->bss->nr_evicted);
}

/* The map goes away while keys of it wait, and while the worker traces them. */
TEST_F(eviction, keys_that_wait_go_with_the_map)
{
	struct loaded *loaded = note_loaded(self->skel->obj);

	ASSERT_NE(NULL, loaded);
	ASSERT_EQ(0, fill(self->skel, self->skel->progs.fill_alone, 0, NR_KEYS));
	close(self->link);
	self->link = -1;
	eviction_bpf__destroy(self->skel);
	self->skel = NULL;
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The worker is in the middle of it, and no program keeps the map. */
TEST_F(eviction, map_goes_while_the_worker_traces)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = variant->flags);
	int map = bpf_map_create(variant->type, "goes", sizeof(__u32), sizeof(__u64), CAPACITY,
				 &opts);
	static __u64 values[1024];
	int link;
	__u32 key, id;

	ASSERT_LE(0, map);
	id = id_of_map(map);
	link = map_trace_attach(bpf_program__fd(self->skel->progs.takes_long), map, DELETE, 0);
	ASSERT_LE(0, link);
	self->bss->hold_ns = NSEC_PER_SEC;
	for (key = 0; key < NR_KEYS && !self->bss->held; key++)
		ASSERT_EQ(0, bpf_map_update_elem(map, &key, values, BPF_ANY));
	ASSERT_TRUE(wait_for_flag(&self->bss->held, SETTLE_MS));
	close(link);
	close(map);
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, id));
}

TEST_HARNESS_MAIN
