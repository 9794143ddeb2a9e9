// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "sync_matrix_cell.h"

void name_of_program(const struct way *way, enum context context, char *name)
{
	const char *type = contexts[context].program_type;

	/* What is not there in a task has only programs that may sleep. */
	if (way->kind == BY_CALLBACK || !(way->contexts & (1 << TASK)))
		type = "syscall";
	if (way->kind == BY_ITERATOR)
		snprintf(name, 64, "%s", way->name);
	else
		snprintf(name, 64, "%s_%s", way->name, type);
}

static bool is_needed(const char *name, const struct type *type, enum engine engine)
{
	unsigned int way, context;

	for (way = 0; way < nr_ways; way++)
		for (context = 0; context < NR_CONTEXTS; context++) {
			bool jumps = !strcmp(ways[way].name, "tail_call");
			char needed[64];

			if (ways[way].kind == BY_USER || contexts[context].engine != engine ||
			    !is_selected(type, &ways[way], context))
				continue;
			name_of_program(&ways[way], context, needed);
			if (!strcmp(name, needed))
				return true;
			snprintf(needed, sizeof(needed), "store_%s", contexts[context].program_type);
			if (jumps && !strcmp(name, needed))
				return true;
		}
	return false;
}

static int set_type(struct bpf_map *map, const struct type *type)
{
	int err = bpf_map__set_type(map, type->type);

	err = err ?: bpf_map__set_map_flags(map, type->flags);
	if (!err && (type->traits & EVICTS))
		err = bpf_map__set_max_entries(map, LRU_ENTRIES);
	if (!err && (type->type == BPF_MAP_TYPE_ARRAY || type->type == BPF_MAP_TYPE_PERCPU_ARRAY))
		err = bpf_map__set_max_entries(map, CELL_KEYS);
	return err;
}

int set_types(struct sync_matrix_bpf *skel, const struct type *type, unsigned int traits)
{
	bool locks = traits & LOCKS, callbacks = traits & CALLBACKS, kptrs = traits & KPTRS;
	int err = set_type(skel->maps.source, type);

	if (!err && (type->traits & PREFIXES))
		err = bpf_map__set_key_size(skel->maps.source, sizeof(struct cell_key));
	if (!err && type == &types[TYPE_hash_in_hash])
		err = bpf_map__set_type(skel->maps.outer, BPF_MAP_TYPE_HASH_OF_MAPS);
	if (!err && !(type->traits & IS_INNER))
		err = bpf_map__set_autocreate(skel->maps.outer, false);
	err = err ?: locks ? set_type(skel->maps.locked, type) :
			     bpf_map__set_autocreate(skel->maps.locked, false);
	err = err ?: callbacks ? set_type(skel->maps.deferring, type) :
				 bpf_map__set_autocreate(skel->maps.deferring, false);
	err = err ?: kptrs ? set_type(skel->maps.pointing, type) :
			     bpf_map__set_autocreate(skel->maps.pointing, false);

	skel->rodata->is_inner = type->traits & IS_INNER;
	skel->rodata->is_percpu = type->traits & PER_CPU;
	skel->rodata->key_words = type->traits & PREFIXES ? 2 : 1;
	skel->rodata->nr_cpus = libbpf_num_possible_cpus();
	return err;
}

struct sync_matrix_bpf *load_cells(const struct type *type, enum engine engine)
{
	struct sync_matrix_bpf *skel = sync_matrix_bpf__open();
	bool interrupts = engine == JIT;
	struct bpf_program *prog;
	int err;

	if (!skel)
		return NULL;
	err = set_types(skel, type, type->traits);
	bpf_object__for_each_program(prog, skel->obj) {
		const char *name = bpf_program__name(prog);

		if (!is_tracer(prog))
			bpf_program__set_autoload(prog, is_needed(name, type, engine));
	}
	bpf_program__set_autoload(skel->progs.find_watched, interrupts);
	bpf_program__set_autoload(skel->progs.touch_watched, interrupts);
	/* An array has no deletes, but the tracer would load. */
	err = err ?: sync_matrix_bpf__load(skel);
	if (!err && interrupts)
		err = run_program(skel->progs.find_watched, NULL, 0);
	if (!err)
		return skel;
	fprintf(stderr, "# %s, engine %d: does not load: %s\n", type->name, engine, strerror(-err));
	sync_matrix_bpf__destroy(skel);
	return NULL;
}

void select_map(struct cell *cell, enum source source)
{
	struct bpf_map *maps[NR_SOURCES] = {
		[SOURCE] = cell->skel->maps.source,
		[LOCKED] = cell->skel->maps.locked,
		[DEFERRING] = cell->skel->maps.deferring,
		[POINTING] = cell->skel->maps.pointing,
		[MAPPED] = cell->skel->maps.mapped,
		[GLOBAL] = cell->skel->maps.data_global,
	};

	cell->map = maps[source];
	cell->fd = bpf_map__fd(cell->map);
}

bool is_per_cpu(const struct cell *cell)
{
	return cell->type->traits & PER_CPU;
}

__u32 nr_keys(const struct cell *cell)
{
	__u32 entries = bpf_map__max_entries(cell->map);

	return entries < CELL_KEYS ? entries : CELL_KEYS;
}

