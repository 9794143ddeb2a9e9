// SPDX-License-Identifier: GPL-2.0
/*
 * What can go wrong around a sync tracer: its owner is killed, its map is freed, its mirror is
 * full. fault_test.c tests failing allocations, and sync_test.c lost keys.
 */
#include "testing_helpers.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "progs/marks.h"
#include "progs/sync.h"
#include "marks.skel.h"
#include "sync.skel.h"

/* Some time for the worker */
#define SETTLE_MS 120000
/* Maps are freed after grace periods, by a work item. */
#define FREED_AFTER_MS 60000
#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP CGROUP_ROOT "/map_trace_sync_fault"

enum reason { OPERATION, EVICTION, RECHECK, REPLAY, FLUSH };

FIXTURE(sync_fault) {
	struct sync_bpf *skel;
	int link;
};

/* Only these programs of the skeleton: loading takes most of the time. */
static struct sync_bpf *open_sync(void)
{
	struct sync_bpf *skel = sync_bpf__open();
	struct bpf_program *prog;

	if (!skel)
		return NULL;
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.synced ||
					  prog == skel->progs.update_range ||
					  prog == skel->progs.delete_range);
	return skel;
}

FIXTURE_SETUP(sync_fault)
{
	ASSERT_EQ(0, map_trace_setup());
	self->link = -1;
	self->skel = open_sync();
	ASSERT_NE(NULL, self->skel);
}

FIXTURE_TEARDOWN(sync_fault)
{
	int err;

	close(self->link);
	sync_bpf__destroy(self->skel);
	/* Some have removed it themselves. */
	err = map_trace_module_unload_retry(FREED_AFTER_MS);
	EXPECT_TRUE(!err || err == -ENOENT) TH_LOG("rmmod: %s", strerror(-err));
	/* For the tests that follow */
	map_trace_module_load();
}

static bool is_replayed(int link)
{
	struct pollfd pollfd = { .fd = link, .events = POLLIN };

	return poll(&pollfd, 1, SETTLE_MS) == 1 && pollfd.revents == POLLIN;
}

static int run_range(struct sync_bpf *skel, const struct bpf_program *prog, __u32 from, __u32 to)
{
	skel->bss->from = from;
	skel->bss->to = to;
	return run_program(prog, NULL, 0);
}

/* Loads it, and attaches. 0 or a negative errno */
static int load_and_attach(FIXTURE_DATA(sync_fault) *self)
{
	int err = sync_bpf__load(self->skel);

	if (err)
		return err;
	self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
	if (self->link < 0)
		return self->link;
	return is_replayed(self->link) ? 0 : -ETIME;
}

/* How many of the first @keys are in one of the maps only, or with another value */
static __u32 count_wrong(struct sync_bpf *skel, __u32 keys)
{
	__u32 key, wrong = 0;

	for (key = 0; key < keys; key++) {
		__u64 expected = 0, value = 0;
		int absent = bpf_map_lookup_elem(bpf_map__fd(skel->maps.source), &key, &expected);

		wrong += !absent != !bpf_map_lookup_elem(bpf_map__fd(skel->maps.mirror), &key,
							 &value) ||
			 (!absent && expected != value);
	}
	return wrong;
}

static void on_alarm(int signal)
{
}

/* Each run takes its time, and the signal comes between two of them. */
TEST_F(sync_fault, flush_ends_with_a_signal)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval soon = { .it_value.tv_usec = 500000 };
	__u64 began, took, left = 1;

	ASSERT_EQ(0, load_and_attach(self));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 200));
	/* Not started again by the kernel */
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	self->skel->bss->delay_ns = 100 * NSEC_PER_MSEC;
	began = now_ns();
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &soon, NULL));
	EXPECT_EQ(-EINTR, map_trace_flush(self->link, NULL, 0, 0, &left));
	took = now_ns() - began;
	EXPECT_LT(took, 15 * NSEC_PER_SEC);
	EXPECT_EQ(0, left);
	self->skel->bss->delay_ns = 0;
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, &left));
	EXPECT_EQ(0, count_wrong(self->skel, 200));
}

