// SPDX-License-Identifier: GPL-2.0
/*
 * The layouts for which Documentation/migration.rst has advice. The tests named control_* show
 * what happens without the advice.
 */
#include "testing_helpers.h"

#include <poll.h>

#include "progs/upgrade_layouts.h"
#include "upgrade_conns.skel.h"
#include "upgrade_counters.skel.h"
#include "upgrade_datagrams.skel.h"
#include "upgrade_flows.skel.h"
#include "upgrade_globals_new.skel.h"
#include "upgrade_globals_old.skel.h"
#include "upgrade_hosts.skel.h"

#define SETTLE_MS 60000

/* Attaches a sync tracer and waits for its replay. Returns its link, or a negative errno */
static int follow_with(const struct bpf_program *prog, const struct bpf_map *map)
{
	struct pollfd replayed = { .events = POLLIN };
	int link = attach_to(prog, map);

	if (link < 0)
		return link;
	replayed.fd = link;
	if (poll(&replayed, 1, SETTLE_MS) == 1 && replayed.revents == POLLIN)
		return link;
	close(link);
	return -ETIMEDOUT;
}

static int flush(int link)
{
	return map_trace_flush(link, NULL, 0, 0, NULL);
}

/* Counters written in place */

FIXTURE(flows) {
	struct upgrade_flows_bpf *skel;
	int flows, flows_v2;
	int link;
};

FIXTURE_SETUP(flows)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = upgrade_flows_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->flows = bpf_map__fd(self->skel->maps.flows);
	self->flows_v2 = bpf_map__fd(self->skel->maps.flows_v2);
}

FIXTURE_TEARDOWN(flows)
{
	close(self->link);
	upgrade_flows_bpf__destroy(self->skel);
}

/* As struct flow_v2 of the programs, which user space takes without its lock */
struct locked_flow {
	__u32 lock;
	__u32 flags;
	__u64 bytes;
	__u64 packets;
};

static int run_tc(const struct bpf_program *prog)
{
	static const char packet[64];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));

	return bpf_prog_test_run_opts(bpf_program__fd(prog), &opts) ? -errno : opts.retval;
}

static int packets(FIXTURE_DATA(flows) *self, const struct bpf_program *prog, __u32 key, int count)
{
	int err = 0;

	self->skel->bss->flow_key = key;
	while (!err && count--)
		err = run_program(prog, NULL, 0);
	return err;
}

static __u64 packets_of(int map, __u32 key)
{
	struct flow flow;

	return bpf_map_lookup_elem(map, &key, &flow) ? ~0ULL : flow.packets;
}

static __u64 packets_of_v2(FIXTURE_DATA(flows) *self, __u32 key)
{
	struct locked_flow flow;

	return bpf_map_lookup_elem_flags(self->flows_v2, &key, &flow, BPF_F_LOCK) ?
	       ~0ULL : flow.packets;
}

/* Into a layout with a lock, which the next version takes */
TEST_F(flows, counts_in_place_arrive_at_a_flush)
{
	self->link = follow_with(self->skel->progs.follow, self->skel->maps.flows);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_EQ(0, packets(self, self->skel->progs.packet, 1, 10));
	ASSERT_EQ(0, packets(self, self->skel->progs.packet, 2, 3));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(10, packets_of_v2(self, 1));
	EXPECT_EQ(3, packets_of_v2(self, 2));

	close(self->link);
	self->link = -1;
	self->skel->bss->flow_key = 1;
	ASSERT_EQ(0, run_tc(self->skel->progs.packet_v2));
	EXPECT_EQ(11, packets_of_v2(self, 1));
}

