// SPDX-License-Identifier: GPL-2.0
/*
 * Sync tracers, whoever writes: each way to write, on each type of map, in each context that
 * programs run in. After a flush the mirror equals the map, byte for byte. It does so before
 * the flush where the documentation says so. Then the same with event tracers, whose mirrors
 * have to be wrong exactly where a value was only written through a pointer.
 *
 * If a cell is empty, the kernel has to refuse what it would do.
 *
 * By itself this runs as many cells as are needed for each pair of type, way and context. With
 * SYNC_MATRIX=all it runs all of them: make matrix.
 */
#include "testing_helpers.h"

#include <poll.h>

#include "sync_matrix_refused.h"
#include "sync_matrix_run.h"

/* Some time for the worker, and where that has gone by a few times already */
#define SETTLE_MS 60000
#define NO_TIME_MS 2000
#define PATIENCE 3
/* Of all cells of a type */
#define CELLS_TIMEOUT 3000

enum follower { STATES, OPERATIONS };

static const char *const follower_names[] = { "states", "operations" };

FIXTURE(sync_matrix) {
	struct cell cell;
	enum follower follower;
	/* Of states, or of updates and of deletes */
	int link, delete_link;
	/* How many cells were run, and what came of it */
	unsigned int run[2], failed, never_settled;
	char jit_enable[16], jit_harden[16];
};

FIXTURE_VARIANT(sync_matrix) {
	unsigned int type;
};

