// SPDX-License-Identifier: GPL-2.0

//! Where a tracer runs: preemption, recursion and the run context of its program.
//!
//! C headers: [`include/linux/preempt.h`](srctree/include/linux/preempt.h),
//! [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

use core::{ffi::c_void, marker::PhantomData, ptr};
use kernel::{bindings, types::NotThreadSafe};

/// How many contexts can interrupt each other on a CPU: task, softirq, hardirq, NMI.
pub(crate) const CONTEXT_LEVELS: usize = bindings::BPF_MAP_TRACE_CONTEXTS as usize;

/// Preemption is off while this exists.
pub(crate) struct PreemptGuard(NotThreadSafe);

impl PreemptGuard {
    /// Disables preemption.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        // SAFETY: No requirements; `drop()` enables it again.
        unsafe { bindings::preempt_disable() };
        Self(NotThreadSafe)
    }

    /// The CPU that this runs on.
    #[inline(always)]
    pub(crate) fn cpu(&self) -> u32 {
        // SAFETY: No requirements. It stays right while preemption is off.
        unsafe { bindings::raw_smp_processor_id() }
    }

    /// The level of this context, less than [`CONTEXT_LEVELS`].
    #[inline(always)]
    pub(crate) fn context_level(&self) -> usize {
        // SAFETY: No requirements.
        usize::from(unsafe { bindings::interrupt_context_level() })
    }
}

impl Drop for PreemptGuard {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `new()` disabled it.
        unsafe { bindings::preempt_enable() };
    }
}

/// The tracers that run now in this context on this CPU.
///
/// # Invariants
///
/// `this` is the entry of the current CPU and context, which nobody else uses while preemption is
/// off, and its `depth` is at most `BPF_MAP_TRACE_MAX_NESTING`.
pub(crate) struct Nesting<'a> {
    this: *mut bindings::bpf_map_trace_nesting,
    _preempt: PhantomData<&'a PreemptGuard>,
}

impl<'a> Nesting<'a> {
    /// Looks up the entry of this context.
    #[inline(always)]
    pub(crate) fn this(_preempt: &'a PreemptGuard) -> Self {
        Self {
            // INVARIANT: Preemption is off as long as the guard is borrowed.
            // SAFETY: As it is off, `this_cpu_ptr()` may be used.
            this: unsafe { bindings::bpf_map_trace_this_nesting() },
            _preempt: PhantomData,
        }
    }

    /// Notes that `tracer` runs.
    ///
    /// Returns [`None`] where it runs already, further up, or where the nesting limit is reached.
    #[inline(always)]
    pub(crate) fn enter<T>(&mut self, tracer: &T) -> Option<Running<'_>> {
        let id = ptr::from_ref(tracer).cast::<c_void>();
        // SAFETY: By the invariants, `this` is valid and only this context uses it.
        let this = unsafe { &mut *self.this };
        let depth = this.depth as usize;

        // Most often nothing runs, and this is one test.
        if depth != 0 && this.running.iter().take(depth).any(|r| *r == id) {
            return None;
        }
        *this.running.get_mut(depth)? = id;
        // INVARIANT: `get_mut()` has checked `depth`.
        this.depth += 1;
        Some(Running {
            this: self.this,
            _nesting: PhantomData,
        })
    }
}

/// A tracer runs while this exists.
pub(crate) struct Running<'a> {
    this: *mut bindings::bpf_map_trace_nesting,
    _nesting: PhantomData<&'a ()>,
}

impl Drop for Running<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `enter()` has raised the depth of this entry, which is still ours.
        unsafe { (*self.this).depth -= 1 };
    }
}

/// What `bpf_get_attach_cookie()` finds while this exists.
///
/// It must stay where it is between [`RunContext::enter`] and the drop of what that returns.
pub(crate) struct RunContext(bindings::bpf_trace_run_ctx);

impl RunContext {
    /// Creates a context whose cookie is not set yet.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(bindings::bpf_trace_run_ctx {
            run_ctx: bindings::bpf_run_ctx {},
            bpf_cookie: 0,
            is_uprobe: false,
        })
    }

    /// Makes this the run context of the current task.
    #[inline(always)]
    pub(crate) fn enter(&mut self) -> EnteredRunContext<'_> {
        let this: *mut bindings::bpf_trace_run_ctx = &mut self.0;
        EnteredRunContext {
            this,
            // SAFETY: The context stays borrowed, and thus in place, until the drop takes it away.
            old: unsafe { bindings::bpf_set_run_ctx(this.cast()) },
            _context: PhantomData,
        }
    }
}

/// A [`RunContext`] that is the current one.
pub(crate) struct EnteredRunContext<'a> {
    this: *mut bindings::bpf_trace_run_ctx,
    old: *mut bindings::bpf_run_ctx,
    _context: PhantomData<&'a mut RunContext>,
}

impl EnteredRunContext<'_> {
    /// Sets the cookie of the program that runs next.
    #[inline(always)]
    pub(crate) fn set_cookie(&mut self, cookie: u64) {
        // SAFETY: `this` is borrowed for as long as `self` lives. Volatile, because it is read
        // through `current`.
        unsafe { ptr::addr_of_mut!((*self.this).bpf_cookie).write_volatile(cookie) };
    }
}

impl Drop for EnteredRunContext<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `old` is what `bpf_set_run_ctx()` returned.
        unsafe { bindings::bpf_reset_run_ctx(self.old) };
    }
}
