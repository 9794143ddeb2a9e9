// SPDX-License-Identifier: GPL-2.0
/*
 * A sync tracer: it keeps runs_v2 what the map that it is attached to holds, in another layout.
 * All loaders here attach this one.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>
#include "runs.h"

char _license[] SEC("license") = "GPL";

/* What the kernel gives it begins with these, 8 bytes each. No value: the key is gone. */
struct sync_elem {
	const __u32 *key;
	const struct run *value;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RUNS);
	__type(key, __u32);
	__type(value, struct run_v2);
} runs_v2 SEC(".maps");

/*
 * The libraries know fentry, and with it how to find a function in the kernel's BTF. The loaders change
 * the attach type.
 */
SEC("fentry/bpf_map_trace__sync_elem")
int follow(struct sync_elem *ctx)
{
	const struct run *run = ctx->value;
	struct run_v2 run_v2;
	long err;

	if (!run) {
		err = bpf_map_delete_elem(&runs_v2, ctx->key);
		return err && err != -ENOENT;
	}
	run_v2.last_s = run->last_ns / 1000000000;
	run_v2.times = run->times;
	/* 1: the kernel tries again, until it works. */
	return bpf_map_update_elem(&runs_v2, ctx->key, &run_v2, BPF_ANY) ? 1 : 0;
}
