// SPDX-License-Identifier: GPL-2.0

#[path = "../bpf_build.rs"]
mod bpf_build;

use std::path::Path;

fn main() {
    bpf_build::compile_bpf(&["subjects", "nat"]);
    bpf_build::complete_libelf(Path::new("../../selftests/static_libelf.c"));
}
