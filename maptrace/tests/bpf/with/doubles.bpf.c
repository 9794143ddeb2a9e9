// SPDX-License-Identifier: GPL-2.0
/* A conversion for the maps of ../layouts.bpf.c */
#include <linux/bpf.h>
#include <maptrace_convert.h>

struct key {
	__be32 address;
	__be16 port;
};

struct old_value {
	__u32 packets;
#ifdef OTHER_NAME
	__u32 octets;
#else
	__u32 bytes;
#endif
	struct bpf_timer timer;
#ifdef OTHER_SIZE
	__u64 more;
#endif
};

struct new_value {
	__u64 packets;
	__u64 octets;
	__u32 version;
	struct bpf_timer timer;
};

#ifdef BY_HAND
int maptrace_convert(struct key *key, struct old_value *value)
{
	return !key || !value;
}
#elif defined(OTHER_SIGNATURE)
int maptrace_call(__u32 slot, __u32 is_there)
{
	return slot;
}

int maptrace_convert(struct key *key)
{
	return !key;
}
#elif !defined(NOTHING)
MAPTRACE_CONVERT(struct key, key, struct old_value, value)
{
	struct new_value new = {};

	if (!value)
		return maptrace_delete(key);
	new.packets = value->packets;
	return maptrace_update(key, &new);
}
#else
int nothing(void)
{
	return 0;
}
#endif

#ifdef CLASH
int maptrace_slot(void)
{
	return 1;
}
#endif

char LICENSE[] SEC("license") = "GPL";
