// SPDX-License-Identifier: GPL-2.0

//! A tracer: a program that is attached to an operation of a map.

use crate::{
    bpf::{
        context::{CookieFirst, EnteredRunContext, PreemptGuard},
        map::Map,
        prog::{AttachedProg, Context, Prog},
        rcu::ReadSide,
    },
    tracer_list::{Writer, WRITERS},
};
use core::mem;
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        GlobalLockedBy, //
    },
};

/// The program's answer where it could not follow the operation.
const COULD_NOT_FOLLOW: u32 = 1;

/// Of [`Tracer::replay`]: nobody has begun.
const REPLAY_WAITS: u32 = 0;
/// Somebody goes through the elements.
const REPLAY_RUNS: u32 = 1;
/// It was told of each.
const REPLAY_DONE: u32 = 2;

/// How deep tracers may nest, one run by what the other one does, as far as the stack lasts.
pub(crate) const MAX_NESTING: usize = 8;

/// The same in an interrupt, which others wait for.
const MAX_NESTING_INTERRUPT: usize = 3;

/// A tracer, shared by its link and by the list of the map.
#[repr(C)]
pub(crate) struct Tracer {
    cookie: u64,
    prog: AttachedProg,
    missed: Atomic<i64>,
    failed: Atomic<i64>,
    /// How far it has been told what was there before it. Of event tracers: not asked for.
    replay: Atomic<u32>,
    replayed: Atomic<i64>,
    lost: Atomic<i64>,
    /// How many of them were told again by who flushes with the keys.
    healed: Atomic<i64>,
    /// What the program writes, while it is attached. See [`crate::loop_check`].
    written: GlobalLockedBy<KVec<ARef<Map>>, WRITERS>,
}

// SAFETY: It is `repr(C)`, and nothing changes the cookie, which is the first member.
unsafe impl CookieFirst for Tracer {}

impl Tracer {
    /// Creates a tracer that runs `prog`.
    pub(crate) fn new(prog: ARef<Prog>, cookie: u64) -> Self {
        Self {
            cookie,
            prog: AttachedProg::new(prog),
            missed: Atomic::new(0),
            failed: Atomic::new(0),
            replay: Atomic::new(REPLAY_WAITS),
            replayed: Atomic::new(0),
            lost: Atomic::new(0),
            healed: Atomic::new(0),
            written: GlobalLockedBy::new(KVec::new()),
        }
    }

