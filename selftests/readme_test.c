// SPDX-License-Identifier: GPL-2.0
/*
 * The examples of README.md do what it says: the tracer with its loader, and the program of
 * one's own with bpftool.
 */
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

/* The last of the commands prints the trace. */
TEST(program_of_ones_own_prints_changes)
{
	char path[256] = {}, command[512], line[512];
	bool written = false, gone = false;
	FILE *output;

	ASSERT_EQ(0, map_trace_module_load());
	ASSERT_LT(0, readlink("/proc/self/exe", path, sizeof(path) - 1));
	snprintf(command, sizeof(command), "cd \"$(dirname '%s')\" && sh ./readme-own.sh 2>&1",
		 path);
	output = popen(command, "r");
	ASSERT_NE(NULL, output);
	while (fgets(line, sizeof(line), output)) {
		TH_LOG("%s", line);
		written |= !!strstr(line, ": 1: 7\n");
		gone |= !!strstr(line, ": 1: gone\n");
	}
	EXPECT_EQ(0, pclose(output));
	EXPECT_TRUE(written);
	EXPECT_TRUE(gone);
	unlink("/sys/fs/bpf/my_tracer");
	unlink("/sys/fs/bpf/conns");
}

TEST_HARNESS_MAIN
