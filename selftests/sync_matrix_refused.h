/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SYNC_MATRIX_REFUSED_H
#define SYNC_MATRIX_REFUSED_H

#include "sync_matrix_cell.h"

/* Of a way that has no cells with this type: whether the kernel refuses it, or it writes nothing */
bool is_refused(const struct type *type, const struct way *way);
/* The same, with what is loaded already */
bool is_refused_to(struct cell *cell);

#endif
