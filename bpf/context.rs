// SPDX-License-Identifier: GPL-2.0

//! Where a tracer runs: preemption, recursion and the run context of its program.
//!
//! C headers: [`include/linux/preempt.h`](srctree/include/linux/preempt.h),
//! [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

use core::{ffi::c_void, marker::PhantomData, ptr};
use kernel::{bindings, types::NotThreadSafe};

/// How many contexts can interrupt each other on a CPU: task, softirq, hardirq, NMI.
pub(crate) const CONTEXT_LEVELS: usize = bindings::BPF_MAP_TRACE_CONTEXTS as usize;

/// How deep tracers may nest, one run by what the other one does.
pub(crate) const MAX_NESTING: usize = bindings::BPF_MAP_TRACE_MAX_NESTING as usize;

/// The same in an NMI, whose stack is smaller than that of a task.
const MAX_NESTING_NMI: usize = 3;

/// What [`PreemptGuard::context_level`] is in an NMI.
const NMI_LEVEL: usize = CONTEXT_LEVELS - 1;

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
    preempt: &'a PreemptGuard,
}

impl<'a> Nesting<'a> {
    /// Looks up the entry of this context.
    #[inline(always)]
    pub(crate) fn this(preempt: &'a PreemptGuard) -> Self {
        Self {
            // INVARIANT: Preemption is off as long as the guard is borrowed.
            // SAFETY: As it is off, `this_cpu_ptr()` may be used.
            this: unsafe { bindings::bpf_map_trace_this_nesting() },
            preempt,
        }
    }

    /// Notes that `tracer` runs.
    ///
    /// Returns [`None`] where it runs already, further up, or where the nesting limit is reached.
    #[inline(always)]
    pub(crate) fn enter<T>(&mut self, tracer: &T) -> Option<Running<'_>> {
        let id = ptr::from_ref(tracer).cast::<c_void>();
        // SAFETY: By the invariants, `this` is valid, and who else uses it interrupts us and leaves
        // it as it was.
        let depth = unsafe { (*self.this).depth } as usize;

        // Most often nothing runs, and this is one test.
        if depth != 0 && (depth >= self.limit() || self.is_running(id, depth)) {
            return None;
        }
        // SAFETY: As above, and `depth` is less than the limit. Volatile: first the depth goes up,
        // then the entry is filled, so that an NMI between the two uses the next one. That matters
        // only where it is no other context: breakpoints count as NMI, too.
        unsafe {
            // INVARIANT: It was less than the limit.
            (&raw mut (*self.this).depth).write_volatile((depth as u32).wrapping_add(1));
            entry(self.this, depth).write_volatile(id);
        }
        Some(Running {
            this: self.this,
            depth,
            _nesting: PhantomData,
        })
    }

    /// Whether a tracer is in the first `depth` entries.
    #[cold]
    fn is_running(&self, id: *const c_void, depth: usize) -> bool {
        // SAFETY: As in `enter()`.
        let running = unsafe { (*self.this).running };

        running.iter().take(depth).any(|other| *other == id)
    }

    /// How many tracers may run in this context.
    #[cold]
    fn limit(&self) -> usize {
        match self.preempt.context_level() {
            NMI_LEVEL => MAX_NESTING_NMI,
            _ => MAX_NESTING,
        }
    }
}

/// Where a running tracer is noted.
///
/// # Safety
///
/// `this` is valid, and `depth` is less than [`MAX_NESTING`].
#[inline(always)]
unsafe fn entry(this: *mut bindings::bpf_map_trace_nesting, depth: usize) -> *mut *const c_void {
    // SAFETY: By the safety requirements.
    unsafe {
        (&raw mut (*this).running)
            .cast::<*const c_void>()
            .add(depth)
    }
}

/// A tracer runs while this exists.
///
/// # Invariants
///
/// The tracer is in the entry `depth` of `this`.
pub(crate) struct Running<'a> {
    this: *mut bindings::bpf_map_trace_nesting,
    depth: usize,
    _nesting: PhantomData<&'a ()>,
}

impl Drop for Running<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the invariants, the entry is ours. Volatile: it is empty before it is free.
        unsafe {
            entry(self.this, self.depth).write_volatile(ptr::null());
            (&raw mut (*self.this).depth).write_volatile(self.depth as u32);
        }
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
