/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SYNC_TRIE_H
#define SYNC_TRIE_H

/* As struct bpf_lpm_trie_key_u8, with room for an IPv4 address */
struct prefix {
	__u32 prefixlen;
	__u8 data[4];
};

#define TRIE_CAPACITY 4096
/* What the CPUs race for: prefixes of 0 to 4 bits */
#define HOT_BITS 4
#define NR_HOT ((2 << HOT_BITS) - 1)

#endif
