// SPDX-License-Identifier: GPL-2.0

//! The tracers of a map.
//!
//! A map gets its list with its first tracer, and keeps the list until the map is freed or the
//! module is removed. For each operation the list has an array. Readers use the array under RCU,
//! without a lock, and writers replace it as a whole.

use crate::{
    bpf::{
        deferred::Deferred,
        link::{Peer, Place},
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
        rcu,
        Arc,
        GlobalGuard,
        GlobalLockedBy,
        SetOnce, //
    },
};

kernel::sync::global_lock! {
    // SAFETY: Initialized in the module initializer before first use.
    /// Serializes all changes of what is attached where.
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
    /// Only for maps that evict, from the first delete tracer on.
    ///
    /// The first field, as it is dropped first: the drop waits for the worker, which uses the rest.
    delete_queue: SetOnce<Pin<KBox<Deferred<DeleteQueue>>>>,
    /// From the first sync tracer on. Dropped early for the same reason.
    sync: SetOnce<Pin<KBox<Deferred<MapSync>>>>,
    operations: [RcuCell<Tracers, WRITERS>; TraceType::COUNT],
    scratch: Scratch,
    /// How often what is attached was changed, see [`revision`].
    changes: GlobalLockedBy<u64, WRITERS>,
    /// The last level of a walk of the loop check that has visited this list.
    visited: Atomic<u64>,
}

