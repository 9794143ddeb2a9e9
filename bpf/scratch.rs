// SPDX-License-Identifier: GPL-2.0

//! Room for copies of the arguments of an operation that lie inside a map.
//!
//! Most arguments are small and are copied to the stack, where operations can nest. For larger
//! ones, each context of each CPU has its own slots.

use super::{
    context::{PreemptGuard, CONTEXT_LEVELS},
    map::Map,
    operation::Reusable,
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

/// How many bytes copies may take on the stack while half of it is left.
pub(crate) const MUCH_STACK: usize = 256;

/// How many bytes copies may take on the stack wherever tracers may run. Operations nest, one
/// within the other's own work, and each keeps this while the others run.
pub(crate) const LITTLE_STACK: usize = 64;

/// How many operations of one context can have a slot: one, plus one by a program that runs within
/// the map's own operation.
const NESTED: usize = 2;

/// Keeps CPUs from sharing cache lines.
const ALIGN: usize = 64;

/// How many bytes the slots of one map may take.
///
/// Values can be as large as memory, and few operations need copies.
const MAX_SLOTS_SIZE: usize = 64 << 20;

/// For a copy of a value of the map.
const VALUE_ONLY: Reusable = Reusable {
    key: false,
    value: true,
};

/// Room of `SIZE` bytes on the stack.
#[repr(C, align(8))]
pub(crate) struct StackRoom<const SIZE: usize>(MaybeUninit<[u8; SIZE]>);

impl<const SIZE: usize> StackRoom<SIZE> {
    /// Creates room without a content.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

#[repr(C, align(64))]
struct Line(UnsafeCell<[u8; ALIGN]>);

/// The room for copies of the arguments of a map's operations.
pub(crate) struct Scratch {
    key_size: usize,
    value_size: usize,
    /// For copies that do not fit on the stack. [`None`] if all copies fit, or if they are so large
    /// that not every context of every CPU can have a slot.
    slots: Option<Slots>,
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
    /// Returns how many slots there are.
    fn count() -> usize {
        nr_cpu_ids() as usize * CONTEXT_LEVELS * NESTED
    }

    /// Returns whether slots of `size` bytes are needed, and do not take too many bytes in total.
    fn are_for(size: usize) -> bool {
        size > MUCH_STACK
            && size
                .next_multiple_of(ALIGN)
                .checked_mul(Self::count())
                .is_some_and(|total| total <= MAX_SLOTS_SIZE)
    }

    fn new(size: usize) -> Result<Self> {
        // User space decides how large this is.
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

    /// Takes a slot of this context, if one is free and slots have `size` bytes.
    fn take(&self, size: usize) -> Option<(Slot<'_>, *mut u8)> {
        if size > self.stride * ALIGN {
            return None;
        }

        let preempt = PreemptGuard::new();
        let first = (preempt.cpu() as usize * CONTEXT_LEVELS + preempt.context_level()) * NESTED;
        let slots = self.busy.get(first..first + NESTED)?;
        let nested = slots.iter().position(|busy| !busy.0.replace(true))?;
        // Derived from the pointer to all lines, as a slot has more than one line.
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

/// A slot that was taken. It belongs to this CPU.
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
    /// Allocates room for keys and values of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Self> {
        let key_size = map.key_size() as usize;
        let value_size = map.value_size() as usize;
        // A delete has only a key. An update whose value need not be copied needs room for the key
        // only.
        let slots = [size_of_copy(key_size, value_size), key_size]
            .into_iter()
            .find(|size| Slots::are_for(*size))
            .map(Slots::new)
            .transpose()?;

        Ok(Self {
            key_size,
            value_size,
            slots,
        })
    }

    /// Returns how many bytes copies of these arguments take.
    pub(crate) fn size_of(&self, reusable: Reusable) -> usize {
        size_of_copy(
            if reusable.key { self.key_size } else { 0 },
            if reusable.value { self.value_size } else { 0 },
        )
    }

    /// Uses `stack` for copies of these arguments.
    ///
    /// Returns [`None`] if they do not fit.
    pub(crate) fn on_stack<'a, const SIZE: usize>(
        &'a self,
        stack: &'a mut StackRoom<SIZE>,
        reusable: Reusable,
    ) -> Option<Room<'a>> {
        if self.size_of(reusable) > SIZE {
            return None;
        }
        // INVARIANT: There is room for both.
        Some(self.room(stack.0.as_mut_ptr().cast(), None, reusable))
    }

    /// Takes a slot for copies of these arguments. Preemption is off until it is dropped.
    ///
    /// Returns [`None`] if operations of this context nest too deep, or if there are no slots that
    /// are large enough.
    pub(crate) fn in_slot(&self, reusable: Reusable) -> Option<Room<'_>> {
        let (slot, start) = self.slots.as_ref()?.take(self.size_of(reusable))?;

        // INVARIANT: The slot was asked for this size.
        Some(self.room(start, Some(slot), reusable))
    }

    /// Uses `stack` for a copy of a value.
    pub(crate) fn stack_for_value<'a, const SIZE: usize>(
        &'a self,
        stack: &'a mut StackRoom<SIZE>,
    ) -> Option<Room<'a>> {
        self.on_stack(stack, VALUE_ONLY)
    }

    /// Takes a slot for a copy of a value. Preemption is off until it is dropped.
    pub(crate) fn slot_for_value(&self) -> Option<Room<'_>> {
        self.in_slot(VALUE_ONLY)
    }

    /// Creates a [`Room`]. There are [`Scratch::size_of`] bytes from `start` on.
    fn room<'a>(&self, start: *mut u8, slot: Option<Slot<'a>>, reusable: Reusable) -> Room<'a> {
        Room {
            start,
            _slot: slot,
            key_size: if reusable.key { self.key_size } else { 0 },
            value_size: if reusable.value { self.value_size } else { 0 },
            _borrowed: PhantomData,
        }
    }
}

