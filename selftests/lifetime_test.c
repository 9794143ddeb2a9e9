// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and removing the module. No test here keeps a link, so each test begins with a
 * module that can be removed.
 */
#include "testing_helpers.h"

#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>

#include "progs/operation.h"
#include "progs/prog_load.h"
#include "basic.skel.h"
#include "marks.skel.h"
#include "prog_load.skel.h"

#define MODPROBE "/proc/sys/kernel/modprobe"
/* Links are freed after a grace period. */
#define FREED_AFTER_MS 60000
/* Some time for the worker */
#define SETTLE_MS 120000
/* What returns at once has returned. */
#define BLOCKED_US 2000000

static char log_buf[1 << 16];

FIXTURE(lifetime) {
	char modprobe[256];
};

FIXTURE_SETUP(lifetime)
{
	int err;

	ASSERT_EQ(0, map_trace_register());
	/* Nothing loads the module behind the test's back. */
	ASSERT_EQ(0, write_proc(MODPROBE, "", self->modprobe, sizeof(self->modprobe)));
	err = map_trace_module_unload_retry(FREED_AFTER_MS);
	ASSERT_TRUE(!err || err == -ENOENT) TH_LOG("rmmod: %s", strerror(-err));
	ASSERT_FALSE(map_trace_module_loaded());
}

FIXTURE_TEARDOWN(lifetime)
{
	write_proc(MODPROBE, self->modprobe, NULL, 0);
	/* For the tests that follow */
	map_trace_module_load();
}

static __s64 operate(struct basic_bpf *skel, __u32 kind, __u32 key)
{
	struct operation op = { .kind = kind, .key = key, .value = key };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

static struct basic_bpf *open_only(bool tracers)
{
	struct basic_bpf *skel = basic_bpf__open();
	struct bpf_program *prog;

	if (!skel)
		return NULL;
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, is_tracer(prog) == tracers);
	return skel;
}

TEST_F(lifetime, tracer_does_not_load_without_the_module)
{
	struct basic_bpf *skel = basic_bpf__open();

	ASSERT_NE(NULL, skel);
	EXPECT_EQ(-EOPNOTSUPP, load_one_program(skel->obj, "trace_update", log_buf,
						sizeof(log_buf)));
	ASSERT_LOG_HAS(log_buf, "module map_trace");
	EXPECT_FALSE(map_trace_module_loaded());
	basic_bpf__destroy(skel);

	/* Nothing but the module was missing. */
	ASSERT_EQ(0, map_trace_module_load());
	skel = basic_bpf__open();
	ASSERT_NE(NULL, skel);
	EXPECT_EQ(0, load_one_program(skel->obj, "trace_update", log_buf, sizeof(log_buf)));
	basic_bpf__destroy(skel);
}

/* What a distribution's users do: nobody has to load the module by hand. */
TEST_F(lifetime, tracer_that_loads_brings_the_module)
{
	int map, tracer, link;

	ASSERT_EQ(0, write_proc(MODPROBE, self->modprobe, NULL, 0));
	tracer = load_empty_tracer(UPDATE);
	EXPECT_LE(0, tracer) TH_LOG("load: %s", strerror(-tracer));
	EXPECT_TRUE(map_trace_module_loaded());
	map = bpf_map_create(BPF_MAP_TYPE_HASH, "source", 4, 8, 8, NULL);
	ASSERT_LE(0, map);
	link = map_trace_attach(tracer, map, UPDATE, 0);
	EXPECT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	close(link);
	close(map);
	close(tracer);
}

/* modprobe is a process, for which nobody waits in a program. */
TEST_F(lifetime, tracer_that_a_program_loads_does_not_bring_the_module)
{
	struct load load = {
		.attach_type = map_trace_attach_type(),
		.attach_btf_id = map_trace_target_id("bpf_map_trace__update_elem"),
	};
	struct prog_load_bpf *skel = prog_load_bpf__open_and_load();

	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, write_proc(MODPROBE, self->modprobe, NULL, 0));
	ASSERT_EQ(0, run_program(skel->progs.load_tracer, &load, sizeof(load)));
	EXPECT_EQ(-EOPNOTSUPP, load.ret);
	EXPECT_FALSE(map_trace_module_loaded());

	/* Nothing but the module was missing. */
	ASSERT_EQ(0, map_trace_module_load());
	ASSERT_EQ(0, run_program(skel->progs.load_tracer, &load, sizeof(load)));
	EXPECT_LT(0, load.ret) TH_LOG("load: %s", strerror(-load.ret));
	if (load.ret > 0)
		close(load.ret);
	prog_load_bpf__destroy(skel);
}

