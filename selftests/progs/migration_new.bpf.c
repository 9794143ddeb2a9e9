// SPDX-License-Identifier: GPL-2.0
/*
 * The next version of migration_old.bpf.c, with another layout of its keys, and what
 * brings it up to date: tracers of the old map, and a copy of what is in it. Both are the
 * code of Documentation/migration.rst.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "migration.h"

char _license[] SEC("license") = "GPL";

#define EPERM 1

/* That of the old version, which has another name there: user space puts it in here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FILES);
	__type(key, struct file_old);
	__type(value, __u64);
} old_files SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FILES);
	__type(key, struct file_new);
	__type(value, __u64);
} new_files SEC(".maps");

/* The new version */

__u32 pid;
__u64 opened;

static bool is_watched(void)
{
	return pid && bpf_get_current_pid_tgid() >> 32 == pid;
}

SEC("fexit/__x64_sys_openat")
int BPF_PROG(after_openat, const struct pt_regs *regs, long fd)
{
	struct file_new key = { .pid = pid, .fd = fd };
	__u64 value;

	if (!is_watched() || fd < 0)
		return 0;
	value = __sync_fetch_and_add(&opened, 1);
	bpf_map_update_elem(&new_files, &key, &value, BPF_ANY);
	return 0;
}

SEC("fmod_ret/__x64_sys_close")
long BPF_PROG(before_close, const struct pt_regs *regs)
{
	struct file_new key = { .pid = pid, .fd = regs->di };

	if (is_watched())
		bpf_map_delete_elem(&new_files, &key);
	return 0;
}

SEC("fmod_ret/__x64_sys_write")
long BPF_PROG(may_write, const struct pt_regs *regs)
{
	struct file_new key = { .pid = pid, .fd = regs->di };

	if (!is_watched() || key.fd <= 2)
		return 0;
	return bpf_map_lookup_elem(&new_files, &key) ? 0 : -EPERM;
}

/* The tracers: from their attach on, the new map follows the old one. */

static struct file_new convert(const struct file_old *old)
{
	struct file_new new = { .fd = old->fd, .pid = old->pid };

	return new;
}

#include "migration-1.c"

/*
 * For the tests: the copy waits, and another thread does at this very point what could
 * happen there at any time.
 */
__u32 wait_at;
__s32 wait_for_fd;
__u32 reached;
__u32 released;
__u32 waited_too_long;

#define WAIT_NS 30000000000ULL

struct wait {
	__u64 deadline;
	__u32 point;
};

static int is_released(__u32 i, struct wait *wait)
{
	return *(volatile __u32 *)&released == wait->point ||
	       bpf_ktime_get_ns() > wait->deadline;
}

static int wait_longer(__u32 i, struct wait *wait)
{
	bpf_loop(1 << 20, is_released, wait, 0);
	return is_released(0, wait);
}

static void test_point(const struct file_new *key, __u32 point)
{
	struct wait wait = { .deadline = bpf_ktime_get_ns() + WAIT_NS, .point = point };

	if (!(wait_at & point) || key->fd != wait_for_fd)
		return;
	*(volatile __u32 *)&reached = point;
	bpf_loop(1 << 20, wait_longer, &wait, 0);
	if (*(volatile __u32 *)&released != point)
		waited_too_long = 1;
}

/* What the copies did */
__u32 copied;
__u32 taken_back;

/*
 * The copy as one thinks of it first. What is closed after it was read is put into the
 * new map for good, and what is updated meanwhile is put back.
 */
SEC("iter/bpf_map_elem")
int copy_plain(struct bpf_iter__bpf_map_elem *ctx)
{
	struct file_old *old = ctx->key;
	__u64 *element = ctx->value, value;
	struct file_new key;

	if (!old || !element)
		return 0;
	key = convert(old);
	value = *element;
	test_point(&key, COPY_HAS_READ);
	if (!bpf_map_update_elem(&new_files, &key, &value, BPF_ANY))
		copied++;
	test_point(&key, COPY_HAS_INSERTED);
	return 0;
}

/*
 * The copy that is safe. Whatever it calls to change the new map waits before and after.
 */
static long update_at_points(void *map, const struct file_new *key, const void *value, __u64 flags)
{
	long err;

	test_point(key, COPY_HAS_READ);
	err = bpf_map_update_elem(map, key, value, flags);
	if (!err)
		test_point(key, COPY_HAS_INSERTED);
	return err;
}

static long delete_at_point(void *map, const struct file_new *key)
{
	test_point(key, COPY_HAS_FOUND_IT_GONE);
	return bpf_map_delete_elem(map, key);
}

#define bpf_map_update_elem update_at_points
#define bpf_map_delete_elem delete_at_point
#include "migration-2.c"
