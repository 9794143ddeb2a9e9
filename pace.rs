// SPDX-License-Identifier: GPL-2.0

//! Pace: how often the worker of a map does what takes long.

use kernel::time::{Delta, Instant, Monotonic, Msecs};

/// How many times as long as it took to go through all elements the worker rests from that, at
/// least: so it takes a twentieth of a CPU.
const REST: i64 = 19;
/// But not longer than that.
const LONGEST_REST_MS: i64 = 10_000;

/// When to do something again.
pub(crate) struct Pace {
    not_before: Instant<Monotonic>,
}

impl Pace {
    /// At once.
    pub(crate) fn new() -> Self {
        Self {
            not_before: Instant::now(),
        }
    }

    /// How long to wait. Nothing where it is time.
    pub(crate) fn wait(&self) -> Option<Msecs> {
        let left = (self.not_before - Instant::now()).as_millis_ceil();

        (left > 0).then(|| left.min(LONGEST_REST_MS) as Msecs)
    }

    /// Not before `pause` is over.
    pub(crate) fn pause_for(&mut self, pause: Msecs) {
        let not_before = Instant::now() + Delta::from_millis(pause.into());

        if (self.not_before - not_before).is_negative() {
            self.not_before = not_before;
        }
    }

    /// Rests from what was begun at `begin`, and is over.
    pub(crate) fn rest_from(&mut self, begin: Instant<Monotonic>) {
        let rest = begin.elapsed().as_millis().saturating_mul(REST);

        self.pause_for(rest.clamp(0, LONGEST_REST_MS) as Msecs);
    }
}
