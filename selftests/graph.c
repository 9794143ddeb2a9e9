// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "graph.h"

static char log_buf[1 << 16];

int graph_open(struct graph *graph)
{
	int i;

	for (i = 0; i < NR_MAPS; i++)
		graph->chain[i] = -1;
	graph->skel = loops_bpf__open();
	return graph->skel ? 0 : -errno;
}

void graph_close(struct graph *graph)
{
	int i;

	for (i = 0; i < NR_MAPS; i++)
		if (graph->chain[i] >= 0)
			close(graph->chain[i]);
	loops_bpf__destroy(graph->skel);
}

int graph_load(struct graph *graph, const char *const names[])
{
	struct bpf_program *prog;
	char name[8];
	int i, err;

	bpf_program__set_autoload(graph->skel->progs.operate_on_m0, true);
	for (i = 0; names[i]; i++) {
		prog = bpf_object__find_program_by_name(graph->skel->obj, names[i]);
		if (!prog) {
			fprintf(stderr, "# no program %s\n", names[i]);
			return -ENOENT;
		}
		bpf_program__set_autoload(prog, true);
		bpf_program__set_log_buf(prog, log_buf, sizeof(log_buf));
	}
	err = loops_bpf__load(graph->skel);
	if (err)
		fprintf(stderr, "# load: %s\n%s\n", strerror(-err), log_buf);
	for (i = 0; !err && i < NR_MAPS; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		graph->maps[i] = bpf_object__find_map_fd_by_name(graph->skel->obj, name);
	}
	return err;
}

int prog_fd(struct graph *graph, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(graph->skel->obj, name));
}

int attach_with_cookie(struct graph *graph, const char *name, int map, __u64 cookie)
{
	/* Programs are named after their operation. */
	__u32 type = strncmp(name, "delete_", 7) ? UPDATE : DELETE;

	return map_trace_attach(prog_fd(graph, name), graph->maps[map], type, cookie);
}

int attach(struct graph *graph, const char *name, int map)
{
	return attach_with_cookie(graph, name, map, 0);
}

__s64 operate(struct graph *graph, __u32 kind, __u32 key, __u64 value)
{
	struct operation op = { .kind = kind, .key = key, .value = value };
	int ret = run_program(graph->skel->progs.operate_on_m0, &op, sizeof(op));

	return ret ? ret : op.ret;
}

bool holds(struct graph *graph, int map, __u32 key)
{
	__u64 value;

	return !bpf_map_lookup_elem(graph->maps[map], &key, &value);
}

__u64 failed(int link)
{
	struct map_trace_info info;

	return map_trace_get_info(link, &info) ? -1ULL : info.failed;
}

__u64 missed(int link)
{
	struct map_trace_info info;

	return map_trace_get_info(link, &info) ? -1ULL : info.missed;
}
