// SPDX-License-Identifier: GPL-2.0
/* How much memory the kernel allocates on behalf of a process. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

/* Whose allocations count; freed they may be by anyone, from an RCU callback for one. */
const volatile __u32 process;

/* In bytes, as the allocator rounds them up */
__s64 kept;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} sizes SEC(".maps");

static __always_inline int allocated(const void *ptr, __u64 size)
{
	__u64 key = (__u64)ptr;

	if (bpf_get_current_pid_tgid() >> 32 != process || !ptr)
		return 0;
	if (!bpf_map_update_elem(&sizes, &key, &size, BPF_ANY))
		__sync_fetch_and_add(&kept, size);
	return 0;
}

static __always_inline int freed(const void *ptr)
{
	__u64 key = (__u64)ptr, *size = bpf_map_lookup_elem(&sizes, &key);

	if (!size)
		return 0;
	__sync_fetch_and_add(&kept, -*size);
	bpf_map_delete_elem(&sizes, &key);
	return 0;
}

SEC("tp_btf/kmalloc")
int BPF_PROG(kmalloc, unsigned long call_site, const void *ptr, size_t bytes_req,
	     size_t bytes_alloc)
{
	return allocated(ptr, bytes_alloc);
}

SEC("tp_btf/kmem_cache_alloc")
int BPF_PROG(kmem_cache_alloc, unsigned long call_site, const void *ptr, struct kmem_cache *s)
{
	return allocated(ptr, BPF_CORE_READ(s, size));
}

SEC("tp_btf/kfree")
int BPF_PROG(kfree, unsigned long call_site, const void *ptr)
{
	return freed(ptr);
}

SEC("tp_btf/kmem_cache_free")
int BPF_PROG(kmem_cache_free, unsigned long call_site, const void *ptr)
{
	return freed(ptr);
}
