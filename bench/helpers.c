// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/btf.h>

#include "helpers.h"

bool count_instructions;

/*
 * The time stamp counter of the emulated machine is its count of instructions. The
 * kernel's clocks are made of it, with a rate that the kernel has measured, and so
 * not quite right.
 */
__u64 clock_now(void)
{
	struct timespec ts;

	if (count_instructions)
		return __builtin_ia32_rdtsc();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

void figure(double value, const char *name, ...)
{
	va_list args;

	va_start(args, name);
	vprintf(name, args);
	va_end(args);
	printf("\t%.3f\n", value);
}

void progress(const char *format, ...)
{
	va_list args;

	fputs("bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void die(const char *what, int err)
{
	progress("%s: %s", what, strerror(err < 0 ? -err : err));
	exit(1);
}

bool can_trace_maps(void)
{
	static int can = -1;

	if (can < 0) {
		struct btf *btf = btf__load_vmlinux_btf();

		if (!btf)
			die("BTF of the kernel", errno);
		can = btf__find_by_name_kind(btf, "bpf_map_trace__update_elem",
					     BTF_KIND_FUNC) > 0;
		btf__free(btf);
	}
	return can;
}

void set_sysctl(const char *path, const char *value, char *old, size_t old_size)
{
	FILE *file = fopen(path, "r+");

	if (!file)
		die(path, errno);
	if (old && !fgets(old, old_size, file))
		die(path, errno);
	rewind(file);
	if (fputs(value, file) < 0 || fclose(file))
		die(path, errno);
}

int compare_times(const void *a, const void *b)
{
	__u64 x = *(const __u64 *)a, y = *(const __u64 *)b;

	return x < y ? -1 : x > y;
}
