// SPDX-License-Identifier: GPL-2.0

//! The context that tracers run in: preemption, recursion and run contexts.
//!
//! C headers: [`include/linux/preempt.h`](srctree/include/linux/preempt.h),
//! [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

use core::{iter, marker::PhantomData, mem::MaybeUninit, ptr};
use kernel::{bindings, types::NotThreadSafe};

/// How many contexts can interrupt each other on a CPU: task, softirq, hardirq, NMI.
pub(crate) const CONTEXT_LEVELS: usize = bindings::BPF_MAP_TRACE_CONTEXTS as usize;

/// A bit in the pointer to a run context: it has another run context outside.
const NESTED: usize = bindings::BPF_MAP_TRACE_NESTED as usize;

/// Disables preemption while it exists.
pub(crate) struct PreemptGuard(NotThreadSafe);

impl PreemptGuard {
    /// Disables preemption.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        // SAFETY: No requirements; `drop()` enables it again.
        unsafe { bindings::preempt_disable() };
        Self(NotThreadSafe)
    }

    /// Returns the current CPU.
    #[inline(always)]
    pub(crate) fn cpu(&self) -> u32 {
        // SAFETY: No requirements. It stays right while preemption is off.
        unsafe { bindings::raw_smp_processor_id() }
    }

    /// Returns the level of this context, which is less than [`CONTEXT_LEVELS`].
    #[inline(always)]
    pub(crate) fn context_level(&self) -> usize {
        // SAFETY: No requirements.
        usize::from(unsafe { bindings::interrupt_context_level() })
    }
}

/// Returns the current CPU. The task may have migrated by the time the caller uses the result.
#[inline(always)]
pub(crate) fn cpu_hint() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::raw_smp_processor_id() }
}

impl Drop for PreemptGuard {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `new()` disabled it.
        unsafe { bindings::preempt_enable() };
    }
}

/// Room for the run context of an operation's tracers. `bpf_get_attach_cookie()` reads it, and
/// recursion is detected by it.
///
/// It must not move between [`RunContext::enter`] and the drop of its result.
pub(crate) struct RunContext(MaybeUninit<bindings::bpf_map_trace_run_ctx>);

impl RunContext {
    /// Creates a context that was not entered yet.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Makes this the run context of the task that runs here.
    ///
    /// Returns [`None`] in an interrupt, and if a tracer has caused the current operation. Use
    /// [`RunContext::enter_nested`] then.
    #[inline(always)]
    pub(crate) fn enter<'a>(&'a mut self, _preempt: &'a PreemptGuard) -> Option<Outermost<'a>> {
        let this = self.0.as_mut_ptr();
        // SAFETY: Preemption is off. It stays borrowed, and thus in place, until the drop takes it
        // away.
        if !unsafe { bindings::bpf_map_trace_enter_task(this) } {
            return None;
        }
        // INVARIANT: It is the innermost now.
        Some(Outermost(CurrentRunContext::set(this)))
    }

    /// Makes this the run context of the current context, whatever that is.
    #[cold]
    pub(crate) fn enter_nested<'a>(&'a mut self, preempt: &'a PreemptGuard) -> Nested<'a> {
        let this = self.0.as_mut_ptr();
        // SAFETY: Preemption is off.
        let level = unsafe { bindings::bpf_map_trace_level() };
        // SAFETY: Preemption is off, and as long as the guard is borrowed the pointer stays that of
        // this CPU. What interrupts us leaves it as it was.
        let innermost = unsafe { bindings::bpf_map_trace_this_innermost(level) };
        // SAFETY: As above.
        let old = unsafe { *innermost };
        // What a breakpoint causes belongs to another context than the kernel counts, and some of
        // these contexts have a stack of their own.
        let is_breakpoint = usize::from(level) != preempt.context_level();
        // The first and the last functions of an interrupt run while it does not count as one.
        let interrupts = !is_breakpoint && is_on_task_stack(old) && !is_on_task_stack(this.addr());

        // SAFETY: As above, and `this` is room for it. Volatile: it is complete before it can be
        // found.
        unsafe {
            this.write_volatile(bindings::bpf_map_trace_run_ctx {
                run_ctx: bindings::bpf_run_ctx {},
                tracer: ptr::null(),
                outer: if interrupts { 0 } else { old },
            });
            innermost.write_volatile(this.expose_provenance() | NESTED);
        }
        // INVARIANT: It is the innermost now.
        Nested {
            current: CurrentRunContext::set(this),
            innermost,
            old,
            interrupt: level != 0,
        }
    }
}

/// Returns whether a tracer has caused the current operation.
pub(crate) fn is_nested(_preempt: &PreemptGuard) -> bool {
    // SAFETY: Preemption is off.
    unsafe { *bindings::bpf_map_trace_this_innermost(bindings::bpf_map_trace_level()) != 0 }
}

/// Returns whether `is_meant` holds for a tracer that has caused the current operation.
///
/// Context: any, NMI included.
pub(crate) fn is_led_by(_preempt: &PreemptGuard, is_meant: impl Fn(*const u64) -> bool) -> bool {
    // SAFETY: Preemption is off.
    let innermost =
        unsafe { *bindings::bpf_map_trace_this_innermost(bindings::bpf_map_trace_level()) };

    // SAFETY: What it leads to is below this on the stack.
    unsafe { chain(innermost) }.any(is_meant)
}

