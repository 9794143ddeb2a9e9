// SPDX-License-Identifier: GPL-2.0

//! Objects of BPF, for tests that ask no kernel.

use std::path::Path;

/// Compiles `tests/bpf/NAME.bpf.c`, or what else a path leads to, and returns where the object is.
pub fn compile(directory: &Path, source: &str, more: &[&str]) -> String {
    let path = directory.join(Path::new(source).with_extension("o").file_name().unwrap());
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let status = std::process::Command::new(clang)
        .args(["-target", "bpf", "-O2"])
        .args(["-I", env!("MAPTRACE_BPF_INCLUDE"), "-I", "include"])
        .args(["-idirafter", "/usr/include/x86_64-linux-gnu"])
        .args(more)
        .args(["-c", source, "-o"])
        .arg(&path)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{source}");
    path.to_str().unwrap().to_owned()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
