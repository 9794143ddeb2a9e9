// SPDX-License-Identifier: GPL-2.0
/* The code of Documentation/raw-bpf.rst does what the page says, and its layouts are right. */
#include "raw-bpf-1.c"
#include "raw-bpf-2.c"
#include "raw-bpf-3.c"
#include "raw-bpf-4.c"
#include "raw-bpf-5.c"
#include "raw-bpf-6.c"

#include "testing_helpers.h"

#define TIMEOUT_MS 120000
#define COOKIE 4711

FIXTURE(raw_bpf) {
	struct raw_btf btf;
	int source, mirror;
};

FIXTURE_SETUP(raw_bpf)
{
	ASSERT_EQ(0, map_trace_module_load());
	ASSERT_EQ(0, raw_btf_read(&self->btf));
	self->source = bpf_map_create(BPF_MAP_TYPE_HASH, "source", 4, 8, 8, NULL);
	ASSERT_LE(0, self->source);
	self->mirror = bpf_map_create(BPF_MAP_TYPE_HASH, "mirror", 4, 8, 8, NULL);
	ASSERT_LE(0, self->mirror);
}

FIXTURE_TEARDOWN(raw_bpf)
{
	close(self->source);
	close(self->mirror);
	free(self->btf.bytes);
}

/* What the page says is what libbpf finds, and the headers of the patched kernel have. */
TEST_F(raw_bpf, numbers)
{
	const struct raw_btf *btf = &self->btf;

	EXPECT_EQ(BPF_TRACE_MAP, raw_number(btf, "bpf_attach_type", "BPF_TRACE_MAP"));
	EXPECT_EQ(62, BPF_TRACE_MAP);
	EXPECT_EQ(BPF_LINK_FLUSH, raw_number(btf, "bpf_cmd", "BPF_LINK_FLUSH"));
	EXPECT_EQ(39, BPF_LINK_FLUSH);
	EXPECT_EQ(16, BPF_LINK_TYPE_MAP_TRACE);
	EXPECT_EQ(5, BPF_PROG_LOAD);
	EXPECT_EQ(15, BPF_OBJ_GET_INFO_BY_FD);
	EXPECT_EQ(28, BPF_LINK_CREATE);
	EXPECT_EQ(29, BPF_LINK_UPDATE);
	EXPECT_EQ(34, BPF_LINK_DETACH);
	EXPECT_EQ(26, BPF_PROG_TYPE_TRACING);
	EXPECT_EQ(4, BPF_F_REPLACE);
	EXPECT_EQ(map_trace_target_id("bpf_map_trace__update_elem"),
		  raw_target(btf, "bpf_map_trace__update_elem"));
	EXPECT_EQ(map_trace_target_id("bpf_map_trace__sync_elem"),
		  raw_target(btf, "bpf_map_trace__sync_elem"));
	EXPECT_EQ(-ENOENT, raw_target(btf, "bpf_map_trace__no_such_elem"));
	EXPECT_EQ(-ENOENT, raw_number(btf, "bpf_cmd", "BPF_NO_SUCH_COMMAND"));
}

#define EXPECT_SAME_PLACE(kernel, member, raw, raw_member) do {			\
	EXPECT_EQ(offsetof(kernel, member), offsetof(raw, raw_member));		\
	EXPECT_EQ(sizeof(((kernel *)0)->member), sizeof(((raw *)0)->raw_member));	\
} while (0)

TEST(layouts)
{
#define LOAD(member) EXPECT_SAME_PLACE(union bpf_attr, member, struct raw_prog_load, member)
	LOAD(prog_type);
	LOAD(insn_cnt);
	LOAD(insns);
	LOAD(license);
	LOAD(log_level);
	LOAD(log_size);
	LOAD(log_buf);
	LOAD(prog_flags);
	LOAD(prog_name);
	LOAD(expected_attach_type);
	LOAD(prog_btf_fd);
	LOAD(attach_btf_id);
	EXPECT_EQ(112, sizeof(struct raw_prog_load));
#define CREATE(member) EXPECT_SAME_PLACE(union bpf_attr, link_create.member,		\
					 struct raw_link_create, member)
	CREATE(prog_fd);
	CREATE(target_fd);
	CREATE(attach_type);
	CREATE(flags);
	CREATE(map_trace_info);
	CREATE(map_trace_info_len);
#define LINK(member) EXPECT_SAME_PLACE(struct bpf_map_trace_link_info, member,	\
				       struct raw_link_info, member)
	LINK(map_fd);
	LINK(trace_type);
	LINK(cookie);
#define FLUSH(member) EXPECT_SAME_PLACE(union bpf_attr, link_flush.member,		\
					struct raw_link_flush, member)
	FLUSH(link_fd);
	FLUSH(flags);
	FLUSH(keys);
	FLUSH(count);
	FLUSH(timeout_ms);
	FLUSH(left);
	EXPECT_EQ(32, sizeof(struct raw_link_flush));
#define INFO(member) EXPECT_SAME_PLACE(struct bpf_link_info, member, struct raw_info, member)
	INFO(type);
	INFO(id);
	INFO(prog_id);
#define TRACE(member) EXPECT_SAME_PLACE(struct bpf_link_info, map_trace.member,	\
					struct raw_info, member)
	TRACE(map_id);
	TRACE(trace_type);
	TRACE(cookie);
	TRACE(missed);
	TRACE(failed);
	TRACE(replayed);
	TRACE(pending);
	TRACE(lost);
}

TEST_F(raw_bpf, mirror_follows)
{
	__u64 value = 10, seen = 0;
	struct raw_info info;
	int prog, link;
	char log[4096];
	__u32 key = 1;

	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	prog = raw_load(&self->btf, self->mirror, log, sizeof(log));
	ASSERT_LE(0, prog) TH_LOG("load: %s\n%s", strerror(-prog), log);
	link = raw_attach(&self->btf, prog, self->source, COOKIE);
	ASSERT_LE(0, link) TH_LOG("attach: %s", strerror(-link));
	EXPECT_EQ(0, raw_wait_and_flush(&self->btf, link, TIMEOUT_MS));
	EXPECT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));
	EXPECT_EQ(10, seen);

	ASSERT_EQ(0, bpf_map_delete_elem(self->source, &key));
	EXPECT_EQ(-ENOENT, bpf_map_lookup_elem(self->mirror, &key, &seen));
	key = 2;
	ASSERT_EQ(0, bpf_map_update_elem(self->source, &key, &value, BPF_ANY));
	EXPECT_EQ(0, bpf_map_lookup_elem(self->mirror, &key, &seen));

	ASSERT_EQ(0, raw_get_info(link, &info));
	EXPECT_EQ(raw_number(&self->btf, "bpf_link_type", "BPF_LINK_TYPE_MAP_TRACE"), info.type);
	EXPECT_EQ(id_of_map(self->source), info.map_id);
	EXPECT_EQ(id_of_program(prog), info.prog_id);
	EXPECT_EQ(map_trace_type_sync(), info.trace_type);
	EXPECT_EQ(COOKIE, info.cookie);
	EXPECT_EQ(1, info.replayed);
	EXPECT_EQ(0, info.lost);
	close(link);
	close(prog);
}

TEST_HARNESS_MAIN
