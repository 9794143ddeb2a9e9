// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"

#include "copies.h"

/* More than a bucket has elements */
#define BATCH 128
/* While others write, a lock of the map may not be had. */
#define TRIES 1000

static void add(struct copy *copy, __u32 key, const __u64 *values)
{
	if (key >= copy->nr_keys)
		return;
	copy->elements[key].there = true;
	memcpy(copy->elements[key].values, values, copy->nr_values * sizeof(*values));
}

int read_map(int map, struct copy *copy)
{
	__u64 values[MAX_CPUS] = {};
	__u32 key;
	int err;

	memset(copy->elements, 0, sizeof(copy->elements));
	for (key = 0; key < copy->nr_keys; key++) {
		err = bpf_map_lookup_elem(map, &key, values);
		if (!err)
			add(copy, key, values);
		else if (err != -ENOENT)
			return err;
	}
	return 0;
}

int read_mirror(int mirror, struct copy *copy)
{
	__u32 key, cpu;
	int err;

	memset(copy->elements, 0, sizeof(copy->elements));
	for (key = 0; key < copy->nr_keys; key++) {
		for (cpu = 0; cpu < copy->nr_values; cpu++) {
			__u32 mirrored = mirror_key(key, cpu);

			/* What was never written is zero, and may go untold. */
			err = bpf_map_lookup_elem(mirror, &mirrored,
						  &copy->elements[key].values[cpu]);
			if (err && err != -ENOENT)
				return err;
			copy->elements[key].there |= !err;
		}
	}
	return 0;
}

int write_mirror(int mirror, const struct copy *copy)
{
	__u32 key, cpu;
	int err;

	for (key = 0; key < copy->nr_keys; key++) {
		for (cpu = 0; cpu < copy->nr_values; cpu++) {
			__u32 mirrored = mirror_key(key, cpu);

			err = copy->elements[key].there ?
				bpf_map_update_elem(mirror, &mirrored,
						    &copy->elements[key].values[cpu], BPF_ANY) :
				bpf_map_delete_elem(mirror, &mirrored);
			if (err && err != -ENOENT)
				return err;
		}
	}
	return 0;
}

int sweep(int map, struct copy *copy)
{
	static __u64 values[BATCH * MAX_CPUS];
	__u32 keys[BATCH], position, count, i;
	bool first = true;
	int tries, err;

	for (tries = 0; tries < TRIES; tries++) {
		count = BATCH;
		err = bpf_map_lookup_batch(map, first ? NULL : &position, &position, keys, values,
					   &count, NULL);
		if (err && err != -ENOENT) {
			if (err != -EBUSY && err != -EDEADLK && err != -ETIMEDOUT)
				return err;
			continue;
		}
		for (i = 0; i < count; i++)
			add(copy, keys[i], &values[i * copy->nr_values]);
		if (err)
			return 0;
		first = false;
	}
	return err;
}

int copy_by_iterator(const struct bpf_program *prog, int map, struct copy *copy)
{
	union bpf_iter_link_info info = { .map.map_fd = map };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	size_t size = sizeof(__u32) + copy->nr_values * sizeof(__u64), len = 0;
	struct bpf_link *link = bpf_program__attach_iter(prog, &opts);
	__u64 values[MAX_CPUS];
	char buffer[4096];
	ssize_t got;
	int fd, err;
	__u32 key;

	if (!link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(link));
	bpf_link__destroy(link);
	if (fd < 0)
		return fd;
	memset(copy->elements, 0, sizeof(copy->elements));
	while ((got = read(fd, buffer + len, sizeof(buffer) - len)) > 0) {
		char *element = buffer;

		for (len += got; len >= size; len -= size, element += size) {
			memcpy(&key, element, sizeof(key));
			memcpy(values, element + sizeof(key), size - sizeof(key));
			add(copy, key, values);
		}
		memmove(buffer, element, len);
	}
	err = got < 0 ? -errno : len ? -EIO : 0;
	close(fd);
	return err;
}

bool differs(const struct copy *a, const struct copy *b, __u32 key)
{
	return a->elements[key].there != b->elements[key].there ||
	       memcmp(a->elements[key].values, b->elements[key].values,
		      a->nr_values * sizeof(__u64));
}

__u32 count_differing(const struct copy *a, const struct copy *b)
{
	__u32 key, count = 0;

	for (key = 0; key < a->nr_keys; key++)
		count += differs(a, b, key);
	return count;
}
