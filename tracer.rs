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

/// The return value of a program that has failed.
const COULD_NOT_FOLLOW: u32 = 1;

/// A state of [`Tracer::replay`]: the replay has not begun.
const REPLAY_WAITS: u32 = 0;
/// The worker is walking the elements.
const REPLAY_RUNS: u32 = 1;
/// Each element was reported.
const REPLAY_DONE: u32 = 2;

/// How deep tracers may nest, each one run by an operation of the one before, if the stack
/// suffices.
pub(crate) const MAX_NESTING: usize = 8;

/// The same limit in an interrupt, which delays others.
const MAX_NESTING_INTERRUPT: usize = 3;

/// A tracer, shared by its link and the list of the map.
#[repr(C)]
pub(crate) struct Tracer {
    cookie: u64,
    /// The id of its link, known before anybody can find it.
    link_id: Atomic<u32>,
    prog: AttachedProg,
    missed: Atomic<i64>,
    failed: Atomic<i64>,
    /// The state of its replay. Not used for event tracers.
    replay: Atomic<u32>,
    replayed: Atomic<i64>,
    lost: Atomic<i64>,
    /// How many of the lost keys a flush with keys has reported since.
    healed: Atomic<i64>,
    /// The maps that the program writes, while it is attached. See [`crate::loop_check`].
    written: GlobalLockedBy<KVec<ARef<Map>>, WRITERS>,
}

// SAFETY: It is `repr(C)`, and nothing changes the cookie, which is the first member.
unsafe impl CookieFirst for Tracer {}

impl Tracer {
    /// Creates a tracer that runs `prog`.
    pub(crate) fn new(prog: ARef<Prog>, cookie: u64) -> Self {
        Self {
            cookie,
            link_id: Atomic::new(0),
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

    /// Returns the value of `bpf_get_attach_cookie()` in the program.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Returns the id of its link.
    pub(crate) fn link_id(&self) -> u32 {
        self.link_id.load(Relaxed)
    }

    /// Sets the id of its link.
    pub(crate) fn set_link_id(&self, id: u32) {
        self.link_id.store(id, Relaxed);
    }

    /// Returns the id of its program, or 0 after [`Tracer::stop`].
    pub(crate) fn prog_id(&self, rcu: ReadSide<'_>) -> u32 {
        self.prog.id(rcu)
    }

    /// Returns how often it was not run: recursion, the nesting limit, too little stack, no room
    /// for a copy of the arguments.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed) as u64
    }

    /// Returns how often the program has failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed) as u64
    }

    /// Returns how often it was not run, or has failed.
    pub(crate) fn not_told(&self) -> u64 {
        self.missed().wrapping_add(self.failed())
    }

    /// Returns how many elements the replay has reported.
    pub(crate) fn replayed(&self) -> u64 {
        self.replayed.load(Relaxed) as u64
    }

    /// Returns how many keys were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed) as u64
    }

    /// Returns whether there are lost keys that no flush with keys has reported since.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Acquire) != self.healed.load(Relaxed)
    }

    /// Notes that the first `lost` of the lost keys were reported again.
    pub(crate) fn heal(&self, lost: u64) {
        let lost = lost as i64;
        let mut old = self.healed.load(Relaxed);

        // A concurrent call may have noted more.
        while old < lost {
            match self.healed.cmpxchg(old, lost, Relaxed) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }

    /// Counts a lost key, and returns how many there are now.
    #[cold]
    pub(crate) fn count_lost(&self) -> u64 {
        self.lost.fetch_add(1, Release) as u64 + 1
    }

    /// Requests a replay, as if the tracer were new.
    pub(crate) fn want_replay(&self) {
        self.replayed.store(0, Relaxed);
        self.replay.store(REPLAY_WAITS, Release);
    }

    /// Notes that a walk over all elements begins. Returns whether the tracer waits for a replay.
    pub(crate) fn begin_replay(&self) -> bool {
        let begins = self.replay.cmpxchg(REPLAY_WAITS, REPLAY_RUNS, Full).is_ok();

        if begins {
            self.replayed.store(0, Relaxed);
        }
        begins
    }

    /// Notes that the walk has ended, and that it was complete if `done` is set. It does not count
    /// if another replay was requested meanwhile.
    pub(crate) fn end_replay(&self, done: bool) {
        let new = if done { REPLAY_DONE } else { REPLAY_WAITS };
        let _ = self.replay.cmpxchg(REPLAY_RUNS, new, Full);
    }

    /// Returns whether its replay is under way.
    pub(crate) fn is_in_replay(&self) -> bool {
        self.replay.load(Relaxed) == REPLAY_RUNS
    }

    /// Returns whether its replay is complete.
    pub(crate) fn is_replayed(&self) -> bool {
        self.replay.load(Acquire) == REPLAY_DONE
    }

    /// Counts reported elements, if its replay is under way.
    pub(crate) fn count_replayed(&self, elements: usize) {
        if self.is_in_replay() {
            self.replayed.add(elements as i64, Relaxed);
        }
    }

    /// Returns whether it has a program: not after [`Tracer::stop`].
    pub(crate) fn is_live(&self) -> bool {
        self.prog.is_some()
    }

    /// Returns whether `prog` is its program.
    pub(crate) fn runs(&self, prog: &Prog) -> bool {
        self.prog.is(prog)
    }

    /// Makes it run `prog` from the next operation on. Returns the old program, which operations
    /// that are under way may still run.
    #[must_use = "the old program has to outlive its runs"]
    pub(crate) fn set_prog(&self, prog: ARef<Prog>) -> Option<ARef<Prog>> {
        self.prog.swap(Some(prog))
    }

    /// Makes it run nothing from the next operation on.
    ///
    /// The link keeps the program for operations that are under way, until the link is freed after
    /// a grace period.
    pub(crate) fn stop(&self) {
        self.prog.swap(None);
    }

    /// Returns the maps that it writes.
    pub(crate) fn written<'a>(&'a self, writer: &'a Writer) -> impl Iterator<Item = &'a Map> {
        self.written.as_ref(writer).iter().map(|map| &**map)
    }

    /// Sets the maps that it writes, and returns the old ones.
    pub(crate) fn set_written(
        &self,
        written: KVec<ARef<Map>>,
        writer: &mut Writer,
    ) -> KVec<ARef<Map>> {
        mem::replace(self.written.as_mut(writer), written)
    }

    /// Counts a miss.
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

    /// Runs the program after an operation. Returns whether it ran and succeeded.
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

        // The limit is looked up only if tracers have caused this operation.
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

/// Returns how deep tracers may nest.
fn max_nesting(in_interrupt: bool) -> usize {
    if in_interrupt {
        MAX_NESTING_INTERRUPT
    } else {
        MAX_NESTING
    }
}
