/* SPDX-License-Identifier: GPL-2.0 */
/* The two layouts of a key and of a value */
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

struct state_old {
	__u64 number;	/* which one of all that were opened */
	__u64 writes;
};

struct state_new {
	__u32 writes;
	__u32 by_new;	/* the new version has written it */
	__u64 number;
};

#endif