/* Nobody who may not load a tracer can have the module loaded. */
TEST_F(lifetime, tracer_that_is_not_permitted_does_not_bring_the_module)
{
	int tracer;

	ASSERT_EQ(0, write_proc(MODPROBE, self->modprobe, NULL, 0));
	ASSERT_EQ(0, set_capabilities(1ULL << CAP_PERFMON));
	EXPECT_EQ(-EPERM, load_empty_tracer(UPDATE));
	ASSERT_EQ(0, set_capabilities(1ULL << CAP_BPF));
	EXPECT_EQ(-EPERM, load_empty_tracer(UPDATE));
	EXPECT_FALSE(map_trace_module_loaded());

	/* All that it takes */
	ASSERT_EQ(0, set_capabilities(1ULL << CAP_BPF | 1ULL << CAP_PERFMON));
	tracer = load_empty_tracer(UPDATE);
	EXPECT_LE(0, tracer) TH_LOG("load: %s", strerror(-tracer));
	EXPECT_TRUE(map_trace_module_loaded());
	close(tracer);
	ASSERT_EQ(0, set_capabilities(-1ULL));
}

TEST_F(lifetime, libbpf_tells_whether_the_module_is_there)
{
	EXPECT_EQ(0, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_UPDATE_ELEM, NULL));
	EXPECT_EQ(0, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_DELETE_ELEM, NULL));
	EXPECT_FALSE(map_trace_module_loaded());
	ASSERT_EQ(0, map_trace_module_load());
	EXPECT_EQ(1, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_UPDATE_ELEM, NULL));
	EXPECT_EQ(1, libbpf_probe_bpf_map_trace(BPF_MAP_TRACE_DELETE_ELEM, NULL));
}

TEST_F(lifetime, program_loaded_before_the_module_is_traced)
{
	struct basic_bpf *skel, *tracers;
	int links[2];

	skel = open_only(false);
	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, basic_bpf__load(skel));
	ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 1));
	ASSERT_FALSE(map_trace_module_loaded());

	ASSERT_EQ(0, map_trace_module_load());
	tracers = open_only(true);
	ASSERT_NE(NULL, tracers);
	ASSERT_EQ(0, bpf_map__reuse_fd(tracers->maps.source, bpf_map__fd(skel->maps.source)));
	ASSERT_EQ(0, basic_bpf__load(tracers));
	links[0] = attach_to(tracers->progs.trace_update, skel->maps.source);
	ASSERT_LE(0, links[0]);
	links[1] = attach_to(tracers->progs.trace_delete, skel->maps.source);
	ASSERT_LE(0, links[1]);

	ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 2));
	ASSERT_EQ(0, operate(skel, OPERATION_DELETE, 1));
	ASSERT_EQ(2, tracers->bss->nr_events);
	EXPECT_EQ(2, tracers->bss->events[0].key);
	EXPECT_EQ(OPERATION_DELETE, tracers->bss->events[1].kind);
	EXPECT_EQ(1, tracers->bss->events[1].key);
	close(links[0]);
	close(links[1]);
	basic_bpf__destroy(tracers);
	basic_bpf__destroy(skel);
}

