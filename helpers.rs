// SPDX-License-Identifier: GPL-2.0

//! The trampolines: do the operation, then run the tracers.
//!
//! Updates and deletes of a traced map go to a trampoline, from programs and from system calls. A
//! trampoline holds no lock, allocates nothing, and returns what the map's own operation returned.

use crate::{
    bpf::{
        context::{EnteredRunContext, PreemptGuard, RunContext},
        map::Map,
        operation::{Caller, Operation, Reusable},
        prog::Context,
        rcu::ReadSide,
        scratch::{Room, StackRoom, LITTLE_STACK, MUCH_STACK},
        stack,
    },
    delete_queue, sync,
    tracer::Tracer,
    tracer_list::TracerList,
};
use kernel::{ffi::c_long, sync::rcu};

/// Does `operation`, then runs its tracers. The stack has room for them.
///
/// Context: any, NMI included; under RCU or RCU tasks trace.
#[inline(always)]
pub(crate) fn trampoline<O: Operation>(operation: O, caller: Caller<'_>) -> c_long {
    match caller {
        Caller::Plain(rcu) => perform_and_trace(operation, rcu),
        Caller::Sleepable => lock_and_trace(operation),
        Caller::Copy => copy_and_trace(operation),
    }
}

/// Does `operation`, and counts it as missed by its tracers.
///
/// It uses as little of the stack as possible.
///
/// Context: any, NMI included; under RCU or RCU tasks trace.
#[inline(always)]
pub(crate) fn perform_only<O: Operation>(operation: O) -> c_long {
    // Also if the map has just got its first sync tracer: that attach waits for such operations.
    if !operation.map().found_tracers().are_plain(false) {
        return perform_only_all(operation);
    }
    let err = operation.perform();

    if err == 0 {
        count_missed::<O>(operation.map());
    }
    err
}

/// Like [`perform_only`], if there may be more to do than to count a miss.
#[cold]
#[inline(never)]
fn perform_only_all<O: Operation>(operation: O) -> c_long {
    // A flush waits for the operation and for what it causes.
    let _rcu = rcu::Guard::new();
    let map = operation.map();
    let err = match map.tracers().and_then(TracerList::live_sync) {
        Some(sync) => sync::perform_only(operation, sync),
        None => operation.perform(),
    };

    if err == 0 {
        count_missed::<O>(map);
    }
    err
}

/// Counts a miss for each tracer of an operation.
#[cold]
#[inline(never)]
fn count_missed<O: Operation>(map: &Map) {
    let rcu = rcu::Guard::new();
    let rcu = ReadSide::from(&rcu);

    if let Some(list) = map.tracers() {
        for tracer in list.read(O::TYPE, rcu).iter() {
            tracer.count_missed(rcu);
        }
    }
}

/// Runs the tracers of an operation that its caller has done. `cpu` is the CPU whose value was
/// written, if it is not the current CPU.
///
/// Context: any, with room on the stack: a system call starts with the whole stack.
pub(crate) fn trace_done<O: Operation>(operation: O, cpu: Option<u32>, rcu: ReadSide<'_>) {
    let tracers = operation.map().found_tracers();

    if !tracers.are_plain(O::MAY_EVICT) {
        return trace_done_all(operation, cpu, rcu);
    }
    // SAFETY: They are.
    let list = unsafe { tracers.plain(O::MAY_EVICT) };

    run_tracers(list, &mut operation.context(), cpu, rcu);
}

/// Like [`trace_done`], if there may be more to do than to run the tracers of the operation.
#[cold]
#[inline(never)]
fn trace_done_all<O: Operation>(operation: O, cpu: Option<u32>, rcu: ReadSide<'_>) {
    let Some(list) = operation.map().tracers() else {
        return;
    };

    // Without BPF_F_CPU, the caller calls this for each CPU.
    let turn = cpu.filter(|_| !operation.is_for_one_cpu());

    if O::MAY_EVICT {
        delete_queue::trace_some(list, operation.map(), turn, rcu);
    }
    run_tracers(list, &mut operation.context(), cpu, rcu);
    if let Some(sync) = list.live_sync() {
        sync::told_late(&operation, list, sync, cpu, turn);
    }
}

#[inline(always)]
fn perform_and_trace<O: Operation>(operation: O, rcu: ReadSide<'_>) -> c_long {
    // Before the operation: whoever changes this waits for operations that have not seen the
    // change.
    let tracers = operation.map().found_tracers();

    if !tracers.are_plain(O::MAY_EVICT) {
        return perform_and_trace_all(operation, rcu);
    }
    // SAFETY: They are.
    let list = unsafe { tracers.plain(O::MAY_EVICT) };
    // Build the context first, so that the arguments do not have to be kept anywhere else.
    let mut ctx = operation.context();
    let err = operation.perform();

    if err == 0 {
        run_tracers(list, &mut ctx, None, rcu);
    }
    err
}