#define ADD_VARIANT(its_name, ...)						\
	FIXTURE_VARIANT_ADD(sync_matrix, its_name) { .type = TYPE_##its_name };

SYNC_MATRIX_TYPES(ADD_VARIANT)

typedef FIXTURE_DATA(sync_matrix) test_t;

#define JIT_HARDEN "/proc/sys/net/core/bpf_jit_harden"

static bool runs_all(void)
{
	const char *which = getenv("SYNC_MATRIX");

	return which && !strcmp(which, "all");
}

static void __attribute__((constructor)) select_them(void)
{
	select_cells(runs_all());
}

FIXTURE_SETUP(sync_matrix)
{
	ASSERT_EQ(0, map_trace_setup());
	self->cell.type = &types[variant->type];
	self->cell.cpus = libbpf_num_possible_cpus();
	ASSERT_GE(MAX_CPUS, self->cell.cpus);
	self->link = -1;
	self->delete_link = -1;
}

static void put_engine_back(test_t *self)
{
	if (self->jit_enable[0])
		write_proc(JIT_ENABLE, self->jit_enable, NULL, 0);
	if (self->jit_harden[0])
		write_proc(JIT_HARDEN, self->jit_harden, NULL, 0);
	self->jit_enable[0] = '\0';
	self->jit_harden[0] = '\0';
}

FIXTURE_TEARDOWN(sync_matrix)
{
	put_engine_back(self);
}

/* Says what is wrong with a cell. */
static void fail(test_t *self, const char *what, int err)
{
	self->failed++;
	fprintf(stderr, "# %s x %s x %s, tracers of %s: %s%s%s\n", self->cell.type->name,
		self->cell.way->name, contexts[self->cell.context].name,
		follower_names[self->follower], what, err ? ": " : "", err ? strerror(-err) : "");
}

/* Whether the mirror becomes equal, in some time */
static bool settles(test_t *self)
{
	__u64 end = now_ns() + (self->never_settled < PATIENCE ? SETTLE_MS : NO_TIME_MS) *
			       NSEC_PER_MSEC;

	while (count_wrong(&self->cell)) {
		if (now_ns() > end) {
			self->never_settled++;
			return false;
		}
		usleep(5000);
	}
	return true;
}

static enum told told(const struct cell *cell)
{
	/* Nothing marks the values of CPUs, and not those of each type. */
	bool unmarked = is_per_cpu(cell) || cell->type->traits & UNMARKED;

	return cell->way->told == BY_MARK && unmarked ? BY_FLUSH : cell->way->told;
}

/* A cell that waits to be judged together with others: each writes a key of its own. */
struct pick {
	const struct way *way;
	enum context context;
	struct content before;
	/* A control is to be wrong. */
	bool misses;
	int err;
};

struct group {
	struct pick picks[CELL_KEYS];
	unsigned int count;
};

static void take(test_t *self, const struct group *group, unsigned int index)
{
	self->cell.way = group->picks[index].way;
	self->cell.context = group->picks[index].context;
	self->cell.key = index;
}

static void write_all(test_t *self, struct group *group)
{
	unsigned int i;

	for (i = 0; i < group->count; i++) {
		struct pick *pick = &group->picks[i];

		take(self, group, i);
		self->cell.number++;
		pick->before = read_content(&self->cell);
		pick->err = write_once(&self->cell);
		if (pick->err) {
			fail(self, "it does not write", pick->err);
			continue;
		}
		self->run[self->follower]++;
		pick->misses = pick->way->told == BY_MARK || pick->way->told == BY_FLUSH;
		if (pick->way->may_miss)
			pick->misses &= has_hit(&self->cell);
	}
}

/* Of each of the cells, whether its key is wrong. Some ways write other keys, too. */
static void expect_wrong(test_t *self, const struct group *group, bool wrong, const char *what)
{
	unsigned int i;

	for (i = 0; i < group->count; i++) {
		take(self, group, i);
		if (group->picks[i].err)
			continue;
		if (group->count > 1 ? is_wrong(&self->cell) != wrong :
				       !count_wrong(&self->cell) == wrong)
			fail(self, what, 0);
	}
}

/* Before a flush: when they are told is what they have in common. */
static void check_states(test_t *self, const struct group *group)
{
	take(self, group, 0);
	switch (told(&self->cell)) {
	case BY_OPERATION:
		expect_wrong(self, group, false, "not told when the operation was done");
		break;
	case BY_QUEUE:
	case BY_MARK:
		if (!settles(self))
			expect_wrong(self, group, false, "not told without a flush");
		break;
	case BY_FLUSH:
		/* Else the documentation promises less than there is. */
		if (!self->cell.way->may_miss)
			expect_wrong(self, group, true, "told before a flush");
		break;
	}
}

static void check_flush(test_t *self, const struct group *group)
{
	int err = map_trace_flush(self->link, NULL, 0, SETTLE_MS, NULL);

	take(self, group, 0);
	if (err)
		fail(self, "flush", err);
	expect_wrong(self, group, false, "not equal after a flush");
	if (count_wrong(&self->cell))
		fail(self, "other keys are not equal after a flush", 0);
}

static void check_operations(test_t *self, const struct group *group)
{
	take(self, group, 0);
	if (self->cell.way->told == BY_QUEUE)
		settles(self);
	if (group->picks[0].misses)
		expect_wrong(self, group, true, "the control is right, but should not be");
	else
		expect_wrong(self, group, false, "the control is wrong, but should not be");
}

static void check_written(test_t *self, const struct group *group)
{
	unsigned int i;

	for (i = 0; i < group->count; i++) {
		const struct pick *pick = &group->picks[i];
		struct content after;

		take(self, group, i);
		after = read_content(&self->cell);
		/* What evicts writes other keys, of which some are gone. */
		if (pick->way->traits & EVICTS ?
		    count_elements(&self->cell) >= CELL_KEYS + EVICTING_KEYS :
		    !pick->err && !memcmp(&pick->before, &after, sizeof(after)))
			fail(self, "it has written nothing", 0);
	}
}

static void run_group(test_t *self, struct group *group)
{
	int err;

	if (!group->count)
		return;
	take(self, group, 0);
	err = reset(&self->cell);
	if (!err && !settles(self))
		err = -ETIME;
	if (err) {
		fail(self, "it cannot begin", err);
	} else {
		write_all(self, group);
		/* When it is told comes first. */
		if (self->follower == STATES)
			check_states(self, group);
		else
			check_operations(self, group);
		check_written(self, group);
		if (self->follower == STATES)
			check_flush(self, group);
	}
	group->count = 0;
}

/* Where nobody is told before some time has gone by, they wait together. */
static bool may_wait(const struct way *way)
{
	return way->kind == BY_PROGRAM && way->told == BY_MARK && !way->may_miss && !way->all_keys;
}

static void detach(test_t *self)
{
	if (self->link >= 0)
		close(self->link);
	if (self->delete_link >= 0)
		close(self->delete_link);
	self->link = -1;
	self->delete_link = -1;
}

/* 0, or a negative errno */
static int attach(test_t *self)
{
	__typeof__(self->cell.skel->progs) *progs = &self->cell.skel->progs;
	struct pollfd pollfd = { .events = POLLIN };

	self->link = attach_to(self->follower == STATES ? progs->synced : progs->updated,
			       self->cell.map);
	if (self->link < 0)
		return self->link;
	if (self->follower == STATES) {
		pollfd.fd = self->link;
		return poll(&pollfd, 1, SETTLE_MS) == 1 && pollfd.revents == POLLIN ? 0 : -ETIME;
	}
	if (!(self->cell.type->traits & DELETES))
		return 0;
	self->delete_link = attach_to(progs->deleted, self->cell.map);
	return self->delete_link < 0 ? self->delete_link : 0;
}

static void empty_mirror(test_t *self)
{
	int mirror = bpf_map__fd(self->cell.skel->maps.mirror);
	struct mirror_key key;

	while (!bpf_map_get_next_key(mirror, NULL, &key))
		bpf_map_delete_elem(mirror, &key);
}

static bool has_work(test_t *self, const struct way *way, enum source source, enum context context,
		     enum engine engine)
{
	return way->source == source && contexts[context].engine == engine &&
	       is_selected(self->cell.type, way, context);
}

static unsigned int count_cells(test_t *self, int source, enum engine engine)
{
	unsigned int way, context, count = 0;

	for (way = 0; way < nr_ways; way++)
		for (context = 0; context < NR_CONTEXTS; context++)
			count += has_work(self, &ways[way], source < 0 ? ways[way].source : source,
					  context, engine);
	return count;
}

static void check_nothing_lost(struct __test_metadata *_metadata, test_t *self)
{
	struct map_trace_info info;

	ASSERT_EQ(0, map_trace_get_info(self->link, &info));
	EXPECT_EQ(0, info.lost);
	EXPECT_EQ(0, info.failed);
	EXPECT_EQ(0, info.missed);
}

/* The cells that write this map, with programs of this engine, under what is attached */
static void run_cells_of(test_t *self, enum source source, enum engine engine)
{
	static struct group waiting, one;
	unsigned int way, context;

	for (way = 0; way < nr_ways; way++)
		for (context = 0; context < NR_CONTEXTS; context++) {
			struct group *group = may_wait(&ways[way]) ? &waiting : &one;

			if (!has_work(self, &ways[way], source, context, engine))
				continue;
			group->picks[group->count++] = (struct pick){
				.way = &ways[way], .context = context,
			};
			if (group == &one || group->count == nr_keys(&self->cell))
				run_group(self, group);
		}
	run_group(self, &waiting);
}

/* The same, under sync tracers and event tracers */
static void run_cells(struct __test_metadata *_metadata, test_t *self, enum source source,
		      enum engine engine)
{
	int err;

	if (!count_cells(self, source, engine))
		return;
	select_map(&self->cell, source);
	for (self->follower = STATES; self->follower <= OPERATIONS; self->follower++) {
		empty_mirror(self);
		err = attach(self);
		ASSERT_EQ(0, err) TH_LOG("%s: attach: %s", bpf_map__name(self->cell.map),
					 strerror(-err));
		run_cells_of(self, source, engine);
		check_nothing_lost(_metadata, self);
		detach(self);
	}
}

/* From now on programs are loaded for it. False where the kernel does not have it */
static bool choose(test_t *self, enum engine engine)
{
	switch (engine) {
	case INTERPRETER:
		if (!write_proc(JIT_ENABLE, "0", self->jit_enable, sizeof(self->jit_enable)))
			return true;
		self->jit_enable[0] = '\0';
		return false;
	case HARDENED_JIT:
		if (!write_proc(JIT_HARDEN, "2", self->jit_harden, sizeof(self->jit_harden)))
			return true;
		self->jit_harden[0] = '\0';
		return false;
	default:
		return true;
	}
}

/*
 * What cannot be done with a type is refused. To load a program for each way takes long, so by
 * itself the test tries what user space does.
 */
static unsigned int count_refused_ways(test_t *self)
{
	unsigned int way, count = 0;

	self->follower = STATES;
	for (way = 0; way < nr_ways; way++) {
		bool by_user = ways[way].kind == BY_USER && ways[way].source == SOURCE;

		if (!reason_of_type_and_way(self->cell.type, &ways[way]) ||
		    !has_map_for(self->cell.type, &ways[way]) || (!by_user && !runs_all()))
			continue;
		self->cell.way = &ways[way];
		self->cell.context = TASK;
		self->cell.key = 0;
		select_map(&self->cell, SOURCE);
		if (!(by_user ? is_refused_to(&self->cell) :
				is_refused(self->cell.type, &ways[way])))
			fail(self, "the cell is empty, but the kernel does it", 0);
		count++;
	}
	return count;
}

TEST_F_TIMEOUT(sync_matrix, mirror_equals_its_source, CELLS_TIMEOUT)
{
	__u64 begin = now_ns();
	unsigned int no_engine = 0, refused_ways = 0;
	enum engine engine;
	enum source source;

	for (engine = 0; engine < NR_ENGINES; engine++) {
		unsigned int cells = count_cells(self, -1, engine);

		if (!cells)
			continue;
		if (!choose(self, engine)) {
			no_engine += cells;
			printf("# empty: %s: %u cells: the kernel has no %s\n",
			       self->cell.type->name, cells, engine == INTERPRETER ?
			       "interpreter (CONFIG_BPF_JIT_ALWAYS_ON)" :
			       "net.core.bpf_jit_harden");
			continue;
		}
		self->cell.skel = load_cells(self->cell.type, engine);
		put_engine_back(self);
		ASSERT_NE(NULL, self->cell.skel);
		for (source = 0; source < NR_SOURCES; source++)
			run_cells(_metadata, self, source, engine);
		if (engine == JIT)
			refused_ways = count_refused_ways(self);
		sync_matrix_bpf__destroy(self->cell.skel);
	}
	printf("# %s: %u cells, %u as control, %u empty in this kernel, %u ways refused, %llu s\n",
	       self->cell.type->name, self->run[STATES], self->run[OPERATIONS],
	       no_engine, refused_ways, (now_ns() - begin) / NSEC_PER_SEC);
	EXPECT_EQ(0, self->failed);
	EXPECT_LT(0, self->run[OPERATIONS]);
}

/* Each empty cell is in a row, a column or a context that has a reason. */
TEST(empty_cells_have_a_reason)
{
	unsigned int cells = NR_TYPES * nr_ways * NR_CONTEXTS, empty, selected;

	EXPECT_EQ(0, print_reasons());
	empty = count_empty_cells();
	selected = count_selected_cells();
	printf("# %u cells, %u empty, %u of the others are run\n", cells, empty, selected);
	EXPECT_GT(cells, empty);
	/* The selection is one. */
	EXPECT_EQ(0, count_pairs_left_out());
}

TEST_HARNESS_MAIN
