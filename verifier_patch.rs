// SPDX-License-Identifier: GPL-2.0

//! What the patched verifier asks: which programs may trace maps.
//!
//! The target itself (a function of vmlinux BTF, no target program), the types of key and value,
//! tail calls and locks are checked by the verifier, see `patches/`.

use crate::bpf::prog::{Prog, VerifierLog};
use kernel::prelude::*;

/// Decides whether `prog` may be a tracer.
///
/// Context: process context, during `BPF_PROG_LOAD`.
///
/// Errors: [`EINVAL`], with a line in the log.
pub(crate) fn check_prog(log: &VerifierLog, prog: &Prog) -> Result {
    // It runs where the traced operation runs: with preemption off, and in interrupts.
    if prog.is_sleepable() {
        log.line(c"map tracers cannot be sleepable");
        return Err(EINVAL);
    }
    Ok(())
}
