// SPDX-License-Identifier: GPL-2.0

//! `maptrace migrate --check --with`, of objects that are not loaded.

mod common;

use assert_cmd::Command;
use common::{compile, text};
use serde_json::{json, Value as Json};
use std::{fs, path::Path, process::Output};

const SOURCE: &str = "tests/bpf/with/doubles.bpf.c";

/// Asks about some maps of layouts.bpf.c.
fn check_maps(directory: &Path, maps: &[&str], more: &[&str]) -> Output {
    let layouts = compile(directory, "tests/bpf/layouts.bpf.c", &["-g"]);
    Command::cargo_bin("maptrace")
        .unwrap()
        .args(["migrate", "--check"])
        .args(maps.iter().map(|map| format!("{layouts}:{map}")))
        .args(more)
        .output()
        .unwrap()
}

/// Compiles the conversion, and asks about it.
fn check(flags: &[&str], more: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let object = compile(directory.path(), SOURCE, flags);
    let more = [&["--with", &object], more].concat();
    check_maps(directory.path(), &["old", "new"], &more)
}

/// It is trouble, and says why.
fn is_trouble(output: &Output, why: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(why), "{why:?} is not in {said}");
}

#[test]
fn the_table_says_who_converts() {
    let output = check(&["-g"], &[]);
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(
        lines.contains("struct of 24") && lines.matches("converted by /").count() == 2,
        "{lines}"
    );
    assert!(said.contains("which alone knows what is lost"), "{said}");
    assert!(!said.contains("not the same"), "{said}");
}

#[test]
fn programs_can_read_who_converts() {
    let output = check(&["-g"], &["--json"]);
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["problems"], json!([]));
    assert_eq!(json["fields"][1]["what"], "converted");
}

#[test]
fn a_conversion_has_the_types_of_the_old_map() {
    let output = check(&["-g", "-DOTHER_SIZE"], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let why = "values: its type has 32 bytes, and the map 24";
    assert!(said.contains(why), "{said}");
    // As many bytes may be others.
    let output = check(&["-g", "-DOTHER_NAME"], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("whose members are not the same"), "{said}");
}

#[test]
fn what_is_no_conversion_is_told() {
    for (flags, why) in [
        (&["-g", "-DNOTHING"][..], "it has no maptrace_convert()"),
        (&["-g", "-DBY_HAND"], "it has no maptrace_call()"),
        (
            &["-g", "-DOTHER_SIGNATURE"],
            "does not take a key and a value",
        ),
        (&[], "it has no BTF: compile it with -g"),
        (&["-g", "-DCLASH"], "conflicting non-weak symbol"),
        (&["-g", "-target", "bpfeb"], "it is for big-endian machines"),
    ] {
        is_trouble(&check(flags, &[]), why);
    }
}

#[test]
fn what_is_no_object_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no object");
    let name = path.to_str().unwrap();
    let ask = || check_maps(directory.path(), &["old", "new"], &["--with", name]);
    is_trouble(&ask(), "No such file or directory");
    for bytes in [&b""[..], b"\x7fELF", b"int main(void) { return 0; }"] {
        fs::write(&path, bytes).unwrap();
        is_trouble(&ask(), "it is no object file");
    }
    fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    is_trouble(&ask(), "it is an object file for another processor");
    // One that was cut off
    let object = compile(directory.path(), SOURCE, &["-g"]);
    let bytes = fs::read(object).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    is_trouble(&ask(), "--with");
}

#[test]
fn a_conversion_is_of_one_pair() {
    let directory = tempfile::tempdir().unwrap();
    let object = compile(directory.path(), SOURCE, &["-g"]);
    let maps = ["old", "new", "new", "old"];
    let ask = |more: &[&str]| {
        let fields = [
            "--map=new:octets=bytes",
            "--drop=new:version",
            "--narrow=new:value",
        ];
        check_maps(directory.path(), &maps, &[&fields, more].concat())
    };
    is_trouble(&ask(&["--with", &object]), "of which pair?");
    let of_old = format!("old:{object}");
    let output = ask(&["--with", &of_old]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    is_trouble(
        &ask(&["--with", &of_old, "--with", &of_old]),
        "has one already",
    );
    // It asks nobody what becomes of a field.
    let output = ask(&["--with", &of_old, "--set=old:version=2"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("--set old:value.version: it is of no use"));
}
