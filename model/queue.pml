/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The queue of deletes. A key that is not in the map has no element that could be marked, so it
 * waits in the queue until its recheck is done. Two kinds of callers queue a key: an eviction,
 * under the lock of the victim's bucket, and an operation whose recheck was overtaken or whose
 * tracer failed.
 *
 * There are two keys. The state of a key is a number that each change increments: odd if the key is
 * in the map, even if it is not. The mirror therefore shows what was traced last. The queue has a
 * part for each of two CPUs. The steps of the processes interleave anywhere, which includes
 * interrupts and NMIs.
 *
 * To queue a key: do nothing if the key is queued already and nobody has taken it for a recheck.
 * Otherwise claim a free slot by cmpxchg, copy the key, and publish the slot. If no slot is free, a
 * caller that may run tracers rechecks the key on the spot, as long as that works. An eviction may
 * not run tracers. The key is then lost, and that is reported.
 *
 * To take a key: take it by cmpxchg, increment the counter, recheck, and free the slot when the
 * recheck is done. If the recheck fails, publish the slot again, and arm the worker.
 *
 * An eviction arms the worker, as the operation may fail and then takes no key. An operation that
 * succeeds takes one key of its CPU's part before its own tracers run.
 *
 * A flush waits for a grace period, rechecks the keys of all slots that are published or taken, and
 * the keys of all marked elements, takes nothing, and waits for another grace period: an operation
 * may have replaced or deleted a marked element just before, and its own tracer runs later.
 *
 * At the end, each key was traced in its present state, or is lost and that was reported. When a
 * flush returns, what was there when it began has been traced, or the flush says that it was not.
 *
 * One operation evicts a key, and the worker may be at work.
 *
 * Settings:
 *   IDLE      the worker is not armed at the beginning
 *   TWO       another operation on the other CPU evicts the key that the first one has inserted
 *   NMI       the same on the CPU of the first operation
 *   DELETE    another operation deletes that key
 *   REFILL    an operation also evicts its own key
 *   LEFT      an earlier eviction has left its key in the queue
 *   BACK      with LEFT: the key comes back
 *   AGAIN     with LEFT: the key comes back and is evicted again
 *   MARKED    an earlier update has left its key to the worker, by a mark, and a delete follows
 *   FULL      all slots are taken for good, and an update and a delete of one key run at the same
 *             time: nothing is lost
 *   FAIL      a tracer fails once
 *   FLUSH     a flush runs at any time
 *   PER       the number of slots in a CPU's part
 *   NO_MARKS  elements have no marks. A key that is in the map is queued as well. If there is no
 *             room, the worker walks all elements (here: mark). A flush does so, too
 *   EVENT     event tracers. Each eviction is an entry of its own and exactly one run, or it is
 *             missed and that is reported
 *   UNTRACED  the operations have no tracers that could take a key, or fail
 *   ORDER     if nobody else has taken the key, the tracer of the victim's delete runs before the
 *             operation's own tracers
 *
 * Mutants:
 *   PUBLISH_FIRST   the slot is published before the key is copied
 *   NO_CLAIM        a slot is claimed without cmpxchg
 *   NO_TAKE         a key is taken without cmpxchg
 *   QUEUE_FIRST     the key is queued before it is out of the map
 *   KEY_LATE        the key is read when the element has another key
 *   TAKEN_COUNTS    a key that was taken counts as queued already
 *   FREE_EARLY      the slot is freed before the recheck
 *   NO_COUNT        the recheck does not increment the counter
 *   ONE_ROUND       a recheck that is overtaken counts as done
 *   FORGET          a recheck that failed frees the slot
 *   DISARM_LATE     the worker is disarmed after it has taken the keys
 *   NO_KICK         an eviction does not arm the worker
 *   SILENT          no slot is free, and that is not reported
 *   NO_SPOT         no slot is free, and the key is not rechecked on the spot
 *   NO_REREAD       with NO_MARKS: no slot is free, and the worker does not walk the elements
 *   NO_FLUSH_GRACE  a flush does not wait for the first grace period
 *   NO_LAST_GRACE   a flush does not wait for the second grace period
 *   PASS_OVER       a flush skips slots that are taken
 *   FLUSH_FORGETS   a flush that is overtaken leaves nothing to the worker
 *   KEEP_QUIET      an operation whose own tracer fails during a flush does not say so
 *   OUTSIDE         no grace period waits for operations
 *   MERGE           with EVENT: a key that is queued already is not queued again
 *   TAKE_AFTER      with EVENT: an operation takes keys after its own tracers
 */
