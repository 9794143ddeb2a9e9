// SPDX-License-Identifier: GPL-2.0

//! A tracer: a program that is attached to an operation of a map.

use crate::bpf::{
    context::{EnteredRunContext, Nesting, PreemptGuard},
    operation::Operation,
    prog::{AttachedProg, Prog},
};
use core::ptr;
use kernel::sync::{
    aref::ARef,
    atomic::{Atomic, Relaxed},
    rcu,
};

/// The program's answer where it could not follow the operation.
const COULD_NOT_FOLLOW: u32 = 1;

/// A tracer, shared by its link and by the list of the map.
pub(crate) struct Tracer {
    prog: AttachedProg,
    cookie: u64,
    missed: Atomic<i64>,
    failed: Atomic<i64>,
}

impl Tracer {
    /// Creates a tracer that runs `prog`.
    pub(crate) fn new(prog: ARef<Prog>, cookie: u64) -> Self {
        Self {
            prog: AttachedProg::new(prog),
            cookie,
            missed: Atomic::new(0),
            failed: Atomic::new(0),
        }
    }

    /// What `bpf_get_attach_cookie()` returns in the program.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// How often it was not run, for recursion or for the nesting limit.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed) as u64
    }

    /// How often the program could not follow.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed) as u64
    }

    /// Whether it runs a program: not after [`Tracer::stop`].
    pub(crate) fn is_live(&self) -> bool {
        !self.prog.as_ptr().is_null()
    }

    /// Whether `prog` is what it runs.
    pub(crate) fn runs(&self, prog: &Prog) -> bool {
        ptr::eq(self.prog.as_ptr(), prog.as_ptr())
    }

    /// From the next operation on, runs `prog`.
    pub(crate) fn set_prog(&self, prog: ARef<Prog>) {
        self.prog.swap(Some(prog));
    }

    /// From the next operation on, runs nothing.
    pub(crate) fn stop(&self) {
        self.prog.swap(None);
    }

    /// Counts an operation that it did not get to see.
    #[cold]
    pub(crate) fn count_missed(&self) {
        self.missed.add(1, Relaxed);
    }

    #[cold]
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
    pub(crate) unsafe fn run<O: Operation>(
        &self,
        ctx: &O::Context,
        rcu: &rcu::Guard,
        preempt: &PreemptGuard,
        nesting: &mut Nesting<'_>,
        run_ctx: &mut EnteredRunContext<'_>,
    ) {
        let Some(_running) = nesting.enter(self) else {
            return self.count_missed();
        };

        run_ctx.set_cookie(self.cookie);
        // SAFETY: By the safety requirements.
        if unsafe { self.prog.run(ctx, rcu, preempt) } == Some(COULD_NOT_FOLLOW) {
            self.count_failed();
        }
    }
}
