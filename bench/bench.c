// SPDX-License-Identifier: GPL-2.0
/*
 * What map tracing costs. Prints a line for each figure, for scripts/bench_report.py:
 *
 *	<name>	<value>
 *
 * "bench instructions" is for a guest in which a nanosecond of its clocks is one
 * instruction, "bench nanoseconds" for any other. "bench interpreter" counts instructions
 * where the kernel has one, and no IBT.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <bpf/libbpf.h>

#include "bench.h"
#include "helpers.h"

static int only_errors(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 16384, 16384 };

	if (argc != 2 || (strcmp(argv[1], "instructions") && strcmp(argv[1], "nanoseconds") &&
			  strcmp(argv[1], "interpreter"))) {
		fprintf(stderr, "usage: %s instructions|nanoseconds|interpreter\n", argv[0]);
		return 2;
	}
	count_instructions = strcmp(argv[1], "nanoseconds");
	setvbuf(stdout, NULL, _IOLBF, 0);
	libbpf_set_print(only_errors);
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("RLIMIT_NOFILE", errno);

	if (!strcmp(argv[1], "interpreter")) {
		bench_interpreter();
		return 0;
	}
	bench_operations();
	bench_programs();
	bench_states();
	if (can_trace_maps())
		bench_links();
	return 0;
}