TEST_F(flows, control_tracers_of_operations_know_the_first_packet)
{
	int map = bpf_map__fd(self->skel->maps.by_operations), links[2];

	links[0] = attach_to(self->skel->progs.updated, self->skel->maps.flows);
	ASSERT_LE(0, links[0]);
	links[1] = attach_to(self->skel->progs.deleted, self->skel->maps.flows);
	ASSERT_LE(0, links[1]);
	ASSERT_EQ(0, packets(self, self->skel->progs.packet, 1, 10));
	EXPECT_EQ(10, packets_of(self->flows, 1));
	EXPECT_EQ(1, packets_of(map, 1));
	close(links[0]);
	close(links[1]);
}

/* User space takes flows out, and what comes after is counted from one. */
TEST_F(flows, what_user_space_takes_out_is_gone)
{
	struct flow flow;
	__u32 key = 1;

	self->link = follow_with(self->skel->progs.follow, self->skel->maps.flows);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, packets(self, self->skel->progs.packet, 1, 10));
	ASSERT_EQ(0, packets(self, self->skel->progs.packet, 2, 10));
	ASSERT_EQ(0, bpf_map_lookup_and_delete_elem(self->flows, &key, &flow));
	EXPECT_EQ(10, flow.packets);
	EXPECT_EQ(~0ULL, packets_of_v2(self, 1));
	ASSERT_EQ(0, packets(self, self->skel->progs.packet, 1, 4));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(4, packets_of_v2(self, 1));
	EXPECT_EQ(10, packets_of_v2(self, 2));
}

TEST_F(flows, write_through_a_pointer_of_another_key)
{
	__u32 key = 1;
	struct flow flow = { .packets = 1 };

	self->link = follow_with(self->skel->progs.follow, self->skel->maps.flows);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, bpf_map_update_elem(self->flows, &key, &flow, BPF_ANY));
	ASSERT_EQ(0, run_program(self->skel->progs.write_through_old_pointer, NULL, 0));
	ASSERT_EQ(7, packets_of(self->flows, 2)) TH_LOG("the element was not used again");
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(7, packets_of_v2(self, 2));
	EXPECT_EQ(~0ULL, packets_of_v2(self, 1));
}

/* mirror += value is right for updates. A state comes as often as it is told. */
TEST_F(flows, control_a_tracer_of_states_that_adds_is_wrong)
{
	int updates = bpf_map__fd(self->skel->maps.sums_of_updates);
	int states = bpf_map__fd(self->skel->maps.sums_of_states);
	struct flow flow = { .packets = 5 };
	__u32 key = 1;
	int link;

	link = attach_to(self->skel->progs.add_update, self->skel->maps.flows);
	ASSERT_LE(0, link);
	self->link = follow_with(self->skel->progs.add_state, self->skel->maps.flows);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, bpf_map_update_elem(self->flows, &key, &flow, BPF_ANY));
	ASSERT_EQ(0, bpf_map_update_elem(self->flows, &key, &flow, BPF_ANY));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(10, packets_of(updates, 1));
	EXPECT_LT(10, packets_of(states, 1));
	close(link);
}

/* Values that grow, by a scratch value for each CPU */

FIXTURE(datagrams) {
	struct upgrade_datagrams_bpf *skel;
	int link;
};

FIXTURE_SETUP(datagrams)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = upgrade_datagrams_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(datagrams)
{
	close(self->link);
	upgrade_datagrams_bpf__destroy(self->skel);
}

/* How many datagrams are in one of the maps only, or with another content */
static int wrong_datagrams(FIXTURE_DATA(datagrams) *self, const struct bpf_map *map_v2)
{
	int map = bpf_map__fd(self->skel->maps.datagrams), wrong = 0;
	static struct datagram old;
	static struct datagram_v2 new;
	__u32 key;

	for (key = 0; key < NR_DATAGRAMS; key++) {
		bool absent = bpf_map_lookup_elem(map, &key, &old);

		wrong += absent != !!bpf_map_lookup_elem(bpf_map__fd(map_v2), &key, &new) ||
			 (!absent && (old.tag != new.tag ||
				      memcmp(old.data, new.data, sizeof(old.data))));
	}
	return wrong;
}

