// SPDX-License-Identifier: GPL-2.0

//! BPF programs: references, what the verifier has recorded about them, and how to run them.
//!
//! C headers: [`include/linux/bpf.h`](srctree/include/linux/bpf.h),
//! [`include/linux/filter.h`](srctree/include/linux/filter.h)

use super::{
    context::PreemptGuard,
    map::{Map, TraceType},
    rcu::ReadSide,
};
use core::{
    ffi::c_void,
    ptr::{self, NonNull},
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    bindings,
    prelude::*,
    sync::{
        aref::{ARef, AlwaysRefCounted},
        atomic::{Acquire, Atomic, Full}, //
    },
    types::Opaque,
};

/// A `struct bpf_prog`.
///
/// # Invariants
///
/// The program has a non-zero reference count.
#[repr(transparent)]
pub(crate) struct Prog(Opaque<bindings::bpf_prog>);

// SAFETY: A program can be used from any task.
unsafe impl Send for Prog {}
// SAFETY: What `&Prog` gives access to is constant once the program is verified.
unsafe impl Sync for Prog {}

// SAFETY: `bpf_prog_inc()` and `bpf_prog_put()` count the references that keep the program.
unsafe impl AlwaysRefCounted for Prog {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants, the program is alive.
        unsafe { bindings::bpf_prog_inc(self.0.get()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The safety requirements say that the caller has a reference to give up.
        unsafe { bindings::bpf_prog_put(obj.as_ptr().cast()) };
    }
}

impl Prog {
    /// Wraps a program.
    ///
    /// # Safety
    ///
    /// `ptr` is a program that stays alive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::bpf_prog) -> &'a Self {
        // SAFETY: By the safety requirements; `Prog` is transparent.
        unsafe { &*ptr.cast() }
    }

    /// Returns the `struct bpf_prog`.
    pub(crate) fn as_ptr(&self) -> *mut bindings::bpf_prog {
        self.0.get()
    }

    /// Returns its `aux`. It is a raw pointer, as others write to parts of it.
    fn aux(&self) -> *mut bindings::bpf_prog_aux {
        // SAFETY: Set once, and it lives as long as the program.
        unsafe { (*self.0.get()).aux }
    }

    /// Returns whether the program is for `BPF_TRACE_MAP`.
    pub(crate) fn is_map_tracer(&self) -> bool {
        // SAFETY: Constant.
        let (prog_type, attach_type) =
            unsafe { ((*self.0.get()).type_, (*self.0.get()).expected_attach_type) };
        prog_type == bindings::bpf_prog_type_BPF_PROG_TYPE_TRACING
            && attach_type == bindings::bpf_attach_type_BPF_TRACE_MAP
    }

    /// Returns the operation that the program is for: its target.
    ///
    /// Errors: [`EINVAL`] if it was loaded for something else.
    pub(crate) fn trace_type(&self) -> Result<TraceType> {
        // SAFETY: The program is alive.
        let trace_type = unsafe { bindings::bpf_map_trace_prog_type(self.0.get()) };
        u32::try_from(trace_type)?.try_into()
    }

    /// Returns how many bytes of the key it reads.
    pub(crate) fn max_key_access(&self) -> u32 {
        // SAFETY: `aux` is valid, and this is constant once the program is verified.
        unsafe { (*self.aux()).max_rdonly_access }
    }

    /// Returns the maps that it updates or deletes from, as far as they were known at load.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn written_maps(&self) -> Result<KVec<ARef<Map>>> {
        let aux = self.aux();
        // SAFETY: `aux` is valid, and this is constant once the program is verified.
        let written = unsafe { (*aux).map_trace_writes };
        let mut maps = KVec::with_capacity(written.count_ones() as usize, GFP_KERNEL_ACCOUNT)?;

        // SAFETY: The mutex was initialized with the program. It protects `used_maps`, which
        // BPF_PROG_BIND_MAP replaces by a longer array.
        unsafe { bindings::mutex_lock(&raw mut (*aux).used_maps_mutex) };
        for i in (0..u64::BITS as usize).filter(|i| written & (1 << i) != 0) {
            // SAFETY: The verifier has set bits only for the maps that it has put into the array,
            // and the program has a reference to each.
            let map: ARef<Map> = unsafe { Map::from_raw(*(*aux).used_maps.add(i)) }.into();
            // There is room for all of them.
            let _ = maps.push_within_capacity(map);
        }
        // SAFETY: We have locked it.
        unsafe { bindings::mutex_unlock(&raw mut (*aux).used_maps_mutex) };
        Ok(maps)
    }

    /// Returns how many bytes of the value it reads.
    pub(crate) fn max_value_access(&self) -> u32 {
        // SAFETY: As above.
        unsafe { (*self.aux()).max_rdwr_access }
    }
}

