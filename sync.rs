// SPDX-License-Identifier: GPL-2.0

//! Sync tracers: reports each key until the last report had what the map holds.
//!
//! An operation changes the map, increments the counter of its key, and then runs the tracers. If
//! another operation has incremented the counter meanwhile, the tracers of the two may have run in
//! the opposite order. The key is then rechecked: increment the counter, look the key up, and run
//! the tracers with what is there, until nobody has incremented the counter meanwhile. A key that
//! cannot be settled at once waits for the [`crate::worker`]. `model/recheck.pml` and
//! `model/queue.pml` are the models of this. `Documentation/contract.rst` defines the terms.

use crate::{
    bpf::{
        context::{cpu_hint, is_led_by, CookieFirst, PreemptGuard},
        counters::{Counter, Counters},
        deferred::Deferred,
        key_slots::KeySlots,
        map::{KeyBuffer, Map, TraceType, ValueCpu},
        operation::{state_of, Eviction, Operation, PrefixRoom, Reason},
        rcu::ReadSide,
        scratch::{Room, StackRoom, ValueRoom, LITTLE_STACK, MUCH_STACK},
        stack,
    },
    delete_queue::{self, whose_turn},
    helpers::{run_tracers, run_tracers_of},
    marks::MapMarks,
    pace::Pace,
    tracer::Tracer,
    tracer_list::TracerList,
};
use core::{ffi::c_void, ptr};
use kernel::{
    alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN},
    ffi::c_long,
    new_mutex, new_poll_condvar,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, AtomicFlag, Full, Relaxed, Release},
        poll::PollCondVar,
        rcu,
        Arc,
        Mutex, //
    },
    time::Msecs,
};

/// How many keys can wait for each CPU, as in [`crate::delete_queue`].
pub(crate) const KEYS_PER_CPU: u32 = delete_queue::KEYS_PER_CPU;

/// How many of them an operation rechecks. On average it evicts one.
const KEYS_PER_OPERATION: usize = 8;

/// How often an operation rechecks its key before it leaves the key to the worker.
pub(crate) const ROUNDS: usize = 4;

/// How many keys are read from a map at once, and how many bytes they may take in total.
const KEYS_AT_ONCE: u32 = 128;
const BYTES_AT_ONCE: u32 = 64 << 10;

/// The data of a map that has sync tracers.
#[pin_data]
pub(crate) struct MapSync {
    counters: Counters,
    queue: KeySlots,
    /// Only for maps whose elements can be marked.
    marks: Option<Pin<KBox<MapMarks>>>,
    is_live: AtomicFlag,
    /// All elements have to be rechecked.
    reread: AtomicFlag,
    /// A tracer has lost a key, and nobody who polls was woken yet.
    has_lost: AtomicFlag,
    /// Number of keys that the last round of the worker could not settle.
    pending: Atomic<i64>,
    /// Number of these keys that wait in the queue.
    left: Atomic<i64>,
    /// The current pause of the worker, in milliseconds.
    pause: Atomic<u32>,
    #[pin]
    worker: Mutex<Worker>,
    /// Shared with the links: a waiter outlives neither the file of a link nor this.
    news: Arc<PollCondVar>,
}

/// The data that only the worker uses.
pub(crate) struct Worker {
    pub(crate) buffers: Buffers,
    /// When to walk all elements again.
    pub(crate) pace: Pace,
}

/// Buffers for rechecking many keys in process context.
pub(crate) struct Buffers {
    /// Keys that were read from the map.
    pub(crate) keys: KeyBuffer,
    /// Room for the value of one of them.
    pub(crate) value: KVVec<u64>,
}

impl Buffers {
    /// Allocates room for keys and a value of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Self> {
        let words = (map.value_size() as usize).div_ceil(size_of::<u64>());

        Ok(Self {
            keys: KeyBuffer::new(map, keys_at_once(map))?,
            value: KVVec::from_elem(0, words, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?,
        })
    }
}

fn keys_at_once(map: &Map) -> u32 {
    (BYTES_AT_ONCE / map.key_size()).clamp(1, KEYS_AT_ONCE)
}

/// Which tracers run.
#[derive(Clone, Copy)]
pub(crate) enum Whom<'a> {
    /// All sync tracers of the map.
    All,
    /// Those whose replay is under way.
    InReplay,
    /// A single one.
    Only(&'a Tracer),
}

