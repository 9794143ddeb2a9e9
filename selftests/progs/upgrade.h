/* SPDX-License-Identifier: GPL-2.0 */
#ifndef UPGRADE_H
#define UPGRADE_H

/* What the example of README.md takes for granted: the same in two layouts */
struct conn_v1 {
	__u64 packets;
	__u64 seen_ns;
};

struct conn_v2 {
	__u64 seen_ns;
	__u64 packets;
	__u64 bytes;
};

#endif
