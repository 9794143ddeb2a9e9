// SPDX-License-Identifier: GPL-2.0
/* Checks that what has no cell cannot be done, or has no effect */
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "sync_matrix_refused.h"
#include "sync_matrix_run.h"

/* With this way's program alone, and the map that it writes. NULL where that is refused */
static struct sync_matrix_bpf *load_one(const struct type *type, const struct way *way)
{
	static const unsigned int traits_of_maps[NR_SOURCES] = {
		[LOCKED] = LOCKS, [DEFERRING] = CALLBACKS, [POINTING] = KPTRS,
	};
	unsigned int traits = type->traits & ~(LOCKS | CALLBACKS | KPTRS);
	struct sync_matrix_bpf *skel = sync_matrix_bpf__open();
	enum context context = __builtin_ctz(way->contexts);
	struct bpf_program *prog;
	char name[64];
	int err;

	if (!skel)
		return NULL;
	name_of_program(way, context, name);
	bpf_object__for_each_program(prog, skel->obj)
		bpf_program__set_autoload(prog, !strcmp(bpf_program__name(prog), name));
	err = set_types(skel, type, traits | traits_of_maps[way->source]);
	if (!err && !sync_matrix_bpf__load(skel))
		return skel;
	sync_matrix_bpf__destroy(skel);
	return NULL;
}

static bool writes(struct cell *cell)
{
	__u32 elements = count_elements(cell);
	struct content before, after;

	before = read_content(cell);
	if (write_once(cell))
		return false;
	after = read_content(cell);
	return memcmp(&before, &after, sizeof(before)) || count_elements(cell) != elements;
}

bool is_refused_to(struct cell *cell)
{
	return reset(cell) || !writes(cell);
}

bool is_refused(const struct type *type, const struct way *way)
{
	struct cell cell = {
		.type = type, .way = way, .context = __builtin_ctz(way->contexts),
		.cpus = libbpf_num_possible_cpus(),
	};
	/* Whatever refuses it says so at length. */
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	bool refused = true;

	cell.skel = load_one(type, way);
	if (cell.skel) {
		select_map(&cell, way->source);
		refused = is_refused_to(&cell);
		sync_matrix_bpf__destroy(cell.skel);
	}
	libbpf_set_print(print);
	return refused;
}
