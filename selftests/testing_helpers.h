/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every test of the suite needs. Include it first. Only one file of a binary may include
 * the harness: the others define WITHOUT_HARNESS before.
 */
#ifndef TESTING_HELPERS_H
#define TESTING_HELPERS_H

#ifndef WITHOUT_HARNESS
#include "kselftest_harness.h"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "map_trace_libbpf.h"

/*
 * The harness maps a page of its own for the metadata of each test, for good, and each
 * test is two forks, which copy all of these mappings: give them one.
 */
void *map_test_metadata(size_t size);
#ifndef WITHOUT_HARNESS
#define mmap(addr, length, prot, flags, fd, offset)				\
	((length) == sizeof(struct __test_metadata) &&				\
	 (flags) == (MAP_SHARED | MAP_ANONYMOUS) ?				\
		map_test_metadata(length) : (mmap)(addr, length, prot, flags, fd, offset))
#endif

/* Guests may be emulated, with a kernel that checks every access it makes. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

#define JIT_ENABLE "/proc/sys/net/core/bpf_jit_enable"

#define NSEC_PER_MSEC 1000000ULL
#define NSEC_PER_SEC 1000000000ULL

#define UPDATE ((__u32)map_trace_type_update())
#define DELETE ((__u32)map_trace_type_delete())

/* The clock of bpf_ktime_get_ns() */
__u64 now_ns(void);

/* Wait for *@flag to become non-zero; false if it did not within @ms */
bool wait_for_flag(const volatile __u32 *flag, unsigned int ms);

/* Insert a module, unless it is there. 0 or a negative errno */
int insert_module(const char *path);

bool map_trace_module_loaded(void);
/* Insert the module in $MAP_TRACE_KO, unless it is there. 0 or a negative errno */
int map_trace_module_load(void);
/* One try to remove it, without waiting. 0 or a negative errno */
int map_trace_module_unload(void);
/* Try until it works: links are freed some time after their last fd is closed. */
int map_trace_module_unload_retry(unsigned int ms);

/* What holds it: links. A negative errno if it is not there */
int map_trace_module_references(void);

/* Insert the module and register the section handler: for FIXTURE_SETUP() */
int map_trace_setup(void);

int pin_to_cpu(int cpu);
int online_cpus(void);

/*
 * The perf event of a clock that ticks each millisecond, in a hardirq, while @pid runs on
 * @cpu; -1 is any. Returns the fd, or a negative errno.
 */
int open_cpu_clock(pid_t pid, int cpu);

/*
 * Interrupt the other CPUs by an NMI, in which they print something. Returns when all have
 * done so. 0 or a negative errno
 */
int send_nmis(void);

/* Replace the content of a file in /proc; the old content, cut, goes to @old. */
int write_proc(const char *path, const char *content, char *old, size_t old_size);

/* Run a SEC("syscall") or SEC("raw_tp") program once. Its return value, or an errno */
int run_program(const struct bpf_program *prog, void *context, size_t size);

bool is_jited(const struct bpf_program *prog);
/* By the section that it is in */
bool is_tracer(const struct bpf_program *prog);

/* Have these programs loaded too, with their object, which by themselves are not */
#define AUTOLOAD(...) do {							\
	struct bpf_program *_progs[] = { __VA_ARGS__ };				\
	unsigned int _i;							\
										\
	for (_i = 0; _i < sizeof(_progs) / sizeof(_progs[0]); _i++)		\
		ASSERT_EQ(0, bpf_program__set_autoload(_progs[_i], true));	\
} while (0)

/* Load only @name of @obj. 0 or a negative errno; @log gets the verifier's log. */
int load_one_program(struct bpf_object *obj, const char *name, char *log, size_t log_size);

/* Attach as the program's section says, to a map of its object */
int attach_to(const struct bpf_program *prog, const struct bpf_map *map);

/* A tracer that does nothing, with any map. Its fd, or a negative errno */
int load_empty_tracer(__u32 trace_type);

/* 0 if the fd is no map's, or no program's */
__u32 id_of_map(int fd);
__u32 id_of_program(int fd);

/* Whether what had this id goes away, some time after the last reference was dropped */
bool is_gone(int (*get_next_id)(__u32 start, __u32 *next), __u32 id);

/* The maps and programs of an object that is loaded, to see later that they went with it */
struct loaded *note_loaded(const struct bpf_object *obj);
/* Says what is still there, some time after the object was closed. Frees @loaded. */
bool loaded_is_gone(struct loaded *loaded);

/* Of those that are permitted, let only these capabilities be effective, 1ULL << CAP_* each. */
int set_capabilities(__u64 mask);

/* How many links there are of a program, whoever has them. Or a negative errno */
int count_links(int prog_fd);

/* How often a program has run, while statistics were enabled. Or a negative errno */
long long run_count(int prog_fd);

#define ASSERT_LOG_HAS(log, text) do {						\
	if (!strstr((log), (text)))						\
		TH_LOG("\"%s\" is not in the verifier's log:\n%s", (text), (log));\
	ASSERT_NE(NULL, strstr((log), (text)));					\
} while (0)

#endif
