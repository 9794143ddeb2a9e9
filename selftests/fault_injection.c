// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "fault_injection.h"
#include "fault.skel.h"

#define DEBUGFS "/sys/kernel/debug/"
#define KMEMLEAK DEBUGFS "kmemleak"
#define MAX_ROWS 192
#define MAX_ERRNOS 6

const struct injector injectors[NR_INJECTORS] = {
	[ONE_ALLOCATION] = {
		"one allocation", "failslab", false, "CONFIG_FAILSLAB", -ENOMEM
	},
	[ALL_ALLOCATIONS] = {
		"it and all after it", "failslab", true, "CONFIG_FAILSLAB", -ENOMEM
	},
	[ONE_PAGE] = {
		"one page", "fail_page_alloc", false, "CONFIG_FAIL_PAGE_ALLOC", -ENOMEM
	},
	[ALL_PAGES] = {
		"it and all pages after", "fail_page_alloc", true, "CONFIG_FAIL_PAGE_ALLOC", -ENOMEM
	},
	[ONE_COPY] = {
		"one copy", "fail_usercopy", false, "CONFIG_FAULT_INJECTION_USERCOPY", -EFAULT
	},
};

#define FOR_ALL(injector)							\
	for (injector = injectors; injector != injectors + NR_INJECTORS; injector++)

/* What became of the faults on one way */
struct row {
	char path[48];
	const char *name;
	/* Passes that met one, and those in which the call has failed */
	unsigned int tried, refused;
	int errnos[MAX_ERRNOS];
};

/* In memory that all tests share, each of which is a process */
static struct {
	unsigned int nr_rows;
	struct row rows[MAX_ROWS];
} *table;

static void __attribute__((constructor)) make_table(void)
{
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	if (table == MAP_FAILED)
		abort();
}

/* Files of debugfs cannot be written at an offset. */
static int write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = write(fd, value, strlen(value));
	close(fd);
	return len < 0 ? -EIO : 0;
}

static int set(const struct injector *injector, const char *file, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", injector->directory, file);
	return write_file(path, value);
}

/* Only for what is called from there: from anywhere, or nowhere, without a look at the stack */
#define ANYWHERE 0, ~0UL
#define NOWHERE 1, 1

static int set_range(const struct injector *injector, unsigned long start, unsigned long end)
{
	char number[24];
	int err;

	err = set(injector, "stacktrace-depth", start > 1 ? "32" : "0");
	snprintf(number, sizeof(number), "%#lx", start);
	err = err ?: set(injector, "require-start", number);
	snprintf(number, sizeof(number), "%#lx", end);
	return err ?: set(injector, "require-end", number);
}

static bool is_there(const struct injector *injector)
{
	char path[64];

	snprintf(path, sizeof(path), DEBUGFS "%s", injector->directory);
	return !access(path, F_OK);
}

/* Those of a program are of the other one of its directory, too. */
static bool has_files(const struct injector *injector)
{
	return !injector->by_program && is_there(injector);
}

static int prepare(const struct injector *injector)
{
	/* The log is for what is not on purpose. */
	int err = set(injector, "verbose", "0");

	if (injector != &injectors[ONE_COPY])
		/* Allocations that may sleep are the ones that are wanted. */
		err = err ?: set(injector, "ignore-gfp-wait", "N");
	if (injector == &injectors[ONE_PAGE])
		err = err ?: set(injector, "ignore-gfp-highmem", "N") ?:
		      set(injector, "min-order", "0");
	return err;
}

