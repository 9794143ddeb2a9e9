// SPDX-License-Identifier: GPL-2.0

//! Slots for keys of a map that wait to be processed, with a part for each CPU.
//!
//! A slot is claimed and taken by cmpxchg, so an NMI can put a key in while the task that it has
//! interrupted does the same.

use super::{context::PreemptGuard, map::Map};
use core::{cell::UnsafeCell, ffi::c_void, mem::ManuallyDrop, ptr};
use kernel::{
    alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN},
    cpu::nr_cpu_ids,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        barrier::{smp_mb, Read},
    },
};

/// The slot is free.
const FREE: u32 = 0;
/// A key is being copied into the slot.
const CLAIMED: u32 = 1;
/// The slot holds a key that waits.
const PUBLISHED: u32 = 2;
/// The key of the slot is being processed.
const TAKEN: u32 = 3;

/// The lowest bits of a state. The others count how often the slot was claimed.
const STATE: u32 = 3;
const USE: u32 = STATE + 1;

/// The part of one CPU, in a cache line of its own.
#[repr(align(64))]
struct Part {
    /// How many slots are in use, or about to be claimed.
    used: Atomic<u32>,
    /// How many keys wait, or are about to wait: never less than the keys that wait.
    waiting: Atomic<u32>,
    /// Where the search for a free slot starts.
    next_free: Atomic<u32>,
    /// Where the search for a key starts.
    next_key: Atomic<u32>,
}

/// Aligns keys as in an element.
type Word = UnsafeCell<u64>;

