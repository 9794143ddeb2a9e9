/* SPDX-License-Identifier: GPL-2.0 */
#ifndef RFC_H
#define RFC_H

#define RFC_KEY 0x5
#define RFC_VALUE 0xdeadbeef

/* The key of the next version, with another layout than the number that it is made of */
struct rfc_new_key {
	__u32 unused;
	__u32 number;
};

/* A number that nobody gets by copying the wrong one */
static inline __u32 collatz(__u32 n)
{
	return n % 2 ? 3 * n + 1 : n / 2;
}

#endif
