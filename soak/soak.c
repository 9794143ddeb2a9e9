// SPDX-License-Identifier: GPL-2.0
/*
 * Writes to maps of several kinds from everywhere at once for a while, and then compares them
 * with their copies. The mirrors of two sync tracers have to be equal; one of these tracers is
 * attached and detached all the time. The copies that are made without sync tracers are
 * controls.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WITHOUT_HARNESS
#include "testing_helpers.h"

#include "copies.h"
#include "load.h"
#include "soak.skel.h"

#define NSEC_PER_USEC 1000ULL
/* How long a round writes: who errs shows it at the end of one. Each kind of map has two at least. */
#define MAX_ROUND_NS (2 * NSEC_PER_SEC)
/* Some time for the worker, which rests for a second at most */
#define SETTLE_MS 20000
/* Of this many runs of the tracers, one fails. */
#define FAILS_EACH 199
/* So long before the end, the last copies begin. */
#define COPY_MS 50
#define MAX_SHOWN 8

static const struct kind {
	const char *name;
	enum bpf_map_type type;
	__u32 flags, nr_keys, max_entries;
	/* Whose return a fexit program sees */
	const char *fexits[2];
} kinds[] = {
	{
		.name = "HASH", .type = BPF_MAP_TYPE_HASH, .nr_keys = 64, .max_entries = 64,
		.fexits = { "htab_map_update_elem_returns", "htab_map_delete_elem_returns" },
	}, {
		.name = "HASH, no prealloc", .type = BPF_MAP_TYPE_HASH,
		.flags = BPF_F_NO_PREALLOC, .nr_keys = 64, .max_entries = 64,
		.fexits = { "htab_map_update_elem_returns", "htab_map_delete_elem_returns" },
	}, {
		/* It gives up elements all the time. */
		.name = "LRU_HASH", .type = BPF_MAP_TYPE_LRU_HASH, .nr_keys = 400,
		.max_entries = 256,
		.fexits = { "htab_lru_map_update_elem_returns",
			    "htab_lru_map_delete_elem_returns" },
	}, {
		.name = "ARRAY", .type = BPF_MAP_TYPE_ARRAY, .nr_keys = 64, .max_entries = 64,
		.fexits = { "array_map_update_elem_returns" },
	}, {
		.name = "PERCPU_HASH", .type = BPF_MAP_TYPE_PERCPU_HASH, .nr_keys = 64,
		.max_entries = 64,
		.fexits = { "htab_percpu_map_update_elem_returns",
			    "htab_map_delete_elem_returns" },
	},
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* What follows the map */
enum follower { SETTLED, SYNC, LATE, EVENTS, ITERATOR, SWEEPS, FEXIT, NR_FOLLOWERS };

static const char * const followers[NR_FOLLOWERS] = {
	"sync", "sync+flush", "late+flush", "events", "iterator", "2 sweeps", "fexit",
};

/* What came out of the rounds of one kind, by operations alone [0], and through pointers too [1] */
struct result {
	__u32 rounds;
	__u64 keys;
	__u64 operations[NR_SOURCES];
	__u64 runs[NR_REASONS];
	__u64 missed, failed, lost, pending;
	__u64 flushes, attaches, updates;
	__u64 differing[NR_FOLLOWERS];
};

static struct result results[NR_KINDS][2];

struct soak {
	const struct kind *kind;
	struct load load;
	struct soak_bpf *skel;
	int links[2];
	/* Where they could be attached */
	struct bpf_link *fexits[2];
	bool has_fexits;
	struct copy source, copy, sweeps, iterator;
};

static unsigned int tests;

static void __attribute__((format(printf, 2, 3))) report(bool passed, const char *format, ...)
{
	va_list args;

	printf("%s %u - ", passed ? "ok" : "not ok", ++tests);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

static void die(const char *what, int err)
{
	printf("# %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static void check(const char *what, int err)
{
	if (err)
		die(what, err);
}

/* --- one kind of map */

static struct bpf_program *find_fexit(const struct soak *soak, int index)
{
	const char *name = soak->kind->fexits[index];
	struct bpf_program *prog = bpf_object__find_program_by_name(soak->skel->obj, name);

	if (!prog)
		die(name, ENOENT);
	return prog;
}

static void open_kind(struct soak *soak, const struct kind *kind)
{
	bool percpu = kind->type == BPF_MAP_TYPE_PERCPU_HASH;
	struct soak_bpf *skel;
	int i;

	memset(soak, 0, sizeof(*soak));
	soak->kind = kind;
	skel = soak_bpf__open();
	if (!skel)
		die("open", errno);
	soak->skel = skel;
	soak->load.skel = skel;
	check("type of the map", bpf_map__set_type(skel->maps.source, kind->type) ?:
	      bpf_map__set_map_flags(skel->maps.source, kind->flags) ?:
	      bpf_map__set_max_entries(skel->maps.source, kind->max_entries));
	for (i = 0; i < 2 && kind->fexits[i]; i++)
		check("autoload", bpf_program__set_autoload(find_fexit(soak, i), true));
	skel->rodata->percpu = percpu;
	skel->rodata->nr_cpus = libbpf_num_possible_cpus();
	skel->rodata->nr_keys = kind->nr_keys;
	if (skel->rodata->nr_cpus > MAX_CPUS)
		die("more CPUs than there is room for", E2BIG);
	check("load", soak_bpf__load(skel));

	soak->load.nr_keys = kind->nr_keys;
	soak->load.nr_values = percpu ? skel->rodata->nr_cpus : 1;
	soak->load.has_deletes = kind->type != BPF_MAP_TYPE_ARRAY;
	soak->load.link = -1;
	soak->load.late = -1;
	soak->source.nr_keys = kind->nr_keys;
	soak->source.nr_values = soak->load.nr_values;
	soak->copy = soak->source;
	soak->sweeps = soak->source;
	soak->iterator = soak->source;
}

/* All that stays. What patches code comes first, while nothing runs it. */
static void attach_kind(struct soak *soak)
{
	struct pollfd pollfd = { .events = POLLIN };
	struct soak_bpf *skel = soak->skel;
	int i;

	soak->has_fexits = true;
	for (i = 0; i < 2 && soak->kind->fexits[i]; i++) {
		soak->fexits[i] = bpf_program__attach(find_fexit(soak, i));
		if (!soak->fexits[i]) {
			printf("# %s: %s can not be attached: %s\n", soak->kind->name,
			       soak->kind->fexits[i], strerror(errno));
			soak->has_fexits = false;
		}
	}
	soak->links[0] = attach_to(skel->progs.updated, skel->maps.source);
	check("attach to updates", soak->links[0] < 0 ? soak->links[0] : 0);
	soak->links[1] = attach_to(skel->progs.deleted, skel->maps.source);
	if (soak->load.has_deletes)
		check("attach to deletes", soak->links[1] < 0 ? soak->links[1] : 0);
	soak->load.link = attach_to(skel->progs.synced, skel->maps.source);
	check("attach to states", soak->load.link < 0 ? soak->load.link : 0);
	pollfd.fd = soak->load.link;
	if (poll(&pollfd, 1, SETTLE_MS) != 1 || pollfd.revents != POLLIN)
		die("replay", ETIME);
}

static void close_kind(struct soak *soak)
{
	bpf_link__destroy(soak->fexits[0]);
	bpf_link__destroy(soak->fexits[1]);
	close(soak->links[0]);
	close(soak->links[1]);
	close(soak->load.link);
	close(soak->load.late);
	soak_bpf__destroy(soak->skel);
}

static struct map_trace_info info_of(const struct soak *soak)
{
	struct map_trace_info info;

	check("info of a link", map_trace_get_info(soak->load.link, &info));
	return info;
}

/* --- one round */

static __u32 count_wrong(struct soak *soak, const struct bpf_map *map)
{
	check("read of a mirror", read_mirror(bpf_map__fd(map), &soak->copy));
	return count_differing(&soak->source, &soak->copy);
}

static void show_value(const char *of, bool there, __u64 value)
{
	static const char * const ways[NR_WAYS] = {
		"update", "update NOEXIST", "update EXIST", "delete", "delete and update",
		"lookup", "write", "add", "write to a deleted one", "write to a replaced one",
		"write to another CPU's", "for_each", "bpf(2) update", "bpf(2) batch",
	};
	__u32 way = value >> WAY_SHIFT & 0xff;

	if (!there)
		printf(" %s: none;", of);
	else
		printf(" %s: %s of stream %llu, number %llu;", of,
		       way < NR_WAYS ? ways[way] : "?", value >> STREAM_SHIFT,
		       value & ((1ULL << WAY_SHIFT) - 1));
}

/* The keys in which the copy that was read last differs, and who has written what is there */
static void show_differing(const struct soak *soak, const char *of)
{
	__u32 key, cpu, shown = 0;

	for (key = 0; key < soak->source.nr_keys; key++) {
		if (!differs(&soak->source, &soak->copy, key) || shown++ == MAX_SHOWN)
			continue;
		for (cpu = 0; cpu < soak->source.nr_values; cpu++) {
			printf("# %s, %s: key %u, value %u:", soak->kind->name, of, key, cpu);
			show_value("map", soak->source.elements[key].there,
				   soak->source.elements[key].values[cpu]);
			show_value("mirror", soak->copy.elements[key].there,
				   soak->copy.elements[key].values[cpu]);
			putchar('\n');
		}
	}
}

/* Writes meanwhile. The copies are made while the others write. */
static void run_load(struct soak *soak, struct result *result, __u64 seed, bool pointers,
		     __u64 round_ns)
{
	int map = bpf_map__fd(soak->skel->maps.source);
	__u64 end, half;
	bool swept = false;

	memset(soak->sweeps.elements, 0, sizeof(soak->sweeps.elements));
	soak->skel->bss->fails_each = FAILS_EACH;
	check("load", load_start(&soak->load, seed, pointers));
	half = now_ns() + round_ns / 2;
	end = now_ns() + round_ns - COPY_MS * NSEC_PER_MSEC;
	while (now_ns() < end) {
		__u64 pending = info_of(soak).pending;

		if (pending > result->pending)
			result->pending = pending;
		if (!swept && now_ns() > half) {
			check("the first sweep", sweep(map, &soak->sweeps));
			swept = true;
		}
		usleep(50 * NSEC_PER_MSEC / NSEC_PER_USEC);
	}
	check("the second sweep", sweep(map, &soak->sweeps));
	check("copy", copy_by_iterator(soak->skel->progs.copied, map, &soak->iterator));
	usleep(COPY_MS * NSEC_PER_MSEC / NSEC_PER_USEC);
	load_stop(&soak->load);
	soak->skel->bss->fails_each = 0;
	if (soak->load.err)
		die(soak->load.failed, soak->load.err);
}

/* Nobody marks the values of CPUs. */
static bool settles(const struct kind *kind, bool pointers)
{
	return !pointers || kind->type != BPF_MAP_TYPE_PERCPU_HASH;
}

/* What was done by operations comes without a flush, and what marked lookups have led to. */
static __u32 count_unsettled(struct soak *soak)
{
	__u64 end = now_ns() + SETTLE_MS * NSEC_PER_MSEC;
	__u32 wrong;

	do {
		wrong = count_wrong(soak, soak->skel->maps.mirror);
	} while (wrong && now_ns() < end && !usleep(10000));
	return wrong;
}

static void flush_and_count(struct soak *soak, struct result *result, enum follower follower,
			    bool with_keys)
{
	bool late = follower == LATE;
	const struct bpf_map *map = late ? soak->skel->maps.late_mirror : soak->skel->maps.mirror;
	__u32 wrong;

	check("flush", flush_link(&soak->load, late ? soak->load.late : soak->load.link,
				  with_keys));
	wrong = count_wrong(soak, map);
	if (wrong) {
		show_differing(soak, followers[follower]);
		check("repair", write_mirror(bpf_map__fd(map), &soak->source));
	}
	result->differing[follower] += wrong;
}

/* What makes nobody exact begins the next round as if it were. */
static void count_control(struct soak *soak, struct result *result, enum follower follower,
			  const struct bpf_map *map)
{
	result->differing[follower] += count_wrong(soak, map);
	check("repair", write_mirror(bpf_map__fd(map), &soak->source));
}

static void run_round(struct soak *soak, struct result *result, __u64 seed, bool pointers,
		      __u64 round_ns)
{
	__u64 lost = info_of(soak).lost;
	__u32 wrong;

	run_load(soak, result, seed, pointers, round_ns);
	check("read of the map", read_map(bpf_map__fd(soak->skel->maps.source), &soak->source));
	result->rounds++;
	result->keys += soak->source.nr_keys;

	wrong = settles(soak->kind, pointers) ? count_unsettled(soak) : 0;
	/* What the link says that it has lost is not there without its keys. */
	lost = info_of(soak).lost - lost;
	if (lost)
		printf("# %s: the link has lost %llu keys, %u differ before the flush\n",
		       soak->kind->name, lost, wrong);
	else if (wrong)
		show_differing(soak, followers[SETTLED]);
	result->differing[SETTLED] += lost ? 0 : wrong;
	flush_and_count(soak, result, SYNC, lost);
	/* It has missed deletes while it was not there. */
	flush_and_count(soak, result, LATE, true);
	count_control(soak, result, EVENTS, soak->skel->maps.events);
	count_control(soak, result, FEXIT, soak->skel->maps.fexits);
	result->differing[ITERATOR] += count_differing(&soak->source, &soak->iterator);
	result->differing[SWEEPS] += count_differing(&soak->source, &soak->sweeps);
}

/* Adds what was counted since the last time. */
static void take_counts(struct soak *soak, struct result *result, struct map_trace_info *before)
{
	struct map_trace_info info = info_of(soak);
	struct load *load = &soak->load;
	int i;

	for (i = 0; i < NR_SOURCES; i++)
		result->operations[i] += load->operations[i];
	memset(load->operations, 0, sizeof(load->operations));
	for (i = 0; i < NR_REASONS; i++)
		result->runs[i] += soak->skel->bss->runs[0][i] + soak->skel->bss->runs[1][i];
	memset(soak->skel->bss->runs, 0, sizeof(soak->skel->bss->runs));
	result->missed += info.missed - before->missed + load->late_missed;
	result->failed += info.failed - before->failed + load->late_failed;
	result->lost += info.lost - before->lost + load->late_lost;
	result->flushes += load->flushes;
	result->attaches += load->attaches;
	result->updates += load->updates;
	load->late_missed = load->late_failed = load->late_lost = 0;
	load->flushes = load->attaches = load->updates = 0;
	*before = info;
}

static void soak_kind(const struct kind *kind, struct result *result, __u64 seed, __u64 ns)
{
	static struct soak soak;
	struct map_trace_info before;
	__u64 round_ns = ns / 2 < MAX_ROUND_NS ? ns / 2 : MAX_ROUND_NS;
	__u32 rounds = ns / round_ns, round;

	open_kind(&soak, kind);
	attach_kind(&soak);
	before = info_of(&soak);
	for (round = 0; round < rounds; round++) {
		run_round(&soak, &result[round % 2], seed_of(seed, round), round % 2, round_ns);
		take_counts(&soak, &result[round % 2], &before);
	}
	if (!soak.has_fexits)
		result[0].differing[FEXIT] = result[1].differing[FEXIT] = ~0ULL;
	close_kind(&soak);

	report(!result[0].differing[SETTLED] && !result[1].differing[SETTLED],
	       "%s: what programs have done is in the mirror without a flush", kind->name);
	report(!result[0].differing[SYNC] && !result[1].differing[SYNC],
	       "%s: after a flush the mirror is the map", kind->name);
	report(!result[0].differing[LATE] && !result[1].differing[LATE],
	       "%s: so it is for a link that came and went", kind->name);
}

/* --- what is said in the end */

static const char * const writes[] = { "operations", "and pointers" };

#define FOR_EACH_RESULT(kind, pointers)					\
	for (kind = 0; kind < NR_KINDS; kind++)					\
		for (pointers = 0; pointers < 2; pointers++)

static void print_row_name(unsigned int kind, int pointers)
{
	printf("# %-17s  %-12s", kinds[kind].name, writes[pointers]);
}

static void print_results(void)
{
	const struct result *result;
	unsigned int kind;
	int pointers, i;

	printf("#\n# Operations\n# %-31s%8s%12s%12s%12s%12s%12s\n", "", "rounds", "programs",
	       "hardirq", "NMI", "timers", "bpf(2)");
	FOR_EACH_RESULT(kind, pointers) {
		result = &results[kind][pointers];
		print_row_name(kind, pointers);
		printf("%8u", result->rounds);
		for (i = 0; i < NR_SOURCES; i++)
			printf("%12llu", result->operations[i]);
		putchar('\n');
	}

	printf("#\n# Runs of the tracers of both links, and what these say\n"
	       "# %-31s%11s%10s%10s%10s%10s%8s%8s%8s%8s%9s%9s%9s\n", "", "operation",
	       "eviction", "recheck", "replay", "flush", "missed", "failed", "lost", "pending",
	       "flushes", "attaches", "updates");
	FOR_EACH_RESULT(kind, pointers) {
		result = &results[kind][pointers];
		print_row_name(kind, pointers);
		printf("%11llu", result->runs[0]);
		for (i = 1; i < 5; i++)
			printf("%10llu", result->runs[i]);
		printf("%8llu%8llu%8llu%8llu%9llu%9llu%9llu\n", result->missed, result->failed,
		       result->lost, result->pending, result->flushes, result->attaches,
		       result->updates);
	}

	printf("#\n# How many keys differ when all have stopped, of so many of all rounds\n"
	       "# %-31s%8s", "", "keys");
	for (i = 0; i < NR_FOLLOWERS; i++)
		printf("%12s", followers[i]);
	putchar('\n');
	FOR_EACH_RESULT(kind, pointers) {
		result = &results[kind][pointers];
		print_row_name(kind, pointers);
		printf("%8llu", result->keys);
		for (i = 0; i < NR_FOLLOWERS; i++)
			if ((i == SETTLED && !settles(&kinds[kind], pointers)) ||
			    result->differing[i] == ~0ULL)
				printf("%12s", "-");
			else
				printf("%12llu", result->differing[i]);
		putchar('\n');
	}
	puts("#");
}

/* A run in which all are right would say nothing. */
static void report_load(void)
{
	__u64 operations[NR_SOURCES] = {}, runs[NR_REASONS] = {}, events[2] = {}, all = 0;
	bool everybody = true, every_reason = true;
	unsigned int kind;
	int pointers, i;

	FOR_EACH_RESULT(kind, pointers) {
		const struct result *result = &results[kind][pointers];

		for (i = 0; i < NR_SOURCES; i++)
			operations[i] += result->operations[i];
		for (i = 0; i < NR_REASONS; i++)
			runs[i] += result->runs[i];
		events[pointers] += result->differing[EVENTS];
	}
	for (i = 0; i < NR_SOURCES; i++) {
		everybody &= operations[i] != 0;
		all += operations[i];
	}
	for (i = 0; i < 5; i++)
		every_reason &= runs[i] != 0;
	report(everybody, "all have written, %llu operations", all);
	report(every_reason, "the tracers were run for each reason");
	/* By operations alone they meet seldom: a short run can do without. */
	report(events[1], "event tracers end with other values in rounds that write through "
	       "pointers: %llu keys, and %llu in other rounds", events[1], events[0]);
}

int main(int argc, char **argv)
{
	__u64 seconds, seed;
	unsigned int kind;

	seconds = argc == 3 ? strtoull(argv[1], NULL, 10) : 0;
	if (!seconds) {
		fprintf(stderr, "usage: %s SECONDS SEED\n", argv[0]);
		return 2;
	}
	seed = strtoull(argv[2], NULL, 10);
	setvbuf(stdout, NULL, _IOLBF, 0);
	check("module", map_trace_setup());

	printf("TAP version 13\n1..%zu\n", 3 * NR_KINDS + 3);
	printf("# seed %llu, %d CPUs, %llu s\n", seed, online_cpus(), seconds);
	for (kind = 0; kind < NR_KINDS; kind++)
		soak_kind(&kinds[kind], results[kind], seed_of(seed, kind),
			  seconds * NSEC_PER_SEC / NR_KINDS);
	report_load();
	print_results();
	return 0;
}
