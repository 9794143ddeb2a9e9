// SPDX-License-Identifier: GPL-2.0

//! Marks: which elements of a map may have been written through pointers.
//!
//! C header: [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

use super::map::{KeyBuffer, Map};
use core::{ffi::c_void, ptr::NonNull};
use kernel::{
    alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN},
    bindings,
    ffi::c_ulong,
    prelude::*,
};

/// The mark of an element: the epoch in which a pointer to its value was last handed out.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Mark(u32);

/// The marks of a map.
///
/// # Invariants
///
/// `marks` was made for `map`, and both are there for as long as this is.
pub(crate) struct Marks {
    map: *mut bindings::bpf_map,
    marks: NonNull<bindings::bpf_map_trace_marks>,
}

// SAFETY: All that is changed there is atomic.
unsafe impl Send for Marks {}
// SAFETY: As above.
unsafe impl Sync for Marks {}

impl Marks {
    /// Allocates the marks of `map`. Returns [`None`] if its elements cannot be marked.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// What this returns is dropped before the map is freed.
    pub(crate) unsafe fn new(map: &Map) -> Result<Option<Self>> {
        let map = map.as_ptr();

        // SAFETY: The map is alive, and its operations are constant.
        if unsafe { (*(*map).ops).trace_mark.is_none() } {
            return Ok(None);
        }
        // SAFETY: The map is alive.
        let marks = unsafe { bindings::bpf_map_trace_alloc_marks(map) };

        // INVARIANT: By the safety requirements.
        Ok(Some(Self {
            map,
            marks: NonNull::new(marks).ok_or(ENOMEM)?,
        }))
    }

    /// Sets whether elements are to be marked.
    ///
    /// It takes effect for programs that begin after
    /// [`synchronize_programs`](super::rcu::synchronize_programs).
    ///
    /// Context: any; calls for a map do not overlap.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        // SAFETY: By the invariants.
        unsafe { bindings::bpf_map_trace_set_marked(self.map, self.marks.as_ptr(), wanted) };
    }

    /// Returns whether an element was marked since the last epoch began.
    pub(crate) fn is_armed(&self) -> bool {
        // SAFETY: By the invariants.
        unsafe { bindings::bpf_map_trace_is_armed(self.marks.as_ptr()) }
    }

    /// Notes that marks are left.
    pub(crate) fn arm_again(&self) {
        // SAFETY: By the invariants.
        unsafe { bindings::bpf_map_trace_arm_again(self.marks.as_ptr()) };
    }

    /// Begins an epoch, to process the marks of earlier epochs.
    ///
    /// Context: process context.
    pub(crate) fn next_epoch(&self) -> Epoch {
        let mut cookie = 0;

        // SAFETY: By the invariants.
        let number =
            unsafe { bindings::bpf_map_trace_next_epoch(self.marks.as_ptr(), &raw mut cookie) };

        Epoch { number, cookie }
    }

    /// Copies the keys of marked elements, and their marks, of a part of the map, from `pos` on.
    /// Returns how many there are, or [`None`] after the last part.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOSPC`] if there is too little room in `keys`, [`ENOMEM`], and those of a lock.
    pub(crate) fn read(
        &self,
        pos: &mut u64,
        keys: &mut KeyBuffer,
        marks: &mut KVVec<Mark>,
    ) -> Result<Option<usize>> {
        let capacity = keys.capacity() as usize;
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;

        marks.resize(marks.len().max(capacity), Mark(0), flags)?;
        // SAFETY: By the invariants, the map is alive; there is room for so many marks.
        unsafe { Map::from_raw(self.map).read_keys_and_marks(pos, keys, marks.as_mut_ptr().cast()) }
    }

    /// Clears the mark of the element of a key, if it is still `mark` and older than `epoch`.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map.
    pub(crate) unsafe fn clear(&self, key: *mut c_void, mark: Mark, epoch: &Epoch) {
        // SAFETY: The map is alive. The rest is up to the caller.
        unsafe { bindings::bpf_map_trace_clear_mark(self.map, key, mark.0, epoch.number) };
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        // SAFETY: By the invariants, both are there still. If elements were marked, the map keeps
        // the marks.
        unsafe { bindings::bpf_map_trace_free_marks(self.map, self.marks.as_ptr()) };
    }
}

/// An epoch of marks that has begun.
pub(crate) struct Epoch {
    number: u32,
    cookie: c_ulong,
}

impl Epoch {
    /// Returns whether all programs that ran when it began have ended, including sleepable ones.
    pub(crate) fn is_behind_programs(&self) -> bool {
        // SAFETY: It comes from where an epoch begins.
        unsafe { bindings::bpf_map_trace_poll(self.cookie) }
    }
}
