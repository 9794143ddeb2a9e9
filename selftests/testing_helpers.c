// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/perf_event.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"

#define GONE_AFTER_MS 30000

struct loaded {
	__u32 maps[64];
	__u32 programs[64];
};

__u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

bool wait_for_flag(const volatile __u32 *flag, unsigned int ms)
{
	__u64 deadline = now_ns() + ms * 1000000ULL;

	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
		if (now_ns() > deadline)
			return false;
		sched_yield();
	}
	return true;
}

bool map_trace_module_loaded(void)
{
	return !access("/sys/module/map_trace", F_OK);
}

int insert_module(const char *path)
{
	int fd, err = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		err = -errno;
	} else {
		if (syscall(__NR_finit_module, fd, "", 0) && errno != EEXIST)
			err = -errno;
		close(fd);
	}
	if (err)
		fprintf(stderr, "# %s can not be inserted: %s\n", path, strerror(-err));
	return err;
}

int map_trace_module_load(void)
{
	const char *path = getenv("MAP_TRACE_KO");

	if (map_trace_module_loaded())
		return 0;
	if (!path) {
		fprintf(stderr, "# MAP_TRACE_KO does not name the module\n");
		return -ENOENT;
	}
	return insert_module(path);
}

int map_trace_module_unload(void)
{
	return syscall(__NR_delete_module, "map_trace", O_NONBLOCK) ? -errno : 0;
}

int map_trace_module_unload_retry(unsigned int ms)
{
	__u64 deadline = now_ns() + ms * 1000000ULL;
	int err;

	while ((err = map_trace_module_unload()) == -EWOULDBLOCK || err == -EBUSY) {
		if (now_ns() > deadline)
			break;
		usleep(10000);
	}
	return err;
}

int map_trace_module_references(void)
{
	FILE *file = fopen("/sys/module/map_trace/refcnt", "r");
	int references;

	if (!file)
		return -errno;
	if (fscanf(file, "%d", &references) != 1)
		references = -EIO;
	fclose(file);
	return references;
}

void *map_test_metadata(size_t size)
{
	static char *next;
	static size_t left;
	void *metadata;

	size = (size + 63) & ~63UL;
	if (left < size) {
		next = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
		if (next == MAP_FAILED)
			return MAP_FAILED;
		left = 1 << 16;
	}
	metadata = next;
	next += size;
	left -= size;
	return metadata;
}

int map_trace_setup(void)
{
	int err = map_trace_module_load();

	return err ? err : map_trace_register();
}

/*
 * Each test is a process of its own. The kernel's types take a while to parse, what
 * libbpf wants to know of the kernel takes a dozen loads to find out, and neither need be
 * in each of them.
 */
static void __attribute__((constructor(1000))) get_to_know_kernel(void)
{
	char path[PATH_MAX];
	struct bpf_object *obj;

	/* Beside this binary */
	snprintf(path, sizeof(path), "%s", (const char *)getauxval(AT_EXECFN));
	snprintf(strrchr(path, '/') ? strrchr(path, '/') + 1 : path, 16, "features.bpf.o");
	obj = bpf_object__open_file(path, NULL);
	if (!obj || bpf_object__load(obj))
		fprintf(stderr, "# %s: %s\n", path, strerror(errno));
	bpf_object__close(obj);

	map_trace_attach_type();
	map_trace_type_update();
	map_trace_type_delete();
}

int pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

int online_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

int open_cpu_clock(pid_t pid, int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = 1000000,
	};
	int fd = syscall(__NR_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int send_nmis(void)
{
	/* It prints them, too. */
	return write_proc("/proc/sysrq-trigger", "l", NULL, 0);
}

int write_proc(const char *path, const char *content, char *old, size_t old_size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t len;
	int err = 0;

	if (fd < 0)
		return -errno;
	if (old) {
		len = read(fd, old, old_size - 1);
		if (len < 0) {
			err = -errno;
			goto out;
		}
		old[len] = '\0';
	}
	/* An empty string is written as a line: a write of no bytes is not one. */
	if (pwrite(fd, *content ? content : "\n", *content ? strlen(content) : 1, 0) < 0)
		err = -errno;
out:
	close(fd);
	return err;
}

int run_program(const struct bpf_program *prog, void *context, size_t size)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = context, .ctx_size_in = size);

	/* A syscall program's context is copied back to where it came from. */
	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &opts))
		return -errno;
	return opts.retval;
}

bool is_tracer(const struct bpf_program *prog)
{
	return !strncmp(bpf_program__section_name(prog), "map_trace/", 10);
}

bool is_jited(const struct bpf_program *prog)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(prog), &info, &len))
		fprintf(stderr, "# %s: %s\n", bpf_program__name(prog), strerror(errno));
	return info.jited_prog_len;
}

