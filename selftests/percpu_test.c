// SPDX-License-Identifier: GPL-2.0
/*
 * Maps with a value for each CPU: a tracer runs once for each value that an update wrote, with
 * this value, and the context has the number of its CPU. All of these runs happen on the CPU of
 * the operation.
 */
#include "testing_helpers.h"

#include "progs/operation.h"
#include "basic.skel.h"

#define MAX_CPUS MAX_EVENTS

FIXTURE(percpu) {
	struct basic_bpf *skel;
	int source;
	int update_link;
	int delete_link;
	int cpus;
	int online;
};

FIXTURE_VARIANT(percpu) {
	enum bpf_map_type type;
	bool array;
};

FIXTURE_VARIANT_ADD(percpu, hash) {
	.type = BPF_MAP_TYPE_PERCPU_HASH,
};

FIXTURE_VARIANT_ADD(percpu, lru_hash) {
	.type = BPF_MAP_TYPE_LRU_PERCPU_HASH,
};

FIXTURE_VARIANT_ADD(percpu, array) {
	.type = BPF_MAP_TYPE_PERCPU_ARRAY, .array = true,
};

FIXTURE_SETUP(percpu)
{
	ASSERT_EQ(0, map_trace_setup());
	self->cpus = libbpf_num_possible_cpus();
	self->online = online_cpus();
	ASSERT_LT(0, self->cpus);
	ASSERT_GE(MAX_CPUS, self->cpus);
	self->skel = basic_bpf__open();
	ASSERT_NE(NULL, self->skel);
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.source, variant->type));
	ASSERT_EQ(0, basic_bpf__load(self->skel));
	self->source = bpf_map__fd(self->skel->maps.source);
	self->update_link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, self->update_link) TH_LOG("attach: %s", strerror(-self->update_link));
	self->delete_link = -1;
	if (!variant->array) {
		self->delete_link = attach_to(self->skel->progs.trace_delete,
					      self->skel->maps.source);
		ASSERT_LE(0, self->delete_link);
	}
}

FIXTURE_TEARDOWN(percpu)
{
	close(self->update_link);
	if (self->delete_link >= 0)
		close(self->delete_link);
	basic_bpf__destroy(self->skel);
}

static void expect_slices(struct __test_metadata *_metadata, FIXTURE_DATA(percpu) *self,
			  __u32 key, const __u64 *slices)
{
	__u64 values[MAX_CPUS] = {};
	int cpu;

	ASSERT_EQ(0, bpf_map_lookup_elem(self->source, &key, values));
	for (cpu = 0; cpu < self->cpus; cpu++) {
		EXPECT_EQ(slices[cpu], values[cpu]) TH_LOG("slice of CPU %d", cpu);
	}
}

static void expect_update(struct __test_metadata *_metadata, const struct event *event,
			  __u32 key, __u64 value, __u64 flags, int cpu, int ran_on)
{
	EXPECT_EQ(OPERATION_UPDATE, event->kind);
	EXPECT_EQ(key, event->key);
	EXPECT_EQ(value, event->value);
	EXPECT_EQ(flags, event->flags);
	EXPECT_EQ(cpu, event->cpu);
	EXPECT_EQ(ran_on, event->ran_on);
}

/* One run for each possible CPU, each of them once, with the value of its slice */
static void expect_update_of_all(struct __test_metadata *_metadata, FIXTURE_DATA(percpu) *self,
				 __u32 key, const __u64 *slices, __u64 flags, int ran_on)
{
	const struct event *events = self->skel->bss->events;
	bool seen[MAX_CPUS] = {};
	int i;

	ASSERT_EQ(self->cpus, self->skel->bss->nr_events);
	for (i = 0; i < self->cpus; i++) {
		ASSERT_GT(self->cpus, events[i].cpu);
		EXPECT_FALSE(seen[events[i].cpu]);
		seen[events[i].cpu] = true;
		expect_update(_metadata, &events[i], key, slices[events[i].cpu], flags,
			      events[i].cpu, ran_on);
	}
	self->skel->bss->nr_events = 0;
}

