// SPDX-License-Identifier: GPL-2.0

use std::{env, process::Command};

fn main() {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let object = env::var("OUT_DIR").expect("cargo sets it") + "/follow.bpf.o";
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-O2", "-g"])
        // Where Debian has what is in asm/.
        .args(["-idirafter", "/usr/include/x86_64-linux-gnu"])
        .args(["-c", "../follow.bpf.c", "-o", &object])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{clang} fails");
    println!("cargo:rerun-if-changed=../follow.bpf.c");
    println!("cargo:rerun-if-changed=../runs.h");
}
