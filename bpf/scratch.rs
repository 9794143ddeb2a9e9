// SPDX-License-Identifier: GPL-2.0

//! Room for the key and the value of an operation whose arguments lie inside a map.

use super::{
    context::{PreemptGuard, CONTEXT_LEVELS},
    map::Map,
};
use core::{
    cell::{Cell, UnsafeCell},
    ffi::c_void,
    ptr,
};
use kernel::{cpu::nr_cpu_ids, prelude::*};

/// So that CPUs do not share cache lines.
const ALIGN: usize = 64;

#[repr(C, align(64))]
struct Line(UnsafeCell<[u8; ALIGN]>);

/// A copy of a key and a value for each CPU and each context that can interrupt another one there.
///
/// # Invariants
///
/// `lines` holds `nr_cpu_ids() * CONTEXT_LEVELS` slots of `stride` lines, and `busy` a flag for
/// each. A slot is used only by its CPU in its context, with preemption off, while the flag is set.
pub(crate) struct Scratch {
    lines: KVVec<Line>,
    busy: KVVec<Busy>,
    stride: usize,
    key_size: usize,
    value_size: usize,
}

struct Busy(Cell<bool>);

// SAFETY: By the invariants, what is behind the cells is used by one context at a time.
unsafe impl Sync for Scratch {}
// SAFETY: There is nothing in it that belongs to a task.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Allocates room for keys and values of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map) -> Result<Self> {
        let key_size = map.key_size() as usize;
        let value_size = map.value_size() as usize;
        let stride = (value_offset(key_size) + value_size).div_ceil(ALIGN);
        let slots = nr_cpu_ids() as usize * CONTEXT_LEVELS;
        let count = slots.checked_mul(stride).ok_or(ENOMEM)?;

        let mut lines = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            lines.push(Line(UnsafeCell::new([0; ALIGN])), GFP_KERNEL)?;
        }
        let mut busy = KVVec::with_capacity(slots, GFP_KERNEL)?;
        for _ in 0..slots {
            busy.push(Busy(Cell::new(false)), GFP_KERNEL)?;
        }
        // INVARIANT: These are the sizes.
        Ok(Self {
            lines,
            busy,
            stride,
            key_size,
            value_size,
        })
    }

    /// Takes the slot of this context.
    ///
    /// Returns [`None`] where it is in use further up: a tracer of the map has led to another
    /// operation on the same map.
    pub(crate) fn take<'a>(&'a self, preempt: &'a PreemptGuard) -> Option<Slot<'a>> {
        let index = preempt.cpu() as usize * CONTEXT_LEVELS + preempt.context_level();
        let busy = &self.busy.get(index)?.0;

        if busy.replace(true) {
            return None;
        }
        Some(Slot {
            busy,
            // Taken from the whole, as a slot has more than one line. What it points to is in an
            // `UnsafeCell`.
            start: self
                .lines
                .as_ptr()
                .wrapping_add(index * self.stride)
                .cast_mut()
                .cast(),
            scratch: self,
        })
    }
}

/// Where the value begins, as far from the start as map values are aligned.
const fn value_offset(key_size: usize) -> usize {
    key_size.next_multiple_of(8)
}

/// The slot of this context, until it is dropped.
pub(crate) struct Slot<'a> {
    busy: &'a Cell<bool>,
    start: *mut u8,
    scratch: &'a Scratch,
}

impl Slot<'_> {
    /// Copies a key, and returns where to.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map that the scratch was made for.
    pub(crate) unsafe fn copy_key(&mut self, key: *const c_void) -> *mut c_void {
        // SAFETY: A slot begins with room for a key, and is only ours.
        unsafe { ptr::copy_nonoverlapping(key.cast(), self.start, self.scratch.key_size) };
        self.start.cast()
    }

    /// Copies a value, and returns where to.
    ///
    /// # Safety
    ///
    /// `value` is a value of the map that the scratch was made for.
    pub(crate) unsafe fn copy_value(&mut self, value: *const c_void) -> *mut c_void {
        // SAFETY: There is room for a value behind the key.
        let to = unsafe { self.start.add(value_offset(self.scratch.key_size)) };
        // SAFETY: As above.
        unsafe { ptr::copy_nonoverlapping(value.cast(), to, self.scratch.value_size) };
        to.cast()
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.busy.set(false);
    }
}
