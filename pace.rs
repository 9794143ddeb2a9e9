// SPDX-License-Identifier: GPL-2.0

//! Pace: how often the worker of a map does work that takes long.

use kernel::time::{Delta, Instant, Monotonic, Msecs};

/// After a walk over all elements, the worker rests for this many times the time of the walk. It
/// thus takes a twentieth of a CPU.
const REST: i64 = 19;
/// The longest rest. After a longer walk, the worker takes more than a twentieth.
const LONGEST_REST_MS: i64 = 10_000;

/// The earliest time for the next walk.
pub(crate) struct Pace {
    not_before: Instant<Monotonic>,
}

impl Pace {
    /// Creates a pace without a rest.
    pub(crate) fn new() -> Self {
        Self {
            not_before: Instant::now(),
        }
    }

    /// Returns how long to wait, or [`None`] if the time has come.
    pub(crate) fn wait(&self) -> Option<Msecs> {
        let left = (self.not_before - Instant::now()).as_millis_ceil();

        (left > 0).then(|| left.min(LONGEST_REST_MS) as Msecs)
    }

    /// Rests at least until `pause` is over.
    pub(crate) fn pause_for(&mut self, pause: Msecs) {
        let not_before = Instant::now() + Delta::from_millis(pause.into());

        if (self.not_before - not_before).is_negative() {
            self.not_before = not_before;
        }
    }

    /// Rests from work that began at `begin` and ends now.
    pub(crate) fn rest_from(&mut self, begin: Instant<Monotonic>) {
        let rest = begin.elapsed().as_millis().saturating_mul(REST);

        self.pause_for(rest.clamp(0, LONGEST_REST_MS) as Msecs);
    }
}