#ifndef PER
#define PER 2
#endif
#define SLOTS (2 * PER)
#define FREE 0
#define CLAIMED 1
#define PUBLISHED 2
#define TAKEN 3

byte S[2];               /* the map */
byte M[2];               /* the mirror */
byte seq[2];
bool mark[2];            /* of the element that the key has */
byte slot[SLOTS];
byte key[SLOTS];
bool lost[2];
bool armed;
bool failing;            /* an operation's own tracer has failed since a flush began */
byte running;            /* processes that are not over, without the worker */
#ifdef FLUSH
byte inside;             /* who is inside what a grace period waits for, a bit each */
byte waits;              /* whom one waits for */
#endif
#ifdef EVENT
byte gone[2], told[2];   /* evictions, and how often a tracer was told */
#endif

#ifdef FLUSH
#define ENTER(p) inside = inside | (1 << p)
#define LEAVE(p) atomic { inside = inside & ~(1 << p); waits = waits & ~(1 << p) }
#else
#define ENTER(p) skip
#define LEAVE(p) skip
#endif
#ifdef OUTSIDE
#define ENTER_OPERATION(p) skip
#define LEAVE_OPERATION(p) skip
#else
#define ENTER_OPERATION(p) ENTER(p)
#define LEAVE_OPERATION(p) LEAVE(p)
#endif

#ifdef FAIL
byte failures = 1;
#define TRACE(k, v) \
	if \
	:: atomic { failures > 0 -> failures--; failed = true } \
	:: atomic { M[k] = v; failed = false } \
	fi
#else
#define TRACE(k, v) M[k] = v
#endif

#ifdef SILENT
#define SAY_LOST(k) skip
#elif defined(EVENT)
#define SAY_LOST(k) told[k]++
#else
#define SAY_LOST(k) lost[k] = true
#endif

/* Sets "queued"; a key that is queued twice has two slots */
inline queue(c, k)
{
	queued = false;
	i = c * PER;
#if !defined(EVENT) || defined(MERGE)
	do
	:: i == (c + 1) * PER -> break
#ifdef TAKEN_COUNTS
	:: i < (c + 1) * PER && slot[i] >= PUBLISHED && key[i] == k -> queued = true; break
	:: i < (c + 1) * PER && !(slot[i] >= PUBLISHED && key[i] == k) -> i++
#else
	:: i < (c + 1) * PER && slot[i] == PUBLISHED && key[i] == k -> queued = true; break
	:: i < (c + 1) * PER && !(slot[i] == PUBLISHED && key[i] == k) -> i++
#endif
	od;
	i = c * PER;
#endif
	do
	:: queued || i == (c + 1) * PER -> break
	:: !queued && i < (c + 1) * PER ->
#ifdef NO_CLAIM
		if
		:: slot[i] == FREE ->
			slot[i] = CLAIMED;
#else
		if
		:: atomic { slot[i] == FREE -> slot[i] = CLAIMED };
#endif
#ifdef PUBLISH_FIRST
			slot[i] = PUBLISHED;
			key[i] = k;
#else
			key[i] = k;
			slot[i] = PUBLISHED;
#endif
			queued = true
		:: slot[i] != FREE -> i++
		fi
	od;
	i = 0
}

/* Sets "done". Operations do one round, who has time goes on */
inline recheck(k, rounds)
{
#ifndef NO_COUNT
	atomic { seq[k]++ };
#endif
	n = 0;
	do
	:: s = seq[k];
	   v = S[k];
	   TRACE(k, v);
	   n++;
#ifdef ONE_ROUND
	   done = !failed; break
#else
	   atomic {
		if
		:: seq[k] == s && !failed -> done = true; break
		:: !(seq[k] == s && !failed) && n == rounds -> done = false; break
		:: else
		fi
	   }
#endif
	od;
	atomic { n = 0; s = 0; v = 0 }
}

#ifdef KEEP_QUIET
#define SAY_FAILING() skip
#else
#define SAY_FAILING() failing = failing || failed
#endif

/* What was not done is the worker's: the mark of the element, or the queue */
inline leave(c, k)
{
#ifdef NO_MARKS
	queued = false;
#else
	atomic {
		if
		:: S[k] % 2 == 1 -> mark[k] = true; armed = true; queued = true
		:: else -> queued = false
		fi
	};
#endif
	if
	:: queued
	:: else ->
		queue(c, k);
#ifdef NO_MARKS
		atomic {
			if
#ifndef NO_REREAD
			:: !queued && S[k] % 2 == 1 -> mark[k] = true; queued = true
#endif
			:: else
			fi
		};
#endif
		if
		:: queued -> armed = true
		:: else ->
#ifdef NO_SPOT
			done = false;
#else
			recheck(k, 3);
#endif
			if :: !done -> SAY_LOST(k) :: else fi
		fi
	fi;
	atomic { queued = false; done = false; failed = false }
}

