// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 2 and defect 7 of the RFC: when BPF_LINK_CREATE returns, every later operation runs
 * the tracer, and every earlier one has finished. The attach waits for operations that began
 * before it, and may or may not run the tracer.
 */
#include "testing_helpers.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "blocking_page.h"
#include "progs/operation.h"
#include "barrier.skel.h"

/* How long a program spins: at least this, and this many times an attach */
#define SPIN_MS 300
#define SPIN_ATTACHES 5
/* How long a barrier gets to show that it is none */
#define TOO_EARLY_MS 300

FIXTURE(barrier) {
	struct barrier_bpf *skel;
	struct blocking_page page;
};

FIXTURE_SETUP(barrier)
{
	__u64 began_ns, attach_ns;
	int link;

	ASSERT_EQ(0, map_trace_setup());
	self->skel = barrier_bpf__open_and_load();
	ASSERT_NE(NULL, self->skel);
	self->skel->bss->spin_ns = SPIN_MS * NSEC_PER_MSEC;
	self->skel->bss->pid = getpid();

	/* An attach that takes that long by itself would be no proof of anything. */
	began_ns = now_ns();
	link = attach_to(self->skel->progs.trace_update, self->skel->maps.source);
	ASSERT_LE(0, link);
	attach_ns = now_ns() - began_ns;
	close(link);
	if (self->skel->bss->spin_ns < SPIN_ATTACHES * attach_ns)
		self->skel->bss->spin_ns = SPIN_ATTACHES * attach_ns;
}

FIXTURE_TEARDOWN(barrier)
{
	barrier_bpf__destroy(self->skel);
}

struct runner {
	const struct bpf_program *prog;
	int ret;
};

static void *run(void *argument)
{
	struct runner *runner = argument;

	runner->ret = run_program(runner->prog, NULL, 0);
	return NULL;
}

struct attacher {
	struct barrier_bpf *skel;
	int link;
	__u64 returned_ns;
	__u32 returned;
};

static void *attach(void *argument)
{
	struct attacher *attacher = argument;

	attacher->link = attach_to(attacher->skel->progs.trace_update,
				   attacher->skel->maps.source);
	attacher->returned_ns = now_ns();
	__atomic_store_n(&attacher->returned, 1, __ATOMIC_RELEASE);
	return NULL;
}

static __s64 update(struct barrier_bpf *skel, __u32 key)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

static void spinning_program(struct __test_metadata *_metadata, struct barrier_bpf *skel,
			     const struct bpf_program *prog)
{
	struct runner runner = { .prog = prog };
	struct attacher attacher = { .skel = skel };
	__u64 traced, began_ns;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, run, &runner));
	ASSERT_TRUE(wait_for_flag(&skel->bss->entered, 10000));
	began_ns = now_ns();
	attach(&attacher);
	ASSERT_LE(0, attacher.link) TH_LOG("attach: %s", strerror(-attacher.link));

	EXPECT_NE(0, skel->bss->left_ns)
		TH_LOG("attached after %llu us, the program still runs",
		       (attacher.returned_ns - began_ns) / 1000);
	EXPECT_LE(skel->bss->left_ns, attacher.returned_ns);
	/* Its update took place, traced or not, but not half of it. */
	EXPECT_EQ(0, skel->data->update_ret);
	traced = skel->bss->traced;
	EXPECT_GE(1, traced);

	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, runner.ret);
	/* Else there was less to wait for than this test is about. */
	EXPECT_LE(skel->bss->spin_ns, skel->bss->spun_ns);
	/* What comes later is traced. */
	ASSERT_EQ(0, update(skel, 10));
	EXPECT_EQ(traced + 1, skel->bss->traced);
	close(attacher.link);
}

TEST_F(barrier, defect_7_attach_waits_for_a_program_under_rcu)
{
	spinning_program(_metadata, self->skel, self->skel->progs.spin_then_update);
}

TEST_F(barrier, contract_2_attach_waits_for_a_sleepable_program)
{
	spinning_program(_metadata, self->skel, self->skel->progs.spin_sleepable_then_update);
}

static void *call_getpgid(void *argument)
{
	return (void *)syscall(__NR_getpgid, 0);
}

TEST_F(barrier, attach_waits_for_a_program_that_sleeps_in_fentry)
{
	struct attacher attacher = { .skel = self->skel };
	pthread_t sleeper, thread;
	struct bpf_link *fentry;
	__u64 traced;
	int err;

	err = blocking_page_create(&self->page);
	ASSERT_EQ(0, err) TH_LOG("FUSE: %s", strerror(-err));
	self->skel->bss->user_page = self->page.address;
	fentry = bpf_program__attach(self->skel->progs.sleep_then_update);
	ASSERT_NE(NULL, fentry);

	ASSERT_EQ(0, pthread_create(&sleeper, NULL, call_getpgid, NULL));
	ASSERT_EQ(0, blocking_page_wait(&self->page, 10000));
	ASSERT_EQ(1, self->skel->bss->entered);

	/* The program sleeps now, for as long as this test likes. */
	ASSERT_EQ(0, pthread_create(&thread, NULL, attach, &attacher));
	EXPECT_FALSE(wait_for_flag(&attacher.returned, TOO_EARLY_MS))
		TH_LOG("attached while a program slept that began before");
	EXPECT_EQ(0, self->skel->bss->left_ns);

	ASSERT_EQ(0, blocking_page_release(&self->page));
	ASSERT_EQ(0, pthread_join(sleeper, NULL));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_LE(0, attacher.link) TH_LOG("attach: %s", strerror(-attacher.link));
	EXPECT_EQ(0, self->skel->data->copy_ret);
	EXPECT_EQ(0, self->skel->data->update_ret);
	EXPECT_NE(0, self->skel->bss->left_ns);
	EXPECT_LE(self->skel->bss->left_ns, attacher.returned_ns);

	traced = self->skel->bss->traced;
	EXPECT_GE(1, traced);
	bpf_link__destroy(fentry);
	ASSERT_EQ(0, update(self->skel, 10));
	EXPECT_EQ(traced + 1, self->skel->bss->traced);
	close(attacher.link);
}

TEST_HARNESS_MAIN
