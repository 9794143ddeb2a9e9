// SPDX-License-Identifier: GPL-2.0

//! Sync: the tracers of states are told of a key until what they were told last is what is there.
//!
//! An operation counts after it has changed the map, and then runs the tracers. Where another one
//! has counted meanwhile, theirs may have run in the other order: the key is rechecked, which is to
//! count, to look it up, and to run the tracers with what is there, until nobody has counted
//! meanwhile. What cannot be settled at once waits for the [`crate::worker`]. `model/recheck.pml`
//! and `model/queue.pml` are the models of this.

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

/// How many keys wait for each CPU, as those of [`crate::delete_queue`].
pub(crate) const KEYS_PER_CPU: u32 = delete_queue::KEYS_PER_CPU;

/// How many of them an operation rechecks: it evicts one on average.
const KEYS_PER_OPERATION: usize = 8;

/// How often a key is rechecked on the spot. Then it is left to the worker.
pub(crate) const ROUNDS: usize = 4;

/// How many keys are read from a map at once, and how many bytes they may take.
const KEYS_AT_ONCE: u32 = 128;
const BYTES_AT_ONCE: u32 = 64 << 10;

/// What a map has for its tracers of states.
#[pin_data]
pub(crate) struct MapSync {
    counters: Counters,
    queue: KeySlots,
    /// Of maps whose elements can be marked.
    marks: Option<Pin<KBox<MapMarks>>>,
    is_live: AtomicFlag,
    /// All elements have to be rechecked.
    reread: AtomicFlag,
    /// Some tracer has lost a key, and nobody was told.
    has_lost: AtomicFlag,
    /// How many keys the last round of the worker could not settle.
    pending: Atomic<i64>,
    /// How many of them wait in the queue.
    left: Atomic<i64>,
    /// How long the worker rests now, in milliseconds.
    pause: Atomic<u32>,
    #[pin]
    worker: Mutex<Worker>,
    /// Shared with the links: who waits for news outlives neither the file of a link nor this.
    news: Arc<PollCondVar>,
}

/// What the worker has for itself.
pub(crate) struct Worker {
    pub(crate) buffers: Buffers,
    /// When to go through all elements again.
    pub(crate) pace: Pace,
}

/// Room for who rechecks many keys, in process context.
pub(crate) struct Buffers {
    /// Keys that were read from the map.
    pub(crate) keys: KeyBuffer,
    /// The value of one of them.
    pub(crate) value: KVVec<u64>,
}

impl Buffers {
    /// Makes room for keys and a value of `map`.
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

/// Which tracers are told.
#[derive(Clone, Copy)]
pub(crate) enum Whom<'a> {
    /// All of the map.
    All,
    /// Those that are told what was there before them.
    InReplay,
    /// One.
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

/// How a recheck has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What the tracers were told last is what is there.
    Settled,
    /// They were told, and something else was done to the key meanwhile.
    Overtaken,
    /// They were not told: the element went away each time that its value was read.
    Unread,
    /// A tracer was not run, or could not follow.
    Failed,
}

impl MapSync {
    /// Creates it.
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
        // SAFETY: It goes into the list of the map, which is freed before the map is, and when no
        // program can reach that any more; or nowhere, and then nothing is marked.
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

    /// Whether the map has tracers of states now.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        self.is_live.load(Acquire)
    }

    /// Says whether the map has tracers of states. The caller holds the lock of the writers.
    pub(crate) fn set_live(&self, live: bool) {
        self.is_live.store(live, Release);
        if let Some(marks) = self.marks() {
            marks.set_wanted(live);
        }
    }

    /// The marks of the elements, where they can have some.
    pub(crate) fn marks(&self) -> Option<&MapMarks> {
        self.marks.as_deref()
    }

    /// Looks at marks again, if they were given up. The caller kicks the worker.
    pub(crate) fn trust_tracers(&self) {
        if let Some(marks) = self.marks() {
            marks.trust_tracers();
        }
    }

    /// The keys that wait.
    pub(crate) fn queue(&self) -> &KeySlots {
        &self.queue
    }

    /// What the worker has for itself.
    pub(crate) fn worker(&self) -> &Mutex<Worker> {
        &self.worker
    }

    /// What is waited for by poll(2).
    pub(crate) fn news(&self) -> &Arc<PollCondVar> {
        &self.news
    }

    /// Whether there are news: asked for once.
    pub(crate) fn take_has_lost(&self) -> bool {
        self.has_lost.xchg(false, Full)
    }

    /// Whether all elements have to be rechecked: asked for once.
    pub(crate) fn take_reread(&self) -> bool {
        self.reread.xchg(false, Full)
    }

    /// Whether all elements have to be rechecked.
    pub(crate) fn wants_reread(&self) -> bool {
        self.reread.load(Relaxed)
    }

    /// How many keys the last round has left in the queue.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Relaxed) as u64
    }

    /// Notes how many keys a round has left in the queue.
    pub(crate) fn set_left(&self, left: u64) {
        self.left.store(left as i64, Relaxed);
    }

    /// How many keys the last round could not settle.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Relaxed) as u64
    }

    /// Notes how many keys a round could not settle.
    pub(crate) fn set_pending(&self, pending: u64) {
        self.pending.store(pending as i64, Relaxed);
    }

    /// How long the worker rests from keys that it could not settle.
    pub(crate) fn pause(&self) -> Msecs {
        self.pause.load(Relaxed)
    }

    /// Changes that.
    pub(crate) fn set_pause(&self, pause: Msecs) {
        self.pause.store(pause, Relaxed);
    }

    /// Has the next round recheck all elements.
    pub(crate) fn want_reread(&self) {
        self.reread.store(true, Release);
    }

    /// Counts for all keys.
    pub(crate) fn count_all(&self) {
        self.counters.count_all();
    }

    fn counter(&self, key: *mut c_void) -> &Counter {
        // SAFETY: Who has a key of the map keeps it.
        unsafe { self.counters.of(key) }
    }
}