impl Whom<'_> {
    fn includes(self, tracer: &Tracer) -> bool {
        match self {
            Self::All => true,
            Self::InReplay => tracer.is_in_replay(),
            Self::Only(only) => ptr::eq(tracer, only),
        }
    }
}

/// The result of a recheck.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The last report had what the map holds.
    Settled,
    /// The tracers ran, but the key was changed meanwhile.
    Overtaken,
    /// The tracers did not run: the element went away each time that its value was read.
    Unread,
    /// A tracer was not run, or has failed.
    Failed,
}

impl MapSync {
    /// Allocates the data for the sync tracers of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Pin<KBox<Deferred<Self>>>> {
        let counters = Counters::new(map)?;
        let queue = KeySlots::new(map, KEYS_PER_CPU)?;
        let worker = Worker {
            buffers: Buffers::new(map)?,
            pace: Pace::new(),
        };
        // SAFETY: It goes into the list of the map, which is freed before the map is.
        let marks = unsafe { MapMarks::new(map)? };
        let news = Arc::pin_init(new_poll_condvar!(), GFP_KERNEL_ACCOUNT)?;
        let sync = pin_init!(Self {
            counters,
            queue,
            marks,
            is_live: AtomicFlag::new(false),
            reread: AtomicFlag::new(false),
            has_lost: AtomicFlag::new(false),
            pending: Atomic::new(0),
            left: Atomic::new(0),
            pause: Atomic::new(0),
            worker <- new_mutex!(worker),
            news,
        });

        // SAFETY: It goes into the list of the map, which is freed before the map is.
        unsafe { Deferred::new(map, sync) }
    }

    /// Returns whether the map has sync tracers now.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        self.is_live.load(Acquire)
    }

    /// Sets whether the map has sync tracers. The caller holds the lock of the writers.
    pub(crate) fn set_live(&self, live: bool) {
        self.is_live.store(live, Release);
        if let Some(marks) = self.marks() {
            marks.set_wanted(live);
        }
    }

    /// Returns the marks of the elements, if they can have marks.
    pub(crate) fn marks(&self) -> Option<&MapMarks> {
        self.marks.as_deref()
    }

    /// Lets the worker look at marks again, if it has given them up. The caller kicks the worker.
    pub(crate) fn trust_tracers(&self) {
        if let Some(marks) = self.marks() {
            marks.trust_tracers();
        }
    }

    /// Returns the queue of keys that wait.
    pub(crate) fn queue(&self) -> &KeySlots {
        &self.queue
    }

    /// Returns the data of the worker.
    pub(crate) fn worker(&self) -> &Mutex<Worker> {
        &self.worker
    }

    /// Returns what poll(2) waits for.
    pub(crate) fn news(&self) -> &Arc<PollCondVar> {
        &self.news
    }

    /// Returns whether a key was lost since the last call.
    pub(crate) fn take_has_lost(&self) -> bool {
        self.has_lost.xchg(false, Full)
    }

    /// Returns whether all elements have to be rechecked, and clears the request.
    pub(crate) fn take_reread(&self) -> bool {
        self.reread.xchg(false, Full)
    }

    /// Returns whether all elements have to be rechecked.
    pub(crate) fn wants_reread(&self) -> bool {
        self.reread.load(Relaxed)
    }

    /// Returns how many keys the last round has left in the queue.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Relaxed) as u64
    }

    /// Sets how many keys a round has left in the queue.
    pub(crate) fn set_left(&self, left: u64) {
        self.left.store(left as i64, Relaxed);
    }

    /// Returns how many keys the last round could not settle.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Relaxed) as u64
    }

    /// Sets how many keys a round could not settle.
    pub(crate) fn set_pending(&self, pending: u64) {
        self.pending.store(pending as i64, Relaxed);
    }

    /// Returns the pause of the worker before it retries keys that it could not settle.
    pub(crate) fn pause(&self) -> Msecs {
        self.pause.load(Relaxed)
    }

    /// Sets this pause.
    pub(crate) fn set_pause(&self, pause: Msecs) {
        self.pause.store(pause, Relaxed);
    }

    /// Requests that the next round rechecks all elements.
    pub(crate) fn want_reread(&self) {
        self.reread.store(true, Release);
    }

    /// Increments the counters of all keys.
    pub(crate) fn count_all(&self) {
        self.counters.count_all();
    }

    fn counter(&self, key: *mut c_void) -> &Counter {
        // SAFETY: The caller keeps its key of the map.
        unsafe { self.counters.of(key) }
    }
}

