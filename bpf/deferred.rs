// SPDX-License-Identifier: GPL-2.0

//! Work for a map that is asked for anywhere, NMI included, and done in process context.
//!
//! C headers: [`include/linux/irq_work.h`](srctree/include/linux/irq_work.h),
//! [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::map::Map;
use core::ptr::{self, NonNull};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    bindings,
    ffi::c_int,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full},
        static_lock_class, //
    },
    types::Opaque,
};

/// What the work is done by, while there is a [`WorkQueue`].
static QUEUE: Atomic<*mut bindings::workqueue_struct> = Atomic::new(ptr::null_mut());

/// The queue for all [`Deferred`]; dropped, it is gone.
///
/// It is not bound to CPUs, and an administrator can tie it to some, in
/// `/sys/devices/virtual/workqueue/`.
pub(crate) struct WorkQueue {
    _private: (),
}

impl WorkQueue {
    /// Makes the queue.
    ///
    /// Context: process context, may sleep; the initializer of the module.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: It is a format without a directive.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"map_trace".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_SYSFS,
                0 as c_int,
            )
        };
        let queue = NonNull::new(queue).ok_or(ENOMEM)?;

        QUEUE.xchg(queue.as_ptr(), Full);
        Ok(Self { _private: () })
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        let queue = QUEUE.xchg(ptr::null_mut(), Full);

        // SAFETY: It comes from `new()`. No map is left that could queue anything.
        unsafe { bindings::destroy_workqueue(queue) };
    }
}

/// What is to be done.
pub(crate) trait Work: Send + Sync {
    /// Does it.
    ///
    /// Context: process context, may sleep.
    fn run(&self, map: &Map);
}

/// Some work with its data.
///
/// # Invariants
///
/// `map` is alive for as long as this exists.
#[pin_data(PinnedDrop)]
pub(crate) struct Deferred<T: Work> {
    #[pin]
    irq_work: Opaque<bindings::irq_work>,
    #[pin]
    work: Opaque<bindings::work_struct>,
    map: *mut bindings::bpf_map,
    data: T,
}

// SAFETY: Both kinds of work do their own locking, and the rest is `T`.
unsafe impl<T: Work> Send for Deferred<T> {}
// SAFETY: As above.
unsafe impl<T: Work> Sync for Deferred<T> {}

impl<T: Work> Deferred<T> {
    /// Prepares the work of a map.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// What this returns is dropped before the map is freed.
    pub(crate) unsafe fn new(map: &Map, data: T) -> Result<Pin<KBox<Self>>> {
        let map = map.as_ptr();

        // INVARIANT: By the safety requirements.
        KBox::pin_init(
            pin_init!(Self {
                irq_work <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is valid for a write, and what is pinned there stays.
                    unsafe { bindings::init_irq_work_lazy(slot, Some(Self::hand_over)) }
                }),
                work <- Opaque::ffi_init(|slot| {
                    // SAFETY: As above.
                    unsafe {
                        bindings::init_work_with_key(
                            slot,
                            Some(Self::run),
                            false,
                            c"map_trace".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        )
                    }
                }),
                map,
                data,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// The data.
    #[inline(always)]
    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    /// Has the work done soon: once at least after this.
    ///
    /// Context: any, NMI included.
    pub(crate) fn kick(&self) {
        // SAFETY: It is initialized, and stays until `drop()` has waited for it.
        unsafe { bindings::irq_work_queue(self.irq_work.get()) };
    }

    /// Queues the work, out of the context that has asked for it.
    ///
    /// # Safety
    ///
    /// `irq_work` is that of a [`Deferred<T>`].
    unsafe extern "C" fn hand_over(irq_work: *mut bindings::irq_work) {
        // SAFETY: By the safety requirements; `Opaque` is transparent.
        let this = unsafe {
            kernel::container_of!(
                irq_work.cast::<Opaque<bindings::irq_work>>(),
                Self,
                irq_work
            )
        };
        // SAFETY: It is initialized, and stays until `drop()` has waited for it. The queue is there
        // for as long as the module has maps.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                QUEUE.load(Acquire),
                (*this).work.get(),
            )
        };
    }

    /// Does the work.
    ///
    /// # Safety
    ///
    /// `work` is that of a [`Deferred<T>`].
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: By the safety requirements; it stays until `drop()` has waited for this.
        let this = unsafe {
            &*kernel::container_of!(work.cast::<Opaque<bindings::work_struct>>(), Self, work)
        };

        // SAFETY: By the invariants.
        this.data.run(unsafe { Map::from_raw(this.map) });
    }
}

#[pinned_drop]
impl<T: Work> PinnedDrop for Deferred<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Both are initialized. Nobody can kick any more, so nothing queues the work after
        // the former is over.
        unsafe {
            bindings::irq_work_sync(self.irq_work.get());
            bindings::cancel_work_sync(self.work.get());
        }
    }
}