static __s64 operate(FIXTURE_DATA(percpu) *self, __u32 kind, __u32 key, __u64 value, __u64 flags)
{
	struct operation op = { .kind = kind, .key = key, .value = value, .flags = flags };
	int ret = run_program(self->skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

static int update(FIXTURE_DATA(percpu) *self, __u32 key, const __u64 *value, __u64 flags)
{
	return bpf_map_update_elem(self->source, &key, value, flags) ? -errno : 0;
}

static __u64 slice_of(int cpu)
{
	return BPF_F_CPU | (__u64)cpu << 32;
}

TEST_F(percpu, update_by_program_runs_once_for_its_cpu)
{
	__u64 slices[MAX_CPUS] = {};
	int cpu;

	for (cpu = 0; cpu < self->online; cpu++) {
		ASSERT_EQ(0, pin_to_cpu(cpu));
		slices[cpu] = 100 + cpu;
		ASSERT_EQ(0, operate(self, OPERATION_UPDATE, 5, slices[cpu], BPF_ANY));
		ASSERT_EQ(1, self->skel->bss->nr_events);
		expect_update(_metadata, &self->skel->bss->events[0], 5, slices[cpu], BPF_ANY,
			      cpu, cpu);
		expect_slices(_metadata, self, 5, slices);
		self->skel->bss->nr_events = 0;
	}
}

TEST_F(percpu, update_by_syscall_runs_once_for_each_possible_cpu)
{
	__u64 slices[MAX_CPUS];
	int here, cpu;

	for (here = 0; here < self->online; here++) {
		ASSERT_EQ(0, pin_to_cpu(here));
		for (cpu = 0; cpu < self->cpus; cpu++)
			slices[cpu] = 1000 * (here + 1) + cpu;
		ASSERT_EQ(0, update(self, 6, slices, BPF_ANY));
		expect_update_of_all(_metadata, self, 6, slices, BPF_ANY, here);
		expect_slices(_metadata, self, 6, slices);

		/* Nothing changes, but it is an update. */
		ASSERT_EQ(0, update(self, 6, slices, BPF_EXIST));
		expect_update_of_all(_metadata, self, 6, slices, BPF_EXIST, here);
	}
}

TEST_F(percpu, update_of_one_cpu_runs_once_for_that_one)
{
	__u64 slices[MAX_CPUS] = {};
	int here, cpu;

	for (here = 0; here < self->online; here++) {
		ASSERT_EQ(0, pin_to_cpu(here));
		for (cpu = 0; cpu < self->cpus; cpu++) {
			slices[cpu] = 1000 * (here + 1) + cpu;
			ASSERT_EQ(0, update(self, 7, &slices[cpu], slice_of(cpu)));
			ASSERT_EQ(1, self->skel->bss->nr_events);
			expect_update(_metadata, &self->skel->bss->events[0], 7, slices[cpu],
				      slice_of(cpu), cpu, here);
			expect_slices(_metadata, self, 7, slices);
			self->skel->bss->nr_events = 0;
		}
	}
}

TEST_F(percpu, update_of_all_cpus_runs_once_for_each_with_the_same_value)
{
	__u64 slices[MAX_CPUS], value;
	int here, cpu;

	for (here = 0; here < self->online; here++) {
		ASSERT_EQ(0, pin_to_cpu(here));
		value = 77 + here;
		for (cpu = 0; cpu < self->cpus; cpu++)
			slices[cpu] = value;
		ASSERT_EQ(0, update(self, 8, &value, BPF_F_ALL_CPUS));
		expect_update_of_all(_metadata, self, 8, slices, BPF_F_ALL_CPUS, here);
		expect_slices(_metadata, self, 8, slices);
	}
}

/* An element that is not there yet comes with zero in the other slices. */
TEST_F(percpu, insertion_of_one_cpu_is_one_run)
{
	int cpu = self->cpus - 1;
	__u64 slices[MAX_CPUS] = {};

	slices[cpu] = 9;
	ASSERT_EQ(0, update(self, 9, &slices[cpu], slice_of(cpu)));
	ASSERT_EQ(1, self->skel->bss->nr_events);
	expect_update(_metadata, &self->skel->bss->events[0], 9, 9, slice_of(cpu), cpu,
		      self->skel->bss->events[0].ran_on);
	expect_slices(_metadata, self, 9, slices);
}

TEST_F(percpu, batch_runs_once_for_each_element_and_cpu)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	const struct event *events = self->skel->bss->events;
	__u32 keys[] = { 3, 1, 2 }, count = ARRAY_SIZE(keys);
	__u64 values[ARRAY_SIZE(keys) * MAX_CPUS];
	int i, cpu;

	for (i = 0; i < count; i++)
		for (cpu = 0; cpu < self->cpus; cpu++)
			values[i * self->cpus + cpu] = 100 * keys[i] + cpu;
	ASSERT_GE(MAX_EVENTS, count * self->cpus);
	ASSERT_EQ(0, bpf_map_update_batch(self->source, keys, values, &count, &opts));
	ASSERT_EQ(ARRAY_SIZE(keys), count);
	ASSERT_EQ(count * self->cpus, self->skel->bss->nr_events);
	/* In the order of the batch */
	for (i = 0; i < count * self->cpus; i++) {
		__u32 key = keys[i / self->cpus];

		expect_update(_metadata, &events[i], key, 100 * key + events[i].cpu, 0,
			      events[i].cpu, events[i].ran_on);
	}
}

TEST_F(percpu, update_that_is_refused_does_not_run)
{
	__u64 slices[MAX_CPUS] = {};

	EXPECT_EQ(-ERANGE, update(self, 1, slices, slice_of(100000)));
	EXPECT_EQ(-EINVAL, update(self, 1, slices, BPF_F_CPU | BPF_F_ALL_CPUS));
	/* A CPU, but no BPF_F_CPU */
	EXPECT_EQ(-EINVAL, update(self, 1, slices, 1ULL << 32));
	EXPECT_EQ(-EINVAL, update(self, 1, slices, BPF_F_LOCK));
	EXPECT_EQ(-EINVAL, update(self, 1, slices, 1 << 5));
	/* A program has no slice but its own. */
	EXPECT_EQ(-EINVAL, operate(self, OPERATION_UPDATE, 1, 1, slice_of(0)));
	EXPECT_EQ(-EINVAL, operate(self, OPERATION_UPDATE, 1, 1, BPF_F_ALL_CPUS));
	if (variant->array) {
		EXPECT_EQ(-EEXIST, update(self, 1, slices, BPF_NOEXIST));
		EXPECT_EQ(-E2BIG, update(self, 64, slices, BPF_ANY));
		EXPECT_EQ(-E2BIG, update(self, 64, slices, slice_of(0)));
	} else {
		EXPECT_EQ(-ENOENT, update(self, 1, slices, BPF_EXIST));
	}
	EXPECT_EQ(0, self->skel->bss->nr_events);
	ASSERT_EQ(0, update(self, 1, slices, BPF_ANY));
	EXPECT_EQ(self->cpus, self->skel->bss->nr_events);
}

/* An element goes with all of its slices. */
TEST_F(percpu, delete_runs_once)
{
	const struct event *event = &self->skel->bss->events[0];
	__u64 slices[MAX_CPUS] = {};
	__u32 key = 5;
	int way;

	for (way = 0; way < 3; way++) {
		int err;

		ASSERT_EQ(0, update(self, key, slices, BPF_ANY));
		self->skel->bss->nr_events = 0;
		ASSERT_EQ(0, pin_to_cpu(way % self->online));
		switch (way) {
		case 0:
			err = operate(self, OPERATION_DELETE, key, 0, 0);
			break;
		case 1:
			err = bpf_map_delete_elem(self->source, &key) ? -errno : 0;
			break;
		default:
			err = bpf_map_lookup_and_delete_elem(self->source, &key, slices) ?
			      -errno : 0;
		}
		if (variant->array) {
			EXPECT_GT(0, err);
			EXPECT_EQ(0, self->skel->bss->nr_events);
			continue;
		}
		ASSERT_EQ(0, err);
		ASSERT_EQ(1, self->skel->bss->nr_events);
		EXPECT_EQ(OPERATION_DELETE, event->kind);
		EXPECT_EQ(key, event->key);
		EXPECT_EQ(way % self->online, event->cpu);
		EXPECT_EQ(way % self->online, event->ran_on);
	}
}

TEST_HARNESS_MAIN
