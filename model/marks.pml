/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Marks in elements that are reused at once (HASH, LRU_HASH: extra_elems, free lists).
 *
 * Does the mirror equal the source after a flush, or after the last round of the worker, even if a
 * program still writes through its pointer after the element was reused for another key? There are
 * two keys with one element each, and a spare element, as in extra_elems.
 *
 * A mark is the epoch in which it was set, or 0 for none. A program that gets a pointer marks the
 * element, unless the mark is of this epoch already, and arms the worker.
 *
 * A round of the worker disarms the worker, begins an epoch, waits for a grace period of all
 * programs, and increments all counters. (An operation that began meanwhile may have taken a free
 * element before the last write into it, and may add it to the map after the round has passed. The
 * increment makes that operation recheck.) The round then rechecks the key of each marked element,
 * whatever key the element has by then, and clears the marks of older epochs.
 *
 * A flush waits for a grace period of the programs that do not sleep (operations are among them),
 * increments all counters, and rechecks each marked element. It clears nothing and disarms nothing.
 * Round and flush need no lock against each other: a flush waits for the section of a recheck.
 *
 * A recheck that is overtaken is left to the worker. todo[] stands for the mark of the element that
 * the key has by then, or for the queue of deletes. It is freed when the recheck is done.
 *
 * Settings:
 *   TWO       there is a second pointer
 *   SAME      the second pointer is to the same element
 *   TWICE     a program writes two times
 *   SLEEPY    sleepable programs hold the pointers
 *   DELETE    another operation deletes, and the free element waits with its mark
 *   IN_PLACE  the first update writes into the element
 *   ARRAY     both updates write into the element
 *   LOCKED    instead of a pointer, an update with BPF_F_LOCK, which finds its element without the
 *             bucket's lock, marks it and writes it
 *   HOT       a program writes again and again, through a pointer and by operations, while a flush
 *             runs: what was written before the flush has been reported when the flush returns
 *   FLUSH     a flush runs at any time
 *   NO_FLUSH  there is no flush at the end
 *   ATTACH    an epoch begins and the byte of the map is set while the programs run; after a grace
 *             period every element is reported, and a flush reports every element until that is
 *             over; key 1 is not in the map
 *
 * Mutants:
 *   ONE_STATE       marks are taken before the grace period
 *   NO_GRACE        a round does not wait for programs
 *   NO_FLUSH_GRACE  a flush does not wait for a grace period
 *   NO_BUMP         the counters are not incremented
 *   BUMP_EARLY      the counters are incremented before the grace period
 *   CLEAR_ON_REUSE  a mark is cleared when its element is reused
 *   CLEAR_ALL       a round also clears marks of this epoch
 *   CLEAR_BLIND     a round clears a mark, whatever it is by then
 *   FLUSH_CLEARS    a flush clears marks
 *   FLUSH_FORGETS   a flush skips keys that are left to the worker
 *   PASS_OVER       a flush skips marks of this epoch
 *   REPLAY_ALONE    a flush does not report every element though the first round is not over
 *   TEST_ANY        an old mark is taken for one of this epoch
 *   EPOCH_FIRST     a program reads the epoch before the mark
 *   NO_CMPXCHG      a late mark overwrites a newer one
 *   NO_RETRY        a program does not try again if its cmpxchg fails
 *   NO_MARK         with LOCKED: the update does not mark
 *   DISARM_LATE     a round disarms the worker after it has begun the epoch
 *   NO_SECTION      a recheck is not in a section that a flush waits for
 *   FORGET          a recheck that is overtaken is not left to the worker
 * The mutant in which a flush does not wait for operations is in queue.pml (OUTSIDE).
 */
#define NONE 3
byte bucket[2];          /* the element of a key */
byte spare = 2;          /* of the CPU on which updates run: one at a time, as under its lock */
byte val[3];
byte m[3];
byte epoch = 1;
bool armed;
byte todo[2];            /* TAKEN until it is done */
#define TAKEN 2
byte M[2];               /* the mirror */
byte seq[2];
byte running;
byte section[6];         /* of each process; odd: inside what a grace period waits for */
#ifdef ATTACH
bool traced, replayed;
#else
bool traced = true, replayed = true;
#endif

#ifdef ARRAY
#define IN_PLACE
#define LAST_IN_PLACE 1
#else
#define LAST_IN_PLACE 0
#endif
#ifdef SLEEPY
#define SLEEPS(p) (p == 1 || p == 2)
#else
#define SLEEPS(p) false
#endif
#define VALUE(k) (bucket[k] == NONE -> 0 : val[bucket[k]])
#define ENTER(p) section[p]++
#define LEAVE(p) section[p]++

inline recheck(k)
{
	atomic { seq[k]++ };
	s = seq[k];
	d_step { v = VALUE(k) }
	M[k] = v;
	if
	:: seq[k] == s -> skip
	:: else ->
#ifndef FORGET
		todo[k] = 1;
		armed = true
#else
		skip
#endif
	fi
}

