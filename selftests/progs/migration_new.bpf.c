// SPDX-License-Identifier: GPL-2.0
/*
 * The next version of migration_old.bpf.c, with another layout of keys and values, and the
 * tracer of the old map that updates the new one, by the code of Documentation/migration.rst.
 * The controls are here, too: a copy by an iterator, with event tracers and without.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "migration.h"

char _license[] SEC("license") = "GPL";

#define EPERM 1
#define ENOENT 2

/* That of the old version, which has another name there: user space puts it in here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FILES);
	__type(key, struct file_old);
	__type(value, struct state_old);
} old_files SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FILES);
	__type(key, struct file_new);
	__type(value, struct state_new);
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
	struct state_new state = { .by_new = 1 };

	if (!is_watched() || fd < 0)
		return 0;
	state.number = __sync_fetch_and_add(&opened, 1);
	bpf_map_update_elem(&new_files, &key, &state, BPF_ANY);
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
	struct state_new *state;

	if (!is_watched() || key.fd <= 2)
		return 0;
	state = bpf_map_lookup_elem(&new_files, &key);
	if (!state)
		return -EPERM;
	*(volatile __u32 *)&state->by_new = 1;
	__sync_fetch_and_add(&state->writes, 1);
	return 0;
}

static struct file_new to_new(const struct file_old *old)
{
	struct file_new new = { .fd = old->fd, .pid = old->pid };

	return new;
}

static struct file_old to_old(const struct file_new *new)
{
	struct file_old old = { .pid = new->pid, .fd = new->fd };

	return old;
}

/* How often the old version has written what the new one has written, too */
__u64 both;

/*
 * For the tests: the first who is about to put this file into the new map waits, and another
 * thread does at this very point what could happen there at any time.
 */
__s32 wait_for_fd;
__u32 reached;
__u32 released;
__u32 waited_too_long;

#define WAIT_NS 10000000000ULL

static int is_released(__u32 i, __u64 *deadline)
{
	return *(volatile __u32 *)&released || bpf_ktime_get_ns() > *deadline;
}

static int wait_longer(__u32 i, __u64 *deadline)
{
	bpf_loop(1 << 20, is_released, deadline, 0);
	return is_released(0, deadline);
}

static void test_point(const struct file_new *key)
{
	__u64 deadline = bpf_ktime_get_ns() + WAIT_NS;

	if (!wait_for_fd || key->fd != wait_for_fd || __sync_fetch_and_add(&reached, 1))
		return;
	bpf_loop(1 << 20, wait_longer, &deadline, 0);
	if (!*(volatile __u32 *)&released)
		waited_too_long = 1;
}

/* The way back does not wait. */
#include "migration-8.c"

/* Controls: event tracers, and a copy without them */

static struct state_new convert(const struct state_old *old)
{
	struct state_new new = { .number = old->number, .writes = old->writes };

	return new;
}

SEC("map_trace/old_files/UPDATE_ELEM")
int follow_update(struct bpf_map_trace_ctx__update_elem *ctx)
{
	struct file_new key = to_new(ctx->key);
	struct state_new new = convert(ctx->value);

	return bpf_map_update_elem(&new_files, &key, &new, BPF_ANY) ? 1 : 0;
}

SEC("map_trace/old_files/DELETE_ELEM")
int follow_delete(struct bpf_map_trace_ctx__delete_elem *ctx)
{
	struct file_new key = to_new(ctx->key);

	bpf_map_delete_elem(&new_files, &key);
	return 0;
}

/*
 * What is closed after it was read is put into the new map for good, and what is updated
 * meanwhile is put back.
 */
SEC("iter/bpf_map_elem")
int copy(struct bpf_iter__bpf_map_elem *ctx)
{
	struct state_old *old = ctx->value;
	struct file_old *element = ctx->key;
	struct state_new new;
	struct file_new key;

	if (!element || !old)
		return 0;
	key = to_new(element);
	new = convert(old);
	test_point(&key);
	bpf_map_update_elem(&new_files, &key, &new, BPF_ANY);
	return 0;
}

/* The tracer, which waits before it changes the new map */
static long update_at_point(void *map, const struct file_new *key, const void *value, __u64 flags)
{
	test_point(key);
	return bpf_map_update_elem(map, key, value, flags);
}

#define bpf_map_update_elem update_at_point
#include "migration-1.c"
