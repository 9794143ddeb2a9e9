// SPDX-License-Identifier: GPL-2.0
/*
 * What map tracing costs. Prints a line for each figure, for scripts/bench_report.py:
 *
 *	<name>	<value>
 *
 * "bench instructions" is for a guest in which a nanosecond of its clocks is one
 * instruction, "bench nanoseconds" for any other.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "bench.h"

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

static int only_errors(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 16384, 16384 };

	if (argc != 2 || (strcmp(argv[1], "instructions") && strcmp(argv[1], "nanoseconds"))) {
		fprintf(stderr, "usage: %s instructions|nanoseconds\n", argv[0]);
		return 2;
	}
	count_instructions = !strcmp(argv[1], "instructions");
	setvbuf(stdout, NULL, _IOLBF, 0);
	libbpf_set_print(only_errors);
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("RLIMIT_NOFILE", errno);

	bench_operations();
	bench_programs();
	if (can_trace_maps())
		bench_links();
	return 0;
}
