/* SPDX-License-Identifier: GPL-2.0 */
/* A cell of the matrix of sync tracers: its maps, and their content */
#ifndef SYNC_MATRIX_CELL_H
#define SYNC_MATRIX_CELL_H

#include <stdbool.h>
#include <stddef.h>

#include "sync_matrix.h"
#include "sync_matrix.skel.h"

/* Room for a value of each CPU, special fields and all */
#define MAX_VALUE (MAX_CPUS * 96)

struct cell {
	const struct type *type;
	const struct way *way;
	enum context context;
	/* The programs of this type and engine, and the function that replaces another one */
	struct sync_matrix_bpf *skel;
	struct sync_matrix_ext_bpf *ext;
	/* What is written */
	const struct bpf_map *map;
	int fd;
	/* The key that is written, and the number of the value: see fill_value() */
	__u32 key;
	__u32 number;
	int cpus;
};

/* What a map held of a key: to see whether it was written */
struct content {
	bool present;
	char value[MAX_VALUE];
};

/* The program of the way, for the context; its name has room for 64 characters */
void name_of_program(const struct way *way, enum context context, char *name);

/*
 * Gives the maps of what is not loaded yet this type. Those with special fields are made if they are
 * among @traits.
 */
int set_types(struct sync_matrix_bpf *skel, const struct type *type, unsigned int traits);

/*
 * Loads what the cells of this type and this engine need, for those that are selected. NULL
 * where it fails, which it says.
 */
struct sync_matrix_bpf *load_cells(const struct type *type, enum engine engine);

/* Takes the map of this source for the one that is written from now on. */
void select_map(struct cell *cell, enum source source);

struct cell_key key_of(const struct cell *cell, __u32 number);
bool is_per_cpu(const struct cell *cell);
/* How many keys of the first ones it has */
__u32 nr_keys(const struct cell *cell);
size_t value_size(const struct cell *cell);

/* A value of each CPU if the map has them and if it is to be so, each of them different */
void fill_value(const struct cell *cell, void *value, bool one);

/* The first keys are there, with values that nobody else writes; nothing else is. 0 or an errno */
int reset(struct cell *cell);
/* Of the cell's key */
struct content read_content(const struct cell *cell);
/* How many elements there are */
__u32 count_elements(const struct cell *cell);

/* Whether the cell's key is in one of both only, or differs in a byte */
bool is_wrong(const struct cell *cell);
/* For how many keys that is so */
__u32 count_wrong(const struct cell *cell);

#endif
