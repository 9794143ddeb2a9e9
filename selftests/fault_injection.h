/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Makes the requests of a thread to the kernel fail, one at a time, and keeps a table of the
 * results.
 */
#ifndef FAULT_INJECTION_H
#define FAULT_INJECTION_H

#include <stdbool.h>

struct injector {
	/* As the table has it */
	const char *name;
	/* Below debugfs */
	const char *directory;
	/* Not by the kernel itself, but by progs/fault.bpf.c */
	bool by_program;
	/* Without which the kernel has it not */
	const char *option;
	/* What a call says then */
	int err;
};

enum { ONE_ALLOCATION, ALL_ALLOCATIONS, ONE_PAGE, ALL_PAGES, ONE_COPY, NR_INJECTORS };

extern const struct injector injectors[NR_INJECTORS];

struct faults {
	struct fault_bpf *skel;
	const struct injector *injector;
	/* Of the table */
	struct row *row;
	int nth;
};

/* 0 or a negative errno; -ENOENT where the kernel cannot inject faults */
int faults_open(struct faults *faults);
void faults_close(struct faults *faults);

/* Begins with an injector; false where the kernel has it not, which the table says. */
bool faults_begin(struct faults *faults, const struct injector *injector);

#define FOR_EACH_INJECTOR(faults)						\
	for (const struct injector *_injector = injectors;			\
	     _injector != injectors + NR_INJECTORS; _injector++)		\
		if (faults_begin(faults, _injector))

/* The test lets it fail itself. The table calls it @name. */
void faults_begin_own(struct faults *faults, const char *name);

/* Whether it is small allocations that fail: how many there are depends on nothing else. */
bool faults_are_of_memory(const struct faults *faults);
bool faults_are_of_copies(const struct faults *faults);

/* From here on, what code there has asked for fails, and nothing else. */
void faults_limit_to(struct faults *faults, unsigned long start, unsigned long end);

/* The next one but @nth - 1 of this thread fails, and with ALL_* what comes after it. */
void faults_arm(struct faults *faults, int nth);
/* Whether there were that many */
bool faults_disarm(struct faults *faults);

/* So many in a row of those that workers ask for fail. */
void faults_arm_workers(struct faults *faults, unsigned int count);
/* How many there were */
unsigned int faults_disarm_workers(struct faults *faults);

/* What was tried from here on is a row of the table. */
void faults_new_row(struct faults *faults, const char *path);
/* How a pass has ended that has met a fault: with 0 or a negative errno */
void faults_count(struct faults *faults, int err);
unsigned int faults_tried(const struct faults *faults);
/* In how many of them the call has failed */
unsigned int faults_refused(const struct faults *faults);

/* Prints what all tests have tried. Returns how many objects were lost, or a negative errno. */
int faults_print_table(void);

#endif