/* The slots from "from" on; operations take one key */
inline take(from, to, most)
{
	i = from;
	taken = 0;
	do
	:: i == to || taken == most -> break
	:: i < to && taken < most ->
#ifdef NO_TAKE
		if
		:: slot[i] == PUBLISHED ->
			slot[i] = TAKEN;
#else
		if
		:: atomic { slot[i] == PUBLISHED -> slot[i] = TAKEN };
#endif
			taken++;
			k2 = key[i];
#ifdef FREE_EARLY
			slot[i] = FREE;
#endif
#ifdef EVENT
			atomic { told[k2]++ };
			slot[i] = FREE
#else
			recheck(k2, 1);
#ifdef FREE_EARLY
			if :: done :: else -> i2 = i; leave(0, k2); i = i2 fi
#else
			if
			:: done -> slot[i] = FREE
#ifdef FORGET
			:: else -> slot[i] = FREE
#else
			:: else -> slot[i] = PUBLISHED; armed = true
#endif
			fi
#endif
#endif
		:: slot[i] != PUBLISHED
		fi;
		atomic { i++; k2 = 0; done = false; failed = false }
	od;
	atomic { i = 0; taken = 0 }
}

#ifdef NO_KICK
#define KICK() skip
#else
#define KICK() armed = true
#endif

/* An update of k that evicts victim, which may be k itself, to have an element */
proctype update(byte p; byte c; byte k; byte victim)
{
	byte i, i2, n, s0, s1, s, v, k2, taken, new;
	bool queued, done, failed, evicted;

	ENTER_OPERATION(p);
	s0 = seq[k];
#ifdef QUEUE_FIRST
	queue(c, victim);
#endif
	atomic {
		if
		:: S[victim] % 2 == 1 ->
			S[victim]++;
			mark[victim] = false;
			evicted = true;
#ifdef EVENT
			gone[victim]++;
#endif
		:: else
		fi
	};
#ifdef REFILL
	/* Its own key as well */
	atomic {
		if
		:: S[k] % 2 == 1 ->
			S[k]++;
			mark[k] = false;
#ifdef EVENT
			gone[k]++;
#endif
			queued = false
		:: else -> queued = true
		fi
	};
	if
	:: !queued ->
		queue(c, k);
		KICK();
		if :: !queued -> SAY_LOST(k) :: else fi
	:: else
	fi;
#endif
#ifndef QUEUE_FIRST
	if
	:: evicted ->
#ifdef KEY_LATE
		queue(c, k);
#else
		queue(c, victim);
#endif
		KICK();
		if :: !queued -> SAY_LOST(victim) :: else fi
	:: else
	fi;
#endif
	atomic {
		S[k] = S[k] + 1 + S[k] % 2;
		new = S[k];
		mark[k] = false;
		queued = false;
		evicted = false
	};
#ifndef UNTRACED
	atomic { seq[k]++; s1 = seq[k] };
#ifndef TAKE_AFTER
	take(c * PER, (c + 1) * PER, 1);
#endif
#ifdef ORDER
	assert(slot[0] == TAKEN || slot[1] == TAKEN || told[victim] == gone[victim]);
#endif
#ifdef TAKE_AFTER
	take(c * PER, (c + 1) * PER, 1);
#endif
#ifndef EVENT
	TRACE(k, new);
	if
	:: s1 == s0 + 1 && seq[k] == s1 && !failed
	:: else ->
		recheck(k, 1);
		if
		:: done
		:: else ->
			SAY_FAILING();
			leave(c, k)
		fi
	fi;
#endif
#endif
	LEAVE_OPERATION(p);
	running--
}

proctype delete(byte p; byte c; byte k)
{
	byte i, n, s0, s1, s, v, new;
	bool queued, done, failed;

	ENTER_OPERATION(p);
	s0 = seq[k];
	atomic {
		if
		:: S[k] % 2 == 0 -> goto out
		:: else -> S[k]++; new = S[k]; mark[k] = false
		fi
	};
	atomic { seq[k]++; s1 = seq[k] };
	TRACE(k, new);
	if
	:: s1 == s0 + 1 && seq[k] == s1 && !failed
	:: else ->
		SAY_FAILING();
		leave(c, k)
	fi;
out:	LEAVE_OPERATION(p);
	running--
}