TEST_F(lifetime, module_is_busy_while_there_is_a_link)
{
	struct basic_bpf *skel;
	int link, err;

	ASSERT_EQ(0, map_trace_module_load());
	skel = basic_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	link = attach_to(skel->progs.trace_update, skel->maps.source);
	ASSERT_LE(0, link);
	EXPECT_EQ(-EWOULDBLOCK, map_trace_module_unload());

	/* Detached, but the link is still there. */
	ASSERT_EQ(0, map_trace_detach(link));
	EXPECT_EQ(-EWOULDBLOCK, map_trace_module_unload());
	close(link);

	/* The map that was traced, and the tracer, are still there. */
	err = map_trace_module_unload_retry(FREED_AFTER_MS);
	EXPECT_EQ(0, err) TH_LOG("rmmod: %s", strerror(-err));
	EXPECT_FALSE(map_trace_module_loaded());
	ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 1));
	EXPECT_EQ(0, skel->bss->nr_events);

	/* And again with the next module */
	ASSERT_EQ(0, map_trace_module_load());
	link = attach_to(skel->progs.trace_update, skel->maps.source);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 1));
	EXPECT_EQ(1, skel->bss->nr_events);
	close(link);
	basic_bpf__destroy(skel);
}

/* Wait until the mirror has what the source has for key 3. */
static bool mirror_gets(struct marks_bpf *skel, __u64 value)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	__u32 key = 3;
	__u64 seen;

	do {
		if (!bpf_map_lookup_elem(bpf_map__fd(skel->maps.mirror), &key, &seen) &&
		    seen == value)
			return true;
		usleep(10000);
	} while (now_ns() < end);
	return false;
}

static int store(struct marks_bpf *skel, __u64 value)
{
	skel->bss->new_value = value;
	return run_program(skel->progs.stores, NULL, 0);
}

static void mirror_with_each_module(struct __test_metadata *_metadata, enum bpf_map_type type)
{
	struct pollfd pollfd = { .events = POLLIN };
	struct marks_bpf *skel;
	__u64 value = 1;
	__u32 key = 3;
	int i, err;

	ASSERT_EQ(0, map_trace_module_load());
	skel = marks_bpf__open();
	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, bpf_map__set_type(skel->maps.source, type));
	ASSERT_EQ(0, bpf_program__set_autoload(skel->progs.writes_its_source, false));
	ASSERT_EQ(0, marks_bpf__load(skel));
	skel->bss->key = key;
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.source), &key, &value, BPF_ANY));

	for (i = 0; i < 4; i++) {
		pollfd.fd = attach_to(skel->progs.synced, skel->maps.source);
		ASSERT_LE(0, pollfd.fd) TH_LOG("attach %d: %s", i, strerror(-pollfd.fd));
		ASSERT_EQ(1, poll(&pollfd, 1, SETTLE_MS));
		ASSERT_EQ(POLLIN, pollfd.revents);
		EXPECT_TRUE(mirror_gets(skel, value)) TH_LOG("replay %d", i);

		/*
		 * In turn a mark that stays, as the link goes before anybody looks at it, and one
		 * that is set with the same number of attaches before it in the next module.
		 */
		value = 10 * i + 10;
		ASSERT_EQ(0, store(skel, value));
		if (i % 2)
			EXPECT_TRUE(mirror_gets(skel, value)) TH_LOG("module %d", i);
		close(pollfd.fd);

		err = map_trace_module_unload_retry(FREED_AFTER_MS);
		ASSERT_EQ(0, err) TH_LOG("rmmod %d: %s", i, strerror(-err));
		value++;
		ASSERT_EQ(0, store(skel, value));
		ASSERT_EQ(0, map_trace_module_load());
	}
	marks_bpf__destroy(skel);
}

/* What a mark says has to be right for the next module, too. */
TEST_F(lifetime, marks_of_a_hash_outlive_the_module)
{
	mirror_with_each_module(_metadata, BPF_MAP_TYPE_HASH);
}

TEST_F(lifetime, marks_of_an_array_outlive_the_module)
{
	mirror_with_each_module(_metadata, BPF_MAP_TYPE_ARRAY);
}

static void *run_in_thread(void *prog)
{
	run_program(prog, NULL, 0);
	return NULL;
}

/* A sleepable program that runs until it is released, and whose maps are not traced */
struct sleeper {
	struct marks_bpf *skel;
	pthread_t thread;
};

