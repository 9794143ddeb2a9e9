// SPDX-License-Identifier: GPL-2.0

//! Marks: what is written through pointers is told as well.
//!
//! A program that gets a pointer to a value marks the element, and may write until it ends,
//! wherever the element is by then. So the worker begins an epoch, waits for all programs that run
//! at that moment, and then rechecks the key that each marked element has. `model/marks.pml` is the
//! model of this.

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

/// After what time it is asked again whether the programs have ended, at first. A sleepable one can
/// take long: each time that is twice as long.
const FIRST_WAIT_MS: Msecs = 10;
const LONGEST_WAIT_MS: Msecs = 1000;

/// How often in turn a tracer may mark the map that it is told of, which the loop check does not see
/// in each case.
const MOST_OWN: u32 = 64;

/// What the worker of a map has to do with marks.
#[pin_data]
pub(crate) struct MapMarks {
    marks: Marks,
    /// How often tracers of the map have marked its elements themselves.
    own: Atomic<u32>,
    #[pin]
    round: Mutex<Round>,
}

/// Where the worker is.
struct Round {
    /// The epoch that waits for programs to end.
    epoch: Option<Epoch>,
    /// After what time they are asked for again.
    wait: Msecs,
    /// When to go on.
    pace: Pace,
    /// For how many keys the last round has failed, and after what time they are told again.
    failed: u64,
    pause: Msecs,
    /// Room for the marks of keys.
    marks: KVVec<Mark>,
}

impl Round {
    /// Rests from a round that was begun at `begin`, and, where it has failed, for longer each time.
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

/// What the worker has left.
#[derive(Default)]
pub(crate) struct Left {
    /// So many marked keys could not be told.
    pub(crate) failed: u64,
    /// So many keys wait in the queue.
    pub(crate) kept: u64,
    /// After what time to go on with marks.
    pub(crate) wait: Option<Msecs>,
}

impl MapMarks {
    /// Creates it; nothing where the elements of the map cannot be marked.
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

    /// Says whether elements are to be marked. The caller holds the lock of the writers.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        self.trust_tracers();
        self.marks.set_wanted(wanted);
    }

    /// Looks at marks again, if they were given up. The caller kicks the worker.
    pub(crate) fn trust_tracers(&self) {
        self.own.store(0, Relaxed);
    }

    /// Notes that no tracer of the map was the last to mark an element, or that none has in a round.
    pub(crate) fn end_turns(&self) {
        if !self.is_given_up() {
            self.trust_tracers();
        }
    }

    /// Notes that a tracer of the map has marked an element of it: the worker runs it for that, and
    /// so on. Returns whether it is given up for that now: then nobody looks at marks any more.
    ///
    /// Context: any, NMI included.
    pub(crate) fn count_own(&self) -> bool {
        self.own.fetch_add(1, Relaxed) + 1 == MOST_OWN
    }

    fn is_given_up(&self) -> bool {
        self.own.load(Relaxed) >= MOST_OWN
    }

    /// Does what can be done now: a round, if programs have ended, and begins one, if somebody has
    /// marked an element.
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
            // Who attaches next is told all that is there.
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
                // Nobody comes again for what is armed.
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
                // A tracer that marks for itself does so in each round. Later the next epoch has begun.
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
        // While it rests, programs end.
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

    /// Rechecks the keys of all marked elements, and clears the marks of before `epoch`. Those that
    /// somebody else has changed meanwhile wait in the queue then, and are counted in `kept`.
    ///
    /// Errors: [`ENOMEM`], those of a lock of the map, [`ENOLINK`] where no tracer is left.
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
                // A flush waits until the key is told, or kept.
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