/// The context of a program, for the target that it was loaded for.
///
/// # Safety
///
/// The type is the context of programs for `TYPE`.
pub(crate) unsafe trait Context {
    /// The operation.
    const TYPE: TraceType;

    /// Sets the CPU whose value was written, or on which the operation was done.
    fn set_cpu(&mut self, cpu: u32);
}

// SAFETY: This is what bpf_map_trace__update_elem() describes.
unsafe impl Context for bindings::bpf_map_trace_ctx__update_elem {
    const TYPE: TraceType = TraceType::UpdateElem;

    #[inline(always)]
    fn set_cpu(&mut self, cpu: u32) {
        self.cpu = cpu.into();
    }
}

// SAFETY: This is what bpf_map_trace__delete_elem() describes.
unsafe impl Context for bindings::bpf_map_trace_ctx__delete_elem {
    const TYPE: TraceType = TraceType::DeleteElem;

    #[inline(always)]
    fn set_cpu(&mut self, cpu: u32) {
        self.cpu = cpu.into();
    }
}

// SAFETY: This is what bpf_map_trace__sync_elem() describes.
unsafe impl Context for bindings::bpf_map_trace_ctx__sync_elem {
    const TYPE: TraceType = TraceType::SyncElem;

    #[inline(always)]
    fn set_cpu(&mut self, cpu: u32) {
        self.cpu = cpu.into();
    }
}

/// A program that runs as long as it is in here, and that can be swapped while it runs.
///
/// # Invariants
///
/// The pointer has a reference to a program, or is that of `bpf_map_trace_no_prog`, which does
/// nothing. A reference is given up only after the pointer was taken out; `bpf_prog_put()` frees
/// the program at the earliest one RCU grace period later.
pub(crate) struct AttachedProg(Atomic<*mut bindings::bpf_prog>);

/// Stands for no program, so that a run does not have to test for it.
fn no_prog() -> *mut bindings::bpf_prog {
    &raw mut bindings::bpf_map_trace_no_prog
}

impl AttachedProg {
    /// Attaches `prog`.
    pub(crate) fn new(prog: ARef<Prog>) -> Self {
        // INVARIANT: The reference goes into the pointer.
        Self(Atomic::new(ARef::into_raw(prog).as_ptr().cast()))
    }

    /// Replaces the program by `new`, and returns the old one. Each run uses one of the two.
    pub(crate) fn swap(&self, new: Option<ARef<Prog>>) -> Option<ARef<Prog>> {
        let new = new.map_or(no_prog(), |prog| ARef::into_raw(prog).as_ptr().cast());
        // INVARIANT: The reference goes into the pointer.
        let old = self.0.xchg(new, Full);

        if old == no_prog() {
            return None;
        }
        // SAFETY: By the invariants, the pointer had a reference, which is ours now.
        NonNull::new(old).map(|old| unsafe { ARef::from_raw(old.cast()) })
    }

    /// Returns whether there is a program.
    pub(crate) fn is_some(&self) -> bool {
        self.0.load(Acquire) != no_prog()
    }

    /// Returns whether `prog` is the program.
    pub(crate) fn is(&self, prog: &Prog) -> bool {
        self.0.load(Acquire) == prog.as_ptr()
    }

    /// Returns the id of the program, or 0 if there is none.
    pub(crate) fn id(&self, _rcu: ReadSide<'_>) -> u32 {
        let prog = self.0.load(Acquire);

        if prog == no_prog() {
            return 0;
        }
        // SAFETY: By the invariants, it is freed after the RCU read section. Its id is constant
        // while it is attached.
        unsafe { (*(*prog).aux).id }
    }

    /// Runs the program, and returns its return value, or 0 if there is none.
    ///
    /// Context: any, NMI included.
    ///
    /// # Safety
    ///
    /// The program was loaded for `C::TYPE`. The key and the value in `ctx` are as large as the
    /// program's accesses, and valid for the call.
    #[inline(always)]
    pub(crate) unsafe fn run<C: Context>(
        &self,
        ctx: &C,
        _rcu: ReadSide<'_>,
        _preempt: &PreemptGuard,
    ) -> u32 {
        let prog = self.0.load(Acquire);
        // SAFETY: By the invariants, it is freed after the RCU read section. The verifier has
        // checked that it may run without migration on such a context.
        unsafe { bindings::bpf_map_trace_run_prog(prog, ptr::from_ref(ctx).cast::<c_void>()) }
    }

    /// Increments the program's count of missed runs, which all tracing programs have.
    ///
    /// Context: any, NMI included.
    pub(crate) fn count_missed(&self, _rcu: ReadSide<'_>) {
        let prog = self.0.load(Acquire);

        if prog != no_prog() {
            // SAFETY: By the invariants, it is freed after the RCU read section.
            unsafe { bindings::bpf_prog_inc_misses_counter(prog) };
        }
    }
}

impl Drop for AttachedProg {
    fn drop(&mut self) {
        self.swap(None);
    }
}
