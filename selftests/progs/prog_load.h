/* SPDX-License-Identifier: GPL-2.0 */
#ifndef PROG_LOAD_H
#define PROG_LOAD_H

/* What the loading program is told, and what it got: an fd, or an errno */
struct load {
	__u32 attach_type;
	__u32 attach_btf_id;
	__s64 ret;
};

#endif
