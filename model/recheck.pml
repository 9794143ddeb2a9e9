/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The optimistic recheck: does the mirror equal the source when everybody is done?
 *
 * There is one key. An operation changes the source, increments the counter, then runs the tracer,
 * and rechecks the key if another operation has incremented the counter meanwhile. The steps of the
 * processes interleave anywhere, which includes interrupts. (Here a round of the worker increments
 * the counter of its key only.) The worker clears the mark, waits for the programs that were there
 * before, increments the counter, and rechecks. No element is reused, and nobody flushes: marks.pml
 * models what marks have to do then, and queue.pml models keys that wait for the worker and have no
 * element.
 *
 * Settings:
 *   NOPS        the number of operations, 2 to 4
 *   EVICT       the third operation removes the key inside an operation on another key: it has not
 *               read the counter before, and increments the counter later
 *   FAIL        the tracer fails once, and the key is marked for the worker
 *   PTR         the third operation writes through a pointer: it marks, then writes, and does not
 *               increment the counter
 *   MARK_AFTER  with PTR: it marks after the write
 *
 * Mutants:
 *   NO_RECHECK   no recheck
 *   NO_FIRST     the operation does not read the counter before it changes the source
 *   INC_BEFORE   the operation increments the counter before it changes the source
 *   ONE_ROUND    a recheck has one round only
 *   EVICT_BLIND  the tracer runs for an eviction without a recheck
 *   NO_GRACE     the worker does not wait for the programs
 *   NO_BUMP      the worker does not increment the counter
 */
#ifndef NOPS
#define NOPS 3
#endif
byte S = 1;      /* source: 0 absent */
byte M = 1;      /* mirror */
byte seq;
bool mark;
byte running;    /* operations that are not over */
byte inptr;      /* programs that hold a pointer */

#ifdef FAIL
byte failures = 1;
#define MIRROR(v) if :: atomic { failures > 0 -> failures-- }; mark = true :: M = v fi
#else
#define MIRROR(v) M = v
#endif

inline recheck()
{
	do
	:: s = seq;
	   v = S;
	   MIRROR(v);
#ifdef ONE_ROUND
	   break
#else
	   if :: seq == s -> break :: else fi
#endif
	od
}

proctype op(byte new)
{
	byte s0, s1, s, v, old;

	s0 = seq;
#ifdef INC_BEFORE
	atomic { seq++; s1 = seq }
#endif
	atomic { old = S; if :: old == 0 && new == 0 -> skip :: else -> S = new fi }
	if
	:: old == 0 && new == 0 -> goto out   /* delete of an absent key fails: no tracer */
	:: else
	fi;
#ifndef INC_BEFORE
	atomic { seq++; s1 = seq }
#endif
	MIRROR(new);
#ifdef NO_RECHECK
	skip;
#else
#ifdef NO_FIRST
	if :: seq == s1 -> skip :: else -> recheck() fi;
#else
	if :: (s1 == s0 + 1) && seq == s1 -> skip :: else -> recheck() fi;
#endif
#endif
out:	running--
}

#ifdef EVICT
proctype evict()
{
	byte s, v, old;

	atomic { old = S; S = 0 }
	if :: old == 0 -> goto out :: else fi;
	/* the operation on the other key goes on meanwhile */
	atomic { seq++ }
#ifdef EVICT_BLIND
	MIRROR(0);
#else
	recheck();
#endif
out:	running--
}
#endif

#ifdef PTR
proctype pointer(byte new)
{
	/* the lookup; what it found may be deleted meanwhile, then the write is to nothing */
	atomic { inptr++; 
	if :: S == 0 -> inptr--; goto out :: else fi }
#ifndef MARK_AFTER
	mark = true;
#endif
	atomic { if :: S != 0 -> S = new :: else fi }
#ifdef MARK_AFTER
	mark = true;
#endif
	inptr--;
out:	running--
}
#endif

proctype worker()
{
	byte s, v;
end:	do
	:: mark ->
		mark = false;
#ifdef PTR
#ifndef NO_GRACE
		/* a grace period: whoever is in there now may mark again, and is waited for */
		inptr == 0;
#endif
#endif
#ifndef NO_BUMP
		/* On behalf of writes through pointers, which do not count: an operation that was
		 * overtaken by one has to notice.
		 */
		atomic { seq++ }
#endif
		recheck()
	:: running == 0 && !mark -> break
	od;
	assert(M == S)
}

init {
	byte i;
	atomic {
		running = NOPS;
		run op(2); 
#if NOPS > 1
		run op(0);
#endif
#if NOPS > 2
#if defined(EVICT)
		run evict();
#elif defined(PTR)
		run pointer(4);
#else
		run op(3);
#endif
#endif
#if NOPS > 3
		run op(5);
#endif
		run worker()
	}
}
