// SPDX-License-Identifier: GPL-2.0
/* The example of README.md does what is said there: its tracer, and its loader. */
#include "testing_helpers.h"

#include "progs/upgrade.h"
#include "upgrade.skel.h"

static struct upgrade_bpf *skel;

static void load_and_attach(void)
{
#include "readme-2.c"
}

static int update(__u32 key, __u64 packets, __u64 seen_ns)
{
	struct conn_v1 conn = { .packets = packets, .seen_ns = seen_ns };

	return bpf_map__update_elem(skel->maps.conns, &key, sizeof(key), &conn, sizeof(conn), 0);
}

static int lookup(__u32 key, struct conn_v2 *conn)
{
	return bpf_map__lookup_elem(skel->maps.conns_v2, &key, sizeof(key), conn, sizeof(*conn),
				    0);
}

TEST(second_map_follows)
{
	struct conn_v2 conn = {};
	__u32 key = 1;

	ASSERT_EQ(0, map_trace_module_load());
	load_and_attach();
	ASSERT_NE(NULL, skel);
	ASSERT_NE(NULL, skel->links.conns_synced);

	ASSERT_EQ(0, update(1, 10, 100));
	ASSERT_EQ(0, update(2, 20, 200));
	ASSERT_EQ(0, update(1, 11, 101));
	ASSERT_EQ(0, lookup(1, &conn));
	EXPECT_EQ(11, conn.packets);
	EXPECT_EQ(101, conn.seen_ns);
	ASSERT_EQ(0, lookup(2, &conn));
	EXPECT_EQ(20, conn.packets);
	EXPECT_EQ(200, conn.seen_ns);
	ASSERT_EQ(0, bpf_map__delete_elem(skel->maps.conns, &key, sizeof(key), 0));
	EXPECT_EQ(-ENOENT, lookup(1, &conn));
	EXPECT_EQ(0, lookup(2, &conn));
	upgrade_bpf__destroy(skel);
}

TEST_HARNESS_MAIN
