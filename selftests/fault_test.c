// SPDX-License-Identifier: GPL-2.0
/*
 * Contract 12: a failure leaves nothing behind. In each system call, each allocation and each
 * copy from or to user space fails once, in turn, until a pass has none left to fail. The call
 * reports the failure or gets along without the memory, and the next call works. Then the same
 * with each allocation and all that come after it. kmemleak finds leaked memory, and a leaked
 * reference keeps the module from being removed. The last test prints what was tried.
 */
#include "testing_helpers.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>

#include "fault_injection.h"
#include "progs/operation.h"
#include "progs/sync.h"
#include "basic.skel.h"
#include "loops.skel.h"
#include "sync.skel.h"

/* More of them than any of the calls meets */
#define MAX_NTH 1000
#define FREED_AFTER_MS 60000
/* Some time for the worker, which rests for ten seconds at most */
#define SETTLE_MS 120000

FIXTURE(fault) {
	struct faults faults;
};

FIXTURE_SETUP(fault)
{
	int err;

	ASSERT_EQ(0, map_trace_setup());
	err = faults_open(&self->faults);
	if (err == -ENOENT)
		SKIP(return, "kernel without fault injection (CONFIG_FAULT_INJECTION)");
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(fault)
{
	faults_close(&self->faults);
	/* A reference that is lost keeps the module. */
	EXPECT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
}

/* Nothing refers to the module, as before the first attach. */
static bool module_is_free(void)
{
	__u64 end = now_ns() + FREED_AFTER_MS * NSEC_PER_MSEC;

	while (map_trace_module_references()) {
		if (now_ns() > end)
			return false;
		usleep(1000);
	}
	return true;
}

static __s64 update(struct basic_bpf *skel, __u32 key)
{
	struct operation op = { .kind = OPERATION_UPDATE, .key = key, .value = key };
	int ret = run_program(skel->progs.operate, &op, sizeof(op));

	return ret ? ret : op.ret;
}

/* More than a page and than a slab has: memory for a value is pages. */
#define LARGE_VALUE 16384

struct kind {
	const char *path;
	enum bpf_map_type type;
	/* 0 is that of a __u64. */
	__u32 value_size;
	/* Of the attach: how often small allocations refuse it, and pages from one on, at least */
	unsigned int allocations, pages;
};

/* Whether an operation on @map is in @mirror afterwards */
static bool is_told(int map, __u32 trace_type, int mirror)
{
	static __u64 value[LARGE_VALUE / sizeof(__u64)];
	const __u32 key = 1;

	value[0]++;
	bpf_map_delete_elem(mirror, &key);
	if (bpf_map_update_elem(map, &key, value, BPF_ANY))
		return false;
	if (trace_type != DELETE)
		return !bpf_map_delete_elem(mirror, &key);
	if (bpf_map_update_elem(mirror, &key, value, BPF_ANY) || bpf_map_delete_elem(map, &key))
		return false;
	return bpf_map_delete_elem(mirror, &key);
}

/* What @prog follows is in @mirror. */
static void fail_attach(struct __test_metadata *_metadata, struct faults *faults,
			const struct kind *kind, int prog, __u32 trace_type, int mirror)
{
	bool failed = true;
	int nth;

	faults_new_row(faults, kind->path);
	for (nth = 1; failed; nth++) {
		/* It never had a tracer. */
		int map = bpf_map_create(kind->type, "fresh", sizeof(__u32),
					 kind->value_size ?: sizeof(__u64), 4, NULL);
		__u32 id = id_of_map(map);
		int link;

		ASSERT_LE(0, map);
		ASSERT_LT(nth, MAX_NTH);
		faults_arm(faults, nth);
		link = map_trace_attach(prog, map, trace_type, 0);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, link < 0 ? link : 0);
		if (link < 0) {
			EXPECT_EQ(faults->injector->err, link) TH_LOG("%s %d", kind->path, nth);
			ASSERT_TRUE(failed);
			/* No link is left that holds the module. */
			EXPECT_TRUE(module_is_free()) TH_LOG("%s %d", kind->path, nth);
			/* Not half attached */
			EXPECT_FALSE(is_told(map, trace_type, mirror));
			link = map_trace_attach(prog, map, trace_type, 0);
			ASSERT_LE(0, link) TH_LOG("the next one: %s", strerror(-link));
		}
		EXPECT_TRUE(is_told(map, trace_type, mirror)) TH_LOG("%s %d", kind->path, nth);
		close(link);
		close(map);
		ASSERT_TRUE(is_gone(bpf_map_get_next_id, id)) TH_LOG("%s %d", kind->path, nth);
		/* The next one has to begin with a module that nothing holds. */
		ASSERT_TRUE(module_is_free()) TH_LOG("%s %d", kind->path, nth);
	}
	if (faults_are_of_memory(faults))
		EXPECT_LE(kind->allocations, faults_refused(faults));
	if (faults->injector == &injectors[ALL_PAGES] && kind->pages)
		EXPECT_LE(kind->pages, faults_refused(faults));
	/* The arguments, and what they point to */
	if (faults_are_of_copies(faults))
		EXPECT_LE(2, faults_refused(faults));
}

TEST_F_TIMEOUT(fault, attach, 900)
{
	struct faults *faults = &self->faults;
	static const struct kind updates = {
		.path = "attach, updates",
		.type = BPF_MAP_TYPE_HASH,
		/*
		 * The information, the tracer, what it writes and the edges of that, twice,
		 * where the loop check begins, twice, the link, its file, the array, the list
		 */
		.allocations = 11,
	};
	static const struct kind deletes = {
		.path = "attach, deletes of an LRU_HASH",
		.type = BPF_MAP_TYPE_LRU_HASH,
		/* The same, and the queue */
		.allocations = 14,
	};
	struct basic_bpf *skel = basic_bpf__open();
	struct loaded *loaded;

	ASSERT_NE(NULL, skel);
	/* It writes to a map: the loop check has an edge to look at, and to keep. */
	AUTOLOAD(skel->progs.mirror_update, skel->progs.mirror_delete);
	ASSERT_EQ(0, basic_bpf__load(skel));
	loaded = note_loaded(skel->obj);
	FOR_EACH_INJECTOR(faults) {
		fail_attach(_metadata, faults, &updates,
			    bpf_program__fd(skel->progs.mirror_update), UPDATE,
			    bpf_map__fd(skel->maps.mirror));
		fail_attach(_metadata, faults, &deletes,
			    bpf_program__fd(skel->progs.mirror_delete), DELETE,
			    bpf_map__fd(skel->maps.mirror));
	}
	basic_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* Only these programs of the skeleton, and @others: loading takes most of the time. */
static struct sync_bpf *load_sync_with(const char *others)
{
	struct sync_bpf *skel = sync_bpf__open();
	struct bpf_program *prog;

	if (!skel)
		return NULL;
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, prog == skel->progs.synced ||
					  prog == skel->progs.synced_negated ||
					  prog == skel->progs.update_range ||
					  prog == skel->progs.write_through_pointers ||
					  strstr(others, bpf_program__name(prog)));
	if (sync_bpf__load(skel)) {
		sync_bpf__destroy(skel);
		return NULL;
	}
	return skel;
}

