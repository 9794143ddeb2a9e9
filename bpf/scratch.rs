// SPDX-License-Identifier: GPL-2.0

//! Room for the key and the value of an operation whose arguments lie inside a map.
//!
//! Most are small, and are copied to the stack, where operations can nest. For larger ones each
//! context of each CPU has slots of its own.

use super::{
    context::{PreemptGuard, CONTEXT_LEVELS},
    map::Map,
};
use core::{
    cell::{Cell, UnsafeCell},
    ffi::c_void,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr,
};
use kernel::{
    alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN},
    cpu::nr_cpu_ids,
    prelude::*, //
};

/// What key and value may need on the stack, in bytes.
const ON_STACK: usize = 256;

/// How many operations of one context can have a slot: one, and one that a program does which runs
/// within the map's own operation.
const NESTED: usize = 2;

/// So that CPUs do not share cache lines.
const ALIGN: usize = 64;

/// What the slots of one map may take, in bytes.
///
/// Values can be as large as memory, and few operations have to be copied.
const MAX_SLOTS_SIZE: usize = 64 << 20;

/// Room on the stack.
#[repr(C, align(8))]
pub(crate) struct StackRoom(MaybeUninit<[u8; ON_STACK]>);

impl StackRoom {
    /// Room that holds nothing yet.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

#[repr(C, align(64))]
struct Line(UnsafeCell<[u8; ALIGN]>);

/// Where the operations of a map copy their arguments to.
pub(crate) struct Scratch {
    key_size: usize,
    value_size: usize,
    place: Place,
}

/// Where there is room for a key and a value.
enum Place {
    Stack,
    Slots(Slots),
    /// They are too large for all contexts of all CPUs to have a slot.
    Nowhere,
}

/// The slots of a map whose keys and values do not fit on the stack.
///
/// # Invariants
///
/// `lines` has a capacity of `stride` lines for each flag in `busy`, of which there are [`NESTED`]
/// for each of [`CONTEXT_LEVELS`] contexts of each of `nr_cpu_ids()` CPUs. A slot is used only by
/// its CPU in its context, with preemption off, while the flag is set.
struct Slots {
    lines: KVVec<Line>,
    busy: KVVec<Busy>,
    stride: usize,
}

struct Busy(Cell<bool>);

// SAFETY: By the invariants, what is behind the cells is used by one context at a time.
unsafe impl Sync for Slots {}
// SAFETY: There is nothing in it that belongs to a task.
unsafe impl Send for Slots {}

impl Slots {
    /// How many slots there are.
    fn count() -> usize {
        nr_cpu_ids() as usize * CONTEXT_LEVELS * NESTED
    }

    fn new(size: usize) -> Result<Self> {
        // User space decides how much that is.
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        let stride = size.div_ceil(ALIGN);
        let count = Self::count();
        let lines = KVVec::with_capacity(count * stride, flags)?;
        let mut busy = KVVec::with_capacity(count, flags)?;

        for _ in 0..count {
            busy.push(Busy(Cell::new(false)), flags)?;
        }
        // INVARIANT: These are the sizes.
        Ok(Self {
            lines,
            busy,
            stride,
        })
    }

    /// Takes a slot of this context, if one is free.
    fn take(&self) -> Option<(Slot<'_>, *mut u8)> {
        let preempt = PreemptGuard::new();
        let first = (preempt.cpu() as usize * CONTEXT_LEVELS + preempt.context_level()) * NESTED;
        let slots = self.busy.get(first..first + NESTED)?;
        let nested = slots.iter().position(|busy| !busy.0.replace(true))?;
        // Taken from the whole, as a slot has more than one line.
        let start = self
            .lines
            .as_ptr()
            .wrapping_add((first + nested) * self.stride);

        let slot = Slot {
            busy: &slots[nested],
            _preempt: preempt,
        };

        Some((slot, start.cast_mut().cast()))
    }
}

/// A slot that is taken. It belongs to this CPU.
struct Slot<'a> {
    busy: &'a Busy,
    _preempt: PreemptGuard,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.busy.0.set(false);
    }
}

impl Scratch {
    /// Prepares for keys and values of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Self> {
        let key_size = map.key_size() as usize;
        let value_size = map.value_size() as usize;
        let size = value_offset(key_size) + value_size;
        let place = if size <= ON_STACK {
            Place::Stack
        } else if (size.next_multiple_of(ALIGN))
            .checked_mul(Slots::count())
            .is_some_and(|total| total <= MAX_SLOTS_SIZE)
        {
            Place::Slots(Slots::new(size)?)
        } else {
            Place::Nowhere
        };

        Ok(Self {
            key_size,
            value_size,
            place,
        })
    }

    /// Finds room for a key and a value, in `stack` if they fit.
    ///
    /// Returns [`None`] where operations of this context nest too deep, or where key and value are
    /// so large that the map has no slots.
    ///
    /// Outside of the stack, preemption is off until it is dropped.
    pub(crate) fn room<'a>(&'a self, stack: &'a mut StackRoom) -> Option<Room<'a>> {
        let (slot, start) = match &self.place {
            Place::Stack => (None, stack.0.as_mut_ptr().cast()),
            Place::Slots(slots) => {
                let (slot, start) = slots.take()?;
                (Some(slot), start)
            }
            Place::Nowhere => return None,
        };
        // INVARIANT: `Slots::new()` was asked for this size, or it is at most `ON_STACK`.
        Some(Room {
            start,
            _slot: slot,
            key_size: self.key_size,
            value_size: self.value_size,
            _borrowed: PhantomData,
        })
    }
}

/// Where the value begins, as far from the start as map values are aligned.
const fn value_offset(key_size: usize) -> usize {
    key_size.next_multiple_of(8)
}

/// Room for a key and a value, until it is dropped.
///
/// # Invariants
///
/// From `start` there are `value_offset(key_size) + value_size` bytes, which only this uses.
pub(crate) struct Room<'a> {
    start: *mut u8,
    _slot: Option<Slot<'a>>,
    key_size: usize,
    value_size: usize,
    _borrowed: PhantomData<&'a mut StackRoom>,
}

impl Room<'_> {
    /// Copies a key, and returns where to.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map that the scratch was made for.
    pub(crate) unsafe fn copy_key(&mut self, key: *const c_void) -> *mut c_void {
        // SAFETY: By the invariants, there is room for a key.
        unsafe { ptr::copy_nonoverlapping(key.cast(), self.start, self.key_size) };
        self.start.cast()
    }

    /// Copies a value, and returns where to.
    ///
    /// # Safety
    ///
    /// `value` is a value of the map that the scratch was made for.
    pub(crate) unsafe fn copy_value(&mut self, value: *const c_void) -> *mut c_void {
        // SAFETY: By the invariants, there is room for a value behind the key.
        let to = unsafe { self.start.add(value_offset(self.key_size)) };
        // SAFETY: As above.
        unsafe { ptr::copy_nonoverlapping(value.cast(), to, self.value_size) };
        to.cast()
    }
}
