// SPDX-License-Identifier: GPL-2.0

//! Marks: reports writes through pointers.
//!
//! A program that gets a pointer to a value marks the element. It may write until it ends, and the
//! element may belong to another key by then. The worker therefore begins an epoch, waits for all
//! programs that run at that moment, and then rechecks the key that each marked element has.
//! `model/marks.pml` is the model of this.

use crate::{
    bpf::{
        map::{KeyBuffer, Map},
        marks::{Epoch, Mark, Marks},
        operation::Reason,
        scratch::ValueRoom,
    },
    pace::Pace,
    sync::{MapSync, Outcome, Recheck, ROUNDS},
    tracer_list::TracerList,
    worker::relieve_queue,
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu,
        Mutex, //
    },
    time::{Instant, Monotonic, Msecs},
};

/// The first wait before the worker checks again whether the programs have ended. A sleepable
/// program can take long, so each wait is twice as long as the one before.
const FIRST_WAIT_MS: Msecs = 10;
const LONGEST_WAIT_MS: Msecs = 1000;

/// How often in a row a tracer may mark its own source. The loop check does not see every case of
/// this.
const MOST_OWN: u32 = 64;

/// The marks of a map, and the state of the worker's rounds.
#[pin_data]
pub(crate) struct MapMarks {
    marks: Marks,
    /// How often in a row tracers of the map have marked its elements themselves.
    own: Atomic<u32>,
    #[pin]
    round: Mutex<Round>,
}

/// The state of the rounds of the worker.
struct Round {
    /// The epoch that waits for programs to end.
    epoch: Option<Epoch>,
    /// The wait before the next check of these programs.
    wait: Msecs,
    /// When to continue.
    pace: Pace,
    /// How many keys have failed in the last round, and the pause before they are reported again.
    failed: u64,
    pause: Msecs,
    /// Room for the marks of keys.
    marks: KVVec<Mark>,
}

impl Round {
    /// Rests from a round that began at `begin`. After failures, the pause gets longer each time.
    fn rest_from(&mut self, begin: Instant<Monotonic>) {
        self.pace.rest_from(begin);
        self.pause = match self.pause {
            _ if self.failed == 0 => 0,
            0 => FIRST_WAIT_MS,
            pause => (2 * pause).min(LONGEST_WAIT_MS),
        };
        self.pace.pause_for(self.pause);
    }
}

/// What a round has left.
#[derive(Default)]
pub(crate) struct Left {
    /// Number of marked keys for which a tracer has failed.
    pub(crate) failed: u64,
    /// Number of keys that were put into the queue.
    pub(crate) kept: u64,
    /// When to continue with marks.
    pub(crate) wait: Option<Msecs>,
}

impl MapMarks {
    /// Creates the marks of `map`. Returns [`None`] if its elements cannot be marked.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// As for [`Marks::new`].
    pub(crate) unsafe fn new(map: &Map) -> Result<Option<Pin<KBox<Self>>>> {
        // SAFETY: By the safety requirements.
        let Some(marks) = (unsafe { Marks::new(map)? }) else {
            return Ok(None);
        };
        let round = Round {
            epoch: None,
            wait: FIRST_WAIT_MS,
            pace: Pace::new(),
            failed: 0,
            pause: 0,
            marks: KVVec::new(),
        };

        KBox::pin_init(
            pin_init!(Self {
                marks,
                own: Atomic::new(0),
                round <- new_mutex!(round),
            }),
            GFP_KERNEL_ACCOUNT,
        )
        .map(Some)
    }

