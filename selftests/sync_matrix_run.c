// SPDX-License-Identifier: GPL-2.0
/* How the programs of the matrix are run, in each context */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"
#include "sync_matrix_run.h"
#include "sync_matrix_ext.skel.h"

/* How long an interrupt may take to come */
#define COMES_WITHIN_MS 20000
/* The key of an element that has gone to another one */
#define OTHER_KEY CELL_KEYS

static char user_string[sizeof(struct cell_value)];

static void set_input(struct cell *cell)
{
	__typeof__(cell->skel->bss) bss = cell->skel->bss;
	char value[MAX_VALUE];

	fill_value(cell, value, true);
	memcpy(&bss->input_value, value, sizeof(bss->input_value));
	bss->input_key = key_of(cell, cell->key);
	bss->input_other_key = key_of(cell, OTHER_KEY);
	snprintf(user_string, sizeof(user_string), "cell %u", cell->number);
	bss->input_user_string = (unsigned long)user_string;
	bss->result = 1;
	bss->done = 0;
}

static void arm(struct cell *cell)
{
	__atomic_store_n(&cell->skel->bss->armed, 1, __ATOMIC_RELEASE);
}

static bool wait_until_done(struct cell *cell)
{
	bool done = wait_for_flag(&cell->skel->bss->done, COMES_WITHIN_MS);

	/* Whoever comes now comes too late. */
	__atomic_store_n(&cell->skel->bss->armed, 0, __ATOMIC_RELEASE);
	return done;
}

/* Runs where @link, which it closes, has put it */
static int run_once_by(struct cell *cell, struct bpf_link *link)
{
	bool done;

	if (!link)
		return -errno;
	arm(cell);
	done = wait_until_done(cell);
	bpf_link__destroy(link);
	return done ? 0 : -ETIME;
}

static int run_in_task(struct cell *cell, const struct bpf_program *prog)
{
	int err;

	arm(cell);
	err = run_program(prog, NULL, 0);
	if (err)
		return err < 0 ? err : -EINVAL;
	return wait_until_done(cell) ? 0 : -ETIME;
}

static int run_in_softirq(struct cell *cell, const struct bpf_program *prog)
{
	return run_once_by(cell, bpf_program__attach_raw_tracepoint(prog, "softirq_entry"));
}

static int run_in_hardirq(struct cell *cell, const struct bpf_program *prog)
{
	/* It ticks while this thread runs, which does not sleep as it waits. */
	int fd = open_cpu_clock(0, -1);

	return fd < 0 ? fd : run_once_by(cell, bpf_program__attach_perf_event(prog, fd));
}

static int run_in_nmi(struct cell *cell, const struct bpf_program *prog)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_W,
		.bp_addr = cell->skel->bss->watched_address,
		.bp_len = HW_BREAKPOINT_LEN_8,
		.sample_period = 1,
		.exclude_user = 1,
	};
	int fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC), err;
	struct bpf_link *link;

	if (fd < 0)
		return -errno;
	link = bpf_program__attach_perf_event(prog, fd);
	if (!link)
		return -errno;
	arm(cell);
	err = run_program(cell->skel->progs.touch_watched, NULL, 0);
	if (!err && !wait_until_done(cell))
		err = -ETIME;
	bpf_link__destroy(link);
	return err;
}

static int run_iterator(struct cell *cell, const struct bpf_program *prog)
{
	union bpf_iter_link_info info = { .map.map_fd = cell->fd };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(prog, &opts);
	char buffer[64];
	int iter;

	if (!link)
		return -errno;
	iter = bpf_iter_create(bpf_link__fd(link));
	while (iter >= 0 && read(iter, buffer, sizeof(buffer)) > 0)
		;
	bpf_link__destroy(link);
	if (iter >= 0)
		close(iter);
	return iter < 0 ? -errno : 0;
}

static int run(struct cell *cell, const struct bpf_program *prog)
{
	if (cell->way->kind == BY_CALLBACK)
		return run_in_task(cell, prog);
	switch (cell->context) {
	case SOFTIRQ:
		return run_in_softirq(cell, prog);
	case HARDIRQ:
		return run_in_hardirq(cell, prog);
	case NMI:
		return run_in_nmi(cell, prog);
	default:
		return run_in_task(cell, prog);
	}
}

/* With a program in the place of the function that is given the value */
static int run_replaced(struct cell *cell, const struct bpf_program *prog)
{
	struct sync_matrix_ext_bpf *ext = sync_matrix_ext_bpf__open();
	struct bpf_link *link;
	int err;

	if (!ext)
		return -errno;
	err = bpf_program__set_attach_target(ext->progs.replacement, bpf_program__fd(prog),
					     "replaced");
	if (!err)
		err = sync_matrix_ext_bpf__load(ext);
	if (!err) {
		ext->bss->new_value = cell->skel->bss->input_value;
		link = bpf_program__attach_freplace(ext->progs.replacement, 0, NULL);
		err = link ? run(cell, prog) : -errno;
		bpf_link__destroy(link);
	}
	sync_matrix_ext_bpf__destroy(ext);
	return err;
}

/* With the program that stores as what it jumps to */
static int run_jump(struct cell *cell, const struct bpf_program *prog)
{
	const char *type = strchr(strchr(bpf_program__name(prog), '_') + 1, '_') + 1;
	const struct bpf_program *target;
	const struct bpf_map *jumps;
	char name[64];
	__u32 zero = 0;
	int fd;

	snprintf(name, sizeof(name), "store_%s", type);
	target = bpf_object__find_program_by_name(cell->skel->obj, name);
	snprintf(name, sizeof(name), "jumps_%s", type);
	jumps = bpf_object__find_map_by_name(cell->skel->obj, name);
	if (!target || !jumps)
		return -ENOENT;
	fd = bpf_program__fd(target);
	return bpf_map_update_elem(bpf_map__fd(jumps), &zero, &fd, BPF_ANY) ?
	       -errno : run(cell, prog);
}

int write_once(struct cell *cell)
{
	const struct bpf_program *prog;
	char name[64];
	int err;

	set_input(cell);
	if (cell->way->kind == BY_USER)
		return cell->way->by_user(cell);

	name_of_program(cell->way, cell->context, name);
	prog = bpf_object__find_program_by_name(cell->skel->obj, name);
	if (!prog)
		return -ENOENT;
	if (cell->way->kind == BY_ITERATOR)
		return run_iterator(cell, prog);
	if (!strcmp(cell->way->name, "freplace"))
		err = run_replaced(cell, prog);
	else if (!strcmp(cell->way->name, "tail_call"))
		err = run_jump(cell, prog);
	else
		err = run(cell, prog);
	if (err)
		return err;
	if (cell->skel->bss->seen != contexts[cell->context].seen)
		return -EPROTO;
	return cell->skel->bss->result;
}

bool has_hit(const struct cell *cell)
{
	struct cell_key key = key_of(cell, OTHER_KEY);
	static const struct cell_value zero;
	char value[MAX_VALUE] = {};
	int cpu;

	if (bpf_map_lookup_elem(cell->fd, &key, value))
		return false;
	for (cpu = 0; cpu < (is_per_cpu(cell) ? cell->cpus : 1); cpu++)
		if (memcmp(value + cpu * ((value_size(cell) + 7) & ~7), &zero, sizeof(zero)))
			return true;
	return false;
}
