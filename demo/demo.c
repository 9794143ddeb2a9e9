// SPDX-License-Identifier: GPL-2.0
/*
 * Keep the processes of this machine in one map, mirror it in a second map with another
 * layout by tracing it, and compare both.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "demo.h"
#include "demo.skel.h"
#include "map_trace_libbpf.h"

#define WORKERS 2
#define SHORT_LIVED_EACH 1200
#define LONG_LIVED_EACH 16
/* One process in EXEC_INTERVAL runs a program. The others only fork. */
#define EXEC_INTERVAL 20
#define EVENTS_MIN 2000

static int die(const char *what, int err)
{
	fprintf(stderr, "demo: %s: %s\n", what, strerror(err < 0 ? -err : err));
	return 1;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static __u64 get(const __u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static int insert_module(void)
{
	const char *path = getenv("MAP_TRACE_KO");
	int fd, err = 0;

	if (!access("/sys/module/map_trace", F_OK))
		return 0;
	if (!path) {
		fprintf(stderr, "demo: insert map_trace.ko, or name it in MAP_TRACE_KO\n");
		return -ENOENT;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(__NR_finit_module, fd, "", 0) && errno != EEXIST)
		err = -errno;
	close(fd);
	if (!err)
		printf("demo: inserted %s\n", path);
	return err;
}

static int show_mirrored(void *context, void *data, size_t size)
{
	const struct mirrored *mirrored = data;

	(void)context;
	(void)size;
	if (mirrored->kind == MIRRORED_UPDATE)
		printf("  update %6llu on CPU %u: %016llx = { comm \"%s\", execs %u, parent %u, "
		       "start %llu us }\n", mirrored->number + 1, mirrored->cpu, mirrored->key,
		       mirrored->value.comm, mirrored->value.execs, mirrored->value.parent,
		       mirrored->value.start_us);
	else
		printf("  delete %6llu on CPU %u: %016llx\n", mirrored->number + 1, mirrored->cpu,
		       mirrored->key);
	return 0;
}

static void child(int i)
{
	if (i % EXEC_INTERVAL == 0) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	_exit(0);
}

/*
 * Fork processes that exit at once, and count them in @forked. Then fork some that live until
 * this process has to end, so that neither map is empty.
 */
static int work(volatile __u64 *forked, int ready, int end)
{
	pid_t alive[LONG_LIVED_EACH];
	char byte = 0;
	int i, err = 0;

	for (i = 0; i < SHORT_LIVED_EACH; i++) {
		pid_t pid = fork();
		int status;

		if (!pid)
			child(i);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			return 1;
		__atomic_add_fetch(forked, 1, __ATOMIC_RELAXED);
	}
	for (i = 0; i < LONG_LIVED_EACH; i++) {
		alive[i] = fork();
		if (!alive[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		if (alive[i] < 0)
			err = 1;
	}
	if (write(ready, &byte, 1) != 1 || read(end, &byte, 1) < 0)
		err = 1;
	for (i = 0; i < LONG_LIVED_EACH; i++) {
		if (alive[i] < 0)
			continue;
		kill(alive[i], SIGKILL);
		waitpid(alive[i], NULL, 0);
	}
	return err;
}

static bool equal(const struct process *old, const struct process_v2 *new)
{
	return old->start_ns / 1000 == new->start_us && old->parent == new->parent &&
	       old->execs == new->execs && !memcmp(old->comm, new->comm, COMM_SIZE);
}

struct comparison {
	__u64 source;
	__u64 mirror;
	__u64 differ;
};

static void compare(int source, int mirror, struct comparison *result)
{
	struct process_v2 new;
	struct process old;
	__u32 pid, *previous_pid = NULL;
	__u64 key, *previous_key = NULL;

	memset(result, 0, sizeof(*result));
	for (; !bpf_map_get_next_key(source, previous_pid, &pid); previous_pid = &pid) {
		result->source++;
		key = (__u64)pid << 32 | pid;
		if (bpf_map_lookup_elem(source, &pid, &old) ||
		    bpf_map_lookup_elem(mirror, &key, &new) || !equal(&old, &new)) {
			printf("demo: process %u is not mirrored\n", pid);
			result->differ++;
		}
	}
	for (; !bpf_map_get_next_key(mirror, previous_key, &key); previous_key = &key) {
		result->mirror++;
		pid = key;
		if (bpf_map_lookup_elem(source, &pid, &old)) {
			printf("demo: process %u is in the mirror only\n", pid);
			result->differ++;
		}
	}
}

/* Returns when no program on a tracepoint is running any more. */
static int stop_following(struct demo_bpf *skel)
{
	double deadline = seconds() + 30;
	__u64 ended;

	__atomic_store_n(&skel->bss->following, 0, __ATOMIC_SEQ_CST);
	do {
		ended = get(&skel->bss->ended);
		if (get(&skel->bss->begun) == ended)
			return 0;
		usleep(1000);
	} while (seconds() < deadline);
	return -ETIMEDOUT;
}

static int check_link(const struct bpf_link *link, const char *name)
{
	struct map_trace_info info;
	int err = map_trace_get_info(bpf_link__fd(link), &info);

	if (err)
		return err;
	if (info.missed || info.failed)
		printf("demo: %s tracer: %llu missed, %llu failed\n", name, info.missed,
		       info.failed);
	return 0;
}

int main(void)
{
	int ready[2], end[2], workers_ready = 0, status, failed = 0, err, i;
	struct ring_buffer *samples;
	struct comparison result;
	volatile __u64 *forked;
	pid_t workers[WORKERS];
	struct demo_bpf *skel;
	double start, shown;

	setvbuf(stdout, NULL, _IOLBF, 0);
	err = insert_module();
	if (!err)
		err = map_trace_register();
	if (err)
		return die("map_trace", err);
	skel = demo_bpf__open_and_load();
	if (!skel)
		return die("load", errno);
	/* The tracers attach to the map that their section names. */
	err = demo_bpf__attach(skel);
	if (err)
		return die("attach", err);
	samples = ring_buffer__new(bpf_map__fd(skel->maps.samples), show_mirrored, NULL, NULL);
	if (!samples)
		return die("ring buffer", errno);
	forked = mmap(NULL, sizeof(*forked), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (forked == MAP_FAILED || pipe2(ready, O_CLOEXEC) || pipe2(end, O_CLOEXEC))
		return die("workload", errno);

	printf("demo: %d short-lived processes; the first mirrored events, then one of every "
	       "%d:\n", WORKERS * SHORT_LIVED_EACH, SAMPLE_INTERVAL);
	__atomic_store_n(&skel->bss->following, 1, __ATOMIC_SEQ_CST);
	start = shown = seconds();
	for (i = 0; i < WORKERS; i++) {
		workers[i] = fork();
		if (workers[i] < 0)
			return die("fork", errno);
		if (!workers[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(end[1]);
			_exit(work(forked, ready[1], end[0]));
		}
	}
	close(ready[1]);
	close(end[0]);
	fcntl(ready[0], F_SETFL, O_NONBLOCK);
	while (workers_ready < WORKERS) {
		char byte;
		ssize_t len;

		ring_buffer__poll(samples, 100);
		len = read(ready[0], &byte, 1);
		if (len == 1)
			workers_ready++;
		else if (!len)
			break;
		if (seconds() - shown >= 2) {
			shown = seconds();
			printf("demo: %3.0f s, %llu of %d processes, %llu updates, %llu deletes "
			       "mirrored\n", shown - start, *forked, WORKERS * SHORT_LIVED_EACH,
			       get(&skel->bss->mirrored_updates),
			       get(&skel->bss->mirrored_deletes));
		}
	}
	err = stop_following(skel);
	ring_buffer__consume(samples);
	if (err)
		return die("the programs on the tracepoints do not finish", err);

	compare(bpf_map__fd(skel->maps.processes), bpf_map__fd(skel->maps.processes_v2), &result);
	close(end[1]);
	for (i = 0; i < WORKERS; i++) {
		if (waitpid(workers[i], &status, 0) != workers[i] || status) {
			printf("demo: the workload failed\n");
			failed = 1;
		}
	}
	if (check_link(skel->links.mirror_update, "update") ||
	    check_link(skel->links.mirror_delete, "delete"))
		failed = 1;
	if (skel->bss->source_updates != skel->bss->mirrored_updates ||
	    skel->bss->source_deletes != skel->bss->mirrored_deletes) {
		printf("demo: the source saw %llu updates and %llu deletes\n",
		       skel->bss->source_updates, skel->bss->source_deletes);
		failed = 1;
	}
	printf("demo: %.1f s, %llu processes\n", seconds() - start, *forked);
	printf("demo: %llu updates, %llu deletes, source %llu entries, mirror %llu entries, "
	       "%llu differ\n", skel->bss->mirrored_updates, skel->bss->mirrored_deletes,
	       result.source, result.mirror, result.differ);
	if (result.differ || !result.source || skel->bss->mirrored_updates < EVENTS_MIN ||
	    skel->bss->mirrored_deletes < EVENTS_MIN)
		failed = 1;
	ring_buffer__free(samples);
	demo_bpf__destroy(skel);
	return failed;
}
