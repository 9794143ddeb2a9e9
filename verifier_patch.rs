// SPDX-License-Identifier: GPL-2.0

//! Which programs may trace which maps.
//!
//! What can be told from the program alone is checked by the patched verifier when it is loaded (see
//! `patches/`): its target, that it does not sleep, how it uses key and value, tail calls and locks.
//! What the verifier has recorded meanwhile is held against the map here. Whether the tracer would
//! lead to itself is another question, see [`crate::loop_check`].

use crate::bpf::{
    map::{Map, TraceType},
    prog::Prog, //
};
use kernel::prelude::*;

/// Checks that `prog` may trace `trace_type` of `map`.
///
/// Context: any.
///
/// Errors: [`EINVAL`] where it was loaded for another operation, [`EPERM`] where programs must not
/// read the map, [`EOPNOTSUPP`] where the operation cannot be traced, [`EACCES`] where the program
/// reads more than the map has.
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
