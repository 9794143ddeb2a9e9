// SPDX-License-Identifier: GPL-2.0

//! The trampolines: do the operation, then run the tracers.
//!
//! They are what a traced map's update and delete calls go to, from programs and from system calls.
//! They hold no lock, allocate nothing, and return what the map's own operation returned.

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

/// Does `operation`, then runs its tracers. There is room for them on the stack.
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
/// It takes as little of the stack as can be.
///
/// Context: any, NMI included; under RCU or RCU tasks trace.
#[inline(always)]
pub(crate) fn perform_only<O: Operation>(operation: O) -> c_long {
    // Also where the map has just got its first tracer of states: they are waited for.
    if !operation.map().found_tracers().are_plain(false) {
        return perform_only_all(operation);
    }
    let err = operation.perform();

    if err == 0 {
        count_missed::<O>(operation.map());
    }
    err
}

/// The same where there may be more to do than to count.
#[cold]
#[inline(never)]
fn perform_only_all<O: Operation>(operation: O) -> c_long {
    // A flush waits for the operation and for what comes of it.
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

/// Counts an operation that the tracers do not get to see.
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

/// Runs the tracers of an operation that its caller has done. `cpu` is whose value was written,
/// where that is not told by where this runs.
///
/// Context: any, with room on the stack: a system call begins with all of it.
pub(crate) fn trace_done<O: Operation>(operation: O, cpu: Option<u32>, rcu: ReadSide<'_>) {
    let tracers = operation.map().found_tracers();

    if !tracers.are_plain(O::MAY_EVICT) {
        return trace_done_all(operation, cpu, rcu);
    }
    // SAFETY: They are.
    let list = unsafe { tracers.plain(O::MAY_EVICT) };

    run_tracers(list, &mut operation.context(), cpu, rcu);
}

/// The same where there may be more to do than to run the tracers of the operation.
#[cold]
#[inline(never)]
fn trace_done_all<O: Operation>(operation: O, cpu: Option<u32>, rcu: ReadSide<'_>) {
    let Some(list) = operation.map().tracers() else {
        return;
    };

    // Else somebody comes by for each CPU.
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
    // Before the operation: whoever makes more to do waits for those that have not seen it.
    let tracers = operation.map().found_tracers();

    if !tracers.are_plain(O::MAY_EVICT) {
        return perform_and_trace_all(operation, rcu);
    }
    // SAFETY: They are.
    let list = unsafe { tracers.plain(O::MAY_EVICT) };
    // First, so that the arguments do not have to be kept anywhere else.
    let mut ctx = operation.context();
    let err = operation.perform();

    if err == 0 {
        run_tracers(list, &mut ctx, None, rcu);
    }
    err
}

/// The same where there may be more to do than to run the tracers of the operation.
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

/// As [`perform_and_trace`], for sleepable programs.
#[cold]
#[inline(never)]
fn lock_and_trace<O: Operation>(operation: O) -> c_long {
    let rcu = rcu::Guard::new();

    perform_and_trace(operation, ReadSide::from(&rcu))
}

/// As [`lock_and_trace`], for arguments that the operation itself may let go of.
///
/// The operation gets the copies, too, so that both see the same where somebody writes to the
/// original. It has them on the stack meanwhile: what may nest is kept small.
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

/// Where there is no room, only does the operation.
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

/// Runs those of the tracers that are `wanted`. Returns whether all were run, and could follow.
#[inline(always)]
pub(crate) fn run_tracers_of<C: Context>(
    list: &TracerList,
    ctx: &mut C,
    cpu: Option<u32>,
    rcu: ReadSide<'_>,
    wanted: impl Fn(&Tracer) -> bool,
) -> bool {
    // With preemption off, what runs above this on the CPU either interrupts it or was called by a
    // tracer. Only the latter is recursion.
    let preempt = PreemptGuard::new();

    let mut run_ctx = RunContext::new();

    ctx.set_cpu(cpu.unwrap_or_else(|| preempt.cpu()));
    let all = match run_ctx.enter(&preempt) {
        Some(run_ctx) => run_each(list, ctx, rcu, &preempt, run_ctx, wanted),
        None => run_nested(list, ctx, rcu, &preempt, wanted),
    };
    all
}

/// The same in an interrupt, or where a tracer has led to the operation.
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