/// Does `operation`, and runs all tracers.
///
/// Context: any, NMI included.
#[inline(always)]
pub(crate) fn perform<O: Operation>(
    operation: O,
    list: &TracerList,
    sync: &Deferred<MapSync>,
    rcu: ReadSide<'_>,
) -> c_long {
    if operation.map().has_prefix_keys() {
        return perform_on_prefix(operation, list, sync, rcu);
    }
    perform_and_tell(operation, operation, list, sync, rcu)
}

/// Like [`perform`], if sync tracers get another key than the map: keys that are equal to the map
/// are the same key to them.
#[inline(never)]
fn perform_on_prefix<O: Operation>(
    operation: O,
    list: &TracerList,
    sync: &Deferred<MapSync>,
    rcu: ReadSide<'_>,
) -> c_long {
    let mut room = PrefixRoom::new();

    match operation.normalize(&mut room) {
        Some(told) => perform_and_tell(operation, told, list, sync, rcu),
        None => operation.perform(),
    }
}

/// Does `operation`, and runs the sync tracers as if it were `told`.
#[inline(always)]
fn perform_and_tell<O: Operation, T: Operation>(
    operation: O,
    told: T,
    list: &TracerList,
    sync: &Deferred<MapSync>,
    rcu: ReadSide<'_>,
) -> c_long {
    let counter = sync.data().counter(told.key());
    let before = counter.read();
    let err = operation.perform();

    if err != 0 {
        return err;
    }
    let count = counter.count();

    if O::MAY_EVICT {
        delete_queue::trace_some(list, operation.map(), None, rcu);
        recheck_some(list, sync, operation.map(), None);
    }
    // Most often there are no event tracers beside the sync tracers.
    if list.read(O::TYPE, rcu).iter().next().is_some() {
        run_event_tracers(operation, list, rcu);
    }
    if !run_tracers_of(list, &mut told.state(), None, rcu, |_| true) {
        leave(list, sync, told.map(), told.key(), ROUNDS);
    } else if count != before.wrapping_add(1) || !counter.is_still(count) {
        settle(list, sync, &told, Reason::Recheck, None);
    }
    0
}

#[inline(never)]
fn run_event_tracers<O: Operation>(operation: O, list: &TracerList, rcu: ReadSide<'_>) {
    run_tracers(list, &mut operation.context(), None, rcu);
}

/// Reports an operation whose caller could not read the counter before it. In a map with a value
/// for each CPU, `updated` is the CPU whose value was changed. `turn` is that CPU if the caller
/// calls this for each of several CPUs.
///
/// Context: any.
#[cold]
#[inline(never)]
pub(crate) fn told_late<O: Operation>(
    operation: &O,
    list: &TracerList,
    sync: &Deferred<MapSync>,
    updated: Option<u32>,
    turn: Option<u32>,
) {
    if O::MAY_EVICT {
        recheck_some(list, sync, operation.map(), turn);
    }
    let mut room = PrefixRoom::new();

    match operation.normalize(&mut room) {
        Some(told) => settle(list, sync, &told, Reason::Operation, updated),
        None => settle(list, sync, operation, Reason::Operation, updated),
    }
}

/// Does `operation` in a context in which no tracer can run, and leaves the key to the worker.
///
/// The key is copied before the operation: a delete can release the memory that holds it.
///
/// Context: any, NMI included, with little of the stack left.
#[cold]
#[inline(never)]
pub(crate) fn perform_only<O: Operation>(operation: O, sync: &Deferred<MapSync>) -> c_long {
    let MapSync {
        counters, queue, ..
    } = sync.data();

    // SAFETY: The slots in the list of a map were made for it.
    let Some(key) = (unsafe { queue.claim(operation.key()) }) else {
        return perform_without_room(operation, sync);
    };
    // SAFETY: It is a copy of the key, and stays as long as `key`.
    let err = unsafe { operation.with_key(key.as_ptr()) }.perform();

    if err == 0 {
        // SAFETY: Nobody else uses the copy.
        unsafe {
            operation.map().normalize_key(key.as_ptr());
            counters.of(key.as_ptr()).count();
        }
        // As in `try_keep()`.
        if !queue.is_crowded() || !sync.data().keep_with_all(operation.map(), key.as_ptr()) {
            key.publish_once();
        }
        sync.kick_in_turn();
    }
    err
}

