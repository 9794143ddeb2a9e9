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
    sync::{self, Buffers, MapSync, Outcome, Recheck, Whom, ROUNDS},
    tracer::Tracer,
    tracer_list::TracerList,
};
use core::ffi::c_void;
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*,
    sync::rcu,
    time::{Instant, Monotonic, Msecs},
};

/// After what time a round follows one that has left keys: soon, and after each that has settled
/// none of them in twice the time.
const FIRST_PAUSE_MS: Msecs = 10;
const LONGEST_PAUSE_MS: Msecs = 1000;

/// How many times as long as it took to go through all elements the worker rests, at least: so that
/// takes a twentieth of a CPU.
const REST: i64 = 19;
/// But not longer than that.
const LONGEST_REST_MS: i64 = 60_000;

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
        let mut buffers = self.buffers().lock();
        let heal = self.take_reread();
        let replay = begin_replay(list);
        let mut left = recheck_queued(self, list, map, &mut buffers);
        let mut rest = 0;

        if heal || replay {
            let begin = Instant::<Monotonic>::now();
            let done = reread(self, list, map, &mut buffers, heal, &mut left).is_ok();

            if !done && self.is_live() {
                left += 1;
                if heal {
                    self.want_reread();
                }
            }
            for_each_tracer(list, |tracer| tracer.end_replay(done));
            rest = rest_after(begin.elapsed().as_millis());
        }
        if self.take_has_lost() || replay {
            self.news().notify_all();
        }
        self.next_round(left, rest)
    }

    fn pause(&self) -> Msecs {
        MapSync::pause(self)
    }
}

impl MapSync {
    /// Notes what a round has left after which the worker rests, and returns when to try again.
    fn next_round(&self, left: u64, rest: Msecs) -> Option<Msecs> {
        let before = self.pending();

        self.set_pending(left);
        if left == 0 {
            // The next round has nothing to do, most often, and ends the rest.
            self.set_pause(rest);
            return (rest != 0).then_some(rest);
        }
        let pause = match self.pause() {
            0 => FIRST_PAUSE_MS,
            _ if left < before => FIRST_PAUSE_MS,
            pause => (2 * pause).min(LONGEST_PAUSE_MS),
        };

        self.set_pause(pause.max(rest));
        Some(pause.max(rest))
    }
}

/// How long the worker rests after it has gone through all elements in `millis`.
fn rest_after(millis: i64) -> Msecs {
    millis.saturating_mul(REST).clamp(0, LONGEST_REST_MS) as Msecs
}

/// Rechecks the keys that wait. Returns how many still do.
fn recheck_queued(sync: &MapSync, list: &TracerList, map: &Map, buffers: &mut Buffers) -> u64 {
    let mut room = ValueRoom::in_buffer(&mut buffers.value);
    let mut left = 0;

    for cpu in 0..nr_cpu_ids() {
        if !sync.queue().any_waits(cpu) {
            continue;
        }
        let recheck = Recheck {
            list,
            sync,
            map,
            whom: Whom::All,
            cpu: Some(cpu),
            value_of: None,
        };

        for index in 0..sync::KEYS_PER_CPU {
            let Some(key) = sync.queue().take_at(cpu, index) else {
                continue;
            };

            match recheck.run(key.as_ptr(), Reason::Recheck, ROUNDS, &mut room) {
                Outcome::Settled => drop(key),
                _ => {
                    key.put_back();
                    left += 1;
                }
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
    buffers: &mut Buffers,
    heal: bool,
    left: &mut u64,
) -> Result {
    let (whom, reason) = if heal {
        (Whom::All, Reason::Recheck)
    } else {
        (Whom::InReplay, Reason::Replay)
    };
    let recheck = Recheck {
        list,
        sync,
        map,
        whom,
        cpu: None,
        value_of: None,
    };
    let mut room = ValueRoom::in_buffer(&mut buffers.value);

    let mut parts = Parts::new(map, &mut buffers.keys);

    while let Some(keys) = parts.read_next()? {
        for key in keys {
            let rcu = rcu::Guard::new();

            if recheck.run(key, reason, ROUNDS, &mut room) != Outcome::Settled {
                sync.keep(list, map, key);
                *left += 1;
            }
            drop(rcu);
            for_each_tracer(list, Tracer::count_replayed);
            if !sync.is_live() {
                return Err(ENOLINK);
            }
        }
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

/// The keys of a map, a part at a time.
pub(crate) struct Parts<'a> {
    map: &'a Map,
    keys: &'a mut KeyBuffer,
    pos: u32,
}

impl<'a> Parts<'a> {
    /// Begins with the first part. There is room for a part of a usual size in `keys`.
    pub(crate) fn new(map: &'a Map, keys: &'a mut KeyBuffer) -> Self {
        Self { map, keys, pos: 0 }
    }

    /// Reads the next part; nothing behind the last one.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`], and those of a lock of the map.
    pub(crate) fn read_next(&mut self) -> Result<Option<impl Iterator<Item = *mut c_void> + '_>> {
        loop {
            match self.map.read_keys(&mut self.pos, self.keys) {
                // Many keys with the same hash
                Err(ENOSPC) => *self.keys = KeyBuffer::new(self.map, 2 * self.keys.capacity())?,
                result => return Ok(result?.map(|count| self.keys.keys(count))),
            }
        }
    }
}
