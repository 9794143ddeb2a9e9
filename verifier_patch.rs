// SPDX-License-Identifier: GPL-2.0

//! Which programs may trace which maps.
//!
//! The patched verifier checks at load what depends on the program alone (see `patches/`): its
//! target, that it does not sleep, how it uses key and value, tail calls and locks. This file
//! compares what the verifier has recorded with the map. [`crate::loop_check`] checks whether the
//! tracer would lead to itself.

use crate::bpf::{
    map::{Map, TraceType},
    prog::Prog, //
};
use kernel::prelude::*;

/// Checks that `prog` may trace `trace_type` of `map`.
///
/// Context: any.
///
/// Errors: [`EINVAL`] if it was loaded for another operation, [`EPERM`] if programs must not read
/// the map, [`EOPNOTSUPP`] if the operation cannot be traced, [`EACCES`] if the program reads
/// beyond the key size or the value size.
pub(crate) fn check_attach(prog: &Prog, map: &Map, trace_type: TraceType) -> Result {
    if !prog.is_map_tracer() || prog.trace_type()? != trace_type {
        return Err(EINVAL);
    }
    if map.is_write_only_for_programs() || map.is_exclusive() {
        return Err(EPERM);
    }
    if !map.can_trace(trace_type) {
        return Err(EOPNOTSUPP);
    }
    if prog.max_key_access() > map.key_size() || prog.max_value_access() > map.value_size() {
        return Err(EACCES);
    }
    Ok(())
}