/// Like [`perform_and_trace`], if there may be more to do than to run the tracers of the operation.
#[cold]
#[inline(never)]
fn perform_and_trace_all<O: Operation>(operation: O, rcu: ReadSide<'_>) -> c_long {
    if let Some(list) = operation.map().tracers() {
        if let Some(sync) = list.live_sync() {
            return sync::perform(operation, list, sync, rcu);
        }
    }
    let err = operation.perform();

    if err == 0 {
        trace_done_all(operation, None, rcu);
    }
    err
}

/// Like [`perform_and_trace`], for sleepable programs.
#[cold]
#[inline(never)]
fn lock_and_trace<O: Operation>(operation: O) -> c_long {
    let rcu = rcu::Guard::new();

    perform_and_trace(operation, ReadSide::from(&rcu))
}

/// Like [`lock_and_trace`], for arguments that the operation itself may release.
///
/// The operation also gets the copies, so that it sees the same as the tracers if somebody writes
/// to the original. The copies stay on the stack meanwhile. Operations can nest, so they are kept
/// small.
#[inline(always)]
fn copy_and_trace<O: Operation>(operation: O) -> c_long {
    let Some(list) = operation.map().tracers() else {
        return operation.perform();
    };
    let reusable = operation.reusable();

    match list.scratch().size_of(reusable) {
        0 => lock_and_trace(operation),
        1..=LITTLE_STACK => copy_to_stack::<O, LITTLE_STACK>(operation, list, reusable),
        1..=MUCH_STACK if stack::is_half_free() => {
            copy_to_stack::<O, MUCH_STACK>(operation, list, reusable)
        }
        _ => copy_to_slot(operation, list, reusable),
    }
}

#[cold]
#[inline(never)]
fn copy_to_stack<O: Operation, const SIZE: usize>(
    operation: O,
    list: &TracerList,
    reusable: Reusable,
) -> c_long {
    let mut room = StackRoom::<SIZE>::new();

    trace_copy(operation, list.scratch().on_stack(&mut room, reusable))
}

#[cold]
#[inline(never)]
fn copy_to_slot<O: Operation>(operation: O, list: &TracerList, reusable: Reusable) -> c_long {
    trace_copy(operation, list.scratch().in_slot(reusable))
}

/// Traces the copy, or only does the operation if there is no room for a copy.
#[inline(always)]
fn trace_copy<O: Operation>(operation: O, room: Option<Room<'_>>) -> c_long {
    match room {
        Some(mut room) => lock_and_trace(operation.copy_args(&mut room)),
        None => perform_only(operation),
    }
}

/// Runs the tracers of an operation that has succeeded.
#[inline(always)]
pub(crate) fn run_tracers<C: Context>(
    list: &TracerList,
    ctx: &mut C,
    cpu: Option<u32>,
    rcu: ReadSide<'_>,
) {
    run_tracers_of(list, ctx, cpu, rcu, |_| true);
}

/// Runs the tracers that are `wanted`. Returns whether all of them ran and succeeded.
#[inline(always)]
pub(crate) fn run_tracers_of<C: Context>(
    list: &TracerList,
    ctx: &mut C,
    cpu: Option<u32>,
    rcu: ReadSide<'_>,
    wanted: impl Fn(&Tracer) -> bool,
) -> bool {
    // With preemption off, whatever runs above this on the CPU has either interrupted it or was
    // called by a tracer. Only the latter is recursion.
    let preempt = PreemptGuard::new();

    let mut run_ctx = RunContext::new();

    ctx.set_cpu(cpu.unwrap_or_else(|| preempt.cpu()));
    let all = match run_ctx.enter(&preempt) {
        Some(run_ctx) => run_each(list, ctx, rcu, &preempt, run_ctx, wanted),
        None => run_nested(list, ctx, rcu, &preempt, wanted),
    };
    all
}

/// Like [`run_tracers_of`], in an interrupt, or if a tracer has caused the operation.
#[cold]
#[inline(never)]
fn run_nested<C: Context>(
    list: &TracerList,
    ctx: &C,
    rcu: ReadSide<'_>,
    preempt: &PreemptGuard,
    wanted: impl Fn(&Tracer) -> bool,
) -> bool {
    let mut run_ctx = RunContext::new();

    run_each(
        list,
        ctx,
        rcu,
        preempt,
        run_ctx.enter_nested(preempt),
        wanted,
    )
}

#[inline(always)]
fn run_each<C: Context>(
    list: &TracerList,
    ctx: &C,
    rcu: ReadSide<'_>,
    preempt: &PreemptGuard,
    mut run_ctx: impl EnteredRunContext,
    wanted: impl Fn(&Tracer) -> bool,
) -> bool {
    let mut all = true;

    for tracer in list.read(C::TYPE, rcu).iter() {
        // SAFETY: A list holds a tracer under the type of its program, and only where the map's
        // keys and values are large enough for it.
        if wanted(tracer) && !unsafe { tracer.run(ctx, rcu, preempt, &mut run_ctx) } {
            all = false;
        }
    }
    all
}
