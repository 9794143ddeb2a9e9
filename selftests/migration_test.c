// SPDX-License-Identifier: GPL-2.0
/*
 * The RFC's example, a program that is upgraded while it runs: migration_old.bpf.c goes,
 * migration_new.bpf.c comes, and what the one knew the other one knows. The tests come in
 * pairs: the second one of each shows that the first one is not won by chance. They do as
 * Documentation/migration.rst says, by its code; stock_migration_test.c is the same with
 * a distribution's libbpf.
 */
#include "testing_helpers.h"

#ifndef ATTACH_TRACERS
/* The section handler is that of libbpf. */
#define SETUP map_trace_module_load
#define ATTACH_TRACERS "migration-4.c"
#endif

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "progs/migration.h"
#include "migration_old.skel.h"
#include "migration_new.skel.h"

/* Of an emulated machine with other things to do; the copy waits for 30 s. */
#define POINT_MS 20000

FIXTURE(migration) {
	struct migration_old_bpf *old;
	struct migration_new_bpf *new;
	int old_map;
	int new_map;
};

FIXTURE_SETUP(migration)
{
	struct migration_new_bpf *skel;
	struct bpf_program *prog;
	int old_map, err;

	ASSERT_EQ(0, SETUP());
	self->old = migration_old_bpf__open_and_load();
	ASSERT_NE(NULL, self->old);
	ASSERT_EQ(0, migration_old_bpf__attach(self->old));
	old_map = bpf_map__fd(self->old->maps.open_files);
	self->old_map = old_map;

#include "migration-3.c"
	ASSERT_EQ(0, err);
	self->new = skel;
	/* Everything but the new version itself is attached by hand. */
	bpf_object__for_each_program(prog, self->new->obj)
		bpf_program__set_autoattach(prog, prog == self->new->progs.after_openat ||
					    prog == self->new->progs.before_close ||
					    prog == self->new->progs.may_write);
	self->new_map = bpf_map__fd(self->new->maps.new_files);
}

FIXTURE_TEARDOWN(migration)
{
	migration_new_bpf__destroy(self->new);
	migration_old_bpf__destroy(self->old);
}

static void watch_with_old(struct migration_old_bpf *old)
{
	__atomic_store_n(&old->bss->pid, getpid(), __ATOMIC_SEQ_CST);
}

static int open_file(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* What the programs let this process do */
static int write_to(int fd)
{
	return write(fd, "x", 1) == 1 ? 0 : -errno;
}

static bool old_knows(int map, int fd)
{
	struct file_old key = { .pid = getpid(), .fd = fd };
	__u64 value;

	return !bpf_map_lookup_elem(map, &key, &value);
}

static bool new_knows(int map, int fd)
{
	struct file_new key = { .fd = fd, .pid = getpid() };
	__u64 value;

	return !bpf_map_lookup_elem(map, &key, &value);
}

static int entries(int map)
{
	struct file_old key, *previous = NULL;
	int count = 0;

	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		count++;
	}
	return count;
}

/* How many keys of the old map differ in the new one, and the other way round */
static int differences(int old_map, int new_map)
{
	struct file_old old, *previous_old = NULL;
	struct file_new new, *previous_new = NULL;
	__u64 value, other;
	int count = 0;

	while (!bpf_map_get_next_key(old_map, previous_old, &old)) {
		new = (struct file_new){ .fd = old.fd, .pid = old.pid };
		if (bpf_map_lookup_elem(old_map, &old, &value) ||
		    bpf_map_lookup_elem(new_map, &new, &other) || value != other)
			count++;
		previous_old = &old;
	}
	while (!bpf_map_get_next_key(new_map, previous_new, &new)) {
		struct file_old key = { .pid = new.pid, .fd = new.fd };

		if (bpf_map_lookup_elem(old_map, &key, &value))
			count++;
		previous_new = &new;
	}
	return count;
}

static void attach_tracers(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self)
{
	struct migration_new_bpf *skel = self->new;

#include ATTACH_TRACERS
	ASSERT_NE(NULL, skel->links.follow_update) TH_LOG("attach: %s", strerror(errno));
	ASSERT_NE(NULL, skel->links.follow_delete) TH_LOG("attach: %s", strerror(errno));
}

