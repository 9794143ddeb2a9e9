/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by progs/room.bpf.c and room_test.c */
#ifndef ROOM_H
#define ROOM_H

#define WIDE_WORDS 48
#define ROOM_DEPTH 3

enum {
	/* The key is in a map, as constants of a program are. */
	DELETE_KEY_IN_MAP,
	/* The key is on the stack, but the map is not known at load. */
	DELETE_UNKNOWN_MAP,
	/* The key is in a map, and the value on the stack. */
	UPDATE_KEY_IN_MAP,
};

#endif
