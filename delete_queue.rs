// SPDX-License-Identifier: GPL-2.0

//! The queue of deletes: the keys that an LRU map has evicted, until the delete tracers have run.
//!
//! An element is evicted under the locks of the map, and its memory can get another key the next
//! moment. The key is therefore copied here. The operation that has evicted the element traces some
//! of the keys, before its own tracers, and the [`crate::worker`] traces the rest.

use crate::{
    bpf::{
        context::{is_nested, PreemptGuard},
        deferred::Deferred,
        key_slots::{KeySlots, TakenKey},
        map::{Map, TraceType},
        operation::Eviction,
        rcu::ReadSide,
    },
    helpers::run_tracers,
    sync,
    tracer_list::TracerList,
};
use kernel::{prelude::*, sync::rcu};

/// How many keys can wait for each CPU: two refills of the CPU's free list (`LOCAL_FREE_TARGET` in
/// `kernel/bpf/bpf_lru_list.c`).
pub(crate) const KEYS_PER_CPU: u32 = 2 * 128;

/// How many keys an operation traces. On average it evicts one, and it must not pay for a whole
/// refill.
const KEYS_PER_OPERATION: usize = 8;

/// The evicted keys of a map.
pub(crate) struct DeleteQueue(KeySlots);

impl DeleteQueue {
    /// Creates an empty queue.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Pin<KBox<Deferred<Self>>>> {
        let queue = Self(KeySlots::new(map, KEYS_PER_CPU)?);

        // SAFETY: It goes into the list of the map, which is freed before the map is.
        unsafe { Deferred::new(map, queue) }
    }

    /// Takes a key out of the part of a CPU.
    #[inline(always)]
    pub(crate) fn take(&self, cpu: u32) -> Option<TakenKey<'_>> {
        self.0.take(cpu)
    }
}

/// Queues the key of an element that is being evicted.
///
/// Context: any, NMI included, under locks of the map.
pub(crate) fn evicted(eviction: Eviction<'_>) {
    let Some(list) = eviction.map().tracers() else {
        return;
    };
    if let Some(sync) = list.live_sync() {
        sync::evicted(&eviction, list, sync);
    }
    let Some(queue) = list.delete_queue() else {
        return;
    };

    // SAFETY: The slots in the list of a map were made for it.
    if unsafe { eviction.leave(&queue.data().0) } {
        // Kick even if this operation is going to take the key: an operation that fails after it
        // has evicted does not get that far.
        queue.kick();
    } else {
        count_missed(list);
    }
}

/// Counts a key for which there was no room as missed.
#[cold]
#[inline(never)]
fn count_missed(list: &TracerList) {
    let rcu = rcu::Guard::new();
    let rcu = ReadSide::from(&rcu);

    for tracer in list.read(TraceType::DeleteElem, rcu).iter() {
        tracer.count_missed(rcu);
    }
}

/// Traces some of the keys of this CPU, after an update that may have evicted them. If the caller
/// calls this for each of several CPUs, `turn` is the CPU of the current call.
///
/// Context: any, NMI included.
#[inline(always)]
pub(crate) fn trace_some(list: &TracerList, map: &Map, turn: Option<u32>, rcu: ReadSide<'_>) {
    if let Some(queue) = list.delete_queue() {
        trace_some_of(list, queue, map, turn, rcu);
    }
}

#[inline(never)]
fn trace_some_of(
    list: &TracerList,
    queue: &Deferred<DeleteQueue>,
    map: &Map,
    turn: Option<u32>,
    rcu: ReadSide<'_>,
) {
    let Some(cpu) = whose_turn(&queue.data().0, turn) else {
        return;
    };

    for _ in 0..KEYS_PER_OPERATION {
        let Some(key) = queue.data().take(cpu) else {
            return;
        };
        trace(list, map, key, cpu, rcu);
    }
}

/// Returns this CPU, if keys wait for it and this call has to take them. A caller that calls this
/// for each of several CPUs takes them only once. A tracer does not take them: that could be
/// recursion, and the worker can take them instead.
#[inline(always)]
pub(crate) fn whose_turn(slots: &KeySlots, turn: Option<u32>) -> Option<u32> {
    let preempt = PreemptGuard::new();
    let cpu = preempt.cpu();

    (slots.any_waits(cpu) && turn.is_none_or(|turn| turn == cpu) && !is_nested(&preempt))
        .then_some(cpu)
}

/// Runs the delete tracers for a key that was evicted on `cpu`.
#[cold]
#[inline(never)]
pub(crate) fn trace(list: &TracerList, map: &Map, key: TakenKey<'_>, cpu: u32, rcu: ReadSide<'_>) {
    // SAFETY: The list is that of the map, and so are the slots in it.
    let eviction = unsafe { Eviction::of_taken(map, &key) };

    run_tracers(list, &mut eviction.context(), Some(cpu), rcu);
}