proctype worker()
{
	byte i, i2, n, s, v, k2, taken, k;
	bool queued, done, failed;

end:	do
	:: armed ->
#ifndef DISARM_LATE
		armed = false;
#endif
		/* Copy, tracer and check of a recheck share a section */
		ENTER(3);
		take(0, SLOTS, SLOTS);
#ifndef EVENT
		k = 0;
		do
		:: k == 2 -> break
		:: k < 2 && mark[k] ->
			mark[k] = false;
			recheck(k, 1);
			if :: done :: else -> leave(0, k) fi;
			k++
		:: k < 2 && !mark[k] -> k++
		od;
#endif
#ifdef DISARM_LATE
		armed = false;
#endif
		LEAVE(3)
	:: running == 0 && !armed -> break
	od;
#ifdef EVENT
	assert(told[0] == gone[0] && told[1] == gone[1])
#else
	assert((M[0] == S[0] || lost[0]) && (M[1] == S[1] || lost[1]));
#ifdef FULL
	assert(!lost[0] && !lost[1])
#endif
#endif
}

#ifdef NO_MARKS
#define MARKED_FOR_FLUSH(k) (mark[k] || S[k] % 2 == 1)
#else
#define MARKED_FOR_FLUSH(k) mark[k]
#endif

#ifdef FLUSH
proctype flush()
{
	byte i, j, n, s, v, k;
	byte before[2];
	bool queued, done, failed, left;

	atomic { before[0] = S[0]; before[1] = S[1]; failing = false };
#ifndef NO_FLUSH_GRACE
	atomic { waits = inside };
	waits == 0;
#endif
	j = 0;
	do
	:: j == SLOTS -> break
	:: else ->
		atomic {
#ifdef PASS_OVER
			if :: slot[j] == PUBLISHED -> k = key[j] :: else -> k = 2 fi
#else
			if :: slot[j] >= PUBLISHED -> k = key[j] :: else -> k = 2 fi
#endif
		};
		if
		:: k < 2 ->
			recheck(k, 1);
			if
			:: done
#ifdef FLUSH_FORGETS
			:: else
#else
			:: else -> left = left || failed; leave(1, k)
#endif
			fi
		:: else
		fi;
		atomic { j++; done = false; failed = false }
	od;
	atomic { j = 0; k = 0 };
	do
	:: k == 2 -> break
	:: k < 2 && MARKED_FOR_FLUSH(k) ->
		recheck(k, 1);
		if :: done :: else -> left = left || failed; leave(1, k) fi;
		atomic { k++; done = false; failed = false }
	:: k < 2 && !MARKED_FOR_FLUSH(k) -> k++
	od;
#ifndef NO_LAST_GRACE
	atomic { waits = inside };
	waits == 0;
#endif
	assert(left || failing || ((M[0] >= before[0] || lost[0]) && (M[1] >= before[1] || lost[1])));
	running--
}
#endif

init {
	atomic {
		key[0] = 1; key[1] = 1;          /* of earlier use */
		#ifndef IDLE
		armed = true;                    /* the worker may be at work */
#endif
		running = 1;
#ifdef FULL
		byte f;
		for (f : 0 .. SLOTS - 1) { slot[f] = TAKEN }
		S[0] = 1; M[0] = 1;
		running++;
		run update(0, 0, 0, 1);
		run delete(1, 1, 0);
#elif defined(LEFT)
		/* An eviction has left its key in the queue, and is over */
		S[0] = 2; M[0] = 1; slot[0] = PUBLISHED; key[0] = 0;
#ifdef EVENT
		gone[0] = 1;
#endif
#ifdef BACK
		/* ... which comes back */
		run update(0, 0, 0, 0);
#else
		run update(0, 0, 1, 1);
#endif
#ifdef AGAIN
		/* ... which comes back and is evicted again */
		running++;
		run update(1, 0, 0, 0);
		running++;
		run update(2, 0, 1, 0);
#endif
#elif defined(MARKED)
		/* An update has marked its element for the worker, and is over */
		S[0] = 3; M[0] = 1; mark[0] = true;
		run delete(0, 0, 0);
#else
		S[0] = 1; M[0] = 1; S[1] = 1; M[1] = 1;
		run update(0, 0, 1, 0);
#ifdef TWO
		running++;
		run update(1, 1, 0, 1);
#endif
#ifdef NMI
		running++;
		run update(2, 0, 0, 1);
#endif
#ifdef DELETE
		running++;
		run delete(1, 1, 1);
#endif
#endif
#ifdef FLUSH
		running++;
		run flush();
#endif
		run worker()
	}
}