/// The slots.
///
/// # Invariants
///
/// There is a part for each of `nr_cpu_ids()` CPUs, and for each part `per_cpu` states, and room
/// for as many keys: `stride` of `words` for each. The room of a slot is written only by who has
/// claimed it, and read by who has taken it, when it holds a key; others may look, but not rely on
/// it.
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
    /// Allocates room for `per_cpu` keys of `map` for each CPU.
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
        let nr_words = count.checked_mul(stride).ok_or(ENOMEM)?;
        let mut words = KVVec::with_capacity(nr_words, flags)?;

        for _ in 0..cpus {
            let part = Part {
                used: Atomic::new(0),
                waiting: Atomic::new(0),
                next_free: Atomic::new(0),
                next_key: Atomic::new(0),
            };
            parts.push(part, flags)?;
        }
        for _ in 0..count {
            states.push(Atomic::new(FREE), flags)?;
        }
        for _ in 0..nr_words {
            words.push(Word::new(0), flags)?;
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

    /// Returns the slot of a CPU that is `offset` after `first`, modulo the size of the part.
    fn slot(&self, cpu: usize, first: u32, offset: u32) -> (u32, usize) {
        let in_part = (first + offset) % self.per_cpu;

        (in_part, cpu * self.per_cpu as usize + in_part as usize)
    }

    /// Returns the address of the key in a slot.
    fn room(&self, slot: usize) -> *mut u8 {
        self.words
            .as_ptr()
            .wrapping_add(slot * self.stride)
            .cast_mut()
            .cast()
    }

    /// Claims a slot of this CPU's part, and copies a key into it. Returns [`None`] if all slots
    /// are in use.
    ///
    /// Context: any, NMI included.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map that this was made for.
    pub(crate) unsafe fn claim(&self, key: *const c_void) -> Option<ClaimedKey<'_>> {
        let preempt = PreemptGuard::new();
        let cpu = preempt.cpu() as usize;
        let part = self.parts.get(cpu)?;

        // From here on one free slot is ours, though others may claim the one that we look at.
        // Pairs with the last line of `free()`: what is not counted any more is free.
        if part.used.fetch_add(1, Acquire) < self.per_cpu {
            let first = part.next_free.load(Relaxed);

            for offset in 0..2 * self.per_cpu {
                let (in_part, slot) = self.slot(cpu, first, offset);
                let state = &self.states[slot];

                let old = state.load(Relaxed);
                let claimed = old.wrapping_add(USE) | CLAIMED;

                if old & STATE != FREE || state.cmpxchg(old, claimed, Full).is_err() {
                    continue;
                }
                part.next_free.store((in_part + 1) % self.per_cpu, Relaxed);
                // SAFETY: By the invariants, nobody else uses the room, and it is as large as a
                // key.
                unsafe { ptr::copy_nonoverlapping(key.cast(), self.room(slot), self.key_size) };
                // INVARIANT: The slot is ours now, and holds the key.
                return Some(ClaimedKey {
                    slots: self,
                    cpu,
                    slot,
                    claimed,
                });
            }
        }
        part.used.fetch_sub(1, Relaxed);
        None
    }

    /// Puts a key into this CPU's part. Returns whether there was room.
    ///
    /// Context: any, NMI included.
    ///
    /// # Safety
    ///
    /// As for [`KeySlots::claim`].
    pub(crate) unsafe fn put(&self, key: *const c_void) -> bool {
        // SAFETY: By the safety requirements.
        unsafe { self.claim(key) }
            .map(ClaimedKey::publish)
            .is_some()
    }

    /// Like [`KeySlots::put`], but does nothing if the key waits in this CPU's part already.
    ///
    /// The caller has a full barrier between its change of the key and this call. Whoever takes the
    /// key has a full barrier after the take, and therefore sees the change.
    ///
    /// Context: any, NMI included.
    ///
    /// # Safety
    ///
    /// As for [`KeySlots::claim`].
    pub(crate) unsafe fn put_once(&self, key: *const c_void) -> bool {
        let preempt = PreemptGuard::new();

        // SAFETY: By the safety requirements.
        unsafe { self.has(preempt.cpu() as usize, key) || self.put(key) }
    }

    /// Returns whether a key waits in the part of a CPU.
    ///
    /// # Safety
    ///
    /// As for [`KeySlots::claim`].
    unsafe fn has(&self, cpu: usize, key: *const c_void) -> bool {
        self.any_waits(cpu as u32)
            && (0..self.per_cpu).any(|index| {
                // SAFETY: By the safety requirements.
                unsafe { self.waits_in(self.slot(cpu, index, 0).1, key) }
            })
    }

    /// Returns whether more than half of this CPU's slots are in use.
    ///
    /// Context: any, NMI included.
    pub(crate) fn is_crowded(&self) -> bool {
        let preempt = PreemptGuard::new();

        self.parts
            .get(preempt.cpu() as usize)
            .is_some_and(|part| part.used.load(Relaxed) > self.per_cpu / 2)
    }

    /// Returns whether `key` waits in a slot.
    ///
    /// # Safety
    ///
    /// As for [`KeySlots::put`].
    unsafe fn waits_in(&self, slot: usize, key: *const c_void) -> bool {
        let state = &self.states[slot];
        let before = state.load(Acquire);

        if before & STATE != PUBLISHED {
            return false;
        }
        let waiting = self.room(slot);
        let same = (0..self.key_size).all(|i| {
            // SAFETY: Both have so many bytes. Another key may be written to the slot meanwhile:
            // volatile, and told by the state.
            unsafe { waiting.add(i).read_volatile() == key.cast::<u8>().add(i).read() }
        });

        // As in `peek_at()`, but the key must not have been taken, either.
        smp_mb(Read);
        same && state.load(Relaxed) == before
    }

    /// Takes a key out of the part of a CPU.
    ///
    /// Context: any, NMI included.
    #[inline(always)]
    pub(crate) fn take(&self, cpu: u32) -> Option<TakenKey<'_>> {
        if self.any_waits(cpu) {
            self.take_from(self.parts.get(cpu as usize)?, cpu)
        } else {
            None
        }
    }

    /// Returns how many keys wait in the part of a CPU, or are about to.
    #[inline(always)]
    pub(crate) fn waiting(&self, cpu: u32) -> usize {
        self.parts
            .get(cpu as usize)
            .map_or(0, |part| part.waiting.load(Relaxed) as usize)
    }

    /// Returns whether keys wait in the part of a CPU.
    #[inline(always)]
    pub(crate) fn any_waits(&self, cpu: u32) -> bool {
        self.waiting(cpu) != 0
    }

    #[cold]
    #[inline(never)]
    fn take_from<'a>(&'a self, part: &'a Part, cpu: u32) -> Option<TakenKey<'a>> {
        let first = part.next_key.load(Relaxed);

        for offset in 0..self.per_cpu {
            let (in_part, slot) = self.slot(cpu as usize, first, offset);

            if let Some(key) = self.take_slot(part, slot) {
                part.next_key.store((in_part + 1) % self.per_cpu, Relaxed);
                return Some(key);
            }
        }
        None
    }

    /// Takes the key of a certain slot of a CPU, if a key waits there.
    ///
    /// Context: any, NMI included.
    pub(crate) fn take_at(&self, cpu: u32, index: u32) -> Option<TakenKey<'_>> {
        let part = self.parts.get(cpu as usize)?;

        self.take_slot(part, self.slot(cpu as usize, index, 0).1)
    }

    #[inline(always)]
    fn take_slot<'a>(&'a self, part: &'a Part, slot: usize) -> Option<TakenKey<'a>> {
        let state = &self.states[slot];
        let old = state.load(Relaxed);
        let taken = old | TAKEN;

        if old & STATE != PUBLISHED || state.cmpxchg(old, taken, Acquire).is_err() {
            return None;
        }
        part.waiting.fetch_sub(1, Relaxed);
        // INVARIANT: The slot is ours now.
        Some(TakenKey {
            key: self.room(slot).cast(),
            state,
            taken,
            part,
        })
    }

    /// Copies the key of a certain slot of a CPU, whether it waits or is being processed. Returns
    /// whether there is a key. If not, the content of `copy` is meaningless.
    ///
    /// Context: any.
    pub(crate) fn peek_at(&self, cpu: u32, index: u32, copy: &mut [u64]) -> bool {
        let slot = self.slot(cpu as usize, index, 0).1;
        let state = &self.states[slot];
        let before = state.load(Acquire);

        if !matches!(before & STATE, PUBLISHED | TAKEN) || copy.len() < self.stride {
            return false;
        }
        let from = self.words.as_ptr().wrapping_add(slot * self.stride);

        for (i, word) in copy.iter_mut().take(self.stride).enumerate() {
            // SAFETY: The slot has so many words. Somebody may write another key there meanwhile:
            // volatile, and told by the state.
            *word = unsafe { from.add(i).cast::<u64>().read_volatile() };
        }
        // The state is read after the words. Pairs with the cmpxchg in `claim()`.
        smp_mb(Read);
        // It is the same key, whether published or taken.
        state.load(Relaxed) & !STATE == before & !STATE
    }

    /// Returns how many words a copy of a key takes.
    pub(crate) fn words_of_key(&self) -> usize {
        self.stride
    }
}

