// SPDX-License-Identifier: GPL-2.0

//! Room for keys of a map that wait for somebody: a part for each CPU.
//!
//! A slot is claimed and taken by cmpxchg, so that an NMI can put a key in while the task below
//! it does the same.

use super::{context::PreemptGuard, map::Map};
use core::{cell::UnsafeCell, ffi::c_void, ptr};
use kernel::{
    alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN},
    cpu::nr_cpu_ids,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Relaxed, Release},
};

/// Nobody uses the slot.
const FREE: u32 = 0;
/// Somebody copies a key into it.
const CLAIMED: u32 = 1;
/// It holds a key that waits.
const PUBLISHED: u32 = 2;
/// Somebody is at work on its key.
const TAKEN: u32 = 3;

/// What belongs to one CPU, in a cache line of its own.
#[repr(align(64))]
struct Part {
    /// How many slots are not free, or about to be claimed.
    used: Atomic<u32>,
    /// Where to look for a free slot first.
    next_free: Atomic<u32>,
    /// Where to look for a key first.
    next_key: Atomic<u32>,
}

/// Keys are aligned as in an element.
type Word = UnsafeCell<u64>;

/// The slots.
///
/// # Invariants
///
/// There is a part for each of `nr_cpu_ids()` CPUs, and for each part `per_cpu` states, and room for
/// as many keys: `words` has a capacity of `stride` for each. The room of a slot is written only by
/// who has claimed it, and read only by who has taken it; then it holds a key.
pub(crate) struct KeySlots {
    parts: KVVec<Part>,
    states: KVVec<Atomic<u32>>,
    words: KVVec<Word>,
    stride: usize,
    key_size: usize,
    per_cpu: u32,
}

// SAFETY: By the invariants, a slot's room is used by one context at a time.
unsafe impl Sync for KeySlots {}
// SAFETY: There is nothing in it that belongs to a task.
unsafe impl Send for KeySlots {}

impl KeySlots {
    /// Makes room for `per_cpu` keys of `map` for each CPU.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map, per_cpu: u32) -> Result<Self> {
        // User space decides how large a key is.
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        let cpus = nr_cpu_ids() as usize;
        let count = cpus * per_cpu as usize;
        let key_size = map.key_size() as usize;
        let stride = key_size.div_ceil(size_of::<Word>());
        let mut parts = KVVec::with_capacity(cpus, flags)?;
        let mut states = KVVec::with_capacity(count, flags)?;
        let words = KVVec::with_capacity(count.checked_mul(stride).ok_or(ENOMEM)?, flags)?;

        for _ in 0..cpus {
            let part = Part {
                used: Atomic::new(0),
                next_free: Atomic::new(0),
                next_key: Atomic::new(0),
            };
            parts.push(part, flags)?;
        }
        for _ in 0..count {
            states.push(Atomic::new(FREE), flags)?;
        }
        // INVARIANT: These are the sizes, and no slot holds a key.
        Ok(Self {
            parts,
            states,
            words,
            stride,
            key_size,
            per_cpu,
        })
    }

    /// The slot of a CPU that is `offset` behind `first`, around the end.
    fn slot(&self, cpu: usize, first: u32, offset: u32) -> (u32, usize) {
        let in_part = (first + offset) % self.per_cpu;

        (in_part, cpu * self.per_cpu as usize + in_part as usize)
    }

    /// Where the key of a slot is.
    fn room(&self, slot: usize) -> *mut u8 {
        self.words
            .as_ptr()
            .wrapping_add(slot * self.stride)
            .cast_mut()
            .cast()
    }

    /// Puts a key into this CPU's part. Returns whether there was room.
    ///
    /// Context: any, NMI included.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map that this was made for.
    pub(crate) unsafe fn put(&self, key: *const c_void) -> bool {
        let preempt = PreemptGuard::new();
        let cpu = preempt.cpu() as usize;
        let Some(part) = self.parts.get(cpu) else {
            return false;
        };

        // From here on there is a free slot for us, though others may take the one that we see.
        // Pairs with the last line of `TakenKey::drop()`: what is not counted any more is free.
        if part.used.fetch_add(1, Acquire) < self.per_cpu {
            let first = part.next_free.load(Relaxed);

            for offset in 0..2 * self.per_cpu {
                let (in_part, slot) = self.slot(cpu, first, offset);
                let state = &self.states[slot];

                if state.load(Relaxed) != FREE || state.cmpxchg(FREE, CLAIMED, Acquire).is_err() {
                    continue;
                }
                // SAFETY: By the invariants, nobody else uses the room, and it is as large as a
                // key.
                unsafe { ptr::copy_nonoverlapping(key.cast(), self.room(slot), self.key_size) };
                // Pairs with the cmpxchg in `take()`.
                state.store(PUBLISHED, Release);
                part.next_free.store((in_part + 1) % self.per_cpu, Relaxed);
                return true;
            }
        }
        part.used.fetch_sub(1, Relaxed);
        false
    }

    /// Takes a key out of the part of a CPU.
    ///
    /// Context: any, NMI included.
    #[inline(always)]
    pub(crate) fn take(&self, cpu: u32) -> Option<TakenKey<'_>> {
        let part = self.parts.get(cpu as usize)?;

        if part.used.load(Relaxed) == 0 {
            return None;
        }
        self.take_from(part, cpu)
    }

    #[cold]
    #[inline(never)]
    fn take_from<'a>(&'a self, part: &'a Part, cpu: u32) -> Option<TakenKey<'a>> {
        let first = part.next_key.load(Relaxed);

        for offset in 0..self.per_cpu {
            let (in_part, slot) = self.slot(cpu as usize, first, offset);
            let state = &self.states[slot];

            if state.load(Relaxed) != PUBLISHED || state.cmpxchg(PUBLISHED, TAKEN, Acquire).is_err()
            {
                continue;
            }
            part.next_key.store((in_part + 1) % self.per_cpu, Relaxed);
            // INVARIANT: The slot is ours now.
            return Some(TakenKey {
                key: self.room(slot).cast(),
                state,
                part,
            });
        }
        None
    }
}

/// A key that was taken out; its slot is free again once this is dropped.
///
/// # Invariants
///
/// `key` is the key in the slot of `state`, which is taken, and in `part`.
pub(crate) struct TakenKey<'a> {
    key: *mut c_void,
    state: &'a Atomic<u32>,
    part: &'a Part,
}

impl TakenKey<'_> {
    /// A key of the map, which nobody writes to while `self` is there.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.key
    }
}

impl Drop for TakenKey<'_> {
    fn drop(&mut self) {
        // Pairs with the cmpxchg in `put()`.
        self.state.store(FREE, Release);
        // Pairs with the first line of `put()`.
        self.part.used.fetch_sub(1, Release);
    }
}