static void start_sleeper(struct __test_metadata *_metadata, struct sleeper *sleeper)
{
	struct marks_bpf *skel = marks_bpf__open();
	struct bpf_program *prog;
	__u64 value = 1;

	ASSERT_NE(NULL, skel);
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.store_when_released);
	ASSERT_EQ(0, marks_bpf__load(skel));
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.source), &skel->bss->key, &value,
					 BPF_ANY));
	ASSERT_EQ(0, pthread_create(&sleeper->thread, NULL, run_in_thread,
				    skel->progs.store_when_released));
	EXPECT_TRUE(wait_for_flag(&skel->bss->held, SETTLE_MS));
	sleeper->skel = skel;
}

struct removal {
	__u32 done;
	int err;
};

static void *remove_module(void *data)
{
	struct removal *removal = data;

	removal->err = map_trace_module_unload();
	__atomic_store_n(&removal->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Nothing holds the module, and yet it goes only when the sleeper has ended. */
static void removal_waits_for(struct __test_metadata *_metadata, struct sleeper *sleeper)
{
	struct removal removal = {};
	pthread_t thread;

	ASSERT_EQ(0, map_trace_module_references());
	ASSERT_EQ(0, pthread_create(&thread, NULL, remove_module, &removal));
	usleep(BLOCKED_US);
	EXPECT_EQ(0, __atomic_load_n(&removal.done, __ATOMIC_SEQ_CST));
	sleeper->skel->bss->released = 1;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, removal.err);
	ASSERT_EQ(0, pthread_join(sleeper->thread, NULL));
	marks_bpf__destroy(sleeper->skel);
}

static bool nothing_holds_the_module(void)
{
	__u64 end = now_ns() + FREED_AFTER_MS * NSEC_PER_MSEC;

	while (map_trace_module_references() && now_ns() < end)
		usleep(1000);
	return !map_trace_module_references();
}

/* It can have tested the byte of a map that lives when that had a tracer. */
TEST_F(lifetime, removal_waits_for_programs_while_a_traced_map_lives)
{
	struct sleeper sleeper;
	int map, tracer, link;

	ASSERT_EQ(0, map_trace_module_load());
	tracer = load_empty_tracer(UPDATE);
	ASSERT_LE(0, tracer);
	map = bpf_map_create(BPF_MAP_TYPE_HASH, "source", 4, 8, 8, NULL);
	ASSERT_LE(0, map);
	link = map_trace_attach(tracer, map, UPDATE, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	close(link);
	ASSERT_TRUE(nothing_holds_the_module());

	start_sleeper(_metadata, &sleeper);
	removal_waits_for(_metadata, &sleeper);
	close(map);
	close(tracer);
}

/* Its list is freed with it, by the module, after the programs that could use the map. */
TEST_F(lifetime, removal_waits_for_a_map_that_is_being_freed)
{
	struct marks_bpf *skel = marks_bpf__open();
	struct bpf_program *prog;
	struct sleeper sleeper;
	__u32 zero = 0, id;
	int inner, tracer, link;

	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, map_trace_module_load());
	/* Sleepable programs use the outer map, so its maps wait for such programs. */
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.store_in_inner_map);
	ASSERT_EQ(0, marks_bpf__load(skel));
	tracer = load_empty_tracer(UPDATE);
	ASSERT_LE(0, tracer);
	inner = bpf_map_create(BPF_MAP_TYPE_HASH, "inner", 4, 8, 16, NULL);
	ASSERT_LE(0, inner);
	id = id_of_map(inner);
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.outer), &zero, &inner, BPF_ANY));
	link = map_trace_attach(tracer, inner, UPDATE, 0);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	close(link);
	ASSERT_TRUE(nothing_holds_the_module());

	start_sleeper(_metadata, &sleeper);
	ASSERT_EQ(0, bpf_map_delete_elem(bpf_map__fd(skel->maps.outer), &zero));
	close(inner);
	ASSERT_TRUE(is_gone(bpf_map_get_next_id, id));
	removal_waits_for(_metadata, &sleeper);
	close(tracer);
	marks_bpf__destroy(skel);
}