/* Updates of both keys in turn on one CPU, so that the second takes the element of the first */
proctype updates()
{
	byte k, e, s0, s1, s, v, new;
	bool t;

	do
	:: k == 2 -> break
	:: else ->
		new = 10 + k;
		ENTER(0);
		t = traced;
		s0 = seq[k];
#ifdef IN_PLACE
		if
		:: k <= LAST_IN_PLACE ->
			e = bucket[k];
			if :: e == NONE -> goto next :: else fi;
			val[e] = new;
			goto done
		:: else
		fi;
#endif
		e = spare;
		if
		:: e == NONE -> goto next            /* the map is full */
		:: else
		fi;
#ifdef CLEAR_ON_REUSE
		m[e] = 0;
#endif
		val[e] = new;
		atomic { spare = bucket[k]; bucket[k] = e }
done:		if
		:: t ->
			atomic { seq[k]++; s1 = seq[k] }
			M[k] = new;
			if :: (s1 == s0 + 1) && seq[k] == s1 -> skip :: else -> recheck(k) fi
		:: else
		fi;
next:		LEAVE(0);
		k++
	od;
	running--
}

#ifdef DELETE
byte freed = NONE;
proctype delete(byte k)
{
	byte s0, s1, s, v;
	bool t;

	ENTER(3);
	t = traced;
	s0 = seq[k];
	atomic {
		if :: bucket[k] == NONE -> goto out :: else fi;
		if :: spare == NONE -> spare = bucket[k] :: else -> freed = bucket[k] fi;
		bucket[k] = NONE
	}
	if
	:: t ->
		atomic { seq[k]++; s1 = seq[k] }
		M[k] = 0;
		if :: (s1 == s0 + 1) && seq[k] == s1 -> skip :: else -> recheck(k) fi
	:: else
	fi;
out:	LEAVE(3);
	running--
}
#endif

/* A program's lookup. The mark is read before the epoch, so that it is never the newer one */
inline mark(e)
{
	do
	:: !traced -> break
	:: else ->
#ifdef EPOCH_FIRST
	   now = epoch;
	   old = m[e];
#else
	   old = m[e];
	   now = epoch;
#endif
#ifdef TEST_ANY
	   if :: old != 0 -> break :: else fi;
#else
	   if :: old == now -> break :: else fi;
#endif
#ifdef NO_CMPXCHG
	   m[e] = now; armed = true; break
#else
	   atomic {
		if
		:: m[e] == old -> m[e] = now
#ifdef NO_RETRY
		:: else -> break
#else
		:: else -> goto again
#endif
		fi
	   }
	   armed = true; break;
again:	   skip
#endif
	od
}

/* A program: looks up, marks, writes some time later, wherever the element is by then */
proctype pointer(byte p; byte k; byte new; byte times)
{
	byte e, now, old;
#ifdef LOCKED
	byte s0, s1, s, v;
#endif

	do
	:: times == 0 -> break
	:: else ->
		atomic {
			ENTER(p);
#ifdef LOCKED
			s0 = seq[k];
#endif
			e = bucket[k];
			if :: e == NONE -> goto out :: else fi
		}
#ifndef NO_MARK
		mark(e);
#endif
		val[e] = new + times;
#ifdef LOCKED
		atomic { seq[k]++; s1 = seq[k] }
		M[k] = new + times;
		if :: (s1 == s0 + 1) && seq[k] == s1 -> skip :: else -> recheck(k) fi;
#endif
out:		LEAVE(p);
		times--
	od;
	running--
}

#ifdef HOT
/* Writes a larger value each time, and is not waited for. An operation is in a section of its own
 * that does not sleep, whoever calls it: rcu_read_lock() from before s0 until the check is done.
 */
proctype hot()
{
	byte i, now, old, k, s0, s1, s, v;

	do
	:: i == 3 -> break
	:: i == 0 || i == 2 ->
		ENTER(1);
		mark(0);
		val[0] = 20 + i;
		LEAVE(1);
		i++
	:: i == 1 ->
		ENTER(3);
		s0 = seq[0];
		val[0] = 20 + i;
		atomic { seq[0]++; s1 = seq[0] }
		M[0] = 20 + i;
		if :: (s1 == s0 + 1) && seq[0] == s1 -> skip :: else -> recheck(k) fi;
		LEAVE(3);
		i++
	od
}
#endif

/* By worker (4) and flush (5), in a section as in operations */
inline recheck_inside(who, k)
{
#ifndef NO_SECTION
	ENTER(who);
#endif
	recheck(k);
#ifndef NO_SECTION
	LEAVE(who)
#endif
}

/* Waits for the processes that are inside when it begins, the sleepable ones only if told */
inline grace_period(sleepable)
{
	d_step {
		g[0] = section[0]; g[1] = section[1]; g[2] = section[2];
		g[3] = section[3]; g[4] = section[4]; g[5] = section[5]
	}
	p = 0;
	do
	:: p == 6 -> break
	:: p < 6 && (g[p] % 2 == 0 || section[p] != g[p] || (SLEEPS(p) && !sleepable)) -> p++
	od
}

inline count_all()
{
#ifndef NO_BUMP
	atomic { seq[0]++ };
	atomic { seq[1]++ };
#endif
	skip
}

