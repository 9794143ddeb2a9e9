// SPDX-License-Identifier: GPL-2.0

//! A tracer: a program that is attached to an operation of a map.

use crate::{
    bpf::{
        context::{EnteredRunContext, Nesting, PreemptGuard},
        map::Map,
        operation::Operation,
        prog::{AttachedProg, Prog},
        rcu::ReadSide,
    },
    tracer_list::{Writer, WRITERS},
};
use core::{mem, ptr};
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

/// A tracer, shared by its link and by the list of the map.
pub(crate) struct Tracer {
    prog: AttachedProg,
    cookie: u64,
    missed: Atomic<i64>,
    failed: Atomic<i64>,
    /// What the program writes, while it is attached. See [`crate::loop_check`].
    written: GlobalLockedBy<KVec<ARef<Map>>, WRITERS>,
}

impl Tracer {
    /// Creates a tracer that runs `prog`.
    pub(crate) fn new(prog: ARef<Prog>, cookie: u64) -> Self {
        Self {
            prog: AttachedProg::new(prog),
            cookie,
            missed: Atomic::new(0),
            failed: Atomic::new(0),
            written: GlobalLockedBy::new(KVec::new()),
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
    pub(crate) fn count_missed(&self, rcu: ReadSide<'_>) {
        self.missed.add(1, Relaxed);
        self.prog.count_missed(rcu);
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
        rcu: ReadSide<'_>,
        preempt: &PreemptGuard,
        nesting: &mut Nesting<'_>,
        run_ctx: &mut EnteredRunContext<'_>,
    ) {
        let Some(_running) = nesting.enter(self) else {
            return self.count_missed(rcu);
        };

        run_ctx.set_cookie(self.cookie);
        // SAFETY: By the safety requirements.
        if unsafe { self.prog.run(ctx, rcu, preempt) } == Some(COULD_NOT_FOLLOW) {
            self.count_failed();
        }
    }
}
