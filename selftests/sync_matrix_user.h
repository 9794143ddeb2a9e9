/* SPDX-License-Identifier: GPL-2.0 */
/* The ways in which user space writes. Each returns 0 or a negative errno. */
#ifndef SYNC_MATRIX_USER_H
#define SYNC_MATRIX_USER_H

struct cell;

int user_update(struct cell *cell);
int user_update_absent(struct cell *cell);
int user_update_present(struct cell *cell);
int user_update_locked(struct cell *cell);
int user_update_cpu(struct cell *cell);
int user_update_all_cpus(struct cell *cell);
int user_delete(struct cell *cell);
int user_lookup_and_delete(struct cell *cell);
int user_batch_update(struct cell *cell);
int user_batch_delete(struct cell *cell);
int user_batch_lookup_and_delete(struct cell *cell);
int user_store_in_mapping(struct cell *cell);

#endif
