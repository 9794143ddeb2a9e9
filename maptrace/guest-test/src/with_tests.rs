// SPDX-License-Identifier: GPL-2.0

//! Migrations by a conversion of the user's own.

use crate::{
    load::hammer,
    map_type_tests::{are_same, fill_routes},
    migrate_tests::{fill_plain, meanwhile, migrate_json, number, wait_until},
    set_tests::{status, succeeds, Pins},
    subjects::{fails_with, maptrace, no_links_left, text, Request, Running, Subjects},
    tests::{temporary, Test},
};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{MapCore, MapFlags};
use serde_json::json;
use std::{fs, path::Path, thread, time::Duration};

tests!(
    migrate_with_makes_two_entries_of_one,
    migrate_with_drops_entries,
    migrate_with_takes_a_trie_and_makes_a_resizable_hash,
    migrate_with_takes_large_values,
    migrate_with_finds_what_is_wrong_with_a_conversion,
    migrate_with_refuses_what_the_verifier_does,
    migrate_with_refuses_an_object_that_is_no_good,
    migrate_with_goes_on_when_it_was_killed,
    migrate_with_leaves_keys_to_the_new_program,
    migrate_with_is_of_one_pair_of_a_set,
);

/// An object in a file, for as long as it takes.
struct File(String);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Result<Self> {
        let path = temporary(name);
        fs::write(&path, bytes)?;
        Ok(Self(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

macro_rules! object_file {
    ($name:literal) => {
        File::new(concat!($name, ".bpf.o"), maptrace::embedded!($name))
    };
}

/// How many entries there are of a connection, and how many packets each of them has.
fn halves(subjects: &Subjects) -> Result<usize> {
    let (conns, halves) = (subjects.map("conns")?, subjects.map("halves")?);
    let mut count = 0;
    for key in conns.keys() {
        let value = conns.lookup(&key, MapFlags::ANY)?.context("it has gone")?;
        for is_reply in 0..2_u32 {
            let new_key = [&*key, &is_reply.to_ne_bytes()].concat();
            let half = halves.lookup(&new_key, MapFlags::ANY)?;
            let half = half.with_context(|| format!("{new_key:?} is not there"))?;
            ensure!(half[..8] == value[..8], "{half:?} is not of {value:?}");
            let window = 24 + 2 * is_reply as usize;
            ensure!(
                half[8..10] == value[window..][..2],
                "{half:?} is not of {value:?}"
            );
            count += 1;
        }
    }
    ensure!(halves.keys().count() == count, "there are more");
    Ok(count)
}

fn migrate_with_makes_two_entries_of_one() -> Result<()> {
    let subjects = Subjects::new()?;
    let split = object_file!("split")?;
    let (old, new) = (subjects.id("conns")?, subjects.id("halves")?);
    subjects.update("conns", 443, 7)?;
    let (stop, stopped) = (temporary("with_stop"), temporary("with_stopped"));
    let load = || {
        if Path::new(&stop).exists() {
            fs::write(&stopped, "")?;
            thread::sleep(Duration::from_millis(10));
            return Ok(());
        }
        hammer(&subjects)?;
        thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    // Connections are evicted, so both entries of them have to go.
    let stop_command = format!("touch {stop}; while [ ! -e {stopped} ]; do sleep 0.05; done");
    let args = ["--stop", &stop_command, "--start", "true"];
    let result = meanwhile(load, || {
        migrate_json(&[&[&*old, &new, "--with", &split.0], &args[..]].concat())
    });
    for file in [&stop, &stopped] {
        let _ = fs::remove_file(file);
    }
    let (status, json, said) = result?;
    ensure!(
        status == 0 && json["wrong"] == json!([]) && json["lost"] == 0,
        "{json}\n{said}"
    );
    ensure!(!said.contains("not the same"), "{said}");
    let entries = json["entries"].as_u64().context("no entries")?;
    ensure!(entries > 100, "{json}");
    ensure!(json["deletes"].as_u64() > Some(0), "{json}");
    ensure!(halves(&subjects)? as u64 == entries * 2);

    // It is asked first, and says what it can.
    let output = maptrace(&["migrate", "--check", &old, &new, "--with", &split.0])?;
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success() && lines.contains("converted by"),
        "{lines}{said}"
    );
    fails_with(
        &[
            "migrate", &old, &new, "--with", &split.0, "--wait", "--back",
        ],
        1,
        "the way back of",
    )?;
    no_links_left()
}

fn migrate_with_drops_entries() -> Result<()> {
    let subjects = Subjects::new()?;
    let even = object_file!("even")?;
    fill_plain(&subjects, 20)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let copy = subjects.map("copy")?;
    // One that no old key becomes, and one that is there with another value.
    for key in [40_u32, 5] {
        copy.update(&key.to_ne_bytes(), &9999_u64.to_ne_bytes(), MapFlags::ANY)?;
    }
    let args = ["migrate", &old, &new, "--with", &even.0];
    fails_with(&args, 1, "is not empty")?;
    let mut migrate = Running::start(&[&args[..], &["--prune"]].concat(), "in sync: 20 entries")?;
    ensure!(copy.keys().count() == 10);
    ensure!(number(&copy, &4_u32.to_ne_bytes())? == Some(12));
    // There, and not there, by an operation and through a pointer.
    subjects.update("plain", 4, 13)?;
    ensure!(number(&copy, &4_u32.to_ne_bytes())?.is_none());
    let request = Request {
        key: 4,
        value: 14,
        ..Default::default()
    };
    subjects.run("write_plain", request)?;
    wait_until("it is there again", || {
        Ok(number(&copy, &4_u32.to_ne_bytes())? == Some(14))
    })?;
    subjects.delete("plain", 6)?;
    ensure!(number(&copy, &6_u32.to_ne_bytes())?.is_none());
    migrate.signal(libc::SIGINT);
    migrate.wait_for_note("conversions")?;
    migrate.end()?;

    // What it does not take is listed, and stays as it was.
    subjects.update("plain", 4, 2000)?;
    let args = [&*old, &new, "--with", &even.0, "--prune", "--wait"];
    let (status, json, said) = migrate_json(&args)?;
    let expected = json!([{
        "key": "4", "what": "not_converted", "detail": "the conversion has returned 1",
    }, {
        "key": "4", "what": "extra", "detail": "",
    }]);
    ensure!(status == 1, "{json} {said}");
    ensure!(json["wrong"][0] == expected[0], "{json} {said}");
    ensure!(json["did_not_fit"]["fields"].as_u64() > Some(0), "{json}");
    no_links_left()
}

fn migrate_with_takes_a_trie_and_makes_a_resizable_hash() -> Result<()> {
    let subjects = Subjects::of(maptrace::embedded!("map_types"))?;
    let (even, prefix) = (object_file!("even")?, object_file!("prefix")?);
    let old = subjects.map("counts_one")?;
    for value in 0..10_u64 {
        let key = (value as u32).to_ne_bytes();
        old.update(&key, &value.to_ne_bytes(), MapFlags::ANY)?;
    }
    let (id, new) = (subjects.id("counts_one")?, subjects.id("grown")?);
    let (status, json, said) = migrate_json(&[&id, &new, "--with", &even.0, "--wait"])?;
    ensure!(status == 0 && json["wrong"] == json!([]), "{json} {said}");
    ensure!(subjects.map("grown")?.keys().count() == 5, "{json}");

    fill_routes(&subjects)?;
    let (id, new) = (subjects.id("routes")?, subjects.id("routes_copy")?);
    let (status, json, said) = migrate_json(&[&id, &new, "--with", &prefix.0, "--wait"])?;
    ensure!(status == 0 && json["wrong"] == json!([]), "{json} {said}");
    ensure!(are_same(&subjects, "routes", "routes_copy", 4)? == 4);
    no_links_left()
}

fn migrate_with_takes_large_values() -> Result<()> {
    let subjects = Subjects::new()?;
    let object = object_file!("large")?;
    let mut value: Vec<u8> = (0..65536_u32).map(|i| (i / 7) as u8).collect();
    value[..4].copy_from_slice(&1234_u32.to_ne_bytes());
    let large = subjects.map("large")?;
    large.update(&1_u32.to_ne_bytes(), &value, MapFlags::ANY)?;
    let (old, new) = (subjects.id("large")?, subjects.id("large_v2")?);
    let (status, json, said) = migrate_json(&[&old, &new, "--wait", "--with", &object.0])?;
    ensure!(status == 0 && json["entries"] == 1, "{json} {said}");
    let map = subjects.map("large_v2")?;
    let look = |key: u32| -> Result<Vec<u8>> {
        let value = map.lookup(&key.to_ne_bytes(), MapFlags::ANY)?;
        value.context("it is not there")
    };
    let (first, second) = (look(1)?, look(101)?);
    ensure!(first[..8] == 1234_u64.to_ne_bytes() && first[8..16] == [0; 8]);
    ensure!(first[16..16 + 65532] == value[4..]);
    // The room is of zeroes each time.
    ensure!(second[..8] == [0; 8] && second[8..16] == 5_u64.to_ne_bytes());
    ensure!(second[16..].iter().all(|byte| *byte == 0));
    Ok(())
}

fn migrate_with_finds_what_is_wrong_with_a_conversion() -> Result<()> {
    let subjects = Subjects::new()?;
    let (stale, adds) = (object_file!("stale")?, object_file!("adds")?);
    subjects.update("plain", 1, 10)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    // Its second entry is left where the value changes: that is not to be switched.
    let mut migrate = Running::start(
        &["migrate", &old, &new, "--with", &stale.0],
        "in sync: 1 entries",
    )?;
    subjects.update("plain", 1, 11)?;
    migrate.signal(libc::SIGINT);
    migrate.wait_for_note("conversions")?;
    migrate.end()?;
    let copy = subjects.map("copy")?;
    ensure!(number(&copy, &101_u32.to_ne_bytes())? == Some(10));

    // The same under the eyes of a switch.
    for key in [1_u32, 101] {
        copy.delete(&key.to_ne_bytes())?;
    }
    subjects.update("plain", 1, 10)?;
    let (began, go) = (temporary("stale_began"), temporary("stale_go"));
    let stop = format!("touch {began}; while [ ! -e {go} ]; do sleep 0.05; done");
    let args = [
        "migrate", &old, &new, "--with", &stale.0, "--stop", &stop, "--start", "true",
    ];
    let migrate = Running::start(&args, "in sync: 1 entries")?;
    let result = wait_until("the command runs", || Ok(Path::new(&began).exists()));
    subjects.update("plain", 1, 11)?;
    fs::write(&go, "")?;
    let (status, lines, notes) = migrate.end()?;
    for file in [&began, &go] {
        let _ = fs::remove_file(file);
    }
    result?;
    ensure!(status.code() == Some(1), "{status} {notes}");
    ensure!(
        lines == ["+ 101: the old map does not have it"] && notes.contains("1 differ"),
        "{lines:?} {notes}"
    );

    // One whose result depends on how often it was called
    copy.delete(&1_u32.to_ne_bytes())?;
    copy.delete(&101_u32.to_ne_bytes())?;
    let args = [
        "migrate", &old, &new, "--with", &adds.0, "--stop", "true", "--start", "true",
    ];
    fails_with(
        &args,
        1,
        "change all the time: the old programs were stopped",
    )?;
    no_links_left()
}

fn migrate_with_refuses_what_the_verifier_does() -> Result<()> {
    let subjects = Subjects::new()?;
    let refused = object_file!("refused")?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_with_refused");
    let args = [
        "migrate", &old, &new, "--with", &refused.0, "--pin", &directory,
    ];
    let output = maptrace(&args)?;
    let said = text(&output.stderr);
    println!("# {}", said.replace('\n', "\n# "));
    ensure!(output.status.code() == Some(1), "{said}");
    for what in ["the verifier refuses it", "NULL"] {
        ensure!(said.contains(what), "{what:?} is not in {said}");
    }
    ensure!(said.lines().count() < 45, "{said}");
    ensure!(!Path::new(&directory).exists(), "it is left");

    // What it is not for
    let even = object_file!("even")?;
    let percpu = subjects.id("table_percpu")?;
    let table = subjects.id("table")?;
    for (old, new, why) in [
        (&percpu, &new, "--with takes one value of a key"),
        (&table, &table, "is both of them"),
        (&old, &table, "the elements of an array are always there"),
        (
            &subjects.id("conns")?,
            &new,
            "keys: its type has 4 bytes, and the map 16",
        ),
    ] {
        fails_with(&["migrate", old, new, "--with", &even.0], 1, why)?;
    }
    no_links_left()
}

fn migrate_with_refuses_an_object_that_is_no_good() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("plain")?, subjects.id("many")?);
    subjects.update("plain", 0, 10)?;
    for (object, what) in [
        (object_file!("many")?, "it becomes more than 256 entries"),
        (object_file!("pinned")?, "its map calls is to be pinned"),
        (object_file!("proprietary")?, "GPL"),
    ] {
        let output = maptrace(&["migrate", &old, &new, "--with", &object.0, "--wait"])?;
        let said = text(&output.stdout) + &text(&output.stderr);
        println!("# {}", said.replace('\n', "\n# "));
        ensure!(
            output.status.code() == Some(1) && said.contains(what),
            "{said}"
        );
    }
    no_links_left()
}

fn migrate_with_goes_on_when_it_was_killed() -> Result<()> {
    let subjects = Subjects::new()?;
    let even = object_file!("even")?;
    fill_plain(&subjects, 20)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_with_kept");
    let args = [
        "migrate", &old, &new, "--with", &even.0, "--pin", &directory,
    ];
    let migrate = Running::start(&args, "in sync")?;
    migrate.signal(libc::SIGKILL);
    migrate.end()?;
    // It is kept as well, and the kernel goes on by itself.
    drop(even);
    let copy = subjects.map("copy")?;
    subjects.update("plain", 4, 13)?;
    subjects.update("plain", 5, 16)?;
    ensure!(number(&copy, &4_u32.to_ne_bytes())?.is_none());
    ensure!(number(&copy, &5_u32.to_ne_bytes())? == Some(16));
    let told = status(&directory)?;
    ensure!(told["phase"] == "in_sync", "{told}");
    ensure!(told["pairs"][0]["link"]["lost"] == 0, "{told}");
    // A link that is missing is made anew.
    fs::remove_file(format!("{directory}/forth0"))?;
    no_links_left()?;
    subjects.delete("plain", 5)?;
    subjects.update("plain", 7, 28)?;
    let resume = ["migrate", "--resume", &directory];
    let (_, said) = succeeds(&[&resume[..], &["--stop", "true", "--start", "true"]].concat())?;
    ensure!(
        said.contains("19 entries") && said.contains("0 differ"),
        "{said}"
    );
    ensure!(number(&copy, &5_u32.to_ne_bytes())?.is_none());
    ensure!(number(&copy, &7_u32.to_ne_bytes())? == Some(28));
    ensure!(!Path::new(&directory).exists(), "it is left");
    no_links_left()
}

fn migrate_with_leaves_keys_to_the_new_program() -> Result<()> {
    let subjects = Subjects::new()?;
    let even = object_file!("even")?;
    fill_plain(&subjects, 10)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let (began, go) = (temporary("with_began"), temporary("with_go"));
    let script = format!("touch {began}; while [ ! -e {go} ]; do sleep 0.05; done");
    let args = [
        "migrate", &old, &new, "--with", &even.0, "--switch", &script,
    ];
    let migrate = Running::start(&args, "in sync: 10 entries")?;
    let result = (|| {
        wait_until("the command runs", || Ok(Path::new(&began).exists()))?;
        let copy = subjects.map("copy")?;
        subjects.update("plain", 1, 100)?;
        copy.update(&2_u32.to_ne_bytes(), &2000_u64.to_ne_bytes(), MapFlags::ANY)?;
        subjects.update("plain", 2, 8)?;
        copy.delete(&4_u32.to_ne_bytes())?;
        subjects.update("plain", 4, 10)?;
        fs::write(&go, "")?;
        let (status, _, notes) = migrate.end()?;
        ensure!(status.success(), "{status} {notes}");
        ensure!(number(&copy, &1_u32.to_ne_bytes())? == Some(100));
        ensure!(number(&copy, &2_u32.to_ne_bytes())? == Some(2000));
        ensure!(number(&copy, &4_u32.to_ne_bytes())?.is_none());
        ensure!(
            notes.contains("have done 2 operations on keys that the new ones had written"),
            "{notes}"
        );
        Ok(())
    })();
    for file in [&began, &go] {
        let _ = fs::remove_file(file);
    }
    result.and_then(|()| no_links_left())
}

fn migrate_with_is_of_one_pair_of_a_set() -> Result<()> {
    let subjects = Subjects::new()?;
    let even = object_file!("even")?;
    fill_plain(&subjects, 10)?;
    subjects.update("conns", 443, 7)?;
    let (plain, copy) = (subjects.id("plain")?, subjects.id("copy")?);
    let (conns, larger) = (subjects.id("conns")?, subjects.id("conns_larger")?);
    let args = ["migrate", &plain, &copy, &conns, &larger, "--wait"];
    fails_with(
        &[&args[..], &["--with", &even.0]].concat(),
        1,
        "of which pair?",
    )?;
    let with = format!("plain:{}", even.0);
    let (_, said) = succeeds(&[&args[..], &["--with", &with]].concat())?;
    ensure!(said.matches("0 differ").count() == 2, "{said}");
    ensure!(subjects.map("copy")?.keys().count() == 5);
    ensure!(subjects.map("conns_larger")?.keys().count() == 1);
    no_links_left()
}
