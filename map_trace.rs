// SPDX-License-Identifier: GPL-2.0

//! BPF map tracing: runs BPF programs right after a map has changed.
//!
//! A `BPF_TRACE_MAP` program is attached to a map and an operation. It runs each time the operation
//! succeeds, with the key and the value, whether another program or user space did the operation.
//! See `Documentation/`.
//!
//! | file | question |
//! | --- | --- |
//! | `helpers.rs` | what happens at an update or a delete of a traced map? |
//! | `delete_queue.rs` | what happens when an LRU map evicts an element? |
//! | `sync.rs` | how are keys reported until they are settled? |
//! | `flush.rs` | when has everything been reported that was written so far? |
//! | `marks.rs` | how are writes through pointers reported? |
//! | `worker.rs` | what does the worker of a map do? |
//! | `pace.rs` | how often does the worker do what takes long? |
//! | `tracer_list.rs` | which tracers does a map have, and how are they found? |
//! | `tracer.rs` | what is a tracer, and how does it run? |
//! | `link.rs` | what do attach, update and detach do? |
//! | `loop_check.rs` | can a tracer lead to itself? |
//! | `verifier_patch.rs` | which programs may trace which maps? |
//! | `bpf/` | how does all of this talk to the kernel? |

use kernel::prelude::*;

mod bpf;
mod delete_queue;
mod flush;
mod helpers;
mod link;
mod loop_check;
mod marks;
mod pace;
mod sync;
mod tracer;
mod tracer_list;
mod verifier_patch;
mod worker;

use bpf::{
    deferred::WorkQueue,
    link::{Link, LinkCreateAttr},
    map::Map,
    operation::{Caller, Delete, Eviction, Update},
    ops::{Attached, LinkInfo, MapTracing, Registration},
    prog::Prog,
    rcu::ReadSide,
};
use kernel::{
    ffi::{c_int, c_long},
    fs::File,
    seq_file::SeqFile,
    sync::{aref::ARef, poll::PollTable},
    uaccess::UserSlice,
};

module! {
    type: MapTrace,
    name: "map_trace",
    authors: ["The map_trace developers"],
    description: "BPF map tracing",
    license: "GPL",
    imports_ns: ["BPF_INTERNAL"],
}

#[pin_data]
struct MapTrace {
    /// The first field, as it is dropped first: that takes all maps their tracers, and so their
    /// work.
    #[pin]
    registration: Registration<Self>,
    work_queue: WorkQueue,
}

impl kernel::InPlaceModule for MapTrace {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Called once, before anything can use the lock.
        unsafe { tracer_list::WRITERS.init() };

        try_pin_init!(Self {
            // First: once registered, there can be maps that need it.
            work_queue: WorkQueue::new()?,
            registration <- Registration::new(module),
        })
    }
}

impl MapTracing for MapTrace {
    type LinkData = link::Attachment;

    #[inline(always)]
    fn update_elem(update: Update<'_>, caller: Caller<'_>) -> c_long {
        helpers::trampoline(update, caller)
    }

    #[inline(always)]
    fn delete_elem(delete: Delete<'_>, caller: Caller<'_>) -> c_long {
        helpers::trampoline(delete, caller)
    }

    #[inline(always)]
    fn update_elem_only(update: Update<'_>) -> c_long {
        helpers::perform_only(update)
    }

    #[inline(always)]
    fn delete_elem_only(delete: Delete<'_>) -> c_long {
        helpers::perform_only(delete)
    }

    fn updated(update: Update<'_>, cpu: u32, rcu: ReadSide<'_>) {
        helpers::trace_done(update, Some(cpu), rcu);
    }

    fn deleted(delete: Delete<'_>, rcu: ReadSide<'_>) {
        helpers::trace_done(delete, None, rcu);
    }

    fn evicted(eviction: Eviction<'_>) {
        delete_queue::evicted(eviction);
    }

    fn marked(map: &Map) {
        sync::marked(map);
    }

    fn create(attr: &LinkCreateAttr<'_>, prog: &Prog) -> Result<c_int> {
        link::create(attr, prog)
    }

    fn release(link: &Link<Self::LinkData>) {
        link.release();
    }

    fn detach(link: &Link<Self::LinkData>) -> Result {
        link.detach()
    }

    fn update_prog(link: &Link<Self::LinkData>, new: ARef<Prog>, old: Option<&Prog>) -> Result {
        link::update_prog(link, new, old)
    }

    fn show_fdinfo(link: &Link<Self::LinkData>, seq: &SeqFile) {
        link.show_fdinfo(seq);
    }

    fn info(link: &Link<Self::LinkData>) -> LinkInfo {
        link.info()
    }

    fn poll(link: &Link<Self::LinkData>, file: &File, table: PollTable<'_>) -> u32 {
        link.poll(file, table)
    }

    fn flush(
        link: &Link<Self::LinkData>,
        keys: UserSlice,
        timeout_ms: u32,
        left: &mut u64,
    ) -> Result {
        flush::flush(link, keys, timeout_ms, left)
    }

    fn query(map: &Map) -> Result<Attached> {
        link::query(map)
    }

    fn key_size(link: &Link<Self::LinkData>) -> usize {
        link.synced_map().map_or(0, |map| map.key_size() as usize)
    }
}
