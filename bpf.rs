// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the parts of the kernel's BPF core that map tracing needs.
//!
//! Only this module uses `kernel::bindings`. Policy (who may trace what, when a tracer runs, in
//! which order) lives outside, and is safe code that uses these types. Nothing here imports from
//! there, which `make check` verifies. What this layer has to know of the other one, it gets
//! through the traits [`MapTracing`](ops::MapTracing) and [`HasTracers`](map::HasTracers).
//!
//! C headers: [`include/linux/bpf.h`](srctree/include/linux/bpf.h),
//! [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

pub(crate) mod context;
pub(crate) mod counters;
pub(crate) mod deferred;
pub(crate) mod key_slots;
pub(crate) mod link;
pub(crate) mod map;
pub(crate) mod marks;
pub(crate) mod operation;
pub(crate) mod ops;
pub(crate) mod prog;
pub(crate) mod rcu;
pub(crate) mod scratch;
pub(crate) mod stack;
pub(crate) mod terminated_array;