TEST_F(datagrams, large_values_follow)
{
	const struct bpf_map *map_v2 = self->skel->maps.datagrams_v2;

	self->link = follow_with(self->skel->progs.follow, self->skel->maps.datagrams);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	self->skel->bss->datagram_key = 3;
	ASSERT_EQ(0, run_program(self->skel->progs.receive_in_task, NULL, 0));
	EXPECT_EQ(0, wrong_datagrams(self, map_v2));
	ASSERT_EQ(0, run_program(self->skel->progs.fragment, NULL, 0));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(0, wrong_datagrams(self, map_v2));
}

/* An interrupt comes while the scratch is in use, and runs the tracer for another key. */
static void interrupt(struct __test_metadata *_metadata, FIXTURE_DATA(datagrams) *self,
		      const struct bpf_program *prog)
{
	struct bpf_link *clock;
	int clock_fd, i;

	ASSERT_EQ(0, pin_to_cpu(0));
	self->link = follow_with(prog, self->skel->maps.datagrams);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	self->skel->bss->delay_ns = 5 * NSEC_PER_MSEC;
	clock_fd = open_cpu_clock(0, -1);
	ASSERT_LE(0, clock_fd) TH_LOG("perf event: %s", strerror(-clock_fd));
	clock = bpf_program__attach_perf_event(self->skel->progs.receive_in_interrupt, clock_fd);
	ASSERT_NE(NULL, clock);
	for (i = 0; i < NR_DATAGRAMS - 1; i++) {
		self->skel->bss->datagram_key = i;
		ASSERT_EQ(0, run_program(self->skel->progs.receive_in_task, NULL, 0));
	}
	bpf_link__destroy(clock);
	self->skel->bss->delay_ns = 0;
	EXPECT_LT(0, self->skel->bss->interrupts);
}

TEST_F(datagrams, scratch_that_is_taken_is_left_alone)
{
	int err, i;

	interrupt(_metadata, self, self->skel->progs.follow);
	EXPECT_LT(0, self->skel->bss->taken);
	/* What has failed in an operation meanwhile makes a flush fail, and it is done again. */
	for (i = 0; i < 10; i++) {
		err = flush(self->link);
		if (err != -EAGAIN)
			break;
	}
	EXPECT_EQ(0, err);
	EXPECT_EQ(0, wrong_datagrams(self, self->skel->maps.datagrams_v2));
}

/* Before a flush, which tells them again while nobody interrupts */
TEST_F(datagrams, control_scratch_that_is_shared_mixes_values)
{
	interrupt(_metadata, self, self->skel->progs.follow_sharing);
	EXPECT_LT(0, wrong_datagrams(self, self->skel->maps.mixed_v2));
}

/* Timers */

FIXTURE(conns) {
	struct upgrade_conns_bpf *skel;
	int conns, conns_v2;
	int link;
};

FIXTURE_SETUP(conns)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = upgrade_conns_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->conns = bpf_map__fd(self->skel->maps.conns);
	self->conns_v2 = bpf_map__fd(self->skel->maps.conns_v2);
}

FIXTURE_TEARDOWN(conns)
{
	close(self->link);
	upgrade_conns_bpf__destroy(self->skel);
}

struct conn_old {
	__u64 timer[2];
	__u64 last_seen;
	__u64 packets;
};

struct conn_new {
	__u64 packets;
	__u64 last_seen;
	__u64 timer[2];
};

static int conn_packets(FIXTURE_DATA(conns) *self, __u32 from, __u32 to)
{
	int err = 0;

	for (; !err && from < to; from++) {
		self->skel->bss->conn_key = from;
		err = run_program(self->skel->progs.packet, NULL, 0);
	}
	return err;
}

static int conns_in(int map)
{
	__u32 key, *previous = NULL;
	int count = 0;

	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		count++;
	}
	return count;
}