/// Returns the tracers of a list, from the innermost outwards.
///
/// # Safety
///
/// `next` comes from the list of a context that this was led to by, and stays there meanwhile.
unsafe fn chain(mut next: usize) -> impl Iterator<Item = *const u64> {
    iter::from_fn(move || {
        if next == 0 {
            return None;
        }
        let context: *const bindings::bpf_map_trace_run_ctx =
            ptr::with_exposed_provenance(next & !NESTED);

        // SAFETY: What is in the list is on the stack below this one, where it stays until it has
        // taken itself out. Only a nested one has another outside.
        unsafe {
            next = if next & NESTED != 0 {
                (*context).outer
            } else {
                0
            };
            Some((*context).tracer)
        }
    })
}

/// Returns whether an address is on the stack of the current task, and not of an interrupt.
fn is_on_task_stack(address: usize) -> bool {
    // SAFETY: It looks at the address only.
    unsafe { bindings::object_is_on_stack(ptr::without_provenance(address)) != 0 }
}

/// The run context of the current task.
///
/// # Invariants
///
/// `this` is valid.
struct CurrentRunContext<'a> {
    this: *mut bindings::bpf_map_trace_run_ctx,
    old: *mut bindings::bpf_run_ctx,
    _context: PhantomData<&'a mut RunContext>,
}

impl CurrentRunContext<'_> {
    #[inline(always)]
    fn set(this: *mut bindings::bpf_map_trace_run_ctx) -> Self {
        // INVARIANT: The callers have it borrowed.
        Self {
            this,
            // SAFETY: The context stays in place until the drop takes it away.
            old: unsafe { bindings::bpf_set_run_ctx(this.cast()) },
            _context: PhantomData,
        }
    }

    #[inline(always)]
    fn set_tracer(&mut self, id: *const u64) {
        // SAFETY: By the invariants. Volatile, because it is read through `current`.
        unsafe { (&raw mut (*self.this).tracer).write_volatile(id) };
    }
}

impl Drop for CurrentRunContext<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `old` is what `bpf_set_run_ctx()` returned.
        unsafe { bindings::bpf_reset_run_ctx(self.old) };
    }
}

/// A [`RunContext`] that was entered.
pub(crate) trait EnteredRunContext {
    /// Returns how many tracers have caused the current operation, and whether `tracer` is one of
    /// them.
    fn outer<T: CookieFirst>(&self, tracer: &T) -> (usize, bool);

    /// Returns whether this is an interrupt or an NMI.
    fn is_in_interrupt(&self) -> bool;

    /// Sets the tracer that runs now.
    fn set_tracer<T: CookieFirst>(&mut self, tracer: &T);
}

/// A type that begins with the cookie of a tracer.
///
/// # Safety
///
/// The type is `repr(C)`, and its first member is a [`u64`] that does not change.
pub(crate) unsafe trait CookieFirst {
    /// Returns the address of the cookie: it identifies the tracer, and `bpf_get_attach_cookie()`
    /// reads it.
    #[inline(always)]
    fn id(&self) -> *const u64 {
        ptr::from_ref(self).cast()
    }
}

/// The run context of a task, in an operation that no tracer has caused.
///
/// # Invariants
///
/// It is the only one of the task level of this CPU.
pub(crate) struct Outermost<'a>(CurrentRunContext<'a>);

impl EnteredRunContext for Outermost<'_> {
    #[inline(always)]
    fn outer<T: CookieFirst>(&self, _tracer: &T) -> (usize, bool) {
        (0, false)
    }

    #[inline(always)]
    fn is_in_interrupt(&self) -> bool {
        false
    }

    #[inline(always)]
    fn set_tracer<T: CookieFirst>(&mut self, tracer: &T) {
        self.0.set_tracer(tracer.id());
    }
}

impl Drop for Outermost<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the invariants, nothing is left after it; preemption is still off.
        unsafe { bindings::bpf_map_trace_exit_task() };
    }
}

/// The run context of an interrupt, or of an operation of a tracer.
///
/// # Invariants
///
/// `innermost` is the entry of this context of this CPU, and `current` is the innermost there,
/// where `old` was before.
pub(crate) struct Nested<'a> {
    current: CurrentRunContext<'a>,
    innermost: *mut usize,
    old: usize,
    interrupt: bool,
}

impl EnteredRunContext for Nested<'_> {
    fn outer<T: CookieFirst>(&self, tracer: &T) -> (usize, bool) {
        // SAFETY: `this` is valid, by the invariants, and so is what it leads to.
        let outer = unsafe { chain((*self.current.this).outer) };

        outer.fold((0, false), |(count, running), id| {
            (count + 1, running || id == tracer.id())
        })
    }

    fn is_in_interrupt(&self) -> bool {
        self.interrupt
    }

    #[inline(always)]
    fn set_tracer<T: CookieFirst>(&mut self, tracer: &T) {
        self.current.set_tracer(tracer.id());
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariants; preemption is still off.
        unsafe { self.innermost.write_volatile(self.old) };
    }
}
