// SPDX-License-Identifier: GPL-2.0
/*
 * To be preloaded: each map that the process creates by syscall(2), as libbpf does, gets the
 * tracers that "tracers pin" has pinned. Their links are closed with the descriptor of the map:
 * a link holds its map, and tests make so many that they need the memory.
 *
 * What a process does not notice: its errno stays, and the links are far from the numbers that
 * its own descriptors get. Maps that a light skeleton makes in the kernel go untraced.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tracers.h"

/* Links get numbers from here on, where the limit lets them. */
#define FIRST_LINK_FD 32768
/* A map with a larger number goes untraced. */
#define NR_FDS 32768

static long (*next_syscall)(long number, ...);
static int (*next_close)(int fd);

static struct tracer_counts *counts;
static int progs[NR_TRACERS];
/* Of each descriptor of a map, those of its links, or 0 */
static int links[NR_FDS][NR_TRACERS];

static long bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	return next_syscall(__NR_bpf, cmd, attr, sizeof(*attr));
}

/* High, and not to be inherited by what is executed */
static int move_up(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_LINK_FD);

	if (high < 0)
		return fd;
	next_close(fd);
	return high;
}

static int get_pinned(const char *name)
{
	char path[64];
	union bpf_attr attr = {};
	int fd;

	snprintf(path, sizeof(path), "%s/%s", PIN_DIRECTORY, name);
	attr.pathname = (unsigned long)path;
	fd = bpf(BPF_OBJ_GET, &attr);
	return fd < 0 ? fd : move_up(fd);
}

/* Before main(), which may give up the rights that it takes. A process that finds no tracers
 * goes untraced.
 */
__attribute__((constructor)) static void get_tracers(void)
{
	struct tracer_counts *shared;
	char name[16];
	int fd, i;

	next_syscall = dlsym(RTLD_NEXT, "syscall");
	next_close = dlsym(RTLD_NEXT, "close");
	fd = get_pinned("counts");
	if (fd < 0)
		return;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	next_close(fd);
	if (shared == MAP_FAILED)
		return;
	for (i = 0; i < NR_TRACERS; i++) {
		snprintf(name, sizeof(name), "%d", i);
		progs[i] = get_pinned(name);
		if (progs[i] < 0)
			return;
	}
	counts = shared;
}

static void note_end(int link)
{
	struct bpf_link_info info = {};
	union bpf_attr attr = {
		.info = {
			.bpf_fd = link,
			.info_len = sizeof(info),
			.info = (unsigned long)&info,
		},
	};

	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr))
		return;
	__atomic_fetch_add(&counts->missed, info.map_trace.missed, __ATOMIC_RELAXED);
	__atomic_fetch_add(&counts->lost, info.map_trace.lost, __ATOMIC_RELAXED);
}

static void untrace(int fd)
{
	int error = errno, link, i;

	if (fd < 0 || fd >= NR_FDS)
		return;
	for (i = 0; i < NR_TRACERS; i++) {
		if (!links[fd][i])
			continue;
		link = __atomic_exchange_n(&links[fd][i], 0, __ATOMIC_RELAXED);
		if (!link)
			continue;
		note_end(link);
		next_close(link);
	}
	errno = error;
}

static void refused(int tracer, unsigned int map_type, int error)
{
	if (map_type >= NR_MAP_TYPES)
		map_type = NR_MAP_TYPES - 1;
	if (error >= NR_ERRNOS)
		error = NR_ERRNOS - 1;
	__atomic_fetch_add(&counts->refused[tracer][map_type][error], 1, __ATOMIC_RELAXED);
}

static void trace(int fd, unsigned int map_type)
{
	int error = errno, i;
	long link;

	if (!counts || fd < 0 || fd >= NR_FDS)
		return;
	/* Of a map whose descriptor was closed by another way than close() */
	untrace(fd);
	for (i = 0; i < NR_TRACERS; i++) {
		struct bpf_map_trace_link_info info = {
			.map_fd = fd,
			.trace_type = i,
		};
		union bpf_attr attr = {
			.link_create = {
				.prog_fd = progs[i],
				.attach_type = BPF_TRACE_MAP,
				.map_trace_info = (unsigned long)&info,
				.map_trace_info_len = sizeof(info),
			},
		};

		link = bpf(BPF_LINK_CREATE, &attr);
		if (link < 0) {
			refused(i, map_type, errno);
			continue;
		}
		__atomic_store_n(&links[fd][i], move_up(link), __ATOMIC_RELAXED);
		__atomic_fetch_add(&counts->links[i], 1, __ATOMIC_RELAXED);
	}
	errno = error;
}

/* libbpf gives a map the number that it has promised to its programs. */
static void renumbered(int from, int to)
{
	int i;

	if (from < 0 || from >= NR_FDS || to < 0 || to >= NR_FDS || from == to)
		return;
	untrace(to);
	for (i = 0; i < NR_TRACERS; i++)
		links[to][i] = __atomic_exchange_n(&links[from][i], 0, __ATOMIC_RELAXED);
}

long syscall(long number, ...)
{
	long arguments[6], result;
	va_list list;
	int i;

	va_start(list, number);
	for (i = 0; i < 6; i++)
		arguments[i] = va_arg(list, long);
	va_end(list);

	if (number == __NR_close)
		untrace(arguments[0]);
	result = next_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3],
			      arguments[4], arguments[5]);
	if (result < 0)
		return result;
	if (number == __NR_bpf && ((int)arguments[0] & ~BPF_COMMON_ATTRS) == BPF_MAP_CREATE)
		trace(result, ((union bpf_attr *)arguments[1])->map_type);
	else if (number == __NR_dup3)
		renumbered(arguments[0], arguments[1]);
	return result;
}

int close(int fd)
{
	untrace(fd);
	return next_close(fd);
}