    /// What `bpf_get_attach_cookie()` returns in the program.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// How often it was not run: recursion, the nesting limit, too little of a stack, no room for a
    /// copy of the arguments.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed) as u64
    }

    /// How often the program could not follow.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed) as u64
    }

    /// How often it was not run, or could not follow.
    pub(crate) fn not_told(&self) -> u64 {
        self.missed().wrapping_add(self.failed())
    }

    /// How many elements it was told that were there before it.
    pub(crate) fn replayed(&self) -> u64 {
        self.replayed.load(Relaxed) as u64
    }

    /// How many keys it was not told, and will not be.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed) as u64
    }

    /// Whether there are some that nobody has told it again.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Acquire) != self.healed.load(Relaxed)
    }

    /// Notes that so many of the lost keys were told again, from the first on.
    pub(crate) fn heal(&self, lost: u64) {
        let lost = lost as i64;
        let mut old = self.healed.load(Relaxed);

        // Somebody else may know of more.
        while old < lost {
            match self.healed.cmpxchg(old, lost, Relaxed) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }

    /// Counts a key that it will not be told, and returns how many there are now.
    #[cold]
    pub(crate) fn count_lost(&self) -> u64 {
        self.lost.fetch_add(1, Release) as u64 + 1
    }

    /// Has all that is there told to it, as if it were new.
    pub(crate) fn want_replay(&self) {
        self.replayed.store(0, Relaxed);
        self.replay.store(REPLAY_WAITS, Release);
    }

    /// Somebody begins to go through all elements. Returns whether this waits for it.
    pub(crate) fn begin_replay(&self) -> bool {
        let begins = self.replay.cmpxchg(REPLAY_WAITS, REPLAY_RUNS, Full).is_ok();

        if begins {
            self.replayed.store(0, Relaxed);
        }
        begins
    }

    /// Somebody has gone through the elements, and through all of them if it is `done`. That counts
    /// only where nobody has asked for it again meanwhile.
    pub(crate) fn end_replay(&self, done: bool) {
        let new = if done { REPLAY_DONE } else { REPLAY_WAITS };
        let _ = self.replay.cmpxchg(REPLAY_RUNS, new, Full);
    }

    /// Whether somebody goes through all elements for it.
    pub(crate) fn is_in_replay(&self) -> bool {
        self.replay.load(Relaxed) == REPLAY_RUNS
    }

    /// Whether it was told all that was there before it.
    pub(crate) fn is_replayed(&self) -> bool {
        self.replay.load(Acquire) == REPLAY_DONE
    }

    /// Counts elements, if it was told them in a replay.
    pub(crate) fn count_replayed(&self, elements: usize) {
        if self.is_in_replay() {
            self.replayed.add(elements as i64, Relaxed);
        }
    }

    /// Whether it runs a program: not after [`Tracer::stop`].
    pub(crate) fn is_live(&self) -> bool {
        self.prog.is_some()
    }

    /// Whether `prog` is what it runs.
    pub(crate) fn runs(&self, prog: &Prog) -> bool {
        self.prog.is(prog)
    }

    /// From the next operation on, runs `prog`. Returns what operations that are under way may
    /// still run.
    #[must_use = "the old program has to outlive its runs"]
    pub(crate) fn set_prog(&self, prog: ARef<Prog>) -> Option<ARef<Prog>> {
        self.prog.swap(Some(prog))
    }

    /// From the next operation on, runs nothing.
    ///
    /// The link keeps the program for those that are under way, until it is freed after a grace
    /// period.
    pub(crate) fn stop(&self) {
        self.prog.swap(None);
    }

    /// The maps that it leads on to.
    pub(crate) fn written<'a>(&'a self, writer: &'a Writer) -> impl Iterator<Item = &'a Map> {
        self.written.as_ref(writer).iter().map(|map| &**map)
    }

    /// Changes the maps that it leads on to, and returns the old ones.
    pub(crate) fn set_written(
        &self,
        written: KVec<ARef<Map>>,
        writer: &mut Writer,
    ) -> KVec<ARef<Map>> {
        mem::replace(self.written.as_mut(writer), written)
    }

    /// Counts an operation that it did not get to see.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_missed(&self, rcu: ReadSide<'_>) {
        self.missed.add(1, Relaxed);
        self.prog.count_missed(rcu);
    }

    #[cold]
    #[inline(never)]
    fn count_failed(&self) {
        self.failed.add(1, Relaxed);
    }

    /// Runs the program after an operation. Returns whether it was told, and could follow.
    ///
    /// # Safety
    ///
    /// `ctx` is that of an operation on a map whose keys and values are at least as large as what
    /// the program reads, and of the type that the program is for.
    #[inline(always)]
    pub(crate) unsafe fn run<C: Context>(
        &self,
        ctx: &C,
        rcu: ReadSide<'_>,
        preempt: &PreemptGuard,
        run_ctx: &mut impl EnteredRunContext,
    ) -> bool {
        let (depth, running) = run_ctx.outer(self);

        // Only asked for where some have led to this.
        if running || (depth != 0 && depth >= max_nesting(run_ctx.is_in_interrupt())) {
            self.count_missed(rcu);
            return false;
        }
        run_ctx.set_tracer(self);
        // SAFETY: By the safety requirements.
        if unsafe { self.prog.run(ctx, rcu, preempt) } == COULD_NOT_FOLLOW {
            self.count_failed();
            return false;
        }
        true
    }
}

/// How many tracers may lead to each other.
fn max_nesting(in_interrupt: bool) -> usize {
    if in_interrupt {
        MAX_NESTING_INTERRUPT
    } else {
        MAX_NESTING
    }
}