static struct sync_bpf *load_sync(void)
{
	return load_sync_with("");
}

TEST_F_TIMEOUT(fault, attach_of_states, 1800)
{
	struct faults *faults = &self->faults;
	/* As above, and the counters, the queue, the worker and its buffers */
	static const struct kind kinds[] = {
		{ "attach, states of a HASH", BPF_MAP_TYPE_HASH, .allocations = 17 },
		{ "attach, states of an ARRAY", BPF_MAP_TYPE_ARRAY, .allocations = 17 },
		{ "attach, states of an LRU_HASH", BPF_MAP_TYPE_LRU_HASH, .allocations = 17 },
		{
			"attach, states of a PERCPU_HASH", BPF_MAP_TYPE_PERCPU_HASH,
			.allocations = 17,
		},
		/* One of the buffers is pages. */
		{
			"attach, states of large values", BPF_MAP_TYPE_HASH, LARGE_VALUE,
			.allocations = 16, .pages = 1,
		},
	};
	struct sync_bpf *skel = load_sync();
	struct loaded *loaded;
	unsigned int i;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	FOR_EACH_INJECTOR(faults) {
		for (i = 0; i < ARRAY_SIZE(kinds); i++) {
			fail_attach(_metadata, faults, &kinds[i],
				    bpf_program__fd(skel->progs.synced), map_trace_type_sync(),
				    bpf_map__fd(skel->maps.mirror));
		}
	}
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

static int attach_updater(const struct bpf_program *prog, const struct bpf_map *map)
{
	return map_trace_attach(bpf_program__fd(prog), bpf_map__fd(map), UPDATE, 0);
}

/* Without memory, the old program goes on, and its writes are those that count. */
static void fail_update_prog(struct __test_metadata *_metadata, struct faults *faults,
			     struct loops_bpf *loops, int link)
{
	int old = bpf_program__fd(loops->progs.update_counts);
	int new = bpf_program__fd(loops->progs.update_updates_m2);
	int m1 = bpf_map__fd(loops->maps.m1), m2 = bpf_map__fd(loops->maps.m2);
	struct map_trace_info info;
	bool failed = true;
	__u64 value = 1;
	__u32 key = 1;
	int nth, back;

	faults_new_row(faults, "update_prog, updates");
	for (nth = 1; failed; nth++) {
		int err;

		ASSERT_LT(nth, MAX_NTH);
		faults_arm(faults, nth);
		err = map_trace_update(link, new, -1);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, err);
		if (err) {
			EXPECT_EQ(faults->injector->err, err);
			ASSERT_TRUE(failed);
		}
		ASSERT_EQ(0, map_trace_get_info(link, &info));
		EXPECT_EQ(id_of_program(err ? old : new), info.prog_id)
			TH_LOG("%d: %s", nth, strerror(-err));
		loops->bss->runs = 0;
		ASSERT_EQ(0, bpf_map_update_elem(m1, &key, &value, BPF_ANY));
		EXPECT_EQ(err ? 1 : 0, loops->bss->runs);
		EXPECT_EQ(!err, !bpf_map_delete_elem(m2, &key));
		/* Only the new one leads to where this comes from. */
		back = attach_updater(loops->progs.update_updates_m1, loops->maps.m2);
		if (err) {
			EXPECT_LE(0, back) TH_LOG("%d: %s", nth, strerror(-back));
		} else {
			EXPECT_EQ(-ELOOP, back);
		}
		if (back >= 0) {
			ASSERT_EQ(0, map_trace_detach(back));
			close(back);
			/* The next one succeeds. */
			ASSERT_EQ(0, map_trace_update(link, new, -1));
		}
		ASSERT_EQ(0, map_trace_update(link, old, -1));
	}
}

TEST_F_TIMEOUT(fault, update_prog, 900)
{
	struct faults *faults = &self->faults;
	struct loops_bpf *loops = loops_bpf__open();
	struct loaded *loaded;
	int before, link, after;

	ASSERT_NE(NULL, loops);
	AUTOLOAD(loops->progs.update_counts, loops->progs.update_updates_m1,
		 loops->progs.update_updates_m2, loops->progs.update_updates_m3);
	ASSERT_EQ(0, loops_bpf__load(loops));
	loaded = note_loaded(loops->obj);
	ASSERT_NE(NULL, loaded);

	/* m0 -> m1 -> m2 -> m3: the loop check has to look in both directions. */
	before = attach_updater(loops->progs.update_updates_m1, loops->maps.m0);
	ASSERT_LE(0, before);
	link = attach_updater(loops->progs.update_counts, loops->maps.m1);
	ASSERT_LE(0, link);
	after = attach_updater(loops->progs.update_updates_m3, loops->maps.m2);
	ASSERT_LE(0, after);
	FOR_EACH_INJECTOR(faults) {
		fail_update_prog(_metadata, faults, loops, link);
		/* What it writes, and the edges, twice. The loop check has vmalloc() as well. */
		if (faults_are_of_memory(faults))
			EXPECT_LE(3, faults_refused(faults));
		if (faults_are_of_copies(faults))
			EXPECT_LE(1, faults_refused(faults));
	}
	close(before);
	close(link);
	close(after);
	loops_bpf__destroy(loops);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

static bool mirror_has(struct sync_bpf *skel, __u32 key, __u64 value)
{
	__u64 seen;

	return !bpf_map_lookup_elem(bpf_map__fd(skel->maps.mirror), &key, &seen) &&
	       seen == value;
}

static bool mirror_gets(struct sync_bpf *skel, __u32 key, __u64 value)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	while (!mirror_has(skel, key, value) && now_ns() < end)
		usleep(1000);
	return mirror_has(skel, key, value);
}