    /// Sets whether elements are to be marked. The caller holds the lock of the writers.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        self.trust_tracers();
        self.marks.set_wanted(wanted);
    }

    /// Lets the worker look at marks again, if it has given them up. The caller kicks the worker.
    pub(crate) fn trust_tracers(&self) {
        self.own.store(0, Relaxed);
    }

    /// Ends a row of marks by tracers of the map: somebody else has marked an element, or a whole
    /// round went by without such a mark.
    pub(crate) fn end_turns(&self) {
        if !self.is_given_up() {
            self.trust_tracers();
        }
    }

    /// Notes that a tracer of the map has marked an element of the map. The worker then runs the
    /// tracer again, which can go on for ever. Returns whether this call is the one too many: from
    /// then on the worker gives up the marks of the map.
    ///
    /// Context: any, NMI included.
    pub(crate) fn count_own(&self) -> bool {
        self.own.fetch_add(1, Relaxed) + 1 == MOST_OWN
    }

    fn is_given_up(&self) -> bool {
        self.own.load(Relaxed) >= MOST_OWN
    }

    /// Does what can be done now: finishes a round if the programs have ended, and begins one if
    /// somebody has marked an element.
    ///
    /// Context: process context, may sleep; the worker of the map.
    pub(crate) fn run(
        &self,
        sync: &MapSync,
        list: &TracerList,
        map: &Map,
        keys: &mut KeyBuffer,
        room: &mut ValueRoom<'_>,
    ) -> Left {
        let mut round = self.round.lock();
        let mut kept = 0;

        if self.is_given_up() {
            round.failed = 0;
            return Left::default();
        }
        if !sync.is_live() {
            // The next sync tracer gets a replay anyway.
            if round.epoch.take().is_some() {
                self.marks.arm_again();
            }
            round.failed = 0;
            return Left::default();
        }
        if let Some(wait) = round.pace.wait() {
            let is_left = round.epoch.is_some() || self.marks.is_armed();

            return Left {
                failed: round.failed,
                kept,
                // Marks that are armed do not kick the worker again.
                wait: is_left.then_some(wait),
            };
        }
        if let Some(epoch) = round.epoch.take() {
            if epoch.is_behind_programs() {
                let begin = Instant::now();
                let recheck = Recheck::of_all(list, sync, map);

                sync.count_all();
                round.failed = 0;
                if self
                    .recheck_marked(&recheck, keys, room, &mut round, &epoch, &mut kept)
                    .is_err()
                {
                    round.failed += 1;
                }
                // A tracer that marks its own source does so in each round. Check before the next
                // epoch begins.
                if !self.marks.is_armed() {
                    self.end_turns();
                }
                round.rest_from(begin);
                if round.failed != 0 {
                    self.marks.arm_again();
                }
            } else {
                let wait = (2 * round.wait).min(LONGEST_WAIT_MS);

                round.epoch = Some(epoch);
                round.wait = wait;
                round.pace.pause_for(wait);
            }
        }
        // Programs can end during the rest.
        if round.epoch.is_none() && self.marks.is_armed() {
            round.epoch = Some(self.marks.next_epoch());
            round.wait = FIRST_WAIT_MS;
            round.pace.pause_for(FIRST_WAIT_MS);
        }
        Left {
            failed: round.failed,
            kept,
            wait: round
                .epoch
                .is_some()
                .then(|| round.pace.wait().unwrap_or(FIRST_WAIT_MS)),
        }
    }

    /// Rechecks the keys of all marked elements, and clears the marks that are older than `epoch`.
    /// Keys that somebody else has changed meanwhile go into the queue, and are counted in `kept`.
    ///
    /// Errors: [`ENOMEM`], those of a lock of the map, [`ENOLINK`] if no tracer is left.
    fn recheck_marked(
        &self,
        recheck: &Recheck<'_>,
        keys: &mut KeyBuffer,
        room: &mut ValueRoom<'_>,
        round: &mut Round,
        epoch: &Epoch,
        kept: &mut u64,
    ) -> Result {
        let mut pos = 0;

        loop {
            let count = match self.marks.read(&mut pos, keys, &mut round.marks) {
                // Many keys with the same hash
                Err(ENOSPC) => {
                    *keys = KeyBuffer::new(recheck.map, 2 * keys.capacity())?;
                    continue;
                }
                result => result?,
            };
            let Some(count) = count else {
                return Ok(());
            };

            for (key, mark) in keys.keys(count).zip(&round.marks) {
                // A flush waits until the key is reported, or queued.
                let _rcu = rcu::Guard::new();

                match recheck.run(key, Reason::Write, ROUNDS, room) {
                    Outcome::Settled => {}
                    Outcome::Overtaken | Outcome::Unread => {
                        recheck.sync.keep(recheck.list, recheck.map, key);
                        *kept += 1;
                    }
                    Outcome::Failed => {
                        round.failed += 1;
                        continue;
                    }
                }
                // SAFETY: It is a key of the map.
                unsafe { self.marks.clear(key, *mark, epoch) };
            }
            if !recheck.sync.is_live() {
                return Err(ENOLINK);
            }
            relieve_queue(recheck.sync, recheck.list, recheck.map, room);
        }
    }
}