static bool wait_for_count(const volatile __u32 *counter, __u32 count)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < count) {
		if (now_ns() > end)
			return false;
		usleep(10000);
	}
	return true;
}

static int wrong_conns(FIXTURE_DATA(conns) *self)
{
	struct conn_old old;
	struct conn_new new;
	int wrong = 0;
	__u32 key;

	for (key = 0; key < NR_CONNS; key++) {
		bool absent = bpf_map_lookup_elem(self->conns, &key, &old);

		wrong += absent != !!bpf_map_lookup_elem(self->conns_v2, &key, &new) ||
			 (!absent && (old.packets != new.packets ||
				      old.last_seen != new.last_seen));
	}
	return wrong;
}

/* What the timers of the old version end, and what packets have kept alive in place */
TEST_F(conns, timers_of_the_old_version_go_on)
{
	self->link = follow_with(self->skel->progs.follow, self->skel->maps.conns);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	ASSERT_EQ(0, conn_packets(self, 0, 4));
	ASSERT_EQ(0, conn_packets(self, 0, 2));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(0, wrong_conns(self));
	ASSERT_TRUE(wait_for_count(&self->skel->bss->ended, 4));
	EXPECT_EQ(0, conns_in(self->conns));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(0, conns_in(self->conns_v2));
	EXPECT_EQ(0, self->skel->bss->told_timers);
}

/* After the last update by the tracer */
TEST_F(conns, timers_are_made_again_in_the_new_map)
{
	self->link = follow_with(self->skel->progs.follow, self->skel->maps.conns);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, conn_packets(self, 0, 4));
	ASSERT_EQ(0, flush(self->link));
	close(self->link);
	self->link = -1;
	ASSERT_EQ(0, run_program(self->skel->progs.arm_all, NULL, 0));
	EXPECT_EQ(4, self->skel->bss->armed);
	EXPECT_TRUE(wait_for_count(&self->skel->bss->ended_v2, 4));
	EXPECT_EQ(0, conns_in(self->conns_v2));
}

/* Before: another element takes the place of the one that has the timer. */
TEST_F(conns, control_timers_made_before_the_last_flush_are_gone)
{
	self->link = follow_with(self->skel->progs.follow, self->skel->maps.conns);
	ASSERT_LE(0, self->link);
	ASSERT_EQ(0, conn_packets(self, 0, 4));
	ASSERT_EQ(0, run_program(self->skel->progs.arm_all, NULL, 0));
	EXPECT_EQ(4, self->skel->bss->armed);
	ASSERT_EQ(0, flush(self->link));
	close(self->link);
	self->link = -1;
	ASSERT_TRUE(wait_for_count(&self->skel->bss->ended, 4));
	usleep(IDLE_NS / 1000);
	EXPECT_EQ(0, self->skel->bss->ended_v2);
	EXPECT_EQ(4, conns_in(self->conns_v2));
}

/* Global variables of the program that is replaced */
TEST(globals_follow_at_a_flush)
{
	struct upgrade_globals_old_bpf *old;
	struct upgrade_globals_new_bpf *new;
	int link, i;

	ASSERT_EQ(0, map_trace_setup());
	old = upgrade_globals_old_bpf__open_and_load();
	ASSERT_NE(NULL, old);
	new = upgrade_globals_new_bpf__open();
	ASSERT_NE(NULL, new);
	ASSERT_EQ(0, bpf_map__reuse_fd(new->maps.old_globals, bpf_map__fd(old->maps.bss)));
	ASSERT_EQ(0, upgrade_globals_new_bpf__load(new));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, run_program(old->progs.packet, NULL, 0));
	link = follow_with(new->progs.follow, new->maps.old_globals);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	EXPECT_EQ(3, new->bss->packets);

	/* By the program, and by user space through mmap(2): nobody is told of either. */
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, run_program(old->progs.packet, NULL, 0));
	old->bss->bytes += 11;
	EXPECT_EQ(3, new->bss->packets);
	ASSERT_EQ(0, flush(link));
	EXPECT_EQ(6, new->bss->packets);
	EXPECT_EQ(611, new->bss->bytes);
	EXPECT_EQ(0, new->bss->ipv6);
	close(link);
	upgrade_globals_new_bpf__destroy(new);
	upgrade_globals_old_bpf__destroy(old);
}

