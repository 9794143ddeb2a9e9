// SPDX-License-Identifier: GPL-2.0

mod bpf_build;

use std::path::Path;

fn main() {
    bpf_build::compile_bpf(&["tracer", "census"]);
    bpf_build::complete_libelf(Path::new("../selftests/static_libelf.c"));
}
