// SPDX-License-Identifier: GPL-2.0

//! The tracers of a map.
//!
//! A map gets its list with its first tracer, and keeps it until it is freed. For each operation
//! the list has an array, which readers see under RCU, without a lock, and which writers replace
//! as a whole.

use crate::{
    bpf::{
        deferred::Deferred,
        map::{HasTracers, Map, TraceType},
        rcu::{RcuCell, ReadSide, Unpublished},
        scratch::Scratch,
        terminated_array::TerminatedArray,
    },
    delete_queue::DeleteQueue,
    loop_check::WriteIndex,
    sync::MapSync,
    tracer::Tracer,
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        GlobalGuard,
        SetOnce, //
    },
};

kernel::sync::global_lock! {
    // SAFETY: Initialized in the module initializer before first use.
    /// Serializes everything that changes what is attached where.
    ///
    /// Nobody waits for a grace period under it.
    pub(crate) unsafe(uninit) static WRITERS: Mutex<WriteIndex> = WriteIndex::new();
}

/// The right to change what is attached where.
pub(crate) type Writer = GlobalGuard<WRITERS>;

/// How many tracers a map can have for one operation.
///
/// As many as a cgroup can have programs (`BPF_CGROUP_MAX_PROGS`).
pub(crate) const MAX_TRACERS: usize = 64;

/// The tracers of one operation, in the order of their attachment.
pub(crate) type Tracers = TerminatedArray<Tracer>;

/// The tracers of a map.
pub(crate) struct TracerList {
    /// Of maps that evict, from the first delete tracer on.
    ///
    /// First, as it is dropped first: that waits for the worker, which uses the rest.
    delete_queue: SetOnce<Pin<KBox<Deferred<DeleteQueue>>>>,
    /// From the first tracer of states on. As above.
    sync: SetOnce<Pin<KBox<Deferred<MapSync>>>>,
    operations: [RcuCell<Tracers, WRITERS>; TraceType::COUNT],
    scratch: Scratch,
    /// The last level of a walk of the loop check that came by.
    visited: Atomic<u64>,
}

impl HasTracers for Map {
    type Tracers = TracerList;
}

impl TracerList {
    /// Creates an empty list for `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<KBox<Self>> {
        let empty = || Unpublished::new(Tracers::with_capacity(0)?);
        let list = Self {
            delete_queue: SetOnce::new(),
            sync: SetOnce::new(),
            operations: [
                RcuCell::new(empty()?),
                RcuCell::new(empty()?),
                RcuCell::new(empty()?),
            ],
            scratch: Scratch::new(map)?,
            visited: Atomic::new(0),
        };
        Ok(KBox::new(list, GFP_KERNEL_ACCOUNT)?)
    }

    /// Where operations copy their arguments to.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The keys of evicted elements, if the map keeps them.
    #[inline(always)]
    pub(crate) fn delete_queue(&self) -> Option<&Deferred<DeleteQueue>> {
        self.delete_queue.as_ref().map(|queue| &**queue)
    }

    /// Gives the map a queue of deletes, if it has none yet; else `new` is dropped.
    pub(crate) fn install_delete_queue(&self, new: Pin<KBox<Deferred<DeleteQueue>>>) {
        self.delete_queue.populate(new);
    }

    /// What keeps the tracers of states right, if the map ever had one.
    #[inline(always)]
    pub(crate) fn sync(&self) -> Option<&Deferred<MapSync>> {
        self.sync.as_ref().map(|sync| &**sync)
    }

    /// The same, while the map has one.
    #[inline(always)]
    pub(crate) fn live_sync(&self) -> Option<&Deferred<MapSync>> {
        self.sync().filter(|sync| sync.data().is_live())
    }

    /// Gives the map what its tracers of states need. The caller has seen that it has none yet, and
    /// holds the lock of the writers.
    pub(crate) fn install_sync(&self, new: Pin<KBox<Deferred<MapSync>>>) {
        self.sync.populate(new);
    }

    /// Notes that the loop check comes by, and returns whether that is the first time for `level`.
    pub(crate) fn visit(&self, level: u64) -> bool {
        self.visited.xchg(level, Relaxed) != level
    }

    /// The tracers of an operation. Some of them may have stopped.
    ///
    /// Context: any.
    #[inline(always)]
    pub(crate) fn read<'a>(&'a self, trace_type: TraceType, rcu: ReadSide<'a>) -> &'a Tracers {
        self.operations[trace_type as usize].read(rcu)
    }

    /// The tracers of an operation, for a writer. Some of them may have stopped.
    pub(crate) fn peek<'a>(&'a self, trace_type: TraceType, writer: &'a Writer) -> &'a Tracers {
        self.operations[trace_type as usize].peek(writer)
    }

    /// What a map's tracers will be with `tracer` behind those in its list, if it has one.
    ///
    /// Errors: [`E2BIG`] where the map has [`MAX_TRACERS`] already, [`ENOMEM`].
    pub(crate) fn with_tracer(
        list: Option<&Self>,
        trace_type: TraceType,
        tracer: Arc<Tracer>,
        writer: &Writer,
    ) -> Result<Unpublished<Tracers>> {
        let mut new = match list {
            Some(list) => live(list.peek(trace_type, writer))?,
            None => Tracers::with_capacity(1)?,
        };

        if new.len() >= MAX_TRACERS {
            return Err(E2BIG);
        }
        new.push(tracer)?;
        Unpublished::new(new)
    }

    /// Replaces the tracers of an operation, and lets the map's operations look for them.
    ///
    /// Operations that are under way do not see it, see
    /// [`crate::bpf::rcu::synchronize_programs`].
    pub(crate) fn publish(
        &self,
        map: &Map,
        trace_type: TraceType,
        tracers: Unpublished<Tracers>,
        writer: &mut Writer,
    ) {
        self.operations[trace_type as usize].replace(tracers, writer);
        self.mark_traced(map, writer);
        // A tracer of states calls it once it is attached.
        if trace_type != TraceType::SyncElem {
            self.call_worker();
        }
    }

    /// Has the worker look at marks that were given up.
    fn call_worker(&self) {
        if let Some(sync) = self.live_sync() {
            sync.kick_in_turn();
        }
    }

    /// Lets the map's operations look for tracers where there are some that they have to tell.
    fn mark_traced(&self, map: &Map, writer: &Writer) {
        let is_live = |trace_type| self.peek(trace_type, writer).iter().any(Tracer::is_live);
        let is_synced = is_live(TraceType::SyncElem);

        if let Some(sync) = self.sync() {
            sync.data().set_live(is_synced);
        }
        for trace_type in TraceType::ALL {
            map.set_traced(trace_type, is_synced || is_live(trace_type));
        }
    }

    /// Removes the tracers that have stopped.
    ///
    /// This cannot fail: without memory for a shorter array they stay in, where they do nothing,
    /// until the next change.
    pub(crate) fn remove_stopped(&self, map: &Map, trace_type: TraceType, writer: &mut Writer) {
        self.mark_traced(map, writer);
        self.call_worker();

        let old = self.peek(trace_type, writer);
        if let Ok(tracers) = live(old).and_then(Unpublished::new) {
            self.operations[trace_type as usize].replace(tracers, writer);
        }
    }
}

/// A copy of an array without the tracers that have stopped, and with room for one more.
fn live(old: &Tracers) -> Result<Tracers> {
    let mut new = Tracers::with_capacity(old.len() + 1)?;

    for tracer in old.references().filter(|tracer| tracer.is_live()) {
        new.push(tracer.into())?;
    }
    Ok(new)
}
