// SPDX-License-Identifier: GPL-2.0
/*
 * The RFC's example, a program that is upgraded while it runs: migration_new.bpf.c replaces
 * migration_old.bpf.c and takes over its state. The tests follow Documentation/migration.rst,
 * and use its code. stock_migration_test.c does the same with a distribution's libbpf. The
 * tests named control_* show that the others do not pass by chance.
 */
#include "testing_helpers.h"

#ifndef ATTACH_FOLLOW
/* The section handler is that of libbpf. */
#define SETUP map_trace_module_load
#define ATTACH_FOLLOW "migration-3.c"
#define ATTACH(prog) bpf_program__attach(prog)
#endif

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "progs/migration.h"
#include "migration_old.skel.h"
#include "migration_new.skel.h"

/* Of an emulated machine with other things to do; who waits does so for 10 s. */
#define POINT_MS 8000

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

#include "migration-2.c"
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

static int lookup_old(int map, int fd, struct state_old *state)
{
	struct file_old key = { .pid = getpid(), .fd = fd };

	return bpf_map_lookup_elem(map, &key, state);
}

static int lookup_new(int map, int fd, struct state_new *state)
{
	struct file_new key = { .fd = fd, .pid = getpid() };

	return bpf_map_lookup_elem(map, &key, state);
}

static bool old_knows(int map, int fd)
{
	struct state_old state;

	return !lookup_old(map, fd, &state);
}

static bool new_knows(int map, int fd)
{
	struct state_new state;

	return !lookup_new(map, fd, &state);
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
	struct state_old state;
	struct state_new other;
	int count = 0;

	while (!bpf_map_get_next_key(old_map, previous_old, &old)) {
		new = (struct file_new){ .fd = old.fd, .pid = old.pid };
		if (bpf_map_lookup_elem(old_map, &old, &state) ||
		    bpf_map_lookup_elem(new_map, &new, &other) ||
		    state.number != other.number || state.writes != other.writes)
			count++;
		previous_old = &old;
	}
	while (!bpf_map_get_next_key(new_map, previous_new, &new)) {
		old = (struct file_old){ .pid = new.pid, .fd = new.fd };
		if (bpf_map_lookup_elem(old_map, &old, &state))
			count++;
		previous_new = &new;
	}
	return count;
}

static void attach_follow(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self)
{
	struct migration_new_bpf *skel = self->new;

#include ATTACH_FOLLOW
	ASSERT_NE(NULL, skel->links.follow) TH_LOG("attach: %s", strerror(errno));
}

static int wait_for_follow(FIXTURE_DATA(migration) *self)
{
	struct migration_new_bpf *skel = self->new;
	int err;

#include "migration-5.c"
	return err;
}

static int flush_follow(FIXTURE_DATA(migration) *self)
{
	return map_trace_flush(bpf_link__fd(self->new->links.follow), NULL, 0, 0, NULL);
}

/* The new version watches once it is attached, and counts on. */
static void prepare_switch(FIXTURE_DATA(migration) *self)
{
	self->new->bss->opened = self->old->bss->opened;
	self->new->bss->pid = getpid();
}

static int overlap(FIXTURE_DATA(migration) *self)
{
	struct migration_new_bpf *skel = self->new;
	struct migration_old_bpf *old = self->old;
	int err;

	prepare_switch(self);
#include "migration-6.c"
	return err;
}

static int stop(FIXTURE_DATA(migration) *self)
{
	int old_map = self->old_map, new_map = self->new_map, err;
	struct migration_new_bpf *skel = self->new;
	struct migration_old_bpf *old = self->old;

	prepare_switch(self);
#include "migration-7.c"
	return err;
}

/* The control: run the iterator over all of the old map. 0 or a negative errno */
static int copy(FIXTURE_DATA(migration) *self)
{
	union bpf_iter_link_info info = { .map.map_fd = self->old_map };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts,
		.link_info = &info, .link_info_len = sizeof(info),
	);
	struct bpf_link *link = bpf_program__attach_iter(self->new->progs.copy, &opts);
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

static void attach_tracers_of_operations(struct __test_metadata *_metadata,
					 FIXTURE_DATA(migration) *self)
{
	self->new->links.follow_update = ATTACH(self->new->progs.follow_update);
	ASSERT_NE(NULL, self->new->links.follow_update);
	self->new->links.follow_delete = ATTACH(self->new->progs.follow_delete);
	ASSERT_NE(NULL, self->new->links.follow_delete);
}

