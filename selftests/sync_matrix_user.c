// SPDX-License-Identifier: GPL-2.0
/* The ways in which user space writes */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "sync_matrix_cell.h"
#include "sync_matrix_user.h"

static int update(struct cell *cell, __u64 flags)
{
	bool one = flags & (BPF_F_CPU | BPF_F_ALL_CPUS);
	struct cell_key key = key_of(cell, cell->key);
	char value[MAX_VALUE];

	fill_value(cell, value, one);
	return bpf_map_update_elem(cell->fd, &key, value, flags) ? -errno : 0;
}

int user_update(struct cell *cell)
{
	return update(cell, BPF_ANY);
}

int user_update_absent(struct cell *cell)
{
	return update(cell, BPF_NOEXIST);
}

int user_update_present(struct cell *cell)
{
	return update(cell, BPF_EXIST);
}

int user_update_locked(struct cell *cell)
{
	return update(cell, BPF_F_LOCK);
}

int user_update_cpu(struct cell *cell)
{
	return update(cell, BPF_F_CPU | (__u64)(cell->cpus - 1) << 32);
}

int user_update_all_cpus(struct cell *cell)
{
	return update(cell, BPF_F_ALL_CPUS);
}

int user_delete(struct cell *cell)
{
	struct cell_key key = key_of(cell, cell->key);

	return bpf_map_delete_elem(cell->fd, &key) ? -errno : 0;
}

int user_lookup_and_delete(struct cell *cell)
{
	struct cell_key key = key_of(cell, cell->key);
	char value[MAX_VALUE];

	return bpf_map_lookup_and_delete_elem(cell->fd, &key, value) ? -errno : 0;
}

/* Half of the keys, one after the other without gaps */
#define IN_BATCH (CELL_KEYS / 2)

static void fill_keys(const struct cell *cell, char *keys)
{
	size_t size = bpf_map__key_size(cell->map);
	__u32 i;

	for (i = 0; i < IN_BATCH; i++) {
		struct cell_key key = key_of(cell, i);

		memcpy(keys + i * size, &key, size);
	}
}

int user_batch_update(struct cell *cell)
{
	size_t size = is_per_cpu(cell) ? cell->cpus * ((value_size(cell) + 7) & ~7) :
					 value_size(cell);
	char keys[IN_BATCH * sizeof(struct cell_key)], values[IN_BATCH * MAX_VALUE];
	char value[MAX_VALUE];
	__u32 count = IN_BATCH, i;

	fill_keys(cell, keys);
	for (i = 0; i < IN_BATCH; i++) {
		cell->number++;
		fill_value(cell, value, false);
		memcpy(values + i * size, value, size);
	}
	return bpf_map_update_batch(cell->fd, keys, values, &count, NULL) ? -errno : 0;
}

int user_batch_delete(struct cell *cell)
{
	char keys[IN_BATCH * sizeof(struct cell_key)];
	__u32 count = IN_BATCH;

	fill_keys(cell, keys);
	return bpf_map_delete_batch(cell->fd, keys, &count, NULL) ? -errno : 0;
}

/* All that is there */
int user_batch_lookup_and_delete(struct cell *cell)
{
	char keys[HASH_ENTRIES * sizeof(struct cell_key)], values[HASH_ENTRIES * MAX_VALUE];
	__u32 position[2], count = HASH_ENTRIES;
	int err = bpf_map_lookup_and_delete_batch(cell->fd, NULL, position, keys, values, &count,
						  NULL) ? -errno : 0;

	/* There is no more. */
	return err == -ENOENT ? 0 : err;
}

int user_store_in_mapping(struct cell *cell)
{
	long page = sysconf(_SC_PAGESIZE);
	char *mapping = (mmap)(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, cell->fd, 0);
	char value[MAX_VALUE];

	if (mapping == MAP_FAILED)
		return -errno;
	fill_value(cell, value, true);
	memcpy(mapping + cell->key * ((value_size(cell) + 7) & ~7), value, value_size(cell));
	munmap(mapping, page);
	return 0;
}
