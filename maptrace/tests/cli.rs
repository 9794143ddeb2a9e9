// SPDX-License-Identifier: GPL-2.0

//! What needs no kernel that can trace maps.

use assert_cmd::Command;
use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
};

fn maptrace(args: &[&str]) -> std::process::Output {
    Command::cargo_bin("maptrace")
        .unwrap()
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const COMMANDS: [&str; 6] = ["list", "watch", "diff", "record", "replay", "migrate"];

#[test]
fn each_command_has_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    let output = maptrace(&["man", directory.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let page = |name: &str| fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
    for command in COMMANDS {
        let page = page(&format!("maptrace-{command}"));
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains(command),
            "{page}"
        );
    }
    assert!(page("maptrace").contains("maptrace\\-watch(1)"));
    assert_eq!(page("maptrace"), text(&maptrace(&["man"]).stdout));
}

#[test]
fn shells_complete_each_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = maptrace(&["completions", shell]);
        assert!(output.status.success());
        let script = text(&output.stdout);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} {command}");
        }
    }
}

#[test]
fn wrong_usage_says_so() {
    for args in [
        &["watch"][..],
        &["watch", "1", "--count", "0"],
        &["watch", "1", "--once", "--count", "2"],
        &["watch", "1", "--stack", "--no-origin"],
        &["watch", "1", "--buffer", "2G"],
        &["watch", "1", "--pid", "0"],
        &["diff", "1"],
        &["record", "1"],
        &["replay", "f", "1", "--keep", "--clear"],
        &["list", "--count", "1"],
        &["nonsense"],
    ] {
        let output = maptrace(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_no_reason_to_panic() {
    // Closed before anything is written, unlike a pipe that is read until then.
    let (output, reader) = UnixStream::pair().unwrap();
    drop(reader);
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("maptrace"))
        .args(["completions", "zsh"])
        .stdout(OwnedFd::from(output))
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|child| child.wait_with_output())
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "maptrace: nobody reads the output any more\n"
    );
}