/// Does `operation`, and has all tracers told.
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

/// The same where tracers of states get another key than the map: two that it takes for one are one
/// to them.
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

/// Does `operation`, and has tracers of states told as if it were `told`.
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
    // Most often there are none of operations beside.
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

/// Has the tracers told of an operation that was done where nobody could count before it. `updated`
/// is whose value that was, where each CPU has one, and `turn`, where the caller comes by for each.
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

/// Does `operation` where no tracer can run, and leaves it to the worker.
///
/// The key is copied before: a delete can let go of the memory that it is in.
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

/// The same where no key can wait any more. What is there then is found by who goes through all
/// elements.
#[cold]
#[inline(never)]
fn perform_without_room<O: Operation>(operation: O, sync: &Deferred<MapSync>) -> c_long {
    let map = operation.map();
    let err = operation.perform();

    if err == 0 {
        // It may have been another key than what is there now.
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

/// Has the worker look at the marks of a map.
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

/// Whether a tracer of states of this list has led to this.
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
    // Most often none wait. If this moves to another CPU, then those of this one wait a little longer.
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

    // One that fails is put back, and not to be taken again.
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
    /// Where the key was changed, if that is known.
    pub(crate) cpu: Option<u32>,
    /// Whose value was changed, where each CPU has one, and it was one alone: for one round.
    pub(crate) value_of: Option<u32>,
}

impl<'a> Recheck<'a> {
    /// One for all tracers.
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

    /// Rechecks a key where an operation is done.
    ///
    /// Context: any, NMI included.
    #[cold]
    #[inline(never)]
    fn run_on_spot(&self, key: *mut c_void, reason: Reason, rounds: usize) -> Outcome {
        // Whoever is interrupted here, or calls, may hold the lock in the value.
        if self.map.has_locked_values() {
            return Outcome::Failed;
        }
        // A round is a run for each CPU. And where one value alone was changed, it is not the only
        // one that a second round would have to tell.
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

    /// The same with a copy on the stack.
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

    /// Tells the tracers what is there, `rounds` times at most.
    ///
    /// A caller that leaves the key to somebody else afterwards holds RCU over both: a flush waits
    /// for that, too.
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
        // Copy, tracers, check and the next round share a section: a flush waits for them.
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

    /// Runs the tracers once for each value of the key. Returns whether they could follow, nothing
    /// where the element went away while its value was read.
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
                // One run for all, unless the others were told that there is something.
                return (!is_there).then(|| self.run_with(key, value, reason, self.cpu, rcu));
            }
            is_there = true;
            all &= self.run_with(key, value, reason, Some(cpu.number()), rcu);
        }
        Some(all)
    }

    /// Copies a value of the key; null where it is not in the map. Nothing where the element went
    /// away meanwhile.
    ///
    /// Errors: [`ENOSPC`] where there is no room for it.
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
        // SAFETY: It comes from there, and RCU is held.
        let copy = unsafe { room.copy(self.map, found) };

        // SAFETY: As above.
        (unsafe { self.map.lookup(key, cpu, rcu) } == found).then(|| copy.ok_or(ENOSPC))
    }

    /// Runs the tracers with a value of the key, or null.
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

/// Leaves a key to the worker. It is of the map, and was counted. Where it cannot wait, it is told
/// on the spot, in so many `rounds`.
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

/// Whether a key of a map is in it.
pub(crate) fn is_element(map: &Map, key: *mut c_void) -> bool {
    let rcu = rcu::Guard::new();

    // SAFETY: It is a key of the map.
    !unsafe { map.lookup(key, ValueCpu::ANY, ReadSide::from(&rcu)) }.is_null()
}

/// A key is not told to anybody, and who waits for that is to be told soon.
#[cold]
#[inline(never)]
fn lose(list: &TracerList, sync: &Deferred<MapSync>, map: &Map) {
    if !sync.data().lose(list, map) {
        sync.kick();
    }
}

impl MapSync {
    /// Keeps a key for the next round of the worker.
    pub(crate) fn keep(&self, list: &TracerList, map: &Map, key: *mut c_void) {
        if !self.try_keep(map, key) {
            // The worker, which calls this, tells of it.
            let _ = self.lose(list, map);
        }
    }

    /// The same. Returns whether that works: not for a key that is not in the map, and for which
    /// there is no room.
    fn try_keep(&self, map: &Map, key: *mut c_void) -> bool {
        // The last slots are for those that have no element.
        if self.queue.is_crowded() && self.keep_with_all(map, key) {
            return true;
        }
        // SAFETY: The slots in the list of a map were made for it.
        unsafe { self.queue.put_once(key) || self.keep_with_all(map, key) }
    }

    /// Has the key rechecked with all others, if it is in the map.
    fn keep_with_all(&self, map: &Map, key: *mut c_void) -> bool {
        if !is_element(map, key) {
            return false;
        }
        // If it is deleted before, then by somebody who tells it.
        self.want_reread();
        true
    }

    /// A key is not told to anybody. Returns whether there were such news already.
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
