// SPDX-License-Identifier: GPL-2.0

//! An array of references that ends with a null pointer. Walking it takes a single pointer, and
//! neither a length nor an end.

use core::{iter, marker::PhantomData, ptr};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    sync::{Arc, ArcBorrow},
};

/// The array.
///
/// # Invariants
///
/// The last element is null. All others come from [`Arc::into_raw`], and have a reference.
pub(crate) struct TerminatedArray<T> {
    elements: KVec<*const T>,
    _references: PhantomData<Arc<T>>,
}

// SAFETY: It is as good as an array of `Arc<T>`.
unsafe impl<T: Send + Sync> Send for TerminatedArray<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for TerminatedArray<T> {}

impl<T> TerminatedArray<T> {
    /// Creates an empty array, with room for `capacity` references.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self> {
        let mut elements = KVec::with_capacity(capacity + 1, GFP_KERNEL_ACCOUNT)?;

        // INVARIANT: It ends with null.
        elements.push(ptr::null(), GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            elements,
            _references: PhantomData,
        })
    }

    /// Returns the number of references.
    pub(crate) fn len(&self) -> usize {
        self.elements.len() - 1
    }

    /// Adds a reference at the end.
    ///
    /// Context: process context, may sleep if there is no room.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn push(&mut self, reference: Arc<T>) -> Result {
        self.insert(self.len(), reference)
    }

    /// Adds a reference before the one at `index`, which is at most the length.
    ///
    /// Context: process context, may sleep if there is no room.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn insert(&mut self, index: usize, reference: Arc<T>) -> Result {
        let last = self.len();

        // INVARIANT: There is null behind all of them before the new one comes in.
        self.elements.push(ptr::null(), GFP_KERNEL_ACCOUNT)?;
        self.elements[last] = Arc::into_raw(reference);
        self.elements[index..=last].rotate_right(1);
        Ok(())
    }

    /// Returns the referenced values.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut next = self.elements.as_ptr();

        iter::from_fn(move || {
            // SAFETY: By the invariants, this is behind an element that is not null, or the first,
            // and so within the array.
            let element = unsafe { *next };

            next = next.wrapping_add(1);
            // SAFETY: By the invariants, it is null or has a reference, which stays while the array
            // is borrowed.
            unsafe { element.as_ref() }
        })
        .fuse()
    }

    /// Returns the references, to be cloned.
    pub(crate) fn references(&self) -> impl Iterator<Item = ArcBorrow<'_, T>> {
        self.iter().map(|element| {
            // SAFETY: By the invariants, it comes from `Arc::into_raw()`, and the array keeps its
            // reference while it is borrowed.
            unsafe { ArcBorrow::from_raw(element) }
        })
    }
}

impl<T> Drop for TerminatedArray<T> {
    fn drop(&mut self) {
        for element in &self.elements[..self.len()] {
            // SAFETY: By the invariants, this is the array's reference.
            drop(unsafe { Arc::from_raw(*element) });
        }
    }
}