/* LRUs */

FIXTURE(hosts) {
	struct upgrade_hosts_bpf *skel;
	int link, evictions;
};

FIXTURE_SETUP(hosts)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->evictions = -1;
	self->skel = upgrade_hosts_bpf__open();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(hosts)
{
	close(self->evictions);
	close(self->link);
	upgrade_hosts_bpf__destroy(self->skel);
}

static void load_hosts(struct __test_metadata *_metadata, FIXTURE_DATA(hosts) *self,
		       __u32 flags_v2, __u32 entries_v2)
{
	ASSERT_EQ(0, bpf_map__set_map_flags(self->skel->maps.hosts_v2, flags_v2));
	ASSERT_EQ(0, bpf_map__set_max_entries(self->skel->maps.hosts_v2, entries_v2));
	ASSERT_EQ(0, upgrade_hosts_bpf__load(self->skel));
	self->evictions = attach_to(self->skel->progs.count_evictions,
				    self->skel->maps.hosts_v2);
	ASSERT_LE(0, self->evictions);
}

/* How many of the first keys are in one map and not in the other, or with another value */
static __u32 wrong_hosts(FIXTURE_DATA(hosts) *self)
{
	int map = bpf_map__fd(self->skel->maps.hosts);
	int map_v2 = bpf_map__fd(self->skel->maps.hosts_v2);
	__u64 value, value_v2;
	__u32 key, wrong = 0;

	for (key = 0; key < NR_HOSTS; key++) {
		bool absent = bpf_map_lookup_elem(map, &key, &value);

		wrong += absent != !!bpf_map_lookup_elem(map_v2, &key, &value_v2) ||
			 (!absent && value != value_v2);
	}
	return wrong;
}

static void fill_and_follow(struct __test_metadata *_metadata, FIXTURE_DATA(hosts) *self,
			    __u32 keys)
{
	self->skel->bss->nr_keys = keys;
	ASSERT_EQ(0, run_program(self->skel->progs.fill, NULL, 0));
	self->link = follow_with(self->skel->progs.follow, self->skel->maps.hosts);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
}

/* Evictions are told some time later. */
static bool wait_for_evictions(FIXTURE_DATA(hosts) *self, __u32 count)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	while (__atomic_load_n(&self->skel->bss->given_up, __ATOMIC_ACQUIRE) < count) {
		if (now_ns() > end)
			return false;
		usleep(10000);
	}
	return true;
}