/// A key that was taken. Dropping it frees the slot.
///
/// # Invariants
///
/// `key` is the key in the slot of `state`, which is taken, and in `part`.
pub(crate) struct TakenKey<'a> {
    key: *mut c_void,
    state: &'a Atomic<u32>,
    /// The value of `state` as long as the slot is ours.
    taken: u32,
    part: &'a Part,
}

impl TakenKey<'_> {
    /// A key of the map, which nobody writes to while `self` is there.
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.key
    }

    /// Makes the key wait again.
    pub(crate) fn put_back(self) {
        let this = ManuallyDrop::new(self);

        publish(this.part, this.state, this.taken);
    }
}

impl Drop for TakenKey<'_> {
    fn drop(&mut self) {
        free(self.part, self.state, self.taken);
    }
}

/// A key that was copied into a slot and does not wait yet. Dropping it frees the slot.
///
/// # Invariants
///
/// `slot` is claimed, holds a key, and is one of `cpu`; `claimed` is what its state is.
pub(crate) struct ClaimedKey<'a> {
    slots: &'a KeySlots,
    cpu: usize,
    slot: usize,
    claimed: u32,
}

impl ClaimedKey<'_> {
    /// A key of the map, which nobody writes to while `self` is there.
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.slots.room(self.slot).cast()
    }

    /// Makes the key wait.
    pub(crate) fn publish(self) {
        let this = ManuallyDrop::new(self);

        publish(
            &this.slots.parts[this.cpu],
            &this.slots.states[this.slot],
            this.claimed,
        );
    }

    /// Like [`ClaimedKey::publish`], but frees the slot if the key waits in that part already.
    ///
    /// The caller has a barrier, see [`KeySlots::put_once`].
    pub(crate) fn publish_once(self) {
        // SAFETY: By the invariants, it is a key of the map.
        if !unsafe { self.slots.has(self.cpu, self.as_ptr()) } {
            self.publish();
        }
    }
}

impl Drop for ClaimedKey<'_> {
    fn drop(&mut self) {
        free(
            &self.slots.parts[self.cpu],
            &self.slots.states[self.slot],
            self.claimed,
        );
    }
}

/// Makes the key of a slot of ours wait, whose state is `old`.
fn publish(part: &Part, state: &Atomic<u32>, old: u32) {
    part.waiting.fetch_add(1, Relaxed);
    // Pairs with the cmpxchg in `take_slot()`.
    state.store(old & !STATE | PUBLISHED, Release);
}

/// Frees a slot of ours, whose state is `old`.
fn free(part: &Part, state: &Atomic<u32>, old: u32) {
    // Pairs with the cmpxchg in `claim()`.
    state.store(old & !STATE | FREE, Release);
    // Pairs with the first line of `claim()`.
    part.used.fetch_sub(1, Release);
}
