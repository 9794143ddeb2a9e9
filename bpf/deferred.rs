// SPDX-License-Identifier: GPL-2.0

//! Deferred work of a map: requested in any context, NMI included, and done in process context.
//!
//! C headers: [`include/linux/irq_work.h`](srctree/include/linux/irq_work.h),
//! [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::map::Map;
use core::ptr::{self, NonNull};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    bindings,
    ffi::{c_int, c_ulong},
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, AtomicFlag, Full, Release},
        barrier::smp_mb,
        static_lock_class, //
    },
    time::{msecs_to_jiffies, Msecs},
    types::Opaque,
};

/// The workqueue that does the work, while there is a [`WorkQueue`].
static QUEUE: Atomic<*mut bindings::workqueue_struct> = Atomic::new(ptr::null_mut());

/// The workqueue of all [`Deferred`]. Dropping it destroys the workqueue.
///
/// It is not bound to CPUs. An administrator can bind it to some in
/// `/sys/devices/virtual/workqueue/`.
pub(crate) struct WorkQueue {
    _private: (),
}

impl WorkQueue {
    /// Creates the workqueue.
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

        // SAFETY: It comes from `new()`. No map has work that could queue anything.
        unsafe { bindings::destroy_workqueue(queue) };
    }
}

/// `queue_delayed_work_on()` and the like.
type QueueFunction = unsafe extern "C" fn(
    c_int,
    *mut bindings::workqueue_struct,
    *mut bindings::delayed_work,
    c_ulong,
) -> bool;

/// Work that can be deferred.
pub(crate) trait Work: Send + Sync {
    /// Does the work, as far as it can be done now. Returns the delay after which to continue.
    ///
    /// Context: process context, may sleep.
    fn run(&self, map: &Map) -> Option<Msecs>;

    /// Returns how long a request by [`Deferred::kick_in_turn`] may wait.
    fn pause(&self) -> Msecs {
        0
    }
}

/// Deferred work with its data.
///
/// # Invariants
///
/// `map` is alive for as long as this exists.
#[pin_data(PinnedDrop)]
pub(crate) struct Deferred<T: Work> {
    #[pin]
    irq_work: Opaque<bindings::irq_work>,
    #[pin]
    work: Opaque<bindings::delayed_work>,
    map: *mut bindings::bpf_map,
    /// It was requested at once, and was not queued yet.
    hurries: AtomicFlag,
    /// It was queued at once since it last began to run.
    hurried: AtomicFlag,
    /// It was requested in turn since it last began to run.
    kicked: AtomicFlag,
    #[pin]
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
    pub(crate) unsafe fn new(map: &Map, data: impl PinInit<T>) -> Result<Pin<KBox<Self>>> {
        let map = map.as_ptr();

        // INVARIANT: By the safety requirements.
        KBox::pin_init(
            pin_init!(Self {
                irq_work <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is valid for a write, and what is pinned there stays.
                    unsafe { bindings::init_irq_work_lazy(slot, Some(Self::hand_over)) }
                }),
                work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                    // SAFETY: As above. The timer is as DELAYED_WORK has it.
                    unsafe {
                        bindings::init_work_with_key(
                            &raw mut (*slot).work,
                            Some(Self::run),
                            false,
                            c"map_trace".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        );
                        bindings::timer_init_key(
                            &raw mut (*slot).timer,
                            Some(bindings::delayed_work_timer_fn),
                            bindings::TIMER_IRQSAFE,
                            c"map_trace".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        );
                    }
                }),
                map,
                hurries: AtomicFlag::new(false),
                hurried: AtomicFlag::new(false),
                kicked: AtomicFlag::new(false),
                data <- data,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns the data.
    #[inline(always)]
    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    /// Requests that the work is done soon, at least once after this call. This ends a pause.
    ///
    /// Context: any, NMI included.
    pub(crate) fn kick(&self) {
        // Pairs with the exchange in `hand_over()`: that runs after this, or is yet to run.
        self.hurries.store(true, Release);
        self.kick_in_turn();
    }

    /// Like [`Deferred::kick`], but does not end a pause.
    ///
    /// Context: any, NMI included.
    pub(crate) fn kick_in_turn(&self) {
        // SAFETY: It is initialized, and stays until `drop()` has waited for it.
        unsafe { bindings::irq_work_queue(self.irq_work.get()) };
    }

    /// Queues the work, outside of the context that has requested it.
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
        // SAFETY: By the safety requirements; it stays until `drop()` has waited for this.
        let this = unsafe { &*this };

        if this.hurries.xchg(false, Full) {
            this.hurried.xchg(true, Full);
            this.work_after(0, bindings::mod_delayed_work_on);
            return;
        }
        this.kicked.xchg(true, Full);
        let pause = this.data.pause();
        if pause == 0 {
            this.work_after(0, bindings::mod_delayed_work_on);
            return;
        }
        // No effect if the work is queued already, with a delay.
        this.work_after(pause, bindings::queue_delayed_work_on);
        // If the work runs now, its pause can change: either it sees the kick, or this sees the new
        // pause.
        smp_mb(Full);
        if this.data.pause() != pause {
            this.work_after(this.data.pause(), bindings::mod_delayed_work_on);
        }
    }

    /// Queues the work with `function`.
    fn work_after(&self, delay: Msecs, function: QueueFunction) {
        // SAFETY: It is initialized, and stays until `drop()` has waited for it. The queue is there
        // for as long as maps have work.
        unsafe {
            function(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                QUEUE.load(Acquire),
                self.work.get(),
                msecs_to_jiffies(delay),
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
            let work = kernel::container_of!(work, bindings::delayed_work, work);

            &*kernel::container_of!(work.cast::<Opaque<bindings::delayed_work>>(), Self, work)
        };

        // This run serves all earlier requests.
        this.hurried.xchg(false, Full);
        this.kicked.xchg(false, Full);
        // SAFETY: By the invariants.
        let delay = this.data.run(unsafe { Map::from_raw(this.map) });

        if let Some(delay) = delay {
            this.work_after(delay, bindings::mod_delayed_work_on);
        }
        // After `work_after()`, which may have delayed the work that a kick has queued. Pairs with
        // the exchange in `hand_over()`. A kick during the run did not know the present pause.
        if this.kicked.xchg(false, Full) {
            let pause = this.data.pause();

            if delay.is_none_or(|delay| pause < delay) {
                this.work_after(pause, bindings::mod_delayed_work_on);
            }
        }
        if this.hurried.xchg(false, Full) {
            this.work_after(0, bindings::mod_delayed_work_on);
        }
    }
}

#[pinned_drop]
impl<T: Work> PinnedDrop for Deferred<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Both are initialized. Nobody can kick any more, so nothing queues the work after
        // the former is over.
        unsafe {
            bindings::irq_work_sync(self.irq_work.get());
            bindings::cancel_delayed_work_sync(self.work.get());
        }
    }
}
