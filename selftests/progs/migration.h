/* SPDX-License-Identifier: GPL-2.0 */
/* The two layouts of a key, and where a copy can be made to wait */
#ifndef MIGRATION_H
#define MIGRATION_H

#define MAX_FILES 16

struct file_old {
	__u32 pid;
	__s32 fd;
};

struct file_new {
	__s32 fd;
	__u32 pid;
};

/* What user space may do while the copy waits there; bits of wait_at */
enum copy_point {
	COPY_HAS_READ		= 1, /* the element, from the old map */
	COPY_HAS_INSERTED	= 2, /* it, into the new map */
	COPY_HAS_FOUND_IT_GONE	= 4, /* from the old map, but not yet from the new one */
};

#endif
