// SPDX-License-Identifier: GPL-2.0
/* The keys of a map that cannot be read by going from one key to the next */
#include "types.h"

/* keys.rs fills it in. The kernel refuses to read a map whose keys are shorter. */
const volatile __u32 key_size = sizeof(__u32);

SEC("iter/bpf_map_elem")
int write_key(struct bpf_iter__bpf_map_elem *ctx)
{
	void *key = ctx->key;

	if (key)
		bpf_seq_write(ctx->meta->seq, key, key_size);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