/// Like [`perform_only`], if the queue is full. A pass over all elements finds what is in the map
/// afterwards.
#[cold]
#[inline(never)]
fn perform_without_room<O: Operation>(operation: O, sync: &Deferred<MapSync>) -> c_long {
    let map = operation.map();
    let err = operation.perform();

    if err == 0 {
        // The operation may have released its key: count for all.
        sync.data().count_all();
        match O::TYPE {
            TraceType::UpdateElem => sync.data().want_reread(),
            _ => {
                if let Some(list) = map.tracers() {
                    lose(list, sync, map);
                }
            }
        }
        sync.kick_in_turn();
    }
    err
}

/// Queues the key of an element that is being evicted.
///
/// Context: any, NMI included, under locks of the map.
pub(crate) fn evicted(eviction: &Eviction<'_>, list: &TracerList, sync: &Deferred<MapSync>) {
    // SAFETY: The slots in the list of a map were made for it.
    if !unsafe { eviction.leave(&sync.data().queue) } {
        lose(list, sync, eviction.map());
    }
    sync.kick_in_turn();
}

/// Makes the worker look at the marks of a map.
///
/// Context: any, NMI included.
pub(crate) fn marked(map: &Map) {
    let Some(list) = map.tracers() else {
        return;
    };
    let Some(sync) = list.live_sync() else {
        return;
    };

    if let Some(marks) = sync.data().marks() {
        if !is_led_by_tracer(list) {
            marks.end_turns();
        } else if marks.count_own() {
            lose(list, sync, map);
        }
    }
    sync.kick_in_turn();
}

/// Returns whether a sync tracer of this list has caused the current operation.
fn is_led_by_tracer(list: &TracerList) -> bool {
    let rcu = rcu::Guard::new();
    let preempt = PreemptGuard::new();
    let tracers = list.read(TraceType::SyncElem, ReadSide::from(&rcu));

    is_led_by(&preempt, |id| {
        tracers.iter().any(|tracer| tracer.id() == id)
    })
}

/// Rechecks the key of an operation, or leaves it to the worker.
fn settle<O: Operation>(
    list: &TracerList,
    sync: &Deferred<MapSync>,
    operation: &O,
    reason: Reason,
    updated: Option<u32>,
) {
    let (map, key) = (operation.map(), operation.key());

    let recheck = Recheck {
        value_of: updated,
        ..Recheck::of_all(list, sync.data(), map)
    };

    if recheck.run_on_spot(key, reason, ROUNDS) != Outcome::Settled {
        leave(list, sync, map, key, 0);
    }
}

/// Rechecks some of the keys that wait for this CPU, once each.
#[inline(always)]
fn recheck_some(list: &TracerList, sync: &Deferred<MapSync>, map: &Map, turn: Option<u32>) {
    // Most often no keys wait. If the task migrates here, the keys of this CPU wait a little
    // longer.
    if sync.data().queue().any_waits(cpu_hint()) {
        recheck_some_of(list, sync, map, turn);
    }
}

#[cold]
#[inline(never)]
fn recheck_some_of(list: &TracerList, sync: &Deferred<MapSync>, map: &Map, turn: Option<u32>) {
    let Some(cpu) = whose_turn(sync.data().queue(), turn) else {
        return;
    };
    let recheck = Recheck {
        cpu: Some(cpu),
        ..Recheck::of_all(list, sync.data(), map)
    };

    let reason = if map.evicts() {
        Reason::Eviction
    } else {
        Reason::Recheck
    };

    // A key that fails is put back, and must not be taken again in this loop.
    for _ in 0..sync.data().queue.waiting(cpu).min(KEYS_PER_OPERATION) {
        let Some(key) = sync.data().queue.take(cpu) else {
            return;
        };

        match recheck.run_on_spot(key.as_ptr(), reason, 1) {
            Outcome::Settled => drop(key),
            _ => {
                key.put_back();
                sync.kick_in_turn();
            }
        }
    }
}

/// How keys of a map are rechecked.
pub(crate) struct Recheck<'a> {
    pub(crate) list: &'a TracerList,
    pub(crate) sync: &'a MapSync,
    pub(crate) map: &'a Map,
    pub(crate) whom: Whom<'a>,
    /// The CPU on which the key was changed, if that is known.
    pub(crate) cpu: Option<u32>,
    /// The CPU whose value was changed, if it was the value of one CPU only. Valid for one round.
    pub(crate) value_of: Option<u32>,
}