/// Returns how many bytes copies of a key and a value of these sizes take.
const fn size_of_copy(key_size: usize, value_size: usize) -> usize {
    value_offset(key_size) + value_size
}

/// Returns the offset of the value, aligned as map values are.
const fn value_offset(key_size: usize) -> usize {
    key_size.next_multiple_of(8)
}

/// Room for a value of a map.
///
/// # Invariants
///
/// From `start` there are `size` bytes, aligned as values are, which only this uses.
pub(crate) struct ValueRoom<'a> {
    start: *mut c_void,
    size: usize,
    _borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> ValueRoom<'a> {
    /// Uses a buffer as room.
    pub(crate) fn in_buffer(buffer: &'a mut [u64]) -> Self {
        // INVARIANT: It has this size.
        Self {
            start: buffer.as_mut_ptr().cast(),
            size: size_of_val(buffer),
            _borrowed: PhantomData,
        }
    }

    /// Copies the value at `from` in `map`, if there is room for it.
    ///
    /// # Safety
    ///
    /// `from` comes from [`Map::lookup`], and RCU is still held.
    pub(crate) unsafe fn copy(&mut self, map: &Map, from: *mut c_void) -> Option<*mut c_void> {
        if map.value_size() as usize > self.size {
            return None;
        }
        // SAFETY: By the safety requirements and the invariants.
        unsafe { map.copy_value(self.start, from) };
        Some(self.start)
    }
}

/// Room for the arguments that have to be copied, until it is dropped.
///
/// # Invariants
///
/// From `start` there are `size_of_copy(key_size, value_size)` bytes, which only this uses. The
/// sizes are those of the map's keys and values, or 0 where there is nothing to copy.
pub(crate) struct Room<'a> {
    start: *mut u8,
    _slot: Option<Slot<'a>>,
    key_size: usize,
    value_size: usize,
    _borrowed: PhantomData<&'a mut [u8]>,
}

impl Room<'_> {
    /// Returns the room for a value.
    pub(crate) fn value(&mut self) -> ValueRoom<'_> {
        // SAFETY: By the invariants, there is room behind the key.
        let start = unsafe { self.start.add(value_offset(self.key_size)) };

        // INVARIANT: It has this size.
        ValueRoom {
            start: start.cast(),
            size: self.value_size,
            _borrowed: PhantomData,
        }
    }

    /// Copies a key, if it has to be copied, and returns its new address.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map that the scratch was made for.
    pub(crate) unsafe fn copy_key(&mut self, key: *mut c_void) -> *mut c_void {
        if self.key_size == 0 {
            return key;
        }
        // SAFETY: By the invariants, there is room for a key.
        unsafe { ptr::copy_nonoverlapping(key.cast(), self.start, self.key_size) };
        self.start.cast()
    }

    /// Copies a value, if it has to be copied, and returns its new address.
    ///
    /// # Safety
    ///
    /// `value` is a value of the map that the scratch was made for.
    pub(crate) unsafe fn copy_value(&mut self, value: *mut c_void) -> *mut c_void {
        if self.value_size == 0 {
            return value;
        }
        // SAFETY: By the invariants, there is room for a value behind the key.
        let to = unsafe { self.start.add(value_offset(self.key_size)) };
        // SAFETY: As above.
        unsafe { ptr::copy_nonoverlapping(value.cast(), to, self.value_size) };
        to.cast()
    }
}
