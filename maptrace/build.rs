// SPDX-License-Identifier: GPL-2.0

mod bpf_build;

use std::path::Path;

fn main() {
    bpf_build::compile_bpf(
        "src/bpf",
        &["tracer", "census", "keys", "convert", "with", "writers"],
        "include",
    );
    // Tests compile some more.
    let include = std::env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    println!("cargo:rustc-env=MAPTRACE_BPF_INCLUDE={include}");
    bpf_build::complete_libelf(Path::new("../selftests/static_libelf.c"));
}