/* Run the iterator over all of the old map. 0 or a negative errno */
static int copy(struct bpf_program *prog, int old_map)
{
	union bpf_iter_link_info info = { .map.map_fd = old_map };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts,
		.link_info = &info, .link_info_len = sizeof(info),
	);
	struct bpf_link *link = bpf_program__attach_iter(prog, &opts);
	char buffer[64];
	ssize_t len;
	int fd;

	if (!link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(link));
	if (fd < 0) {
		bpf_link__destroy(link);
		return -errno;
	}
	while ((len = read(fd, buffer, sizeof(buffer))) > 0)
		;
	len = len < 0 ? -errno : 0;
	close(fd);
	bpf_link__destroy(link);
	return len;
}

/* From here on, the new version watches alone. */
static void switch_over(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self)
{
	ASSERT_EQ(0, migration_new_bpf__attach(self->new));
	self->new->bss->opened = self->old->bss->opened;
	/* Both watch for a moment: what they note is the same. */
	__atomic_store_n(&self->new->bss->pid, getpid(), __ATOMIC_SEQ_CST);
	__atomic_store_n(&self->old->bss->pid, 0, __ATOMIC_SEQ_CST);
	migration_old_bpf__detach(self->old);
	bpf_link__destroy(self->new->links.follow_update);
	bpf_link__destroy(self->new->links.follow_delete);
	self->new->links.follow_update = self->new->links.follow_delete = NULL;
}

TEST_F(migration, old_version_does_what_it_is_for)
{
	int fd, pipes[2];

	watch_with_old(self->old);
	fd = open_file();
	ASSERT_LE(0, fd);
	EXPECT_TRUE(old_knows(self->old_map, fd));
	EXPECT_EQ(0, write_to(fd));
	/* Not opened */
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-EPERM, write_to(pipes[1]));
	close(fd);
	EXPECT_FALSE(old_knows(self->old_map, fd));
}

/* The two races: a file opened before the copy and closed after it, and one opened after it */
struct raced {
	int stays;
	int closed_after_copy;
	int opened_after_copy;
	int never_opened;
};

static void migrate(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self,
		    bool tracers, struct raced *raced)
{
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	watch_with_old(self->old);
	raced->stays = open_file();
	ASSERT_LE(0, raced->stays);
	raced->closed_after_copy = open_file();
	ASSERT_LE(0, raced->closed_after_copy);

	if (tracers)
		attach_tracers(_metadata, self);
	ASSERT_EQ(0, copy(self->new->progs.copy_safe, self->old_map));
	EXPECT_TRUE(new_knows(self->new_map, raced->stays));
	EXPECT_TRUE(new_knows(self->new_map, raced->closed_after_copy));

	raced->opened_after_copy = open_file();
	ASSERT_LE(0, raced->opened_after_copy);
	close(raced->closed_after_copy);
	/* The number means another file from here on, which was not opened. */
	ASSERT_EQ(raced->closed_after_copy, dup2(pipes[1], raced->closed_after_copy));

	/* The old version knows. */
	EXPECT_EQ(0, write_to(raced->stays));
	EXPECT_EQ(0, write_to(raced->opened_after_copy));
	EXPECT_EQ(-EPERM, write_to(raced->closed_after_copy));
}

TEST_F(migration, with_tracers_both_races_are_won)
{
	struct bpf_link *tracers[2];
	struct map_trace_info info;
	struct raced raced;
	int fd, i;

	migrate(_metadata, self, true, &raced);
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
	tracers[0] = self->new->links.follow_update;
	tracers[1] = self->new->links.follow_delete;
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, map_trace_get_info(bpf_link__fd(tracers[i]), &info));
		EXPECT_EQ(id_of_map(self->old_map), info.map_id);
		EXPECT_EQ(0, info.missed);
		EXPECT_EQ(0, info.failed);
	}
	switch_over(_metadata, self);

	EXPECT_EQ(0, write_to(raced.stays));
	EXPECT_EQ(0, write_to(raced.opened_after_copy));
	EXPECT_EQ(-EPERM, write_to(raced.closed_after_copy));

	/* And the new version goes on by itself. */
	fd = open_file();
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, write_to(fd));
	EXPECT_FALSE(old_knows(self->old_map, fd));
	close(fd);
	EXPECT_FALSE(new_knows(self->new_map, fd));
	close(raced.stays);
	EXPECT_FALSE(new_knows(self->new_map, raced.stays));
}