/* The new program is told all. Without memory, the old one goes on to be told. */
TEST_F_TIMEOUT(fault, update_prog_of_states, 900)
{
	struct faults *faults = &self->faults;
	struct sync_bpf *skel = load_sync();
	int link, source, old, new, nth, err;
	struct map_trace_info info;
	struct loaded *loaded;
	__u64 value = 7;
	__u32 key = 3;
	bool failed;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	source = bpf_map__fd(skel->maps.source);
	old = bpf_program__fd(skel->progs.synced);
	new = bpf_program__fd(skel->progs.synced_negated);
	link = attach_to(skel->progs.synced, skel->maps.source);
	ASSERT_LE(0, link);
	ASSERT_EQ(0, bpf_map_update_elem(source, &key, &value, BPF_ANY));
	FOR_EACH_INJECTOR(faults) {
		faults_new_row(faults, "update_prog, states");
		failed = true;
		for (nth = 1; failed; nth++) {
			ASSERT_LT(nth, MAX_NTH);
			faults_arm(faults, nth);
			err = map_trace_update(link, new, -1);
			failed = faults_disarm(faults);
			if (failed)
				faults_count(faults, err);
			ASSERT_EQ(0, map_trace_get_info(link, &info));
			EXPECT_EQ(id_of_program(err ? old : new), info.prog_id);
			if (err) {
				EXPECT_EQ(faults->injector->err, err);
				ASSERT_TRUE(failed);
				ASSERT_EQ(0, bpf_map_update_elem(source, &key, &value, BPF_ANY));
				EXPECT_TRUE(mirror_has(skel, key, value));
				ASSERT_EQ(0, map_trace_update(link, new, -1));
			}
			EXPECT_TRUE(mirror_gets(skel, key, ~value));
			ASSERT_EQ(0, map_trace_update(link, old, -1));
			EXPECT_TRUE(mirror_gets(skel, key, value));
		}
		if (faults_are_of_memory(faults) || faults_are_of_copies(faults))
			EXPECT_LE(1, faults_refused(faults));
	}
	close(link);
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

static int close_link(int link)
{
	return close(link) ? -errno : 0;
}

static void fail_detach(struct __test_metadata *_metadata, struct faults *faults,
			struct basic_bpf *skel, const char *path, int (*detach)(int link))
{
	bool failed = true;
	int nth;

	faults_new_row(faults, path);
	for (nth = 1; failed; nth++) {
		int first = attach_to(skel->progs.trace_update, skel->maps.source);
		int second = attach_to(skel->progs.trace_update_second, skel->maps.source);
		int err;

		ASSERT_LT(nth, MAX_NTH);
		ASSERT_LE(0, first);
		ASSERT_LE(0, second);
		faults_arm(faults, nth);
		err = detach(first);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, err);
		if (faults_are_of_copies(faults) && err == -EFAULT)
			/* It did not come so far that the link was known. */
			err = detach(first);
		EXPECT_EQ(0, err);

		skel->bss->nr_events = 0;
		ASSERT_EQ(0, update(skel, 1));
		EXPECT_EQ(1, skel->bss->nr_events);
		EXPECT_EQ(2, skel->bss->events[0].tracer);
		if (detach != close_link)
			close(first);
		close(second);
		ASSERT_EQ(0, update(skel, 1));
		EXPECT_EQ(1, skel->bss->nr_events);
	}
	/* The shorter array: without memory for it, the old one stays. */
	if (faults_are_of_memory(faults))
		EXPECT_LT(0, faults_tried(faults));
}

TEST_F_TIMEOUT(fault, contract_12_detach_cannot_fail, 600)
{
	struct faults *faults = &self->faults;
	struct basic_bpf *skel = basic_bpf__open();
	struct loaded *loaded;

	ASSERT_NE(NULL, skel);
	AUTOLOAD(skel->progs.trace_update_second);
	ASSERT_EQ(0, basic_bpf__load(skel));
	loaded = note_loaded(skel->obj);
	FOR_EACH_INJECTOR(faults) {
		fail_detach(_metadata, faults, skel, "detach", map_trace_detach);
		if (faults_are_of_copies(faults))
			EXPECT_EQ(1, faults_refused(faults));
		fail_detach(_metadata, faults, skel, "last close of a link", close_link);
		EXPECT_EQ(0, faults_refused(faults));
	}
	basic_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The program writes where nobody is told, so that it is the flush that tells it. */
static int write_through_pointer(struct sync_bpf *skel, __u32 key)
{
	skel->bss->from = key;
	skel->bss->to = key + 1;
	return run_program(skel->progs.write_through_pointers, NULL, 0);
}

static bool has_lost(int link)
{
	struct pollfd pollfd = { .fd = link, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLERR;
}

/* More deletes than can wait, which the tracer cannot follow: 0 if it has lost some */
static int lose_keys(struct sync_bpf *skel, int link)
{
	int err;

	skel->bss->from = 100;
	skel->bss->to = 500;
	err = run_program(skel->progs.update_range, NULL, 0);
	skel->bss->failing = 1;
	err = err ?: run_program(skel->progs.delete_alone, NULL, 0);
	skel->bss->failing = 0;
	return err ?: (has_lost(link) ? 0 : -ENODATA);
}

static void fail_flush(struct __test_metadata *_metadata, struct faults *faults,
		       struct sync_bpf *skel, int link, bool with_keys)
{
	/* One that is there, and one that only the mirror has */
	__u32 keys[] = { 3, 510 }, count_of_keys = with_keys ? 2 : 0;
	int source = bpf_map__fd(skel->maps.source), mirror = bpf_map__fd(skel->maps.mirror);
	bool failed = true;
	__u64 value, ghost = 1;
	int nth, err;

	faults_new_row(faults, with_keys ? "flush with keys" : "flush");
	for (nth = 1; failed; nth++) {
		ASSERT_LT(nth, MAX_NTH);
		ASSERT_EQ(0, bpf_map_update_elem(mirror, &keys[1], &ghost, BPF_ANY));
		if (with_keys)
			ASSERT_EQ(0, lose_keys(skel, link));
		ASSERT_EQ(0, write_through_pointer(skel, keys[0]));
		faults_arm(faults, nth);
		err = map_trace_flush(link, with_keys ? keys : NULL, count_of_keys, 0, NULL);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, err);
		if (err) {
			EXPECT_EQ(faults->injector->err, err) TH_LOG("flush %d", nth);
			ASSERT_TRUE(failed);
			/* Nobody may think that what was lost has been told. */
			EXPECT_EQ(with_keys, has_lost(link)) TH_LOG("flush %d", nth);
			EXPECT_EQ(0, map_trace_flush(link, with_keys ? keys : NULL,
						     count_of_keys, 0, NULL));
		}
		EXPECT_FALSE(has_lost(link));
		ASSERT_EQ(0, bpf_map_lookup_elem(source, &keys[0], &value));
		EXPECT_TRUE(mirror_has(skel, keys[0], value));
		EXPECT_EQ(!with_keys, mirror_has(skel, keys[1], ghost));
	}
	/* The buffers of keys and of a value, and what is queued. One that fails is tried again
	 * for memory of another kind.
	 */
	if (faults_are_of_memory(faults))
		EXPECT_LE(3, faults_tried(faults));
	if (faults->injector == &injectors[ALL_ALLOCATIONS])
		EXPECT_LE(3, faults_refused(faults));
	/* The arguments, and each key */
	if (faults_are_of_copies(faults))
		EXPECT_EQ(1 + count_of_keys, faults_refused(faults));
}

/* The buffer of a value is pages. */
static void fail_flush_of_large_values(struct __test_metadata *_metadata, struct faults *faults,
				       struct sync_bpf *skel, int link, int map)
{
	static __u64 value[LARGE_VALUE / sizeof(__u64)];
	int mirror = bpf_map__fd(skel->maps.mirror);
	/* None of the other map's, of which they tell the same mirror */
	const __u32 key = 20;
	bool failed = true;
	int nth, err;

	faults_new_row(faults, "flush of large values");
	for (nth = 1; failed; nth++) {
		ASSERT_LT(nth, MAX_NTH);
		value[0]++;
		ASSERT_EQ(0, bpf_map_update_elem(map, &key, value, BPF_ANY));
		ASSERT_EQ(0, bpf_map_delete_elem(mirror, &key));
		faults_arm(faults, nth);
		err = map_trace_flush(link, NULL, 0, 0, NULL);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, err);
		if (err) {
			EXPECT_EQ(faults->injector->err, err) TH_LOG("flush %d", nth);
			ASSERT_TRUE(failed);
			EXPECT_EQ(0, map_trace_flush(link, NULL, 0, 0, NULL));
		}
		EXPECT_TRUE(mirror_has(skel, key, value[0]));
	}
	if (faults->injector == &injectors[ALL_PAGES])
		EXPECT_LE(1, faults_refused(faults));
}