/// Returns the revision of what is attached to a map with this list: 1 before the first change, and
/// one more after each.
///
/// Source: `struct bpf_mprog_bundle`.
pub(crate) fn revision(list: Option<&TracerList>, writer: &Writer) -> u64 {
    1 + list.map_or(0, |list| *list.changes.as_ref(writer))
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
            changes: GlobalLockedBy::new(0),
            visited: Atomic::new(0),
        };
        Ok(KBox::new(list, GFP_KERNEL_ACCOUNT)?)
    }

    /// Returns the room for copies of the arguments of operations.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Returns the queue of evicted keys, if the map has one.
    #[inline(always)]
    pub(crate) fn delete_queue(&self) -> Option<&Deferred<DeleteQueue>> {
        self.delete_queue.as_ref().map(|queue| &**queue)
    }

    /// Installs a queue of deletes if the map has none yet, else drops `new`.
    pub(crate) fn install_delete_queue(&self, new: Pin<KBox<Deferred<DeleteQueue>>>) {
        self.delete_queue.populate(new);
    }

    /// Returns the data of sync tracers, if the map ever had one.
    #[inline(always)]
    pub(crate) fn sync(&self) -> Option<&Deferred<MapSync>> {
        self.sync.as_ref().map(|sync| &**sync)
    }

    /// Like [`TracerList::sync`], but only while the map has a sync tracer.
    #[inline(always)]
    pub(crate) fn live_sync(&self) -> Option<&Deferred<MapSync>> {
        self.sync().filter(|sync| sync.data().is_live())
    }

    /// Installs the data of sync tracers. The caller has checked that the map has none yet, and
    /// holds the lock of the writers.
    pub(crate) fn install_sync(&self, new: Pin<KBox<Deferred<MapSync>>>) {
        self.sync.populate(new);
    }

    /// Notes a visit of the loop check, and returns whether it is the first one for `level`.
    pub(crate) fn visit(&self, level: u64) -> bool {
        self.visited.xchg(level, Relaxed) != level
    }

    /// Returns the tracers of an operation. Some of them may have stopped.
    ///
    /// Context: any.
    #[inline(always)]
    pub(crate) fn read<'a>(&'a self, trace_type: TraceType, rcu: ReadSide<'a>) -> &'a Tracers {
        self.operations[trace_type as usize].read(rcu)
    }

    /// Like [`TracerList::read`], for a writer.
    pub(crate) fn peek<'a>(&'a self, trace_type: TraceType, writer: &'a Writer) -> &'a Tracers {
        self.operations[trace_type as usize].peek(writer)
    }

    /// Returns a new array: the tracers of `list`, if there is one, and `tracer` in its place.
    ///
    /// Errors: [`ENOENT`] if the map does not have what `place` says, [`E2BIG`] if it has
    /// [`MAX_TRACERS`] already, [`ENOMEM`].
    pub(crate) fn with_tracer(
        list: Option<&Self>,
        trace_type: TraceType,
        tracer: Arc<Tracer>,
        place: Place,
        writer: &Writer,
    ) -> Result<Unpublished<Tracers>> {
        let mut new = match list {
            Some(list) => live(list.peek(trace_type, writer))?,
            None => Tracers::with_capacity(1)?,
        };
        let index = index_of(&new, place)?;

        if new.len() >= MAX_TRACERS {
            return Err(E2BIG);
        }
        new.insert(index, tracer)?;
        Unpublished::new(new)
    }

    /// Calls `found` for each tracer: those of one operation after those of another one, each in
    /// the order in which they run.
    pub(crate) fn for_each(&self, writer: &Writer, mut found: impl FnMut(&Tracer)) {
        for trace_type in TraceType::ALL {
            self.peek(trace_type, writer)
                .iter()
                .filter(|tracer| tracer.is_live())
                .for_each(&mut found);
        }
    }

    /// Counts a change of what is attached.
    pub(crate) fn count_change(&self, writer: &mut Writer) {
        *self.changes.as_mut(writer) += 1;
    }

    /// Replaces the tracers of an operation, and makes the map's operations look for them.
    ///
    /// Operations that are under way do not see the change, see
    /// [`crate::bpf::rcu::synchronize_programs`].
    pub(crate) fn publish(
        &self,
        map: &Map,
        trace_type: TraceType,
        tracers: Unpublished<Tracers>,
        writer: &mut Writer,
    ) {
        self.operations[trace_type as usize].replace(tracers, writer);
        self.count_change(writer);
        self.mark_traced(map, writer);
        // For a sync tracer this is done at the end of the attach.
        if trace_type != TraceType::SyncElem {
            self.call_worker();
        }
    }

    /// Makes the worker look at marks that were given up.
    fn call_worker(&self) {
        if let Some(sync) = self.live_sync() {
            sync.kick_in_turn();
        }
    }

    /// Sets for each operation whether the map has tracers that it has to run.
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
    /// This cannot fail: without memory for a shorter array they stay in the array, and do nothing,
    /// until the next change.
    pub(crate) fn remove_stopped(&self, map: &Map, trace_type: TraceType, writer: &mut Writer) {
        self.mark_traced(map, writer);
        self.count_change(writer);
        self.call_worker();

        let old = self.peek(trace_type, writer);
        if let Ok(tracers) = live(old).and_then(Unpublished::new) {
            self.operations[trace_type as usize].replace(tracers, writer);
        }
    }
}

/// Returns the index that a new tracer gets in an array.
///
/// Errors: [`ENOENT`] if what it goes beside is not there.
fn index_of(tracers: &Tracers, place: Place) -> Result<usize> {
    let guard = rcu::read_lock();
    let is = |tracer: &Tracer, peer| match peer {
        Peer::Link(id) => tracer.link_id() == id,
        Peer::Prog(id) => tracer.prog_id(ReadSide::from(&guard)) == id,
    };

    match place {
        Place::First => Some(0),
        Place::Last => Some(tracers.len()),
        Place::Before(peer) => tracers.iter().position(|tracer| is(tracer, peer)),
        Place::After(peer) => tracers
            .iter()
            .enumerate()
            .filter(|(_, tracer)| is(tracer, peer))
            .last()
            .map(|(index, _)| index + 1),
    }
    .ok_or(ENOENT)
}

/// Copies an array without the tracers that have stopped, and with room for one more.
fn live(old: &Tracers) -> Result<Tracers> {
    let mut new = Tracers::with_capacity(old.len() + 1)?;

    for tracer in old.references().filter(|tracer| tracer.is_live()) {
        new.push(tracer.into())?;
    }
    Ok(new)
}
