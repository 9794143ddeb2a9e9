// SPDX-License-Identifier: GPL-2.0
/* What programs pay that are not traced: in code, in load time, in their maps. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <linux/filter.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "bench.h"
#include "helpers.h"
#include "workload.skel.h"

#define ROUNDS 5

static void bench_map_size(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	const struct btf_type *type;
	int id;

	if (!btf)
		die("BTF of the kernel", errno);
	id = btf__find_by_name_kind(btf, "bpf_map", BTF_KIND_STRUCT);
	type = btf__type_by_id(btf, id);
	if (!type)
		die("struct bpf_map", ENOENT);
	figure(type->size, "size/struct bpf_map");
	btf__free(btf);
}

static void code_size(const struct bpf_program *program, const char *name)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_prog_get_info_by_fd(bpf_program__fd(program), &info, &len))
		die(name, errno);
	if (!info.jited_prog_len)
		die("the JIT is off", ENOTSUP);
	figure(info.xlated_prog_len, "size/%s/xlated", name);
	figure(info.jited_prog_len, "size/%s/jited", name);
}

static void bench_code_size(void)
{
	struct workload_bpf *workload = workload_bpf__open();

	if (!workload)
		die("workload", errno);
	workload->rodata->keys = 1;
	if (workload_bpf__load(workload))
		die("workload", errno);
	code_size(workload->progs.one_update, "program with one update");
	code_size(workload->progs.no_update, "program without");
	workload_bpf__destroy(workload);
}

/* The time to load a program that calls a helper for maps @calls times */
static void bench_load(int calls, __s32 helper, const char *name)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	const int insns_of_a_call = 8;
	struct bpf_insn *insns, *insn;
	__u64 best = ~0ULL, time;
	int i, map, program;

	progress("load of a program with %d %s", calls, name);
	map = bpf_map_create(BPF_MAP_TYPE_HASH, "bench", sizeof(__u32), sizeof(__u64), 1, NULL);
	insns = calloc(calls * insns_of_a_call + 4, sizeof(*insns));
	if (map < 0 || !insns)
		die("load", errno);
	insn = insns;
	*insn++ = (struct bpf_insn){ BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, 0 };
	*insn++ = (struct bpf_insn){ BPF_ST | BPF_MEM | BPF_DW, 10, 0, -16, 0 };
	for (i = 0; i < calls; i++) {
		*insn++ = (struct bpf_insn){ BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map };
		*insn++ = (struct bpf_insn){};
		*insn++ = (struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0 };
		*insn++ = (struct bpf_insn){ BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4 };
		*insn++ = (struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_X, 3, 10, 0, 0 };
		*insn++ = (struct bpf_insn){ BPF_ALU64 | BPF_ADD | BPF_K, 3, 0, 0, -16 };
		*insn++ = (struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, BPF_ANY };
		*insn++ = (struct bpf_insn){ BPF_JMP | BPF_CALL, 0, 0, 0, helper };
	}
	*insn++ = (struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 };
	*insn++ = (struct bpf_insn){ BPF_JMP | BPF_EXIT };

	for (i = 0; i < ROUNDS; i++) {
		time = clock_now();
		program = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "bench", "GPL", insns,
					insn - insns, &opts);
		time = clock_now() - time;
		if (program < 0)
			die("load", program);
		close(program);
		if (time < best)
			best = time;
	}
	figure(best, "load/%d %s", calls, name);
	free(insns);
	close(map);
}

void bench_programs(void)
{
	bench_map_size();
	bench_code_size();
	bench_load(100, BPF_FUNC_map_update_elem, "updates");
	bench_load(1000, BPF_FUNC_map_update_elem, "updates");
	/* Which every kernel inlines, in the same way */
	bench_load(1000, BPF_FUNC_map_lookup_elem, "lookups");
}