TEST_F_TIMEOUT(fault, flush, 900)
{
	int link, large = bpf_map_create(BPF_MAP_TYPE_HASH, "large", sizeof(__u32), LARGE_VALUE,
					 4, NULL);
	struct sync_bpf *skel = load_sync_with("delete_alone");
	struct faults *faults = &self->faults;
	struct loaded *loaded;
	int link_of_large;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	ASSERT_EQ(0, pin_to_cpu(0));
	link = attach_to(skel->progs.synced, skel->maps.source);
	ASSERT_LE(0, link);
	link_of_large = map_trace_attach(bpf_program__fd(skel->progs.synced), large,
					 map_trace_type_sync(), 0);
	ASSERT_LE(0, link_of_large);
	skel->bss->to = 10;
	ASSERT_EQ(0, run_program(skel->progs.update_range, NULL, 0));
	FOR_EACH_INJECTOR(faults) {
		fail_flush(_metadata, faults, skel, link, false);
		fail_flush(_metadata, faults, skel, link, true);
		fail_flush_of_large_values(_metadata, faults, skel, link_of_large, large);
	}
	close(link_of_large);
	close(large);
	close(link);
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* What tells about tracers, and what it has told */
struct asked {
	int map, link, fdinfo;
	__u32 progs[4], links[4], count;
	__u64 revision;
	short revents;
	struct map_trace_info info;
	char text[512];
};

static int ask_query(struct asked *asked)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = asked->progs,
		    .link_ids = asked->links, .count = 4);
	int err = bpf_prog_query_opts(asked->map, map_trace_attach_type(), &opts);

	asked->count = opts.count;
	asked->revision = opts.revision;
	return err;
}

static int ask_info(struct asked *asked)
{
	return map_trace_get_info(asked->link, &asked->info);
}

static int ask_fdinfo(struct asked *asked)
{
	ssize_t len = pread(asked->fdinfo, asked->text, sizeof(asked->text) - 1, 0);

	return len < 0 ? -errno : 0;
}

static int ask_poll(struct asked *asked)
{
	struct pollfd pollfd = { .fd = asked->link, .events = POLLIN };
	int n = poll(&pollfd, 1, SETTLE_MS);

	asked->revents = pollfd.revents;
	return n < 0 ? -errno : 0;
}

static const struct way_to_ask {
	const char *path;
	int (*ask)(struct asked *asked);
	/* How many small allocations it makes, and how many copies */
	unsigned int allocations, copies;
} ways_to_ask[] = {
	/* Room for the ids of programs and links; the arguments and each id */
	{ "BPF_PROG_QUERY", ask_query, 2, 1 + 2 * 3 },
	/* The arguments, the information in both directions */
	{ "BPF_OBJ_GET_INFO_BY_FD", ask_info, 0, 3 },
	/* The buffer of the text, and the text */
	{ "fdinfo of a link", ask_fdinfo, 1, 1 },
	{ "poll of a link", ask_poll, 0, 1 },
};

/* Three tracers are attached to @skel->maps.source. */
static int attach_three(struct sync_bpf *skel, int links[3])
{
	const struct bpf_program *progs[] = {
		skel->progs.updated, skel->progs.deleted, skel->progs.synced,
	};
	struct pollfd pollfd = { .events = POLLIN };
	int i;

	for (i = 0; i < 3; i++) {
		links[i] = attach_to(progs[i], skel->maps.source);
		if (links[i] < 0)
			return links[i];
	}
	pollfd.fd = links[2];
	return poll(&pollfd, 1, SETTLE_MS) == 1 ? 0 : -ETIME;
}

/* All that @way tells is true. */
static void expect_asked(struct __test_metadata *_metadata, const struct way_to_ask *way,
			 const struct asked *asked, const struct asked *before)
{
	if (way->ask == ask_query) {
		EXPECT_EQ(3, asked->count);
		EXPECT_EQ(before->revision, asked->revision);
		EXPECT_EQ(0, memcmp(before->progs, asked->progs, sizeof(asked->progs)));
		EXPECT_EQ(0, memcmp(before->links, asked->links, sizeof(asked->links)));
	} else if (way->ask == ask_info) {
		EXPECT_EQ(before->links[2], asked->info.id);
		EXPECT_EQ(before->progs[2], asked->info.prog_id);
		EXPECT_EQ(id_of_map(asked->map), asked->info.map_id);
	} else if (way->ask == ask_fdinfo) {
		EXPECT_NE(NULL, strstr(asked->text, "\nlost:\t0\n"));
	} else {
		EXPECT_EQ(POLLIN, asked->revents);
	}
}