/* The same without tracers: the new version forbids what it should not, and allows what it should not. */
TEST_F(migration, control_without_tracers_both_races_are_lost)
{
	struct raced raced;

	migrate(_metadata, self, false, &raced);
	EXPECT_EQ(2, differences(self->old_map, self->new_map));
	switch_over(_metadata, self);

	EXPECT_EQ(0, write_to(raced.stays));
	EXPECT_EQ(-EPERM, write_to(raced.opened_after_copy));
	EXPECT_EQ(0, write_to(raced.closed_after_copy));
}

/* A full map, whose entries change before the copy and after it */
TEST_F(migration, full_map)
{
	int fds[MAX_FILES], i;

	watch_with_old(self->old);
	for (i = 0; i < MAX_FILES; i++) {
		fds[i] = open_file();
		ASSERT_LE(0, fds[i]);
	}
	EXPECT_EQ(MAX_FILES, entries(self->old_map));
	attach_tracers(_metadata, self);
	for (i = 0; i < MAX_FILES; i += 2)
		close(fds[i]);
	for (i = 0; i < MAX_FILES; i += 4) {
		fds[i] = open_file();
		ASSERT_LE(0, fds[i]);
	}
	ASSERT_EQ(0, copy(self->new->progs.copy_safe, self->old_map));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
	for (i = 1; i < MAX_FILES; i += 2)
		close(fds[i]);
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
	switch_over(_metadata, self);
	for (i = 0; i < MAX_FILES; i += 4) {
		EXPECT_EQ(0, write_to(fds[i]));
	}
}

/*
 * The ghost, and what else can happen to one file while it is being copied. The copy
 * waits at each point of a script, and a second thread does there what it says.
 */

enum action {
	CLOSE_IT,
	OPEN_IT_AGAIN,		/* under the number that it had */
	CLOSE_AND_OPEN_IT,
};

struct step {
	__u32 point;
	enum action action;
};

struct interleaving {
	FIXTURE_DATA(migration) *self;
	int fd;
	const struct step *steps;
	int nr_steps;
	/* The step that went wrong, and how */
	int failed;
	int err;
};

static bool wait_for_point(volatile __u32 *reached, __u32 point)
{
	__u64 deadline = now_ns() + POINT_MS * NSEC_PER_MSEC;

	while (__atomic_load_n(reached, __ATOMIC_ACQUIRE) != point) {
		if (now_ns() > deadline)
			return false;
		sched_yield();
	}
	return true;
}

static int act(enum action action, int fd)
{
	int again;

	if (action != OPEN_IT_AGAIN && close(fd))
		return -errno;
	if (action == CLOSE_IT)
		return 0;
	again = open_file();
	/* The lowest free number is the one that was given back. */
	return again == fd ? 0 : again < 0 ? again : -EBADF;
}