TEST_F(migration, old_version_does_what_it_is_for)
{
	struct state_old state;
	int fd, pipes[2];

	watch_with_old(self->old);
	fd = open_file();
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, write_to(fd));
	ASSERT_EQ(0, lookup_old(self->old_map, fd, &state));
	EXPECT_EQ(1, state.writes);
	/* Not opened */
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-EPERM, write_to(pipes[1]));
	close(fd);
	EXPECT_FALSE(old_knows(self->old_map, fd));
}

/* A file that is closed after the new map has it, one that is opened then, and writes to both */
struct raced {
	int stays;
	int closed;
	int opened;
};

enum how {
	A_COPY,
	A_COPY_AND_OPERATIONS,
	STATES,
};

/* Up to the switch */
static void migrate(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self,
		    enum how how, struct raced *raced)
{
	int pipes[2], i;

	ASSERT_EQ(0, pipe(pipes));
	watch_with_old(self->old);
	raced->stays = open_file();
	ASSERT_LE(0, raced->stays);
	raced->closed = open_file();
	ASSERT_LE(0, raced->closed);

	if (how == STATES) {
		attach_follow(_metadata, self);
		ASSERT_EQ(0, wait_for_follow(self));
	} else {
		if (how == A_COPY_AND_OPERATIONS)
			attach_tracers_of_operations(_metadata, self);
		ASSERT_EQ(0, copy(self));
	}
	EXPECT_TRUE(new_knows(self->new_map, raced->stays));
	EXPECT_TRUE(new_knows(self->new_map, raced->closed));

	raced->opened = open_file();
	ASSERT_LE(0, raced->opened);
	close(raced->closed);
	/* The number means another file from here on, which was not opened. */
	ASSERT_EQ(raced->closed, dup2(pipes[1], raced->closed));

	/* The old version knows, and counts through pointers. */
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, write_to(raced->stays));
		EXPECT_EQ(0, write_to(raced->opened));
	}
	EXPECT_EQ(-EPERM, write_to(raced->closed));
}

/* The new version knows what the old one knew, and goes on by itself. */
static void check_new_version(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self,
			      const struct raced *raced)
{
	struct state_new state;
	int fd;

	EXPECT_EQ(0, write_to(raced->stays));
	EXPECT_EQ(0, write_to(raced->opened));
	EXPECT_EQ(-EPERM, write_to(raced->closed));
	ASSERT_EQ(0, lookup_new(self->new_map, raced->stays, &state));
	EXPECT_EQ(4, state.writes);
	ASSERT_EQ(0, lookup_new(self->new_map, raced->opened, &state));
	EXPECT_EQ(4, state.writes);

	fd = open_file();
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, write_to(fd));
	EXPECT_FALSE(old_knows(self->old_map, fd));
	close(fd);
	EXPECT_FALSE(new_knows(self->new_map, fd));
}

TEST_F(migration, overlap_wins_the_races)
{
	struct map_trace_info info;
	struct raced raced;

	migrate(_metadata, self, STATES, &raced);
	ASSERT_EQ(0, map_trace_get_info(bpf_link__fd(self->new->links.follow), &info));
	EXPECT_EQ(id_of_map(self->old_map), info.map_id);
	EXPECT_EQ(2, info.replayed);
	EXPECT_EQ(0, info.lost);
	ASSERT_EQ(0, overlap(self));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
	EXPECT_EQ(0, self->new->bss->both);
	check_new_version(_metadata, self, &raced);
}

TEST_F(migration, stop_wins_the_races)
{
	struct raced raced;
	__u64 began;

	migrate(_metadata, self, STATES, &raced);
	began = now_ns();
	ASSERT_EQ(0, stop(self));
	TH_LOG("nobody watched for %llu ms", (now_ns() - began) / NSEC_PER_MSEC);
	check_new_version(_metadata, self, &raced);
}

/* Nobody tells them what is written through pointers. */
TEST_F(migration, control_tracers_of_operations_miss_writes)
{
	struct state_new state;
	struct raced raced;

	migrate(_metadata, self, A_COPY_AND_OPERATIONS, &raced);
	EXPECT_EQ(2, differences(self->old_map, self->new_map));
	ASSERT_EQ(0, lookup_new(self->new_map, raced.stays, &state));
	EXPECT_EQ(0, state.writes);
}

