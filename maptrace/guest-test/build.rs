// SPDX-License-Identifier: GPL-2.0

#[path = "../bpf_build.rs"]
mod bpf_build;

use std::path::Path;

fn main() {
    let headers = "../include";
    bpf_build::compile_bpf("src/bpf", &["subjects", "nat", "map_types"], headers);
    bpf_build::compile_bpf("../examples", &["split"], headers);
    let with = [
        "adds",
        "even",
        "large",
        "many",
        "pinned",
        "prefix",
        "proprietary",
        "refused",
        "stale",
    ];
    bpf_build::compile_bpf("src/bpf/with", &with, headers);
    bpf_build::complete_libelf(Path::new("../../selftests/static_libelf.c"));
}