static void fail_to_ask(struct __test_metadata *_metadata, struct faults *faults,
			const struct way_to_ask *way, const struct asked *before)
{
	int references = map_trace_module_references();
	bool failed = true;
	char path[64];
	int nth;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", before->link);
	faults_new_row(faults, way->path);
	for (nth = 1; failed; nth++) {
		struct asked asked = { .map = before->map, .link = before->link };
		int err;

		ASSERT_LT(nth, MAX_NTH);
		asked.fdinfo = open(path, O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, asked.fdinfo);
		faults_arm(faults, nth);
		err = way->ask(&asked);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, err);
		if (err) {
			EXPECT_EQ(faults->injector->err, err) TH_LOG("%s %d", way->path, nth);
			ASSERT_TRUE(failed);
			EXPECT_EQ(0, way->ask(&asked));
		}
		expect_asked(_metadata, way, &asked, before);
		close(asked.fdinfo);
		EXPECT_EQ(references, map_trace_module_references());
	}
	if (faults->injector == &injectors[ONE_ALLOCATION])
		EXPECT_EQ(way->allocations, faults_refused(faults)) TH_LOG("%s", way->path);
	if (faults_are_of_copies(faults))
		EXPECT_EQ(way->copies, faults_refused(faults)) TH_LOG("%s", way->path);
}

TEST_F_TIMEOUT(fault, what_tells_about_tracers, 600)
{
	struct sync_bpf *skel = load_sync_with("updated deleted");
	struct faults *faults = &self->faults;
	struct asked before = {};
	struct loaded *loaded;
	unsigned int i;
	int links[3];

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	ASSERT_EQ(0, attach_three(skel, links));
	before.map = bpf_map__fd(skel->maps.source);
	before.link = links[2];
	ASSERT_EQ(0, ask_query(&before));
	ASSERT_EQ(3, before.count);
	FOR_EACH_INJECTOR(faults)
		for (i = 0; i < ARRAY_SIZE(ways_to_ask); i++)
			fail_to_ask(_metadata, faults, &ways_to_ask[i], &before);
	for (i = 0; i < 3; i++)
		close(links[i]);
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The elements that bpf(2) operates on */
#define NR_OPERATED 4
static __u32 operated_keys[NR_OPERATED];
static __u64 operated_values[NR_OPERATED];

static int update_batch(int map)
{
	__u32 count = NR_OPERATED, i;

	for (i = 0; i < NR_OPERATED; i++) {
		operated_keys[i] = i;
		operated_values[i]++;
	}
	return bpf_map_update_batch(map, operated_keys, operated_values, &count, NULL);
}

static int update_one(int map)
{
	const __u64 value = 1000;

	return bpf_map_update_elem(map, &operated_keys[1], &value, BPF_ANY);
}

static int delete_one(int map)
{
	return bpf_map_delete_elem(map, &operated_keys[1]);
}

static int take_one(int map)
{
	__u64 value;

	return bpf_map_lookup_and_delete_elem(map, &operated_keys[1], &value);
}

static int delete_batch(int map)
{
	__u32 count = NR_OPERATED;

	return bpf_map_delete_batch(map, operated_keys, &count, NULL);
}

static int take_batch(int map)
{
	__u32 keys[NR_OPERATED], count = NR_OPERATED, next;
	__u64 values[NR_OPERATED];
	int err = bpf_map_lookup_and_delete_batch(map, NULL, &next, keys, values, &count, NULL);

	/* There are no more of them. */
	return err == -ENOENT ? 0 : err;
}

static const struct operation_path {
	const char *path;
	int (*operate)(int map);
	/* On each map: what is at least refused for want of memory, or as a copy fails */
	unsigned int allocations, copies;
} operation_paths[] = {
	/* The key and the value; the arguments as well */
	{ "BPF_MAP_UPDATE_ELEM", update_one, 2, 3 },
	{ "BPF_MAP_DELETE_ELEM", delete_one, 1, 2 },
	{ "BPF_MAP_LOOKUP_AND_DELETE_ELEM", take_one, 2, 3 },
	{ "BPF_MAP_UPDATE_BATCH", update_batch, 2, 1 + 2 * NR_OPERATED },
	{ "BPF_MAP_DELETE_BATCH", delete_batch, 1, 1 + NR_OPERATED },
	/* The keys and values at once, or as many as one chain of the map has */
	{ "BPF_MAP_LOOKUP_AND_DELETE_BATCH", take_batch, 2, 3 },
};

static const struct operated_map {
	const char *name;
	enum bpf_map_type type;
	__u32 flags;
} operated_maps[] = {
	{ "HASH", BPF_MAP_TYPE_HASH },
	{ "LRU_HASH", BPF_MAP_TYPE_LRU_HASH },
	{ "RHASH", BPF_MAP_TYPE_RHASH, BPF_F_NO_PREALLOC },
};

/* What the event tracers and the sync tracer were told is what the map holds: for how many not */
static unsigned int count_untold(const struct sync_bpf *skel, int map)
{
	const int told[] = { bpf_map__fd(skel->maps.events), bpf_map__fd(skel->maps.mirror) };
	unsigned int untold = 0, i;
	__u32 key;

	for (key = 0; key < NR_OPERATED; key++) {
		__u64 value = 0;
		bool there = !bpf_map_lookup_elem(map, &key, &value);

		for (i = 0; i < ARRAY_SIZE(told); i++) {
			__u64 seen = 0;

			untold += there == !!bpf_map_lookup_elem(told[i], &key, &seen) ||
				  (there && value != seen);
		}
	}
	return untold;
}

/* Whatever of an operation is done before it fails is told, and nothing else. */
static void fail_operation(struct __test_metadata *_metadata, struct faults *faults,
			   struct sync_bpf *skel, const struct operation_path *path, int map,
			   const char *name)
{
	bool failed = true;
	int nth, err;

	for (nth = 1; failed; nth++) {
		ASSERT_LT(nth, MAX_NTH);
		ASSERT_EQ(0, update_batch(map));
		EXPECT_EQ(0, count_untold(skel, map));
		faults_arm(faults, nth);
		err = path->operate(map);
		failed = faults_disarm(faults);
		if (failed)
			faults_count(faults, err);
		if (err) {
			EXPECT_EQ(faults->injector->err, err)
				TH_LOG("%s, %s %d", path->path, name, nth);
			ASSERT_TRUE(failed);
		}
		EXPECT_EQ(0, count_untold(skel, map)) TH_LOG("%s, %s %d", path->path, name, nth);
		/* The next one succeeds. */
		ASSERT_EQ(0, update_batch(map));
		EXPECT_EQ(0, path->operate(map)) TH_LOG("%s, %s %d", path->path, name, nth);
		EXPECT_EQ(0, count_untold(skel, map)) TH_LOG("%s, %s %d", path->path, name, nth);
	}
}

/* A new map with three tracers. Its fd, or a negative errno */
static int trace_new_map(const struct sync_bpf *skel, const struct operated_map *kind,
			 int links[3])
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = kind->flags);
	int map = bpf_map_create(kind->type, "operated", sizeof(__u32), sizeof(__u64), 64,
				 &opts);

	links[0] = map_trace_attach(bpf_program__fd(skel->progs.updated), map, UPDATE, 0);
	links[1] = map_trace_attach(bpf_program__fd(skel->progs.deleted), map, DELETE, 0);
	links[2] = map_trace_attach(bpf_program__fd(skel->progs.synced), map,
				    map_trace_type_sync(), 0);
	return links[0] < 0 || links[1] < 0 || links[2] < 0 ? -EINVAL : map;
}

