/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SOAK_H
#define SOAK_H

/* More keys than any kind of map is given, and CPUs than any guest has */
#define NR_KEYS 512
#define MAX_CPUS 8
/* Three of four operations are on one of these */
#define HOT_KEYS 4

#define mirror_key(key, cpu) ((key) * MAX_CPUS + (cpu))

/* More than there are */
#define NR_REASONS 8

/* Who operates: each has its own random numbers, and none of them is interrupted by itself. */
#define STREAMS_EACH 16
#define LOAD_STREAM 0
#define CLOCK_STREAM (1 * STREAMS_EACH)
#define NMI_STREAM (2 * STREAMS_EACH)
#define TIMER_STREAM (3 * STREAMS_EACH)
#define NR_STREAMS (4 * STREAMS_EACH)
/* bpf(2), whose numbers are in user space */
#define USER_STREAM NR_STREAMS

struct stream {
	__u64 random;
	__u64 operations;
	/* A cache line each */
	__u64 pad[6];
};

/*
 * A value says who has written it, how, and which of its operations that was; what is added
 * to it goes to the last.
 */
enum way {
	UPDATE_ANY,
	UPDATE_NOEXIST,
	UPDATE_EXIST,
	REMOVE,
	RECREATE,
	LOOKUP,
	WRITE,
	ADD,
	WRITE_DELETED,
	WRITE_REPLACED,
	WRITE_OTHER_CPU,
	FOR_EACH,
	USER_UPDATE,
	USER_BATCH,
	NR_WAYS
};

#define STREAM_SHIFT 56
#define WAY_SHIFT 48

/* Marsaglia's xorshift: no state but 0 leads to 0. */
#define NEXT_RANDOM(state) ({							\
	(state) ^= (state) << 13;						\
	(state) ^= (state) >> 7;						\
	(state) ^= (state) << 17;						\
	(state);								\
})

#endif