int load_one_program(struct bpf_object *obj, const char *name, char *log, size_t log_size)
{
	struct bpf_program *prog, *wanted = NULL;
	int err;

	bpf_object__for_each_program(prog, obj) {
		bool load = !strcmp(bpf_program__name(prog), name);

		bpf_program__set_autoload(prog, load);
		if (load)
			wanted = prog;
	}
	if (!wanted) {
		fprintf(stderr, "# no program %s\n", name);
		return -ENOENT;
	}
	if (log) {
		log[0] = '\0';
		bpf_program__set_log_buf(wanted, log, log_size);
		bpf_program__set_log_level(wanted, 1);
	}
	err = bpf_object__load(obj);
	/* Not worth failing for, but it has to be seen. */
	if (err && !log)
		fprintf(stderr, "# %s does not load: %s\n", name, strerror(-err));
	return err;
}

int attach_to(const struct bpf_program *prog, const struct bpf_map *map)
{
	const char *section = bpf_program__section_name(prog);
	int type = strstr(section, "/SYNC_ELEM") ? map_trace_type_sync() :
		   strstr(section, "/DELETE_ELEM") ? map_trace_type_delete() :
		   map_trace_type_update();

	return map_trace_attach(bpf_program__fd(prog), bpf_map__fd(map), type, 0);
}

int load_empty_tracer(__u32 trace_type)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	bool delete = trace_type == (__u32)map_trace_type_delete();
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	int fd;

	opts.expected_attach_type = map_trace_attach_type();
	opts.attach_btf_id = map_trace_target_id(delete ? "bpf_map_trace__delete_elem" :
						 "bpf_map_trace__update_elem");
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "empty_tracer", "GPL", insns,
			   sizeof(insns) / sizeof(*insns), &opts);
	return fd < 0 ? -errno : fd;
}

__u32 id_of_map(int fd)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

__u32 id_of_program(int fd)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

/*
 * Without an fd: closing one would be another last reference of user space, and a
 * PROG_ARRAY stays for good if that is dropped again while prog_array_map_clear()
 * waits for its work.
 */
bool is_gone(int (*get_next_id)(__u32 start, __u32 *next), __u32 id)
{
	__u64 deadline = now_ns() + GONE_AFTER_MS * 1000000ULL;

	/* What never was is not gone. */
	while (id) {
		__u32 next;

		if (get_next_id(id - 1, &next))
			return errno == ENOENT;
		if (next != id)
			return true;
		if (now_ns() > deadline)
			break;
		usleep(10000);
	}
	return false;
}

static void note_id(__u32 ids[64], unsigned int *nr, __u32 id)
{
	/* What was not loaded has no fd and no id. The last one stays 0. */
	if (id && *nr < 63)
		ids[(*nr)++] = id;
}

struct loaded *note_loaded(const struct bpf_object *obj)
{
	struct loaded *loaded = calloc(1, sizeof(*loaded));
	unsigned int nr_maps = 0, nr_programs = 0;
	struct bpf_program *prog;
	struct bpf_map *map;

	if (!loaded)
		return NULL;
	bpf_object__for_each_map(map, obj)
		note_id(loaded->maps, &nr_maps, id_of_map(bpf_map__fd(map)));
	bpf_object__for_each_program(prog, obj)
		note_id(loaded->programs, &nr_programs, id_of_program(bpf_program__fd(prog)));
	return loaded;
}

bool loaded_is_gone(struct loaded *loaded)
{
	const __u32 *id;
	bool gone = true;

	for (id = loaded->programs; *id; id++)
		if (!is_gone(bpf_prog_get_next_id, *id)) {
			fprintf(stderr, "# program %u is still there\n", *id);
			gone = false;
		}
	for (id = loaded->maps; *id; id++)
		if (!is_gone(bpf_map_get_next_id, *id)) {
			fprintf(stderr, "# map %u is still there\n", *id);
			gone = false;
		}
	free(loaded);
	return gone;
}

int set_capabilities(__u64 mask)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	int i;

	if (syscall(__NR_capget, &header, data))
		return -errno;
	for (i = 0; i < _LINUX_CAPABILITY_U32S_3; i++, mask >>= 32)
		data[i].effective = data[i].permitted & (__u32)mask;
	return syscall(__NR_capset, &header, data) ? -errno : 0;
}

int count_links(int prog_fd)
{
	struct bpf_prog_info prog = {};
	__u32 len = sizeof(prog);
	int count = 0;
	__u32 id = 0;

	if (bpf_obj_get_info_by_fd(prog_fd, &prog, &len))
		return -errno;
	while (!bpf_link_get_next_id(id, &id)) {
		struct bpf_link_info link = {};
		int fd = bpf_link_get_fd_by_id(id);

		/* It went away meanwhile. */
		if (fd < 0)
			continue;
		len = sizeof(link);
		if (!bpf_obj_get_info_by_fd(fd, &link, &len) && link.prog_id == prog.id)
			count++;
		close(fd);
	}
	return count;
}

long long run_count(int prog_fd)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(prog_fd, &info, &len) ? -errno : (long long)info.run_cnt;
}