/* A copy alone: the new version forbids what it should not, and allows what it should not. */
TEST_F(migration, control_a_copy_loses_the_races)
{
	struct raced raced;

	migrate(_metadata, self, A_COPY, &raced);
	EXPECT_EQ(3, differences(self->old_map, self->new_map));
	prepare_switch(self);
	ASSERT_EQ(0, migration_new_bpf__attach(self->new));
	migration_old_bpf__detach(self->old);

	EXPECT_EQ(0, write_to(raced.stays));
	EXPECT_EQ(-EPERM, write_to(raced.opened));
	EXPECT_EQ(0, write_to(raced.closed));
}

/* Both have written a key: the new version wins, and that is counted. */
TEST_F(migration, overlap_the_new_version_wins)
{
	struct state_new state;
	int fd;

	watch_with_old(self->old);
	fd = open_file();
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, write_to(fd));
	attach_follow(_metadata, self);
	ASSERT_EQ(0, wait_for_follow(self));
	ASSERT_EQ(0, flush_follow(self));
	prepare_switch(self);
	ASSERT_EQ(0, migration_new_bpf__attach(self->new));
	/* In the new map once, in the old one three times */
	EXPECT_EQ(0, write_to(fd));
	self->new->bss->pid = 0;
	EXPECT_EQ(0, write_to(fd));
	ASSERT_EQ(0, flush_follow(self));
	ASSERT_EQ(0, lookup_new(self->new_map, fd, &state));
	EXPECT_EQ(2, state.writes);
	EXPECT_EQ(1, state.by_new);
	EXPECT_LE(1, self->new->bss->both);
}

/* The same where the new version does not say that it has written */
TEST_F(migration, control_without_the_rule_the_old_version_wins)
{
	struct file_new key = { .pid = getpid() };
	struct state_new state;

	watch_with_old(self->old);
	key.fd = open_file();
	ASSERT_LE(0, key.fd);
	EXPECT_EQ(0, write_to(key.fd));
	attach_follow(_metadata, self);
	ASSERT_EQ(0, wait_for_follow(self));
	ASSERT_EQ(0, lookup_new(self->new_map, key.fd, &state));
	EXPECT_EQ(1, state.writes);
	state.writes = 2;
	ASSERT_EQ(0, bpf_map_update_elem(self->new_map, &key, &state, BPF_EXIST));
	ASSERT_EQ(0, flush_follow(self));
	ASSERT_EQ(0, lookup_new(self->new_map, key.fd, &state));
	EXPECT_EQ(1, state.writes);
	EXPECT_EQ(0, self->new->bss->both);
}

/* A full map, whose entries change before the new map has them and after it */
TEST_F(migration, full_map)
{
	int fds[MAX_FILES], i;

	watch_with_old(self->old);
	for (i = 0; i < MAX_FILES; i++) {
		fds[i] = open_file();
		ASSERT_LE(0, fds[i]);
	}
	EXPECT_EQ(MAX_FILES, entries(self->old_map));
	attach_follow(_metadata, self);
	for (i = 0; i < MAX_FILES; i += 2)
		close(fds[i]);
	for (i = 0; i < MAX_FILES; i += 4) {
		fds[i] = open_file();
		ASSERT_LE(0, fds[i]);
	}
	ASSERT_EQ(0, wait_for_follow(self));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
	for (i = 1; i < MAX_FILES; i += 2)
		close(fds[i]);
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
	ASSERT_EQ(0, overlap(self));
	for (i = 0; i < MAX_FILES; i += 4) {
		EXPECT_EQ(0, write_to(fds[i]));
	}
}

static void destroy(struct bpf_link **link)
{
	bpf_link__destroy(*link);
	*link = NULL;
}

/* Have the tracer of the way back told all keys of the old map. 0 or a negative errno */
static int flush_keys_of_old(FIXTURE_DATA(migration) *self)
{
	struct migration_new_bpf *skel = self->new;
	struct file_new keys[MAX_FILES];
	int old_map = self->old_map, err;
	struct file_old key;
	__u32 count;

#include "migration-9.c"
	return err;
}

