// SPDX-License-Identifier: GPL-2.0

//! A value that readers use under RCU and that writers replace as a whole.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::marker::PhantomData;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        rcu,
        GlobalGuard, //
    },
    types::Opaque,
};

use kernel::sync::GlobalLockBackend;

/// An RCU read-side critical section, ours or that of our caller.
#[derive(Clone, Copy)]
pub(crate) struct ReadSide<'a>(PhantomData<&'a rcu::Guard>);

impl ReadSide<'_> {
    /// Assumes that a caller in C is in such a section.
    ///
    /// # Safety
    ///
    /// The section lasts as long as the result.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl<'a> From<&'a rcu::Guard> for ReadSide<'a> {
    fn from(_guard: &'a rcu::Guard) -> Self {
        Self(PhantomData)
    }
}

/// The allocation that an [`RcuCell`] points to.
///
/// Freed by an RCU callback in this module: the module's exit has to wait with
/// [`kernel::sync::rcu::rcu_barrier`].
#[repr(C)]
struct RcuBox<T> {
    head: Opaque<bindings::callback_head>,
    value: T,
}

/// A pointer to a `T` that is read under RCU.
///
/// # Invariants
///
/// `ptr` comes from [`KBox::into_raw`]. It is replaced only by holders of the global lock `B`, and
/// what it pointed to is freed one RCU grace period later.
pub(crate) struct RcuCell<T: Send + Sync, B: GlobalLockBackend> {
    ptr: Atomic<*mut RcuBox<T>>,
    _lock: PhantomData<fn() -> B>,
}

impl<T: Send + Sync + 'static, B: GlobalLockBackend> RcuCell<T, B> {
    /// Creates a cell.
    pub(crate) fn new(value: Unpublished<T>) -> Self {
        // INVARIANT: It comes from there.
        Self {
            ptr: Atomic::new(KBox::into_raw(value.0)),
            _lock: PhantomData,
        }
    }

    /// Reads the value.
    ///
    /// Context: any.
    #[inline(always)]
    pub(crate) fn read<'a>(&'a self, _rcu: ReadSide<'a>) -> &'a T {
        // Pairs with the `Release` in `replace()`.
        let ptr = self.ptr.load(Acquire);
        // SAFETY: By the invariants, what was in the cell after the RCU read section has begun is
        // not freed before it ends, and `'a` ends before.
        unsafe { &(*ptr).value }
    }

    /// Reads the value as a writer.
    pub(crate) fn peek<'a>(&'a self, _guard: &'a GlobalGuard<B>) -> &'a T {
        let ptr = self.ptr.load(Relaxed);
        // SAFETY: By the invariants, only the holder of the lock replaces the value, and that needs
        // the guard mutably while it is borrowed here.
        unsafe { &(*ptr).value }
    }

    /// Replaces the value. The old one is freed after a grace period.
    pub(crate) fn replace(&self, new: Unpublished<T>, _guard: &mut GlobalGuard<B>) {
        let new = KBox::into_raw(new.0);
        let old = self.ptr.load(Relaxed);

        // INVARIANT: The lock is held.
        self.ptr.store(new, Release);
        // SAFETY: `old` comes from `KBox::into_raw()` and no reader can find it any more. The
        // callback frees it after those that did have ended.
        unsafe { bindings::call_rcu((*old).head.get(), Some(free_box::<T>)) };
    }
}

impl<T: Send + Sync, B: GlobalLockBackend> Drop for RcuCell<T, B> {
    fn drop(&mut self) {
        // SAFETY: By the invariants, this comes from `KBox::into_raw()`. Nobody else has a
        // reference to the cell, so nobody reads it.
        drop(unsafe { KBox::from_raw(*self.ptr.get_mut()) });
    }
}

/// A value that is ready to go into an [`RcuCell`].
pub(crate) struct Unpublished<T>(KBox<RcuBox<T>>);

impl<T> Unpublished<T> {
    /// Allocates room for `value`.
    pub(crate) fn new(value: T) -> Result<Self> {
        let new = KBox::new(
            RcuBox {
                head: Opaque::uninit(),
                value,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(Self(new))
    }
}

/// Frees an [`RcuBox`].
///
/// # Safety
///
/// `head` is the first member of an [`RcuBox<T>`] from [`KBox::into_raw`] that nobody can reach.
unsafe extern "C" fn free_box<T>(head: *mut bindings::callback_head) {
    // SAFETY: By the safety requirements; `RcuBox` is `repr(C)`, so the head is where the box is.
    drop(unsafe { KBox::from_raw(head.cast::<RcuBox<T>>()) });
}

/// A grace period that has begun. It is over when all RCU sections that ran at its beginning are
/// over.
pub(crate) struct GracePeriod(Opaque<bindings::rcu_gp_seq>);

impl GracePeriod {
    /// Begins a grace period.
    ///
    /// Context: process context.
    pub(crate) fn begin() -> Self {
        let this = Self(Opaque::uninit());

        // SAFETY: It fills in all of it.
        unsafe { bindings::start_poll_synchronize_rcu_full(this.0.get()) };
        this
    }

    /// Returns whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        // SAFETY: `begin()` has filled it in.
        unsafe { bindings::poll_state_synchronize_rcu_full(self.0.get()) }
    }
}

/// Sleeps for a tick, or until a signal arrives.
///
/// Context: process context, may sleep.
pub(crate) fn sleep_for_a_tick() {
    // SAFETY: No requirements but the context.
    unsafe { bindings::schedule_timeout_interruptible(1) };
}

/// Waits until all running programs, including sleepable ones, and all RCU sections are over.
///
/// Context: process context, may sleep, for as long as the longest sleepable program.
pub(crate) fn synchronize_programs() {
    // SAFETY: No requirements but the context.
    unsafe { bindings::bpf_map_trace_synchronize() };
}
