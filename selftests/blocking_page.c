// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "blocking_page.h"

#define PAGE 4096
#define ROOT FUSE_ROOT_ID

struct request {
	struct fuse_in_header header;
	char data[FUSE_MIN_READ_BUFFER + PAGE];
};

static int reply(int fuse, __u64 unique, int error, const void *data, size_t size)
{
	struct fuse_out_header header = {
		.len = sizeof(header) + size,
		.error = error,
		.unique = unique,
	};
	struct iovec parts[] = {
		{ &header, sizeof(header) },
		{ (void *)data, size },
	};

	return writev(fuse, parts, size ? 2 : 1) < 0 ? -errno : 0;
}

/* Answer all but reads: 1 when one came, 0 when another request was answered. */
static int serve(struct blocking_page *page)
{
	struct request request;
	ssize_t len = read(page->fuse, &request, sizeof(request));
	__u64 unique = request.header.unique;

	if (len < 0)
		return errno == EINTR || errno == ENOENT ? 0 : -errno;

	switch (request.header.opcode) {
	case FUSE_INIT: {
		struct fuse_init_out out = {
			.major = FUSE_KERNEL_VERSION,
			.minor = FUSE_KERNEL_MINOR_VERSION,
			.max_readahead = PAGE,
			.max_write = PAGE,
		};

		return reply(page->fuse, unique, 0, &out, sizeof(out));
	}
	case FUSE_GETATTR: {
		struct fuse_attr_out out = {
			.attr_valid = 3600,
			.attr = { .ino = ROOT, .size = PAGE, .blocks = 8, .mode = S_IFREG | 0400,
				  .nlink = 1, .blksize = PAGE },
		};

		return reply(page->fuse, unique, 0, &out, sizeof(out));
	}
	case FUSE_OPEN: {
		/* Else close() waits for this very thread. */
		struct fuse_open_out out = { .fh = 1, .open_flags = FOPEN_NOFLUSH };

		return reply(page->fuse, unique, 0, &out, sizeof(out));
	}
	case FUSE_READ: {
		const struct fuse_read_in *in = (void *)request.data;

		page->read = unique;
		page->length = in->size < PAGE ? in->size : PAGE;
		return 1;
	}
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return 0;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		return reply(page->fuse, unique, 0, NULL, 0);
	default:
		return reply(page->fuse, unique, -ENOSYS, NULL, 0);
	}
}

/*
 * Opening the file talks to the server, which is this very thread otherwise. So does
 * stat(), without which the kernel takes the file for empty.
 */
static void *open_file(void *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st)) {
		close(fd);
		fd = -1;
	}
	return (void *)(long)fd;
}

int blocking_page_create(struct blocking_page *page)
{
	char path[] = "/tmp/blocking_page.XXXXXX";
	char options[128];
	pthread_t opener;
	void *opened;
	int fd, err;

	memset(page, 0, sizeof(*page));
	page->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (page->fuse < 0)
		return -errno;
	/* Goes with the process, whatever happens to it. */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	fd = mkstemp(path);
	if (fd < 0)
		return -errno;
	close(fd);
	/* The root of the filesystem is the file itself. */
	snprintf(options, sizeof(options), "fd=%d,rootmode=100400,user_id=0,group_id=0",
		 page->fuse);
	err = mount("blocking_page", path, "fuse", 0, options) ? -errno : 0;
	if (err)
		goto out;

	if (pthread_create(&opener, NULL, open_file, path)) {
		err = -EAGAIN;
		goto out;
	}
	do {
		struct pollfd fuse = { .fd = page->fuse, .events = POLLIN };

		if (poll(&fuse, 1, 10) > 0) {
			err = serve(page);
			if (err < 0)
				break;
		}
	} while (pthread_tryjoin_np(opener, &opened) == EBUSY);
	if (err < 0)
		goto out;
	fd = (long)opened;
	if (fd < 0) {
		err = -EIO;
		goto out;
	}
	page->address = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	err = page->address == MAP_FAILED ? -errno : 0;
	close(fd);
out:
	umount2(path, MNT_DETACH);
	unlink(path);
	return err;
}

int blocking_page_wait(struct blocking_page *page, int ms)
{
	struct pollfd fuse = { .fd = page->fuse, .events = POLLIN };
	int err;

	while (poll(&fuse, 1, ms) > 0) {
		err = serve(page);
		if (err)
			return err < 0 ? err : 0;
	}
	return -ETIMEDOUT;
}

int blocking_page_release(struct blocking_page *page)
{
	static const char zeros[PAGE];

	return reply(page->fuse, page->read, 0, zeros, page->length);
}
