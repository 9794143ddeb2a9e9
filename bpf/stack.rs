// SPDX-License-Identifier: GPL-2.0

//! How much of the stack is left, and what lies on it.
//!
//! Maps change wherever programs run: deep in block I/O, in interrupts, in what an NMI calls. How
//! much of the stack is in use there cannot be known in advance, so each operation checks it.
//!
//! C header: [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

use core::{ffi::c_void, mem::MaybeUninit};
use kernel::bindings;

/// The stack that a tracer may take, with its operations and what the kernel does for them, in
/// bytes. A program has 512 bytes, and up to twice that with its callbacks.
const NEEDED: usize = bindings::BPF_MAP_TRACE_STACK as usize;

/// Returns whether the stack has room for tracers.
///
/// Context: any.
#[inline(always)]
pub(crate) fn has_room() -> bool {
    // SAFETY: No requirements.
    let most_often = unsafe { bindings::bpf_map_trace_has_task_stack() };

    most_often || has_room_elsewhere()
}

/// Like [`has_room`], if it is not the stack of a task, or if little of that is left.
#[cold]
#[inline(never)]
fn has_room_elsewhere() -> bool {
    left() >= NEEDED
}

/// Returns how many bytes are left, or 0 if the stack is not known.
fn left() -> usize {
    // SAFETY: No requirements.
    unsafe { bindings::bpf_map_trace_stack_left() }
}

/// Returns whether at least half of the stack is left.
///
/// Context: any.
pub(crate) fn is_half_free() -> bool {
    let left = left();
    let mut stack = MaybeUninit::<bindings::bpf_map_trace_stack>::uninit();
    let here = stack.as_ptr().addr();

    find(here, &mut stack).is_some_and(|stack| left >= stack.size / 2)
}

/// Returns whether `argument` lies on a stack of this task or of this CPU. Nobody else then uses it
/// until what runs here is over.
///
/// Context: any.
pub(crate) fn holds(argument: *const c_void) -> bool {
    find(argument.addr(), &mut MaybeUninit::uninit()).is_some()
}

/// Finds the stack that contains `address`.
fn find(
    address: usize,
    stack: &mut MaybeUninit<bindings::bpf_map_trace_stack>,
) -> Option<&bindings::bpf_map_trace_stack> {
    // SAFETY: It looks at the address only, and there is room for what it finds.
    if !unsafe { bindings::bpf_map_trace_find_stack(address, stack.as_mut_ptr()) } {
        return None;
    }
    // SAFETY: It has found one, and filled in all of it.
    Some(unsafe { stack.assume_init_ref() })
}