impl<'a> Recheck<'a> {
    /// Creates a recheck for all sync tracers.
    pub(crate) fn of_all(list: &'a TracerList, sync: &'a MapSync, map: &'a Map) -> Self {
        Self {
            list,
            sync,
            map,
            whom: Whom::All,
            cpu: None,
            value_of: None,
        }
    }

    /// Rechecks a key in the context of an operation.
    ///
    /// Context: any, NMI included.
    #[cold]
    #[inline(never)]
    fn run_on_spot(&self, key: *mut c_void, reason: Reason, rounds: usize) -> Outcome {
        // The interrupted context, or the caller, may hold the lock in the value.
        if self.map.has_locked_values() {
            return Outcome::Failed;
        }
        // A round is one run for each CPU. If only one value was changed, a second round would have
        // to report the others as well.
        let rounds = if self.map.has_value_for_each_cpu() {
            rounds.min(1)
        } else {
            rounds
        };

        match self.map.value_size() as usize {
            0..=LITTLE_STACK => self.run_on_stack::<LITTLE_STACK>(key, reason, rounds),
            0..=MUCH_STACK if stack::is_half_free() => {
                self.run_on_stack::<MUCH_STACK>(key, reason, rounds)
            }
            _ => self.run_in(self.list.scratch().slot_for_value(), key, reason, rounds),
        }
    }

    /// Like [`Recheck::run_on_spot`], with a copy of the value on the stack.
    #[inline(never)]
    fn run_on_stack<const SIZE: usize>(
        &self,
        key: *mut c_void,
        reason: Reason,
        rounds: usize,
    ) -> Outcome {
        let mut stack = StackRoom::<SIZE>::new();
        let room = self.list.scratch().stack_for_value(&mut stack);

        self.run_in(room, key, reason, rounds)
    }

    fn run_in(
        &self,
        room: Option<Room<'_>>,
        key: *mut c_void,
        reason: Reason,
        rounds: usize,
    ) -> Outcome {
        match room {
            Some(mut room) => self.run(key, reason, rounds, &mut room.value()),
            None => Outcome::Failed,
        }
    }

    /// Reports what the map holds for a key, up to `rounds` times.
    ///
    /// A caller that afterwards leaves the key to somebody else holds RCU over both steps, because
    /// a flush has to wait for the second one, too.
    ///
    /// Context: any, NMI included.
    pub(crate) fn run(
        &self,
        key: *mut c_void,
        reason: Reason,
        rounds: usize,
        room: &mut ValueRoom<'_>,
    ) -> Outcome {
        let counter = self.sync.counter(key);
        let mut outcome = Outcome::Unread;
        // One RCU section covers copy, tracers, check and further rounds: a flush waits for them.
        let rcu = rcu::Guard::new();

        counter.count();
        for _ in 0..rounds {
            let before = counter.read();

            match self.tell(key, reason, room, ReadSide::from(&rcu)) {
                Some(true) if counter.is_still(before) => return Outcome::Settled,
                Some(true) => outcome = Outcome::Overtaken,
                Some(false) => return Outcome::Failed,
                None => {}
            }
        }
        outcome
    }

    /// Runs the tracers once for each value of the key. Returns whether all succeeded, or [`None`]
    /// if the element went away while its value was read.
    fn tell(
        &self,
        key: *mut c_void,
        reason: Reason,
        room: &mut ValueRoom<'_>,
        rcu: ReadSide<'_>,
    ) -> Option<bool> {
        if !self.map.has_value_for_each_cpu() {
            let value = self.read(key, ValueCpu::ANY, room, rcu)?;

            return Some(value.is_ok_and(|value| self.run_with(key, value, reason, self.cpu, rcu)));
        }
        let mut all = true;
        let mut is_there = false;

        for cpu in ValueCpu::all() {
            if self.value_of.is_some_and(|only| only != cpu.number()) {
                continue;
            }
            let Ok(value) = self.read(key, cpu, room, rcu)? else {
                return Some(false);
            };
            if value.is_null() {
                // One run for all CPUs, unless a value of another CPU was reported already.
                return (!is_there).then(|| self.run_with(key, value, reason, self.cpu, rcu));
            }
            is_there = true;
            all &= self.run_with(key, value, reason, Some(cpu.number()), rcu);
        }
        Some(all)
    }