size_t value_size(const struct cell *cell)
{
	return bpf_map__value_size(cell->map);
}

static size_t distance(const struct cell *cell)
{
	return (value_size(cell) + 7) & ~7;
}

struct cell_key key_of(const struct cell *cell, __u32 number)
{
	/* A map of one element has one key. */
	struct cell_key key = {{ nr_keys(cell) == 1 ? 0 : number, 0 }};

	/* All of the data: no prefix covers another. */
	if (cell->type->traits & PREFIXES)
		key = (struct cell_key){{ 32, number }};
	return key;
}

void fill_value(const struct cell *cell, void *value, bool one)
{
	int slices = is_per_cpu(cell) && !one ? cell->cpus : 1, cpu, i;

	memset(value, 0, MAX_VALUE);
	for (cpu = 0; cpu < slices; cpu++) {
		struct cell_value *to = value + cpu * distance(cell);

		for (i = 0; i < sizeof(to->words) / sizeof(to->words[0]); i++)
			to->words[i] = cell->number << 8 | cpu << 4 | i;
	}
}

/* The keys that are beyond the first ones */
static int delete_others(struct cell *cell)
{
	struct cell_key key, *last = NULL, other;

	while (!bpf_map_get_next_key(cell->fd, last, &key)) {
		__u32 number = key.words[!!(cell->type->traits & PREFIXES)];

		if (number < CELL_KEYS) {
			other = key;
			last = &other;
			continue;
		}
		if (bpf_map_delete_elem(cell->fd, &key))
			return -errno;
		last = NULL;
	}
	return 0;
}

int reset(struct cell *cell)
{
	char value[MAX_VALUE];
	struct cell_key key;
	__u32 i;
	int err;

	if (cell->type->traits & DELETES) {
		err = delete_others(cell);
		if (err)
			return err;
	}
	for (i = 0; i < nr_keys(cell); i++) {
		key = key_of(cell, i);
		cell->number++;
		fill_value(cell, value, false);
		if (bpf_map_update_elem(cell->fd, &key, value, BPF_ANY))
			return -errno;
	}
	cell->number++;
	key = key_of(cell, cell->key);
	return cell->way->absent && bpf_map_delete_elem(cell->fd, &key) ? -errno : 0;
}

struct content read_content(const struct cell *cell)
{
	struct cell_key key = key_of(cell, cell->key);
	struct content content = {};

	content.present = !bpf_map_lookup_elem(cell->fd, &key, content.value);
	return content;
}

__u32 count_elements(const struct cell *cell)
{
	struct cell_key key, *last = NULL, other;
	__u32 count = 0;

	while (!bpf_map_get_next_key(cell->fd, last, &key)) {
		count++;
		other = key;
		last = &other;
	}
	return count;
}

/* An element of the map, for each CPU whose value it has. Where it was never written, that is zero,
 * which may go untold.
 */
static bool differs(const struct cell *cell, const struct cell_key *words)
{
	struct mirror_key mirror_key = {};
	static const struct cell_value zero;
	char value[MAX_VALUE];
	int slices = is_per_cpu(cell) ? cell->cpus : 1;

	mirror_key.key.words[0] = words->words[0];
	if (cell->type->traits & PREFIXES)
		mirror_key.key.words[1] = words->words[1];
	if (bpf_map_lookup_elem(cell->fd, words, value))
		return true;
	for (mirror_key.cpu = 0; mirror_key.cpu < slices; mirror_key.cpu++) {
		void *expected = value + mirror_key.cpu * distance(cell);
		struct cell_value mirrored = {};

		if (bpf_map_lookup_elem(bpf_map__fd(cell->skel->maps.mirror), &mirror_key,
					&mirrored) &&
		    (!is_per_cpu(cell) || memcmp(expected, &zero, sizeof(zero))))
			return true;
		if (memcmp(expected, &mirrored, sizeof(mirrored)))
			return true;
	}
	return false;
}

bool is_wrong(const struct cell *cell)
{
	struct mirror_key mirror_key = { .key = key_of(cell, cell->key) };
	int mirror = bpf_map__fd(cell->skel->maps.mirror);
	struct cell_value mirrored;

	if (read_content(cell).present)
		return differs(cell, &mirror_key.key);
	for (; mirror_key.cpu < (is_per_cpu(cell) ? cell->cpus : 1); mirror_key.cpu++)
		if (!bpf_map_lookup_elem(mirror, &mirror_key, &mirrored))
			return true;
	return false;
}

__u32 count_wrong(const struct cell *cell)
{
	struct mirror_key mirror_key, *last_mirrored = NULL, other_mirrored;
	int mirror = bpf_map__fd(cell->skel->maps.mirror);
	struct cell_key key, *last = NULL, other;
	char value[MAX_VALUE];
	__u32 wrong = 0;

	while (!bpf_map_get_next_key(cell->fd, last, &key)) {
		wrong += differs(cell, &key);
		other = key;
		last = &other;
	}
	while (!bpf_map_get_next_key(mirror, last_mirrored, &mirror_key)) {
		wrong += bpf_map_lookup_elem(cell->fd, &mirror_key.key, value) != 0;
		other_mirrored = mirror_key;
		last_mirrored = &other_mirrored;
	}
	return wrong;
}
