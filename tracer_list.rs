// SPDX-License-Identifier: GPL-2.0

//! The tracers of a map.
//!
//! A map gets its list with its first tracer, and keeps it until it is freed. For each operation
//! the list has an array, which readers see under RCU, without a lock, and which writers replace
//! as a whole.

use crate::{
    bpf::{
        map::{Map, TraceType},
        rcu::{RcuCell, Unpublished},
        scratch::Scratch,
    },
    tracer::Tracer,
};
use kernel::{
    prelude::*,
    sync::{rcu, Arc, GlobalGuard},
};

kernel::sync::global_lock! {
    // SAFETY: Initialized in the module initializer before first use.
    /// Serializes everything that changes what is attached where.
    ///
    /// Nobody waits for a grace period under it.
    pub(crate) unsafe(uninit) static WRITERS: Mutex<()> = ();
}

/// The right to change what is attached where.
pub(crate) type Writer = GlobalGuard<WRITERS>;

/// How many tracers a map can have for one operation.
///
/// As many as a cgroup can have programs (`BPF_CGROUP_MAX_PROGS`).
pub(crate) const MAX_TRACERS: usize = 64;

/// The tracers of one operation, in the order of their attachment.
type Tracers = KVec<Arc<Tracer>>;

/// The tracers of a map.
pub(crate) struct TracerList {
    operations: [RcuCell<Tracers, WRITERS>; TraceType::COUNT],
    scratch: Scratch,
}

impl TracerList {
    /// Creates an empty list for `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<KBox<Self>> {
        let list = Self {
            operations: TraceType::ALL.map(|_| RcuCell::new()),
            scratch: Scratch::new(map)?,
        };
        Ok(KBox::new(list, GFP_KERNEL)?)
    }

    /// Where operations copy their arguments to.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The tracers of an operation. Some of them may have stopped.
    ///
    /// Context: any.
    #[inline(always)]
    pub(crate) fn read<'a>(
        &'a self,
        trace_type: TraceType,
        rcu: &'a rcu::Guard,
    ) -> &'a [Arc<Tracer>] {
        self.operations[trace_type as usize]
            .read(rcu)
            .map_or(&[], |tracers| tracers)
    }

    /// The tracers of an operation, for a writer.
    fn peek<'a>(&'a self, trace_type: TraceType, writer: &'a Writer) -> &'a [Arc<Tracer>] {
        self.operations[trace_type as usize]
            .peek(writer)
            .map_or(&[], |tracers| tracers)
    }

    /// Adds a tracer behind the others, and lets the map's operations look for it.
    ///
    /// Operations that are under way do not see it, see
    /// [`crate::bpf::rcu::synchronize_programs`].
    ///
    /// Errors: [`E2BIG`] where the map has [`MAX_TRACERS`] already, [`ENOMEM`].
    pub(crate) fn insert(
        &self,
        map: &Map,
        trace_type: TraceType,
        tracer: Arc<Tracer>,
        writer: &mut Writer,
    ) -> Result {
        let mut tracers = self.live(trace_type, writer)?;

        if tracers.len() >= MAX_TRACERS {
            return Err(E2BIG);
        }
        tracers.push(tracer, GFP_KERNEL)?;

        let tracers = Unpublished::new(tracers)?;
        self.operations[trace_type as usize].replace(Some(tracers), writer);
        map.set_traced(trace_type, true);
        Ok(())
    }

    /// Removes the tracers that have stopped.
    ///
    /// This cannot fail: without memory for a shorter array they stay in, where they do nothing,
    /// until the next change.
    pub(crate) fn remove_stopped(&self, map: &Map, trace_type: TraceType, writer: &mut Writer) {
        let live = self
            .peek(trace_type, writer)
            .iter()
            .any(|tracer| tracer.is_live());

        if !live {
            map.set_traced(trace_type, false);
            self.operations[trace_type as usize].replace(None, writer);
        } else if let Ok(tracers) = self.live(trace_type, writer).and_then(Unpublished::new) {
            self.operations[trace_type as usize].replace(Some(tracers), writer);
        }
    }

    /// A copy of an array without the tracers that have stopped, and with room for one more.
    fn live(&self, trace_type: TraceType, writer: &Writer) -> Result<Tracers> {
        let old = self.peek(trace_type, writer);
        let mut new = KVec::with_capacity(old.len() + 1, GFP_KERNEL)?;

        for tracer in old.iter().filter(|tracer| tracer.is_live()) {
            new.push(tracer.clone(), GFP_KERNEL)?;
        }
        Ok(new)
    }
}