TEST_F_TIMEOUT(fault, operations, 900)
{
	struct sync_bpf *skel = load_sync_with("updated deleted");
	int maps[ARRAY_SIZE(operated_maps)], links[ARRAY_SIZE(operated_maps)][3];
	struct faults *faults = &self->faults;
	struct loaded *loaded;
	unsigned int i, j;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	for (i = 0; i < ARRAY_SIZE(operated_maps); i++) {
		maps[i] = trace_new_map(skel, &operated_maps[i], links[i]);
		ASSERT_LE(0, maps[i]) TH_LOG("%s", operated_maps[i].name);
	}
	FOR_EACH_INJECTOR(faults) {
		for (j = 0; j < ARRAY_SIZE(operation_paths); j++) {
			const struct operation_path *path = &operation_paths[j];

			faults_new_row(faults, path->path);
			for (i = 0; i < ARRAY_SIZE(operated_maps); i++) {
				fail_operation(_metadata, faults, skel, path, maps[i],
					       operated_maps[i].name);
				/* The next map has the same keys. */
				ASSERT_EQ(0, update_batch(maps[i]));
				ASSERT_EQ(0, delete_batch(maps[i]));
			}
			if (faults_are_of_memory(faults))
				EXPECT_LE(i * path->allocations, faults_refused(faults))
					TH_LOG("%s", path->path);
			if (faults_are_of_copies(faults))
				EXPECT_LE(i * path->copies, faults_refused(faults))
					TH_LOG("%s", path->path);
		}
	}
	for (i = 0; i < ARRAY_SIZE(operated_maps); i++) {
		for (j = 0; j < 3; j++)
			close(links[i][j]);
		close(maps[i]);
	}
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The arguments of BPF_LINK_FLUSH */
struct flush_attr {
	__u32 link_fd, flags;
	__u64 keys;
	__u32 count, timeout_ms;
	__u64 left;
};

/*
 * A copy of @size bytes at @from of which only the first @writable can be written: fail_usercopy
 * does not know single numbers, which put_user() writes.
 */
static void *copy_before_read_only(const void *from, size_t size, size_t writable)
{
	size_t page = sysconf(_SC_PAGESIZE);
	static char *pages;
	char *to;

	if (!pages)
		pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
	if (pages == MAP_FAILED || mprotect(pages, 2 * page, PROT_READ | PROT_WRITE))
		abort();
	to = pages + page - writable;
	memcpy(to, from, size);
	if (mprotect(pages + page, page, PROT_READ))
		abort();
	return to;
}

static int call_bpf(int command, void *attr, size_t size)
{
	return syscall(__NR_bpf, command, attr, size) ? -errno : 0;
}

static int flush_to_read_only(int link, const __u32 *keys, __u32 count)
{
	struct flush_attr attr = {
		.link_fd = link,
		.keys = (unsigned long)keys,
		.count = count,
	};

	return call_bpf(map_trace_kernel_enum("bpf_cmd", "BPF_LINK_FLUSH"),
			copy_before_read_only(&attr, sizeof(attr),
					      offsetof(struct flush_attr, left)), sizeof(attr));
}

/* All the same, what the flush has to tell is told. */
TEST_F_TIMEOUT(fault, flush_cannot_say_what_is_left, 600)
{
	struct sync_bpf *skel = load_sync_with("delete_alone");
	struct faults *faults = &self->faults;
	__u32 keys[] = { 3, 510 };
	struct loaded *loaded;
	__u64 value, left = 7;
	int link, err;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	ASSERT_EQ(0, pin_to_cpu(0));
	link = attach_to(skel->progs.synced, skel->maps.source);
	ASSERT_LE(0, link);
	skel->bss->to = 10;
	ASSERT_EQ(0, run_program(skel->progs.update_range, NULL, 0));
	faults_begin_own(faults, "one result");
	faults_new_row(faults, "flush");
	ASSERT_EQ(0, lose_keys(skel, link));
	ASSERT_EQ(0, write_through_pointer(skel, keys[0]));
	err = flush_to_read_only(link, NULL, 0);
	faults_count(faults, err);
	EXPECT_EQ(-EFAULT, err);
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(skel->maps.source), &keys[0], &value));
	EXPECT_TRUE(mirror_has(skel, keys[0], value));
	/* It did not know which ones. */
	EXPECT_TRUE(has_lost(link));

	faults_new_row(faults, "flush with keys");
	ASSERT_EQ(0, bpf_map_update_elem(bpf_map__fd(skel->maps.mirror), &keys[1], &value,
					 BPF_ANY));
	err = flush_to_read_only(link, keys, 2);
	faults_count(faults, err);
	EXPECT_EQ(-EFAULT, err);
	EXPECT_FALSE(mirror_has(skel, keys[1], value));
	EXPECT_FALSE(has_lost(link));

	/* That there is something left says more. */
	faults_new_row(faults, "flush, while the tracer fails");
	skel->bss->failing = 1;
	err = flush_to_read_only(link, NULL, 0);
	skel->bss->failing = 0;
	faults_count(faults, err);
	EXPECT_EQ(-EAGAIN, err);
	EXPECT_EQ(0, map_trace_flush(link, keys, 2, 0, &left));
	EXPECT_EQ(0, left);
	close(link);
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The same where nothing but an answer is lost */
TEST_F_TIMEOUT(fault, answer_cannot_be_written, 600)
{
	static const size_t of_query[] = {
		offsetof(union bpf_attr, query.attach_flags),
		offsetof(union bpf_attr, query.prog_cnt),
		offsetof(union bpf_attr, query.revision),
	};
	struct sync_bpf *skel = load_sync_with("updated deleted");
	struct asked before = {}, asked;
	struct faults *faults = &self->faults;
	struct loaded *loaded;
	int links[3], references, err;
	__u32 ids[4] = {};
	unsigned int i;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	ASSERT_EQ(0, attach_three(skel, links));
	before.map = bpf_map__fd(skel->maps.source);
	before.link = links[2];
	ASSERT_EQ(0, ask_query(&before));
	references = map_trace_module_references();
	faults_begin_own(faults, "one result");

	faults_new_row(faults, "BPF_PROG_QUERY");
	for (i = 0; i < ARRAY_SIZE(of_query) + 4; i++) {
		size_t writable = i < 3 ? of_query[i] : sizeof(union bpf_attr);
		union bpf_attr attr = {};
		void *to = ids;

		attr.query.target_fd = before.map;
		attr.query.attach_type = map_trace_attach_type();
		attr.query.prog_cnt = 4;
		/* One of the arrays, or none: the second of its ids */
		if (i >= 3)
			to = copy_before_read_only(ids, sizeof(ids), sizeof(ids[0]));
		attr.query.prog_ids = (unsigned long)(i == 3 ? to : ids);
		attr.query.link_ids = (unsigned long)(i == 4 ? to : ids);
		attr.query.prog_attach_flags = (unsigned long)(i == 5 ? to : ids);
		attr.query.link_attach_flags = (unsigned long)(i == 6 ? to : ids);
		err = call_bpf(BPF_PROG_QUERY, i >= 3 ? &attr :
			       copy_before_read_only(&attr, sizeof(attr), writable), sizeof(attr));
		faults_count(faults, err);
		EXPECT_EQ(-EFAULT, err) TH_LOG("result %u", i);
		asked = (struct asked){ .map = before.map };
		EXPECT_EQ(0, ask_query(&asked));
		expect_asked(_metadata, &ways_to_ask[0], &asked, &before);
		EXPECT_EQ(references, map_trace_module_references());
	}

	faults_new_row(faults, "BPF_OBJ_GET_INFO_BY_FD");
	for (i = 0; i < 2; i++) {
		union bpf_attr attr = {};

		asked = (struct asked){ .map = before.map, .link = before.link };
		attr.info.bpf_fd = asked.link;
		attr.info.info_len = sizeof(asked.info);
		attr.info.info = (unsigned long)(i ? copy_before_read_only(&asked.info,
									   sizeof(asked.info), 8) :
						 &asked.info);
		err = call_bpf(BPF_OBJ_GET_INFO_BY_FD, i ? &attr :
			       copy_before_read_only(&attr, sizeof(attr),
						     offsetof(union bpf_attr, info.info_len)),
			       sizeof(attr));
		faults_count(faults, err);
		EXPECT_EQ(-EFAULT, err) TH_LOG("result %u", i);
		EXPECT_EQ(0, ask_info(&asked));
		expect_asked(_metadata, &ways_to_ask[1], &asked, &before);
		EXPECT_EQ(references, map_trace_module_references());
	}
	for (i = 0; i < 3; i++)
		close(links[i]);
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

TEST_F_TIMEOUT(fault, load_of_a_tracer, 900)
{
	struct faults *faults = &self->faults;
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = map_trace_attach_type());
	static const char * const targets[] = {
		"bpf_map_trace__delete_elem", "bpf_map_trace__sync_elem",
	};
	static const char * const paths[] = { "load, deletes", "load, states" };
	unsigned int i;
	bool failed;
	int nth, fd;

	for (i = 0; i < 2; i++) {
		opts.attach_btf_id = map_trace_target_id(targets[i]);
		FOR_EACH_INJECTOR(faults) {
			faults_new_row(faults, paths[i]);
			failed = true;
			for (nth = 1; failed; nth++) {
				ASSERT_LT(nth, MAX_NTH);
				faults_arm(faults, nth);
				fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "tracer", "GPL", insns,
						   2, &opts);
				failed = faults_disarm(faults);
				if (failed)
					faults_count(faults, fd < 0 ? fd : 0);
				if (fd < 0) {
					/* What bpf(2) says without memory for the program itself */
					if (fd != -EINVAL)
						EXPECT_EQ(faults->injector->err, fd);
					ASSERT_TRUE(failed);
					fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "tracer",
							   "GPL", insns, 2, &opts);
					ASSERT_LE(0, fd);
				}
				close(fd);
			}
			if (faults_are_of_memory(faults))
				EXPECT_LE(1, faults_refused(faults));
			/* The arguments, the instructions, the license */
			if (faults_are_of_copies(faults))
				EXPECT_LE(3, faults_refused(faults));
		}
	}
}