static void *interleave(void *argument)
{
	struct interleaving *this = argument;
	__typeof__(this->self->new->bss) bss = this->self->new->bss;
	int i;

	this->failed = -1;
	for (i = 0; i < this->nr_steps && this->failed < 0; i++) {
		if (!wait_for_point(&bss->reached, this->steps[i].point))
			this->err = -ETIMEDOUT;
		else
			this->err = act(this->steps[i].action, this->fd);
		if (this->err)
			this->failed = i;
		__atomic_store_n(&bss->released, this->steps[i].point, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Copy one file while @steps happen to it; its number */
static int copy_interleaved(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self,
			    struct bpf_program *prog, const struct step *steps, int nr_steps)
{
	struct interleaving this = { .self = self, .steps = steps, .nr_steps = nr_steps };
	pthread_t thread;
	int i, err;

	watch_with_old(self->old);
	this.fd = open_file();
	ASSERT_LE(0, this.fd);
	attach_tracers(_metadata, self);

	self->new->bss->wait_for_fd = this.fd;
	for (i = 0; i < nr_steps; i++)
		self->new->bss->wait_at |= steps[i].point;
	ASSERT_EQ(0, pthread_create(&thread, NULL, interleave, &this));
	err = copy(prog, self->old_map);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, err) TH_LOG("copy: %s", strerror(-err));
	/* All steps took place, and where they should. */
	ASSERT_EQ(-1, this.failed) TH_LOG("step %d: %s", this.failed, strerror(-this.err));
	ASSERT_EQ(0, self->new->bss->waited_too_long);
	self->new->bss->wait_at = 0;
	return this.fd;
}

#define COPY(prog, ...) ({							\
	static const struct step _steps[] = { __VA_ARGS__ };			\
										\
	copy_interleaved(_metadata, self, self->new->progs.prog, _steps,	\
			 ARRAY_SIZE(_steps));					\
})

TEST_F(migration, plain_copy_leaves_a_ghost)
{
	int fd = COPY(copy_plain, { COPY_HAS_READ, CLOSE_IT });

	EXPECT_FALSE(old_knows(self->old_map, fd));
	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(1, differences(self->old_map, self->new_map));
}

TEST_F(migration, safe_copy_leaves_no_ghost)
{
	int fd = COPY(copy_safe, { COPY_HAS_READ, CLOSE_IT });

	EXPECT_FALSE(old_knows(self->old_map, fd));
	EXPECT_FALSE(new_knows(self->new_map, fd));
	EXPECT_EQ(1, self->new->bss->taken_back);
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
}

TEST_F(migration, plain_copy_puts_an_old_value_back)
{
	int fd = COPY(copy_plain, { COPY_HAS_READ, CLOSE_AND_OPEN_IT });

	EXPECT_TRUE(old_knows(self->old_map, fd));
	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(1, differences(self->old_map, self->new_map));
}

TEST_F(migration, safe_copy_keeps_the_new_value)
{
	int fd = COPY(copy_safe, { COPY_HAS_READ, CLOSE_AND_OPEN_IT });

	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(0, self->new->bss->copied);
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
}

TEST_F(migration, safe_copy_and_a_close_after_the_insertion)
{
	int fd = COPY(copy_safe, { COPY_HAS_INSERTED, CLOSE_IT });

	EXPECT_FALSE(new_knows(self->new_map, fd));
	/* The tracer was faster. */
	EXPECT_EQ(0, self->new->bss->taken_back);
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
}

TEST_F(migration, safe_copy_and_another_file_after_the_insertion)
{
	int fd = COPY(copy_safe, { COPY_HAS_INSERTED, CLOSE_AND_OPEN_IT });

	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
}

/*
 * The window that remains: closed before the insertion, and opened again between the
 * second look and the removal. The copy takes back what is not its own.
 */
TEST_F(migration, window_of_the_safe_copy_is_closed_by_another_pass)
{
	int fd = COPY(copy_safe, { COPY_HAS_READ, CLOSE_IT },
		      { COPY_HAS_FOUND_IT_GONE, OPEN_IT_AGAIN });

	EXPECT_TRUE(old_knows(self->old_map, fd));
	EXPECT_FALSE(new_knows(self->new_map, fd));
	EXPECT_EQ(1, self->new->bss->taken_back);

	/* It has taken something back, so the copy is not over. */
	self->new->bss->copied = self->new->bss->taken_back = 0;
	ASSERT_EQ(0, copy(self->new->progs.copy_safe, self->old_map));
	EXPECT_EQ(1, self->new->bss->copied);
	EXPECT_EQ(0, self->new->bss->taken_back);
	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));

	/* Until a pass finds nothing to do */
	self->new->bss->copied = self->new->bss->taken_back = 0;
	ASSERT_EQ(0, copy(self->new->progs.copy_safe, self->old_map));
	EXPECT_EQ(0, self->new->bss->copied);
	EXPECT_EQ(0, self->new->bss->taken_back);
}

TEST_HARNESS_MAIN
