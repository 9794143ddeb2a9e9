/* SPDX-License-Identifier: GPL-2.0 */
/* How a cell of the matrix of sync tracers writes */
#ifndef SYNC_MATRIX_RUN_H
#define SYNC_MATRIX_RUN_H

#include "sync_matrix_cell.h"

/*
 * Writes once, as the cell's way does, in the cell's context, and returns when that is done.
 * 0, or a negative errno; -EPROTO where it was in another context.
 */
int write_once(struct cell *cell);

/* What a way that may miss the map has written into it, if it has */
bool has_hit(const struct cell *cell);

#endif
