// SPDX-License-Identifier: GPL-2.0
/*
 * tracers pin: loads the tracers and pins them for trace_maps.so, with what they count.
 * tracers show: prints that.
 */
#include <errno.h>
#include <linux/types.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tracers.h"
#include "tracers.skel.h"

static const char *const names[NR_TRACERS] = { "update", "delete", "sync" };

static int fail(const char *what)
{
	fprintf(stderr, "tracers: %s: %s\n", what, strerror(errno));
	return 1;
}

static int pin(void)
{
	struct tracers_bpf *skel = tracers_bpf__open_and_load();
	const struct bpf_program *progs[NR_TRACERS];
	char path[64];
	int i;

	if (!skel)
		return fail("load");
	progs[BPF_MAP_TRACE_UPDATE_ELEM] = skel->progs.trace_update;
	progs[BPF_MAP_TRACE_DELETE_ELEM] = skel->progs.trace_delete;
	progs[BPF_MAP_TRACE_SYNC_ELEM] = skel->progs.trace_sync;
	if (mkdir(PIN_DIRECTORY, 0755))
		return fail(PIN_DIRECTORY);
	for (i = 0; i < NR_TRACERS; i++) {
		snprintf(path, sizeof(path), "%s/%d", PIN_DIRECTORY, i);
		if (bpf_obj_pin(bpf_program__fd(progs[i]), path))
			return fail(path);
	}
	if (bpf_obj_pin(bpf_map__fd(skel->maps.bss), PIN_DIRECTORY "/counts"))
		return fail(PIN_DIRECTORY "/counts");
	return 0;
}

/* How many maps of a type got no tracers of updates, of deletes and of states */
static void show_refused(const struct tracer_counts *counts, int type, int error)
{
	__u32 n[NR_TRACERS];
	int i;

	for (i = 0; i < NR_TRACERS; i++)
		n[i] = counts->refused[i][type][error];
	if (n[0] || n[1] || n[2])
		printf("# without tracers of update, delete, sync: %u, %u, %u %s: %s\n",
		       n[BPF_MAP_TRACE_UPDATE_ELEM], n[BPF_MAP_TRACE_DELETE_ELEM],
		       n[BPF_MAP_TRACE_SYNC_ELEM],
		       libbpf_bpf_map_type_str(type) ?: "of another type", strerror(error));
}

static int show(void)
{
	int fd = bpf_obj_get(PIN_DIRECTORY "/counts"), tracer, type, error;
	const struct tracer_counts *counts;

	if (fd < 0)
		return fail(PIN_DIRECTORY "/counts");
	counts = mmap(NULL, sizeof(*counts), PROT_READ, MAP_SHARED, fd, 0);
	if (counts == MAP_FAILED)
		return fail("mmap");
	for (tracer = 0; tracer < NR_TRACERS; tracer++)
		printf("# tracers of %s: %llu links, %llu runs\n", names[tracer],
		       counts->links[tracer], counts->runs[tracer]);
	printf("# missed %llu, lost %llu\n", counts->missed, counts->lost);
	for (type = 0; type < NR_MAP_TYPES; type++)
		for (error = 0; error < NR_ERRNOS; error++)
			show_refused(counts, type, error);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "pin"))
		return pin();
	if (argc == 2 && !strcmp(argv[1], "show"))
		return show();
	fprintf(stderr, "usage: tracers pin|show\n");
	return 2;
}
