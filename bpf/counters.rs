// SPDX-License-Identifier: GPL-2.0

//! Counters of the changes of a map, each for a part of the keys.

use super::map::Map;
use core::{ffi::c_void, slice};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        barrier::smp_mb, //
    },
};

/// How many counters there are, as powers of two. Keys that share a counter are only rechecked more
/// often.
const FEWEST_BITS: u32 = 6;
const MOST_BITS: u32 = 10;

/// How many elements of a full map share a counter, within these limits.
const KEYS_PER_COUNTER: u32 = 64;

/// Counts the changes of some keys, in a cache line of its own.
#[repr(align(64))]
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    /// Reads the counter, before any later access.
    #[inline(always)]
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Increments the counter, after all earlier and before all later accesses. Returns the new
    /// count.
    #[inline(always)]
    pub(crate) fn count(&self) -> u64 {
        self.0.fetch_add(1, Full).wrapping_add(1)
    }

    /// Returns whether the counter is still at `count`, after all earlier accesses.
    ///
    /// An operation runs its tracers after it has incremented the counter. If this call does not
    /// see the increment, these tracers run later than everything before this call.
    #[inline(always)]
    pub(crate) fn is_still(&self, count: u64) -> bool {
        smp_mb(Full);
        self.0.load(Relaxed) == count
    }
}

/// The counters of a map.
///
/// # Invariants
///
/// There are as many as there are values of the bits of a hash that `shift` leaves.
pub(crate) struct Counters {
    counters: KVVec<Counter>,
    shift: u32,
    key_size: usize,
}

impl Counters {
    /// Allocates the counters of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Self> {
        let full = (map.max_entries() / KEYS_PER_COUNTER).max(1);
        let bits = full.ilog2().clamp(FEWEST_BITS, MOST_BITS);
        let mut counters = KVVec::with_capacity(1 << bits, GFP_KERNEL_ACCOUNT)?;

        for _ in 0..1 << bits {
            counters.push(Counter(Atomic::new(0)), GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: So many were made, and not fewer.
        Ok(Self {
            counters,
            shift: u64::BITS - bits,
            key_size: map.key_size() as usize,
        })
    }

    /// Returns the counter of a key.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map, which nobody writes to meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn of(&self, key: *const c_void) -> &Counter {
        let hash = if self.key_size == size_of::<u32>() {
            // SAFETY: By the safety requirements.
            hash_word(0, unsafe { key.cast::<u32>().read_unaligned() })
        } else {
            // SAFETY: By the safety requirements.
            hash(unsafe { slice::from_raw_parts(key.cast(), self.key_size) })
        };

        // SAFETY: By the invariants.
        unsafe { self.counters.get_unchecked((hash >> self.shift) as usize) }
    }

    /// Increments all counters.
    pub(crate) fn count_all(&self) {
        for counter in &self.counters {
            counter.count();
        }
    }
}

/// A cheap hash. Keys that collide are rechecked once more, nothing else.
#[inline(never)]
fn hash(key: &[u8]) -> u64 {
    let mut words = key.chunks_exact(4);
    let mut hash = 0u64;

    for word in &mut words {
        hash = hash_word(
            hash,
            u32::from_ne_bytes([word[0], word[1], word[2], word[3]]),
        );
    }
    for byte in words.remainder() {
        hash = hash_word(hash, (*byte).into());
    }
    hash
}

#[inline(always)]
fn hash_word(hash: u64, word: u32) -> u64 {
    /// 2^64 divided by the golden ratio
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    (hash ^ u64::from(word)).wrapping_mul(FACTOR)
}