/* It has keys of its own. When they go, what had no room is told again. */
TEST_F(sync_fault, mirror_that_is_full_catches_up)
{
	const __u32 room = 4, keys = 20;
	__u64 value = 1, end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	struct map_trace_info info;
	int mirror;
	__u32 key;

	ASSERT_EQ(0, load_and_attach(self));
	mirror = bpf_map__fd(self->skel->maps.mirror);
	for (key = 1000; key < 1000 + NR_KEYS - room; key++)
		ASSERT_EQ(0, bpf_map_update_elem(mirror, &key, &value, BPF_ANY));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, keys));
	EXPECT_EQ(keys - room, count_wrong(self->skel, keys));
	while (!map_trace_get_info(self->link, &info) && info.pending != keys - room &&
	       now_ns() < end)
		usleep(10000);
	EXPECT_EQ(keys - room, info.pending);
	/* A flush can do no better, and says so. */
	EXPECT_EQ(-EAGAIN, map_trace_flush(self->link, NULL, 0, 0, &value));
	EXPECT_EQ(keys - room, value);

	for (key = 1000; key < 1000 + NR_KEYS - room; key++)
		ASSERT_EQ(0, bpf_map_delete_elem(mirror, &key));
	while (count_wrong(self->skel, keys) && now_ns() < end)
		usleep(10000);
	EXPECT_EQ(0, count_wrong(self->skel, keys));
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(0, info.lost);
}

/* The module stays as long as the link, and goes whatever the worker has left to do. */
TEST_F(sync_fault, module_goes_while_keys_are_pending)
{
	ASSERT_EQ(0, load_and_attach(self));
	EXPECT_EQ(-EWOULDBLOCK, map_trace_module_unload());
	/* The worker has something to do from here on. */
	self->skel->bss->failing = 1;
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 100));
	EXPECT_EQ(-EWOULDBLOCK, map_trace_module_unload());
	ASSERT_EQ(0, map_trace_detach(self->link));
	EXPECT_EQ(-EWOULDBLOCK, map_trace_module_unload());
	close(self->link);
	self->link = -1;
	/* With the map still there */
	EXPECT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
	ASSERT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 100));
}

/* What the process that is killed has, and how far it is. In memory of both */
struct victim {
	__u32 ready, go, done;
	__u32 maps[2], program;
	int err;
};

static struct victim *new_victim(void)
{
	struct victim *victim = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return victim == MAP_FAILED ? NULL : victim;
}

/* Has the worker busy with keys that cannot be told, and a flush that takes long */
static void be_busy(FIXTURE_DATA(sync_fault) *self, struct victim *victim)
{
	struct sync_bpf *skel = self->skel;

	victim->err = load_and_attach(self) ?:
		      run_range(skel, skel->progs.update_range, 0, 400);
	if (!victim->err) {
		victim->maps[0] = id_of_map(bpf_map__fd(skel->maps.source));
		victim->maps[1] = id_of_map(bpf_map__fd(skel->maps.mirror));
		victim->program = id_of_program(bpf_program__fd(skel->progs.synced));
		skel->bss->delay_ns = 20 * NSEC_PER_MSEC;
		skel->bss->failing = 1;
		victim->err = run_range(skel, skel->progs.delete_range, 0, 20);
	}
	/* The worker is at it. */
	if (!victim->err && !wait_for_flag(&skel->bss->reasons[RECHECK], SETTLE_MS))
		victim->err = -ETIME;
	__atomic_store_n(&victim->ready, 1, __ATOMIC_SEQ_CST);
	map_trace_flush(self->link, NULL, 0, 0, NULL);
	for (;;)
		pause();
}

TEST_F(sync_fault, owner_is_killed_while_the_worker_runs)
{
	struct victim *victim = new_victim();
	__u64 began;
	pid_t pid;

	ASSERT_NE(NULL, victim);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		be_busy(self, victim);
	EXPECT_TRUE(wait_for_flag(&victim->ready, SETTLE_MS));
	EXPECT_EQ(0, victim->err);
	/* Into the flush */
	usleep(200000);
	began = now_ns();
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_LT(now_ns() - began, 20 * NSEC_PER_SEC);
	EXPECT_TRUE(is_gone(bpf_prog_get_next_id, victim->program));
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, victim->maps[0]));
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, victim->maps[1]));
	EXPECT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
}

