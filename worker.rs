// SPDX-License-Identifier: GPL-2.0

//! The workers of a map: do what operations have left.

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

/// After what time a round follows one that has left keys: soon, and after each that has settled
/// none of them in twice the time.
const FIRST_PAUSE_MS: Msecs = 10;
const LONGEST_PAUSE_MS: Msecs = 1000;

impl Work for DeleteQueue {
    fn run(&self, map: &Map) -> Option<Msecs> {
        let list = map.tracers()?;

        for cpu in 0..nr_cpu_ids() {
            // Whoever queues more than there were has kicked again.
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
            // A program may have written into a free element that is in the map only later.
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
    /// Notes how many keys a round has left in the queue, and how many marked ones have `failed`.
    /// Returns when to try the former again.
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

/// Rechecks the keys that wait. Returns how many still do.
fn recheck_queued(sync: &MapSync, list: &TracerList, map: &Map, room: &mut ValueRoom<'_>) -> u64 {
    (0..nr_cpu_ids())
        .filter(|cpu| sync.queue().any_waits(*cpu))
        .map(|cpu| recheck_part(sync, list, map, room, cpu))
        .sum()
}

/// Rechecks the keys that wait where there is little room for more. To be called now and then by who
/// goes through all elements, as that takes long.
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

/// Rechecks the keys that wait for a CPU. Returns how many still do.
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

/// Whether there are tracers that wait to be told all that is there. Then that begins.
fn begin_replay(list: &TracerList) -> bool {
    let mut any = false;

    for_each_tracer(list, |tracer| any |= tracer.begin_replay());
    any
}

/// Rechecks all elements, for all tracers if what they have missed is to be healed, else for those
/// in replay. Adds how many could not be settled to `left`.
///
/// Errors: those of [`Parts::read_next`], [`ENOLINK`] where no tracer is left.
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

/// Does something with each tracer of states.
fn for_each_tracer(list: &TracerList, f: impl FnMut(&Tracer)) {
    let rcu = rcu::Guard::new();

    list.read(TraceType::SyncElem, ReadSide::from(&rcu))
        .iter()
        .for_each(f);
}

/// In how many tables of a map that is resized a walk of the worker may go on, each time from the
/// beginning: keys wait for it meanwhile.
const MOST_TABLES: u32 = 16;

/// The keys of a map, a part at a time.
pub(crate) struct Parts<'a> {
    map: &'a Map,
    keys: &'a mut KeyBuffer,
    pos: u64,
    /// In how many tables it was, and may be.
    tables: u32,
    most_tables: u32,
}

impl<'a> Parts<'a> {
    /// Begins with the first part. There is room for a part of a usual size in `keys`.
    pub(crate) fn new(map: &'a Map, keys: &'a mut KeyBuffer) -> Self {
        Self {
            map,
            keys,
            pos: 0,
            tables: 0,
            most_tables: u32::MAX,
        }
    }

    /// Gives up where the map is resized again and again.
    fn bounded(self) -> Self {
        Self {
            most_tables: MOST_TABLES,
            ..self
        }
    }

    /// Reads the next part; nothing behind the last one.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`], those of a lock of the map, and [`EAGAIN`] where it is [`Parts::bounded`].
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
