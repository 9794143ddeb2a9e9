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
        atomic::{Atomic, Relaxed},
        GlobalLockedBy, //
    },
};

/// The program's answer where it could not follow the operation.
const COULD_NOT_FOLLOW: u32 = 1;

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

    /// Runs the program after an operation.
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
    ) {
        let (depth, running) = run_ctx.outer(self);

        // Only asked for where some have led to this.
        if running || (depth != 0 && depth >= max_nesting(run_ctx.is_in_interrupt())) {
            return self.count_missed(rcu);
        }
        run_ctx.set_tracer(self);
        // SAFETY: By the safety requirements.
        if unsafe { self.prog.run(ctx, rcu, preempt) } == COULD_NOT_FOLLOW {
            self.count_failed();
        }
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