/* Where a function of the kernel is. 0 or a negative errno */
static int find_function(const char *name, unsigned long *start, unsigned long *end)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	unsigned long address;
	char symbol[256];

	if (!file)
		return -errno;
	*start = 0;
	while (fscanf(file, "%lx %*c %255s%*[^\n]", &address, symbol) == 2)
		if (!strcmp(symbol, name))
			*start = address;
	*end = ~0UL;
	rewind(file);
	while (fscanf(file, "%lx %*c %255s%*[^\n]", &address, symbol) == 2)
		if (address > *start && address < *end)
			*end = address;
	fclose(file);
	return *start ? 0 : -ENOENT;
}

/* Without memory to ask for the module, the load says that it lacks the module. */
TEST_F_TIMEOUT(fault, load_that_brings_the_module, 600)
{
	struct faults *faults = &self->faults;
	unsigned long start, end;
	bool failed;
	int nth, fd;

	ASSERT_EQ(0, find_function("__request_module", &start, &end));
	FOR_EACH_INJECTOR(faults) {
		if (!faults_are_of_memory(faults))
			continue;
		faults_limit_to(faults, start, end);
		faults_new_row(faults, "load that brings the module");
		failed = true;
		for (nth = 1; failed; nth++) {
			ASSERT_LT(nth, MAX_NTH);
			ASSERT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
			faults_arm(faults, nth);
			fd = load_empty_tracer(UPDATE);
			failed = faults_disarm(faults);
			if (failed)
				faults_count(faults, fd < 0 ? fd : 0);
			if (fd < 0) {
				EXPECT_EQ(-EOPNOTSUPP, fd);
				ASSERT_TRUE(failed);
				EXPECT_FALSE(map_trace_module_loaded());
				fd = load_empty_tracer(UPDATE);
			}
			ASSERT_LE(0, fd) TH_LOG("the next one: %s", strerror(-fd));
			EXPECT_TRUE(map_trace_module_loaded());
			close(fd);
		}
		/* The arguments of modprobe, the name of the module, the request */
		EXPECT_LE(3, faults_refused(faults));
	}
}

