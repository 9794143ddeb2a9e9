// SPDX-License-Identifier: GPL-2.0

//! The workers of a map: do what operations have left undone.

use crate::{
    bpf::{
        deferred::Work,
        map::{KeyBuffer, Map, TraceType},
        operation::Reason,
        rcu::ReadSide,
        scratch::ValueRoom,
    },
    delete_queue::{self, DeleteQueue},
    marks,
    sync::{self, MapSync, Outcome, Recheck, Whom, Worker, ROUNDS},
    tracer::Tracer,
    tracer_list::TracerList,
};
use core::ffi::c_void;
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*,
    sync::rcu,
    time::{Instant, Msecs},
};

/// The pause before the next round, if a round has left keys. It starts short, and doubles after
/// each round that has settled none of them.
const FIRST_PAUSE_MS: Msecs = 10;
const LONGEST_PAUSE_MS: Msecs = 1000;

impl Work for DeleteQueue {
    fn run(&self, map: &Map) -> Option<Msecs> {
        let list = map.tracers()?;

        for cpu in 0..nr_cpu_ids() {
            // A key that is queued later kicks the work again.
            for _ in 0..delete_queue::KEYS_PER_CPU {
                let Some(key) = self.take(cpu) else {
                    break;
                };
                let rcu = rcu::Guard::new();

                delete_queue::trace(list, map, key, cpu, ReadSide::from(&rcu));
            }
        }
        None
    }
}

impl Work for MapSync {
    fn run(&self, map: &Map) -> Option<Msecs> {
        let list = map.tracers()?;
        let mut worker = self.worker().lock();
        let Worker { buffers, pace } = &mut *worker;
        let mut room = ValueRoom::in_buffer(&mut buffers.value);
        let replay = begin_replay(list);
        let heal = (replay || pace.wait().is_none()) && self.take_reread();
        let mut left = recheck_queued(self, list, map, &mut room);

        if heal || replay {
            let begin = Instant::now();
            // A program may have written into a free element that was added to the map later.
            self.count_all();

            let keys = &mut buffers.keys;
            let done = reread(self, list, map, keys, &mut room, heal, &mut left).is_ok();

            if !done && self.is_live() {
                left += 1;
                if heal {
                    self.want_reread();
                }
            }
            for_each_tracer(list, |tracer| tracer.end_replay(done));
            pace.rest_from(begin);
        }
        let marked = match self.marks() {
            Some(marks) => marks.run(self, list, map, &mut buffers.keys, &mut room),
            None => marks::Left::default(),
        };
        let reread_in = self
            .wants_reread()
            .then(|| pace.wait().unwrap_or(FIRST_PAUSE_MS));

        if self.take_has_lost() || replay {
            self.news().notify_all();
        }
        let try_again_in = self.next_round(left + marked.kept, marked.failed);

        [try_again_in, marked.wait, reread_in]
            .into_iter()
            .flatten()
            .min()
    }

    fn pause(&self) -> Msecs {
        MapSync::pause(self)
    }
}

impl MapSync {
    /// Sets how many keys a round has left in the queue, and how many marked keys have `failed`.
    /// Returns the pause before the next try of the queued keys.
    fn next_round(&self, left: u64, failed: u64) -> Option<Msecs> {
        let before = self.left();
        let pause = match self.pause() {
            _ if left == 0 => 0,
            0 => FIRST_PAUSE_MS,
            _ if left < before => FIRST_PAUSE_MS,
            pause => (2 * pause).min(LONGEST_PAUSE_MS),
        };

        self.set_left(left);
        self.set_pending(left + failed);
        self.set_pause(pause);
        (pause != 0).then_some(pause)
    }
}

/// Rechecks the keys in the queue. Returns how many are left.
fn recheck_queued(sync: &MapSync, list: &TracerList, map: &Map, room: &mut ValueRoom<'_>) -> u64 {
    (0..nr_cpu_ids())
        .filter(|cpu| sync.queue().any_waits(*cpu))
        .map(|cpu| recheck_part(sync, list, map, room, cpu))
        .sum()
}

/// Rechecks the keys of those parts of the queue that are more than half full. A walk over all
/// elements takes long, so it has to call this now and then.
pub(crate) fn relieve_queue(
    sync: &MapSync,
    list: &TracerList,
    map: &Map,
    room: &mut ValueRoom<'_>,
) {
    for cpu in 0..nr_cpu_ids() {
        if sync.queue().waiting(cpu) > sync::KEYS_PER_CPU as usize / 2 {
            recheck_part(sync, list, map, room, cpu);
        }
    }
}

