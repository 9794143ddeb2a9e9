// SPDX-License-Identifier: GPL-2.0

//! What the build scripts share: BPF objects, and what a static libelf lacks.

use std::{
    env,
    fs,
    path::{Path, PathBuf},
    process::Command, //
};

fn run(command: &mut Command) {
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(|status| status.success()),
        "{command:?}: {status:?}"
    );
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
}

/// Compiles `DIRECTORY/NAME.bpf.c` to `NAME.bpf.o`, with the headers of the libbpf that is linked, and
/// with those that maptrace has for conversions.
pub fn compile_bpf(directory: &str, names: &[&str], headers: &str) {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let include = env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    for name in names {
        let source = format!("{directory}/{name}.bpf.c");
        run(Command::new(&clang)
            .args([
                "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror",
            ])
            .arg("-I")
            .arg(&include)
            .args(["-I", headers])
            // Where Debian has what is in asm/.
            .args(["-idirafter", "/usr/include/x86_64-linux-gnu"])
            .args(["-c", &source, "-o"])
            .arg(out_dir().join(format!("{name}.bpf.o"))));
        println!("cargo:rerun-if-changed={source}");
    }
    for directory in [directory, headers] {
        println!("cargo:rerun-if-changed={directory}");
    }
    println!("cargo:rerun-if-env-changed=CLANG");
}

/// A static libelf needs the library that decompresses, where it was built with that, and some of
/// Debian's need what no archive has.
pub fn complete_libelf(rest: &Path) {
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    if !is_static {
        return;
    }
    let object = out_dir().join("elf_rest.o");
    let archive = out_dir().join("libelf_rest.a");
    run(Command::new("cc")
        .arg("-c")
        .arg(rest)
        .arg("-o")
        .arg(&object));
    let _ = fs::remove_file(&archive);
    run(Command::new("ar").arg("rcs").arg(&archive).arg(&object));
    println!("cargo:rerun-if-changed={}", rest.display());

    println!("cargo:rustc-link-arg=-Wl,-Bstatic,--start-group");
    println!("cargo:rustc-link-arg={}", archive.display());
    // What it cannot find it prints as it was given.
    let zstd = Command::new("cc")
        .arg("-print-file-name=libzstd.a")
        .output();
    if zstd.is_ok_and(|output| output.stdout.starts_with(b"/")) {
        println!("cargo:rustc-link-arg=-lzstd");
    }
    println!("cargo:rustc-link-arg=-lc");
    println!("cargo:rustc-link-arg=-Wl,--end-group");
}
