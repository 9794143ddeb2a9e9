// SPDX-License-Identifier: GPL-2.0

//! `maptrace migrate --check`, of objects that are not loaded.

mod common;

use assert_cmd::Command;
use common::{compile, text};
use serde_json::{json, Value as Json};
use std::{path::Path, process::Output};

/// Compiles the maps. Returns the object.
fn object(directory: &Path) -> String {
    compile(directory, "tests/bpf/layouts.bpf.c", &["-g"])
}

fn check(old: &str, new: &str, more: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let object = object(directory.path());
    Command::cargo_bin("maptrace")
        .unwrap()
        .args(["migrate", "--check"])
        .args([format!("{object}:{old}"), format!("{object}:{new}")])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn the_table_says_what_becomes_of_each_field() {
    let output = check(
        "old",
        "new",
        &["--map", "bytes=octets", "--set", "version=2"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let words: Vec<Vec<String>> = text(&output.stdout)
        .lines()
        .map(|line| line.split_ascii_whitespace().map(str::to_owned).collect())
        .collect();
    let expected = [
        "OLD TYPE NEW TYPE WHAT",
        "key struct of 8 key struct of 8 copied",
        "value.packets u32 value.packets u64 widened",
        "value.bytes u32 value.octets u64 widened",
        "- value.version u32 new: 2",
        "value.timer bpf_timer value.timer bpf_timer not copied: it is the kernel's",
    ]
    .map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(words, expected);
    let said = text(&output.stderr);
    assert!(said.contains("room for 1000 entries"), "{said}");
    assert!(
        said.contains("it can be migrated, and nothing is lost"),
        "{said}"
    );
    // 500 elements of 48, 8 and 40 bytes, and 512 buckets of 16.
    assert!(
        said.contains("takes about 54.9 KiB when it is full"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_derived_is_a_list() {
    let output = check("old", "new", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("value.bytes: not in the new map"), "{said}");
    assert!(said.contains("it cannot be migrated: 1 reasons"), "{said}");

    let output = check("old", "new", &["--drop", "bytes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stderr).contains("1 fields are lost"),
        "{output:?}"
    );

    let output = check("old", "read_only", &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for why in ["BPF_F_RDONLY_PROG", "key: struct of 8 does not become be32"] {
        assert!(said.contains(why), "{said}");
    }
    for (old, new, why) in [
        ("queue", "old", "queue cannot be followed"),
        ("old", "queue", "queue cannot be the new one"),
        ("old", "trie", "only a trie can become one"),
    ] {
        let output = check(old, new, &[]);
        assert!(text(&output.stderr).contains(why), "{output:?}");
    }
}

#[test]
fn programs_can_read_it_too() {
    let output = check("old", "new", &["--drop", "value.bytes", "--json"]);
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["problems"], json!([]));
    assert_eq!(json["memory"], 500 * 96 + 512 * 16);
    let lost: Vec<_> = json["fields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|field| field["what"] == "lost")
        .map(|field| field["old"]["field"].clone())
        .collect();
    assert_eq!(lost, ["value.bytes"]);
}

#[test]
fn trouble_is_not_a_refusal() {
    let output = check("old", "nothing", &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("there is no map \"nothing\" in it"));
    let output = check("old", "new", &["--set", "version"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_set_is_checked_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let object = object(directory.path());
    let pairs = ["old", "new", "new", "old"].map(|map| format!("{object}:{map}"));
    let check = |more: &[&str]| {
        Command::cargo_bin("maptrace")
            .unwrap()
            .args(["migrate", "--check", "--json"])
            .args(&pairs)
            .args(more)
            .output()
            .unwrap()
    };
    let fields = [
        "--map=old:bytes=octets",
        "--map=new:octets=bytes",
        "--drop=version",
        "--narrow=new:value",
    ];
    let output = check(&fields);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout).lines().count(), 2);
    // What is said of one pair is not said of the other one.
    let output = check(&fields[..3]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = check(&[&fields[..], &["--drop=nosuch:packets"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("nosuch: no old map is called so"), "{said}");
}
