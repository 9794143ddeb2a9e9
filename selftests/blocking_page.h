/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A page of memory whose first access sleeps until the test releases it. It belongs to a file
 * of a FUSE filesystem that this process serves.
 */
#ifndef BLOCKING_PAGE_H
#define BLOCKING_PAGE_H

#include <linux/types.h>

struct blocking_page {
	void *address;
	int fuse;
	__u64 read;	/* the request that is not answered yet */
	__u32 length;
};

/* 0 or a negative errno. Puts the process into a mount namespace of its own. */
int blocking_page_create(struct blocking_page *page);
/* Returns when somebody sleeps on the page, or -ETIMEDOUT after @ms. */
int blocking_page_wait(struct blocking_page *page, int ms);
/* Lets that somebody go on. */
int blocking_page_release(struct blocking_page *page);

#endif