/* Through all elements; all: whether marked or not; clears: marks of older epochs */
inline go_through(who, all, clears)
{
	k = 0;
	do
	:: k == 2 -> break
	:: else ->
		atomic {                         /* under the bucket's lock */
			e = bucket[k];
			mk = (e == NONE -> 0 : m[e]);
#ifdef PASS_OVER
			if :: !clears && mk == epoch -> mk = 0 :: else fi;
#endif
#ifdef FLUSH_FORGETS
			if
			:: (todo[k] != 0 && clears) || (all && e != NONE) ->
				mk = (mk == 0 -> 255 : mk)
			:: else
			fi;
#else
			if
			:: todo[k] != 0 || (all && e != NONE) -> mk = (mk == 0 -> 255 : mk)
			:: else
			fi;
#endif
			if :: clears && todo[k] != 0 -> todo[k] = TAKEN :: else fi
#ifdef ONE_STATE
			; if :: clears && taken[k] -> mk = 255 :: else fi
#endif
		}
		if
		:: mk != 0 ->
			recheck_inside(who, k);
			if :: clears && todo[k] == TAKEN -> todo[k] = 0 :: else fi;
#ifndef ONE_STATE
			atomic {                 /* by cmpxchg: a newer mark stays */
				e = bucket[k];   /* by then */
				if
#ifdef CLEAR_ALL
				:: clears && e != NONE && m[e] == mk -> m[e] = 0
#elif defined(CLEAR_BLIND)
				:: clears && e != NONE && mk != epoch -> m[e] = 0
#else
				:: clears && e != NONE && m[e] == mk && mk != epoch -> m[e] = 0
#endif
				:: else
				fi
			}
#endif
		:: else
		fi;
		k++
	od
}

inline round()
{
#ifndef DISARM_LATE
	armed = false;
#endif
	epoch++;
#ifdef DISARM_LATE
	armed = false;
#endif
#ifdef ONE_STATE
	k = 0;
	do
	:: k == 2 -> break
	:: else ->
		taken[k] = false;
		atomic {
			e = bucket[k];
			if
			:: e != NONE && m[e] != 0 -> m[e] = 0; taken[k] = true
			:: else
			fi
		};
		k++
	od;
#endif
#ifdef BUMP_EARLY
	count_all();
#endif
#ifndef NO_GRACE
	grace_period(true);
#endif
#ifndef BUMP_EARLY
	count_all();
#endif
	go_through(4, false, true)
}

inline flush()
{
#ifndef NO_FLUSH_GRACE
	grace_period(false);
#endif
	count_all();
#ifdef FLUSH_CLEARS
	go_through(5, false, true);
#elif defined(REPLAY_ALONE)
	go_through(5, false, false);
#else
	go_through(5, !replayed, false);
#endif
}

bool resting;            /* the worker has nothing to do */

proctype worker()
{
	byte k, e, s, v, p, mk;
	byte g[6];
#ifdef ONE_STATE
	bool taken[2];
#endif

#ifdef ATTACH
	epoch++;
	traced = true;
#ifdef BUMP_EARLY
	count_all();
#endif
#ifndef NO_GRACE
	grace_period(true);
#endif
#ifndef BUMP_EARLY
	count_all();
#endif
	go_through(4, true, false);
	replayed = true;
#endif
end:	do
	:: armed -> round()
	:: running == 0 && !armed -> break
	od;
	resting = true
}

#if defined(FLUSH) || defined(HOT) || !defined(NO_FLUSH)
proctype flusher()
{
	byte k, e, s, v, p, mk;
	byte g[6];
#ifdef ONE_STATE
	bool taken[2];
#endif
#ifdef HOT
	byte before;

	before = val[0];
	flush();
	assert(M[0] >= before)
#else
#ifdef FLUSH
	flush();
	running--;
#endif
#ifndef NO_FLUSH
	running == 0 && traced;
	flush();
	assert(M[0] == VALUE(0) && M[1] == VALUE(1))
#endif
#endif
}
#endif

#ifdef NO_FLUSH
proctype background()
{
	resting;
	assert(armed || (M[0] == VALUE(0) && M[1] == VALUE(1)))
}
#endif

init {
	atomic {
		bucket[0] = 0; val[0] = 1;
#ifdef ATTACH
		bucket[1] = NONE;
#else
		bucket[1] = 1; val[1] = 2; M[0] = 1; M[1] = 2;
#endif
#ifdef HOT
		running = 1;
		run hot();
#else
		running = 2;
		run updates();
#ifdef TWICE
		run pointer(1, 0, 60, 2);
#else
		run pointer(1, 0, 60, 1);
#endif
#ifdef TWO
		running++;
		run pointer(2, 1, 80, 1);
#endif
#ifdef SAME
		running++;
		run pointer(2, 0, 80, 1);
#endif
#ifdef DELETE
		running++;
		run delete(0);
#endif
#ifdef FLUSH
		running++;
#endif
#endif
		run worker();
#if defined(FLUSH) || defined(HOT) || !defined(NO_FLUSH)
		run flusher();
#endif
#ifdef NO_FLUSH
		run background()
#endif
	}
}