/// Rechecks the keys of one CPU's part of the queue. Returns how many are left.
fn recheck_part(
    sync: &MapSync,
    list: &TracerList,
    map: &Map,
    room: &mut ValueRoom<'_>,
    cpu: u32,
) -> u64 {
    let recheck = Recheck {
        cpu: Some(cpu),
        ..Recheck::of_all(list, sync, map)
    };
    let mut left = 0;

    for index in 0..sync::KEYS_PER_CPU {
        let Some(key) = sync.queue().take_at(cpu, index) else {
            continue;
        };

        match recheck.run(key.as_ptr(), Reason::Recheck, ROUNDS, room) {
            Outcome::Settled => drop(key),
            _ => {
                key.put_back();
                left += 1;
            }
        }
    }
    left
}

/// Begins the replay of all tracers that wait for one. Returns whether there are any.
fn begin_replay(list: &TracerList) -> bool {
    let mut any = false;

    for_each_tracer(list, |tracer| any |= tracer.begin_replay());
    any
}

/// Rechecks all elements: for all tracers if `heal` is set, else for the tracers in replay. Adds
/// the number of keys that could not be settled to `left`.
///
/// Errors: those of [`Parts::read_next`], [`ENOLINK`] if no tracer is left.
fn reread(
    sync: &MapSync,
    list: &TracerList,
    map: &Map,
    keys: &mut KeyBuffer,
    room: &mut ValueRoom<'_>,
    heal: bool,
    left: &mut u64,
) -> Result {
    let (whom, reason) = if heal {
        (Whom::All, Reason::Recheck)
    } else {
        (Whom::InReplay, Reason::Replay)
    };
    let recheck = Recheck {
        whom,
        ..Recheck::of_all(list, sync, map)
    };
    let mut parts = Parts::new(map, keys).bounded();

    while let Some(keys) = parts.read_next()? {
        let mut told = 0;

        for key in keys {
            let _rcu = rcu::Guard::new();

            if recheck.run(key, reason, ROUNDS, room) != Outcome::Settled {
                sync.keep(list, map, key);
                *left += 1;
            }
            told += 1;
            if !sync.is_live() {
                return Err(ENOLINK);
            }
        }
        for_each_tracer(list, |tracer| tracer.count_replayed(told));
        relieve_queue(sync, list, map, room);
    }
    Ok(())
}

/// Calls `f` for each sync tracer.
fn for_each_tracer(list: &TracerList, f: impl FnMut(&Tracer)) {
    let rcu = rcu::Guard::new();

    list.read(TraceType::SyncElem, ReadSide::from(&rcu))
        .iter()
        .for_each(f);
}

/// How many tables of a map that is being resized a walk of the worker may enter. It starts again
/// in each of them, and keys wait for it meanwhile.
const MOST_TABLES: u32 = 16;

/// Reads the keys of a map, one part at a time.
pub(crate) struct Parts<'a> {
    map: &'a Map,
    keys: &'a mut KeyBuffer,
    pos: u64,
    /// How many tables it has entered, and may enter.
    tables: u32,
    most_tables: u32,
}

impl<'a> Parts<'a> {
    /// Starts with the first part. `keys` has room for a part of the usual size.
    pub(crate) fn new(map: &'a Map, keys: &'a mut KeyBuffer) -> Self {
        Self {
            map,
            keys,
            pos: 0,
            tables: 0,
            most_tables: u32::MAX,
        }
    }

    /// Makes the walk give up if the map is resized again and again.
    fn bounded(self) -> Self {
        Self {
            most_tables: MOST_TABLES,
            ..self
        }
    }

    /// Reads the next part. Returns [`None`] after the last one.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`], those of a lock of the map, and [`EAGAIN`] if it is [`Parts::bounded`].
    pub(crate) fn read_next(&mut self) -> Result<Option<impl Iterator<Item = *mut c_void> + '_>> {
        loop {
            let before = self.pos;
            let result = self.map.read_keys(&mut self.pos, self.keys);

            // See `rhtab_map_trace_read_keys()`; zero in other types of maps.
            if before >> u32::BITS != self.pos >> u32::BITS {
                self.tables = self.tables.saturating_add(1);
            }
            if self.tables > self.most_tables {
                return Err(EAGAIN);
            }
            match result {
                // Many keys with the same hash
                Err(ENOSPC) => *self.keys = KeyBuffer::new(self.map, 2 * self.keys.capacity())?,
                result => return Ok(result?.map(|count| self.keys.keys(count))),
            }
        }
    }
}