/* Operations go on while the module comes and goes. */
TEST_F(lifetime, module_goes_while_its_maps_are_in_use)
{
	struct basic_bpf *skel;
	int i, link, err, stop[2];
	pid_t writers[2];

	ASSERT_EQ(0, map_trace_module_load());
	skel = basic_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	ASSERT_EQ(0, pipe(stop));
	for (i = 0; i < 2; i++) {
		writers[i] = fork();
		ASSERT_LE(0, writers[i]);
		if (writers[i])
			continue;
		/* Until the test ends, however that does */
		close(stop[1]);
		while (!poll(&(struct pollfd){ .fd = stop[0] }, 1, 0)) {
			if (operate(skel, OPERATION_UPDATE, i) || operate(skel, OPERATION_DELETE, i))
				_exit(1);
		}
		_exit(0);
	}
	close(stop[0]);

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, map_trace_module_load());
		link = attach_to(skel->progs.trace_update, skel->maps.source);
		ASSERT_LE(0, link);
		close(link);
		err = map_trace_module_unload_retry(FREED_AFTER_MS);
		ASSERT_EQ(0, err) TH_LOG("rmmod %d: %s", i, strerror(-err));
	}
	close(stop[1]);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(writers[i], waitpid(writers[i], &err, 0));
		EXPECT_EQ(0, err);
	}
	basic_bpf__destroy(skel);
}

TEST_F(lifetime, module_goes_while_a_map_that_was_never_traced_lives)
{
	struct basic_bpf *skel;
	int err;

	ASSERT_EQ(0, map_trace_module_load());
	skel = basic_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	err = map_trace_module_unload_retry(FREED_AFTER_MS);
	EXPECT_EQ(0, err) TH_LOG("rmmod: %s", strerror(-err));

	/* A loaded tracer does not attach without it, but does after it came back. */
	EXPECT_EQ(-EOPNOTSUPP, attach_to(skel->progs.trace_update, skel->maps.source));
	ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 1));
	ASSERT_EQ(0, map_trace_module_load());
	err = attach_to(skel->progs.trace_update, skel->maps.source);
	ASSERT_LE(0, err);
	ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 1));
	EXPECT_EQ(1, skel->bss->nr_events);
	close(err);
	basic_bpf__destroy(skel);
}

TEST_F(lifetime, refused_attach_does_not_pin_the_module)
{
	struct basic_bpf *skel;
	int err;

	ASSERT_EQ(0, map_trace_module_load());
	skel = basic_bpf__open_and_load();
	ASSERT_NE(NULL, skel);
	EXPECT_EQ(-EINVAL, map_trace_attach(bpf_program__fd(skel->progs.trace_update),
					    bpf_map__fd(skel->maps.source), DELETE, 0));
	EXPECT_EQ(-EBADF, map_trace_attach(bpf_program__fd(skel->progs.trace_update),
					   -1, UPDATE, 0));
	EXPECT_EQ(-EOPNOTSUPP, map_trace_attach(bpf_program__fd(skel->progs.trace_update),
						bpf_map__fd(skel->maps.programs), UPDATE, 0));
	err = map_trace_module_unload_retry(FREED_AFTER_MS);
	EXPECT_EQ(0, err) TH_LOG("rmmod: %s", strerror(-err));
	basic_bpf__destroy(skel);
}

/* Link, program and map go at once, and then the module as soon as it can. */
TEST_F(lifetime, module_is_removed_right_after_its_last_map)
{
	int i, err;

	for (i = 0; i < 10; i++) {
		struct basic_bpf *skel;
		int link;

		ASSERT_EQ(0, map_trace_module_load());
		skel = basic_bpf__open_and_load();
		ASSERT_NE(NULL, skel);
		link = attach_to(skel->progs.trace_update, skel->maps.source);
		ASSERT_LE(0, link);
		ASSERT_EQ(0, operate(skel, OPERATION_UPDATE, 1));
		ASSERT_EQ(1, skel->bss->nr_events);
		/* In turn the link first and the map first */
		if (i % 2)
			close(link);
		basic_bpf__destroy(skel);
		if (!(i % 2))
			close(link);
		err = map_trace_module_unload_retry(FREED_AFTER_MS);
		ASSERT_EQ(0, err) TH_LOG("rmmod %d: %s", i, strerror(-err));
	}
}

TEST_HARNESS_MAIN