int faults_open(struct faults *faults)
{
	const struct injector *injector;
	char path[64];
	int err = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", gettid());
	faults->nth = open(path, O_RDWR | O_CLOEXEC);
	if (faults->nth < 0)
		return -errno;
	/* A page that is written for the first time is an allocation, and not one of the call. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		return -errno;
	faults->skel = fault_bpf__open();
	if (!faults->skel)
		return -errno;
	bpf_program__set_autoload(faults->skel->progs.fail_slab,
				  is_there(&injectors[ALL_ALLOCATIONS]));
	bpf_program__set_autoload(faults->skel->progs.fail_page, is_there(&injectors[ALL_PAGES]));
	err = fault_bpf__load(faults->skel) ?: fault_bpf__attach(faults->skel);
	FOR_ALL(injector)
		if (has_files(injector))
			err = err ?: prepare(injector);
	return err;
}

void faults_close(struct faults *faults)
{
	const struct injector *injector;

	FOR_ALL(injector)
		if (has_files(injector))
			set_range(injector, ANYWHERE);
	close(faults->nth);
	fault_bpf__destroy(faults->skel);
}

bool faults_begin(struct faults *faults, const struct injector *injector)
{
	const struct injector *other;
	int err = 0;

	if (!is_there(injector))
		return false;
	FOR_ALL(other) {
		if (!has_files(other))
			continue;
		err = err ?: other == injector ? set_range(other, ANYWHERE) :
						 set_range(other, NOWHERE);
	}
	if (err)
		abort();
	faults->injector = injector;
	faults->skel->bss->code_end = 0;
	faults->skel->bss->pages = injector == &injectors[ALL_PAGES];
	return true;
}

void faults_begin_own(struct faults *faults, const char *name)
{
	static struct injector own = { .by_program = true };

	own.name = name;
	faults->injector = &own;
}

bool faults_are_of_memory(const struct faults *faults)
{
	return faults->injector == &injectors[ONE_ALLOCATION] ||
	       faults->injector == &injectors[ALL_ALLOCATIONS];
}

bool faults_are_of_copies(const struct faults *faults)
{
	return faults->injector == &injectors[ONE_COPY];
}

void faults_limit_to(struct faults *faults, unsigned long start, unsigned long end)
{
	faults->skel->bss->code_start = start;
	faults->skel->bss->code_end = end;
	if (!faults->injector->by_program && set_range(faults->injector, start, end))
		abort();
}

void faults_arm(struct faults *faults, int nth)
{
	char number[16];
	int len;

	if (faults->injector->by_program) {
		faults->skel->bss->seen = 0;
		faults->skel->bss->failed = 0;
		faults->skel->bss->first = nth;
		faults->skel->bss->thread = gettid();
		return;
	}
	len = snprintf(number, sizeof(number), "%d", nth);
	if (pwrite(faults->nth, number, len, 0) != len)
		abort();
}

bool faults_disarm(struct faults *faults)
{
	char number[16] = {};
	bool failed;
	int i;

	if (faults->injector->by_program) {
		faults->skel->bss->thread = 0;
		return faults->skel->bss->failed;
	}
	/* This copies, too: if it is here that one fails, there were too few before. */
	failed = pread(faults->nth, number, sizeof(number) - 1, 0) > 0 && !atoi(number);
	for (i = 0; pwrite(faults->nth, "0", 1, 0) != 1; i++)
		if (i == 2)
			abort();
	return failed;
}

void faults_arm_workers(struct faults *faults, unsigned int count)
{
	faults->skel->bss->pages = 0;
	faults->skel->bss->failed = 0;
	__atomic_store_n(&faults->skel->bss->worker_faults, count, __ATOMIC_SEQ_CST);
}

unsigned int faults_disarm_workers(struct faults *faults)
{
	__atomic_store_n(&faults->skel->bss->worker_faults, 0, __ATOMIC_SEQ_CST);
	return faults->skel->bss->failed;
}

void faults_new_row(struct faults *faults, const char *path)
{
	if (table->nr_rows == MAX_ROWS)
		abort();
	faults->row = &table->rows[table->nr_rows++];
	snprintf(faults->row->path, sizeof(faults->row->path), "%s", path);
	faults->row->name = faults->injector->name;
}

void faults_count(struct faults *faults, int err)
{
	struct row *row = faults->row;
	int i;

	row->tried++;
	if (!err)
		return;
	row->refused++;
	for (i = 0; i < MAX_ERRNOS - 1 && row->errnos[i]; i++)
		if (row->errnos[i] == -err)
			return;
	row->errnos[i] = -err;
}

unsigned int faults_tried(const struct faults *faults)
{
	return faults->row->tried;
}

unsigned int faults_refused(const struct faults *faults)
{
	return faults->row->refused;
}

/* As guest/results.sh: what is lost has no pointer to it in two scans, 5 s later. */
static int count_leaks(void)
{
	char line[256];
	int leaks = 0;
	FILE *file;

	if (write_file(KMEMLEAK, "scan"))
		return -EIO;
	sleep(5);
	if (write_file(KMEMLEAK, "scan"))
		return -EIO;
	file = fopen(KMEMLEAK, "r");
	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		leaks += !!strstr(line, "unreferenced object");
		printf("# %s", line);
	}
	fclose(file);
	return leaks;
}

int faults_print_table(void)
{
	const struct injector *injector;
	int leaks = count_leaks(), j;
	unsigned int i;

	printf("# %-34s%-22s%7s%9s%7s  %s\n", "path", "what fails", "tried", "refused", "leaks",
	       "errno");
	for (i = 0; i < table->nr_rows; i++) {
		const struct row *row = &table->rows[i];

		printf("# %-34s%-22s%7u%9u%7s ", row->path, row->name, row->tried, row->refused,
		       leaks ? "?" : "0");
		for (j = 0; j < MAX_ERRNOS && row->errnos[j]; j++)
			printf(" %s", strerrorname_np(row->errnos[j]));
		putchar('\n');
	}
	FOR_ALL(injector)
		if (!is_there(injector))
			printf("# %s: not tried, the kernel has no %s\n", injector->name,
			       injector->option);
	fflush(stdout);
	return leaks;
}