/* The old map follows the new one, and the old version takes over again. */
TEST_F(migration, way_back)
{
	struct pollfd replayed = { .events = POLLIN };
	struct migration_new_bpf *skel = self->new;
	int old_map = self->old_map, closed, fd;
	struct state_old state;
	struct raced raced;

	migrate(_metadata, self, STATES, &raced);
	/* Both directions at once would be a loop. */
	EXPECT_EQ(NULL, ATTACH(skel->progs.follow_back));
	EXPECT_EQ(ELOOP, errno);
	ASSERT_EQ(0, stop(self));
	/* While nobody tells the old map */
	closed = raced.opened;
	close(closed);

	skel->links.follow_back = ATTACH(skel->progs.follow_back);
	ASSERT_NE(NULL, skel->links.follow_back) TH_LOG("attach: %s", strerror(errno));
	replayed.fd = bpf_link__fd(skel->links.follow_back);
	ASSERT_EQ(1, poll(&replayed, 1, 60000));
	EXPECT_EQ(POLLIN, replayed.revents);
	EXPECT_TRUE(old_knows(old_map, closed));
	ASSERT_EQ(0, flush_keys_of_old(self));
	EXPECT_FALSE(old_knows(old_map, closed));
	EXPECT_EQ(0, differences(old_map, self->new_map));

	fd = open_file();
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, write_to(fd));
	EXPECT_TRUE(old_knows(old_map, fd));
	/* The new version ends, the old one begins. */
	destroy(&skel->links.after_openat);
	destroy(&skel->links.before_close);
	destroy(&skel->links.may_write);
	ASSERT_EQ(0, map_trace_flush(bpf_link__fd(skel->links.follow_back), NULL, 0, 0, NULL));
	EXPECT_EQ(0, differences(old_map, self->new_map));
	destroy(&skel->links.follow_back);
	ASSERT_EQ(0, migration_old_bpf__attach(self->old));
	EXPECT_EQ(0, write_to(fd));
	EXPECT_EQ(-EPERM, write_to(raced.closed));
	ASSERT_EQ(0, lookup_old(old_map, fd, &state));
	EXPECT_EQ(2, state.writes);
}

/* What happens to one file while it is handed on: who does it waits, and a second thread acts. */

enum action {
	CLOSE_IT,
	CLOSE_AND_OPEN_IT,	/* under the number that it had */
};

struct interleaving {
	struct migration_new_bpf *new;
	enum action action;
	int fd;
	int err;
};

static int act(enum action action, int fd)
{
	int again;

	if (close(fd))
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

	if (!wait_for_flag(&this->new->bss->reached, POINT_MS))
		this->err = -ETIMEDOUT;
	else
		this->err = act(this->action, this->fd);
	__atomic_store_n(&this->new->bss->released, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Bring one file into the new map while @action happens to it; its number */
static int hand_on(struct __test_metadata *_metadata, FIXTURE_DATA(migration) *self,
		   enum how how, enum action action)
{
	struct interleaving this = { .new = self->new, .action = action };
	pthread_t thread;
	int err;

	watch_with_old(self->old);
	this.fd = open_file();
	ASSERT_LE(0, this.fd);
	self->new->bss->wait_for_fd = this.fd;
	if (how != STATES)
		attach_tracers_of_operations(_metadata, self);
	ASSERT_EQ(0, pthread_create(&thread, NULL, interleave, &this));
	if (how == STATES) {
		attach_follow(_metadata, self);
		err = wait_for_follow(self);
	} else {
		err = copy(self);
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, err) TH_LOG("handing on: %s", strerror(-err));
	/* It took place, and where it should. */
	ASSERT_EQ(0, this.err) TH_LOG("meanwhile: %s", strerror(-this.err));
	ASSERT_EQ(0, self->new->bss->waited_too_long);
	return this.fd;
}

TEST_F(migration, control_a_copy_leaves_a_ghost)
{
	int fd = hand_on(_metadata, self, A_COPY_AND_OPERATIONS, CLOSE_IT);

	EXPECT_FALSE(old_knows(self->old_map, fd));
	EXPECT_TRUE(new_knows(self->new_map, fd));
}

TEST_F(migration, no_ghost_is_left)
{
	int fd = hand_on(_metadata, self, STATES, CLOSE_IT);

	EXPECT_FALSE(old_knows(self->old_map, fd));
	EXPECT_FALSE(new_knows(self->new_map, fd));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
}

TEST_F(migration, control_a_copy_puts_an_old_value_back)
{
	int fd = hand_on(_metadata, self, A_COPY_AND_OPERATIONS, CLOSE_AND_OPEN_IT);

	EXPECT_TRUE(old_knows(self->old_map, fd));
	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(1, differences(self->old_map, self->new_map));
}

TEST_F(migration, the_new_value_stays)
{
	int fd = hand_on(_metadata, self, STATES, CLOSE_AND_OPEN_IT);

	EXPECT_TRUE(new_knows(self->new_map, fd));
	EXPECT_EQ(0, differences(self->old_map, self->new_map));
}

TEST_HARNESS_MAIN