TEST_F(hosts, control_lists_of_each_cpu_keep_a_share)
{
	__u32 wrong;

	if (online_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	load_hosts(_metadata, self, BPF_F_NO_COMMON_LRU, NR_HOSTS);
	fill_and_follow(_metadata, self, NR_HOSTS);
	wrong = wrong_hosts(self);
	TH_LOG("%u of %u elements are missing", wrong, NR_HOSTS);
	EXPECT_LT(0, wrong);
	EXPECT_TRUE(wait_for_evictions(self, wrong));
}

TEST_F(hosts, lists_of_each_cpu_with_room_for_all)
{
	load_hosts(_metadata, self, BPF_F_NO_COMMON_LRU, NR_HOSTS * libbpf_num_possible_cpus());
	fill_and_follow(_metadata, self, NR_HOSTS);
	EXPECT_EQ(0, wrong_hosts(self));
	EXPECT_EQ(0, self->skel->bss->given_up);
}

TEST_F(hosts, common_list_with_room_to_spare)
{
	load_hosts(_metadata, self, 0, NR_HOSTS + 128 * libbpf_num_possible_cpus());
	fill_and_follow(_metadata, self, NR_HOSTS);
	EXPECT_EQ(0, wrong_hosts(self));
	EXPECT_EQ(0, self->skel->bss->given_up);
}

/* 4 entries, 6 keys in turn, one of them again and again */
TEST_F(hosts, small_lru_is_followed)
{
	int map, i;

	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.hosts, BPF_MAP_TYPE_LRU_HASH));
	ASSERT_EQ(0, bpf_map__set_max_entries(self->skel->maps.hosts, 4));
	ASSERT_EQ(0, bpf_map__set_type(self->skel->maps.hosts_v2, BPF_MAP_TYPE_HASH));
	load_hosts(_metadata, self, 0, NR_HOSTS);
	map = bpf_map__fd(self->skel->maps.hosts);
	self->link = follow_with(self->skel->progs.follow, self->skel->maps.hosts);
	ASSERT_LE(0, self->link) TH_LOG("attach: %s", strerror(-self->link));
	for (i = 0; i < 60; i++) {
		__u32 key = i % 6, hot = 0;
		__u64 value = i;

		ASSERT_EQ(0, bpf_map_update_elem(map, &key, &value, BPF_ANY));
		ASSERT_EQ(0, bpf_map_update_elem(map, &hot, &value, BPF_ANY));
	}
	EXPECT_GE(4, conns_in(map));
	ASSERT_EQ(0, flush(self->link));
	EXPECT_EQ(0, wrong_hosts(self));
	EXPECT_EQ(conns_in(map), conns_in(bpf_map__fd(self->skel->maps.hosts_v2)));
}

/* Counters of each CPU, which user space sums up */

static __u64 sum(int map, __u32 key)
{
	__u64 values[MAX_CPUS], sum = 0;
	int cpu;

	if (bpf_map_lookup_elem(map, &key, values))
		return 0;
	for (cpu = 0; cpu < libbpf_num_possible_cpus(); cpu++)
		sum += values[cpu];
	return sum;
}

static __u64 sum_v2(int map, __u32 key)
{
	struct counter counter = { .key = key };
	struct flow flow;
	__u64 sum = 0;

	for (; counter.cpu < MAX_CPUS; counter.cpu++)
		if (!bpf_map_lookup_elem(map, &counter, &flow))
			sum += flow.packets;
	return sum;
}

TEST(sums_over_cpus_follow)
{
	int link, map, map_v2, cpus = online_cpus(), cpu, i;
	struct upgrade_counters_bpf *skel;
	__u32 key = 3;

	ASSERT_EQ(0, map_trace_setup());
	ASSERT_GE(MAX_CPUS, libbpf_num_possible_cpus());
	skel = upgrade_counters_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	map = bpf_map__fd(skel->maps.counters);
	map_v2 = bpf_map__fd(skel->maps.counters_v2);
	skel->bss->nr_cpus = libbpf_num_possible_cpus();
	link = follow_with(skel->progs.follow, skel->maps.counters);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	skel->bss->counter_key = key;
	for (cpu = 0; cpu < cpus; cpu++) {
		ASSERT_EQ(0, pin_to_cpu(cpu));
		for (i = 0; i <= cpu; i++)
			ASSERT_EQ(0, run_program(skel->progs.count, NULL, 0));
	}
	ASSERT_EQ(cpus * (cpus + 1) / 2, sum(map, key));
	ASSERT_EQ(0, flush(link));
	EXPECT_EQ(cpus * (cpus + 1) / 2, sum_v2(map_v2, key));
	ASSERT_EQ(0, bpf_map_delete_elem(map, &key));
	EXPECT_EQ(0, sum_v2(map_v2, key));
	close(link);
	upgrade_counters_bpf__destroy(skel);
}

TEST_HARNESS_MAIN