/* No memory of the kernel's loader of modules around it, which is not made for that */
TEST_F_TIMEOUT(fault, module_init, 900)
{
	struct faults *faults = &self->faults;
	unsigned long start, end;
	bool failed;
	int ko, nth;

	ASSERT_EQ(0, find_function("do_one_initcall", &start, &end));
	ko = open(getenv("MAP_TRACE_KO") ?: "", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, ko);
	FOR_EACH_INJECTOR(faults) {
		if (!faults_are_of_copies(faults))
			faults_limit_to(faults, start, end);
		faults_new_row(faults, "module init");
		failed = true;
		for (nth = 1; failed; nth++) {
			int err;

			ASSERT_LT(nth, MAX_NTH);
			ASSERT_EQ(0, map_trace_module_unload_retry(FREED_AFTER_MS));
			faults_arm(faults, nth);
			err = syscall(__NR_finit_module, ko, "", 0) ? -errno : 0;
			failed = faults_disarm(faults);
			if (failed)
				faults_count(faults, err);
			EXPECT_EQ(!err, map_trace_module_loaded());
			if (err) {
				EXPECT_EQ(faults->injector->err, err) TH_LOG("init %d", nth);
				ASSERT_TRUE(failed);
				ASSERT_EQ(0, map_trace_module_load());
			}
		}
		/* The queue of the workers, and what sysfs has of it */
		if (faults_are_of_memory(faults))
			EXPECT_LE(2, faults_refused(faults));
		/* The parameters */
		if (faults_are_of_copies(faults))
			EXPECT_LE(1, faults_refused(faults));
	}
	close(ko);
}

/* Where the code of the module is. 0 or a negative errno */
static int find_module(unsigned long *start, unsigned long *end)
{
	FILE *file = fopen("/proc/modules", "r");
	char line[512], name[64];
	unsigned long size;
	int err = -ENOENT;

	if (!file)
		return -errno;
	while (err && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %lu %*d %*s %*s %lx", name, &size, start) == 3 &&
		    !strcmp(name, "map_trace"))
			err = 0;
	fclose(file);
	*end = *start + size;
	return err;
}

/* The same, while a map lives that was traced: the module takes its tracers. */
TEST_F_TIMEOUT(fault, module_exit, 900)
{
	struct sync_bpf *skel = load_sync();
	struct faults *faults = &self->faults;
	unsigned long start, end;
	struct loaded *loaded;
	bool failed;
	int nth;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	skel->bss->to = 10;
	FOR_EACH_INJECTOR(faults) {
		faults_new_row(faults, "module exit");
		failed = true;
		for (nth = 1; failed; nth++) {
			int link, err;

			ASSERT_LT(nth, MAX_NTH);
			ASSERT_EQ(0, map_trace_module_load());
			link = attach_to(skel->progs.synced, skel->maps.source);
			ASSERT_LE(0, link);
			close(link);
			ASSERT_TRUE(module_is_free());
			ASSERT_EQ(0, find_module(&start, &end));
			if (!faults_are_of_copies(faults))
				faults_limit_to(faults, start, end);
			faults_arm(faults, nth);
			err = map_trace_module_unload();
			failed = faults_disarm(faults);
			if (failed)
				faults_count(faults, err);
			if (faults_are_of_copies(faults) && err == -EFAULT) {
				/* It did not come so far that it knew which module. */
				EXPECT_TRUE(map_trace_module_loaded());
				err = map_trace_module_unload();
			}
			EXPECT_EQ(0, err);
			EXPECT_FALSE(map_trace_module_loaded());
			/* Nobody is told, and the map is as usable as it was. */
			EXPECT_EQ(0, run_program(skel->progs.update_range, NULL, 0));
			EXPECT_EQ(0, skel->bss->update_errors);
		}
		/* The name */
		if (faults_are_of_copies(faults))
			EXPECT_EQ(1, faults_refused(faults));
	}
	/* For the teardown */
	ASSERT_EQ(0, map_trace_module_load());
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The worker is nobody's thread: so many in a row fail of those that the module makes there. */
#define WORKER_FAULTS 3

static void begin_worker_faults(struct __test_metadata *_metadata, struct faults *faults,
				const char *path)
{
	unsigned long start, end;

	ASSERT_EQ(0, find_module(&start, &end));
	faults_begin_own(faults, "some in a row");
	faults_arm_workers(faults, 0);
	faults_limit_to(faults, start, end);
	faults_new_row(faults, path);
	faults_arm_workers(faults, WORKER_FAULTS);
}

static void end_worker_faults(struct faults *faults)
{
	unsigned int left;

	for (left = faults_disarm_workers(faults); left; left--)
		faults_count(faults, -ENOMEM);
}

/* What is there before, and what is written through pointers, is told once there is memory. */
TEST_F_TIMEOUT(fault, worker, 600)
{
	struct faults *faults = &self->faults;
	struct sync_bpf *skel = load_sync();
	struct loaded *loaded;
	__u32 key = 3;
	__u64 value;
	int link;

	ASSERT_NE(NULL, skel);
	loaded = note_loaded(skel->obj);
	skel->bss->to = 10;
	ASSERT_EQ(0, run_program(skel->progs.update_range, NULL, 0));
	ASSERT_EQ(0, bpf_map_lookup_elem(bpf_map__fd(skel->maps.source), &key, &value));
	link = attach_to(skel->progs.synced, skel->maps.source);
	ASSERT_LE(0, link);
	ASSERT_TRUE(mirror_gets(skel, key, value));
	begin_worker_faults(_metadata, faults, "replay, by the worker");
	ASSERT_EQ(0, map_trace_update(link, bpf_program__fd(skel->progs.synced_negated), -1));
	EXPECT_TRUE(mirror_gets(skel, key, ~value));
	end_worker_faults(faults);

	ASSERT_EQ(0, map_trace_update(link, bpf_program__fd(skel->progs.synced), -1));
	EXPECT_TRUE(mirror_gets(skel, key, value));
	begin_worker_faults(_metadata, faults, "marks, by the worker");
	ASSERT_EQ(0, write_through_pointer(skel, key));
	EXPECT_TRUE(mirror_gets(skel, key, value + 1000));
	end_worker_faults(faults);
	/* Room for the marks, each time that they are looked at */
	EXPECT_EQ(WORKER_FAULTS, faults_tried(faults));
	close(link);
	sync_bpf__destroy(skel);
	EXPECT_TRUE(loaded_is_gone(loaded));
}

/* The harness runs the tests of a fixture one after the other, and this one comes last. */
FIXTURE(table) {
};

FIXTURE_SETUP(table)
{
}

FIXTURE_TEARDOWN(table)
{
}

TEST_F(table, what_was_tried)
{
	if (access("/sys/kernel/debug/kmemleak", F_OK))
		SKIP(return, "kernel without kmemleak");
	EXPECT_EQ(0, faults_print_table());
}

TEST_HARNESS_MAIN