    /// Copies a value of the key. Returns null if the key is not in the map, or [`None`] if the
    /// element went away meanwhile.
    ///
    /// Errors: [`ENOSPC`] if there is no room for the value.
    fn read(
        &self,
        key: *mut c_void,
        cpu: ValueCpu,
        room: &mut ValueRoom<'_>,
        rcu: ReadSide<'_>,
    ) -> Option<Result<*mut c_void>> {
        // SAFETY: It is a key of the map.
        let found = unsafe { self.map.lookup(key, cpu, rcu) };

        if found.is_null() {
            return Some(Ok(found));
        }
        // SAFETY: `found` comes from `lookup()`, and RCU is held.
        let copy = unsafe { room.copy(self.map, found) };

        // SAFETY: As above.
        (unsafe { self.map.lookup(key, cpu, rcu) } == found).then(|| copy.ok_or(ENOSPC))
    }

    /// Runs the tracers with a value of the key, or with null.
    fn run_with(
        &self,
        key: *mut c_void,
        value: *mut c_void,
        reason: Reason,
        cpu: Option<u32>,
        rcu: ReadSide<'_>,
    ) -> bool {
        let mut state = state_of(self.map, key, value, reason);

        run_tracers_of(self.list, &mut state, cpu, rcu, |tracer| {
            self.whom.includes(tracer)
        })
    }
}

/// Leaves a key to the worker. The caller has incremented the counter of the key. If the key cannot
/// wait, it is rechecked here, up to `rounds` times.
///
/// Context: any, NMI included.
#[cold]
#[inline(never)]
pub(crate) fn leave(
    list: &TracerList,
    sync: &Deferred<MapSync>,
    map: &Map,
    key: *mut c_void,
    rounds: usize,
) {
    let recheck = Recheck::of_all(list, sync.data(), map);
    let tell = || recheck.run_on_spot(key, Reason::Recheck, rounds);

    if !sync.data().try_keep(map, key) && tell() != Outcome::Settled {
        lose(list, sync, map);
    }
    sync.kick_in_turn();
}

/// Returns whether a key is in its map.
pub(crate) fn is_element(map: &Map, key: *mut c_void) -> bool {
    let rcu = rcu::Guard::new();

    // SAFETY: It is a key of the map.
    !unsafe { map.lookup(key, ValueCpu::ANY, ReadSide::from(&rcu)) }.is_null()
}

/// Counts a lost key, and makes the worker wake those who poll for that.
#[cold]
#[inline(never)]
fn lose(list: &TracerList, sync: &Deferred<MapSync>, map: &Map) {
    if !sync.data().lose(list, map) {
        sync.kick();
    }
}

impl MapSync {
    /// Queues a key for the next round of the worker.
    pub(crate) fn keep(&self, list: &TracerList, map: &Map, key: *mut c_void) {
        if !self.try_keep(map, key) {
            // The worker, which calls this, wakes those who poll.
            let _ = self.lose(list, map);
        }
    }

    /// Like [`MapSync::keep`], but returns whether it succeeded. It fails if there is no room for
    /// the key, and the key is not in the map.
    fn try_keep(&self, map: &Map, key: *mut c_void) -> bool {
        // The last slots are reserved for keys that are not in the map.
        if self.queue.is_crowded() && self.keep_with_all(map, key) {
            return true;
        }
        // SAFETY: The slots in the list of a map were made for it.
        unsafe { self.queue.put_once(key) || self.keep_with_all(map, key) }
    }

    /// Requests a recheck of all elements, if the key is in the map.
    fn keep_with_all(&self, map: &Map, key: *mut c_void) -> bool {
        if !is_element(map, key) {
            return false;
        }
        // If somebody deletes the key before that, the delete reports it.
        self.want_reread();
        true
    }

    /// Counts a lost key. Returns whether a lost key was announced already.
    #[cold]
    #[inline(never)]
    fn lose(&self, list: &TracerList, map: &Map) -> bool {
        let rcu = rcu::Guard::new();

        for tracer in list.read(TraceType::SyncElem, ReadSide::from(&rcu)).iter() {
            map.tell_lost(tracer.cookie(), tracer.count_lost());
        }
        self.has_lost.xchg(true, Full)
    }
}