/* Writes through a pointer when it is told to, and the worker waits for all programs. */
static void write_and_wait(struct victim *victim)
{
	struct marks_bpf *skel = marks_bpf__open();
	struct bpf_program *prog;
	__u64 value = 1;
	int link;

	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.synced ||
					  prog == skel->progs.stores_in_tracepoint);
	victim->err = marks_bpf__load(skel);
	if (!victim->err) {
		victim->maps[0] = id_of_map(bpf_map__fd(skel->maps.source));
		victim->maps[1] = id_of_map(bpf_map__fd(skel->maps.mirror));
		victim->program = id_of_program(bpf_program__fd(skel->progs.synced));
		victim->err = bpf_map_update_elem(bpf_map__fd(skel->maps.source),
						  &skel->bss->key, &value, BPF_ANY);
		link = attach_to(skel->progs.synced, skel->maps.source);
		if (link < 0 || !is_replayed(link))
			victim->err = -EIO;
	}
	__atomic_store_n(&victim->ready, 1, __ATOMIC_SEQ_CST);
	wait_for_flag(&victim->go, SETTLE_MS);
	skel->bss->new_value = 7;
	victim->err = victim->err ?: run_program(skel->progs.stores_in_tracepoint, NULL, 0);
	/* The worker has begun to wait. */
	usleep(500000);
	value = 0;
	bpf_map_lookup_elem(bpf_map__fd(skel->maps.mirror), &skel->bss->key, &value);
	if (value != 1)
		victim->err = victim->err ?: -EILSEQ;
	__atomic_store_n(&victim->done, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

static void *run_in_thread(void *prog)
{
	run_program(prog, NULL, 0);
	return NULL;
}

/* The owner, its maps and the module go, and that program goes on. */
TEST_F(sync_fault, owner_is_killed_while_a_program_never_ends)
{
	struct victim *victim = new_victim();
	struct marks_bpf *skel = marks_bpf__open();
	struct bpf_program *prog;
	pthread_t thread;
	__u64 value = 1;
	pid_t pid;

	ASSERT_NE(NULL, victim);
	ASSERT_NE(NULL, skel);
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.store_when_released);
	ASSERT_EQ(0, marks_bpf__load(skel));
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.source), &skel->bss->key, &value,
					 BPF_ANY));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		write_and_wait(victim);
	/* An attach would wait for the program. */
	EXPECT_TRUE(wait_for_flag(&victim->ready, SETTLE_MS));
	ASSERT_EQ(0, pthread_create(&thread, NULL, run_in_thread,
				    skel->progs.store_when_released));
	EXPECT_TRUE(wait_for_flag(&skel->bss->held, SETTLE_MS));
	__atomic_store_n(&victim->go, 1, __ATOMIC_SEQ_CST);
	EXPECT_TRUE(wait_for_flag(&victim->done, SETTLE_MS));
	EXPECT_EQ(0, victim->err);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_TRUE(is_gone(bpf_prog_get_next_id, victim->program));
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, victim->maps[0]));
	EXPECT_TRUE(is_gone(bpf_map_get_next_id, victim->maps[1]));
	EXPECT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
	/* It still runs. */
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(skel->maps.source), &skel->bss->key, &value));
	EXPECT_EQ(1, value);
	skel->bss->released = 1;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	marks_bpf__destroy(skel);
}

static int enter_cgroup(const char *path)
{
	char file[128], pid[16];

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	snprintf(pid, sizeof(pid), "%d", getpid());
	return write_proc(file, pid, NULL, 0);
}

/* Whose memory it is counted as is gone before the map is. */
TEST_F(sync_fault, cgroup_of_the_owner_goes)
{
	if (access(CGROUP_ROOT "/cgroup.procs", F_OK))
		ASSERT_EQ(0, mount("cgroup2", CGROUP_ROOT, "cgroup2", 0, NULL));
	ASSERT_EQ(0, write_proc(CGROUP_ROOT "/cgroup.subtree_control", "+memory", NULL, 0));
	ASSERT_EQ(0, mkdir(CGROUP, 0700));
	ASSERT_EQ(0, enter_cgroup(CGROUP));
	EXPECT_EQ(0, load_and_attach(self));
	EXPECT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 0, 50));
	ASSERT_EQ(0, enter_cgroup(CGROUP_ROOT));
	ASSERT_EQ(0, rmdir(CGROUP)) TH_LOG("rmdir: %s", strerror(errno));

	self->skel->bss->failing = 1;
	EXPECT_EQ(0, run_range(self->skel, self->skel->progs.update_range, 50, 100));
	self->skel->bss->failing = 0;
	EXPECT_EQ(0, map_trace_flush(self->link, NULL, 0, 0, NULL));
	EXPECT_EQ(0, count_wrong(self->skel, 100));
	/* What is allocated now is counted as the parent's. */
	close(self->link);
	self->link = attach_to(self->skel->progs.synced, self->skel->maps.source);
	ASSERT_LE(0, self->link);
	EXPECT_TRUE(is_replayed(self->link));
}

TEST_HARNESS_MAIN
