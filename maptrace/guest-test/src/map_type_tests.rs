// SPDX-License-Identifier: GPL-2.0

//! Migrations of maps that have a value for each CPU, that are resized, and whose keys are prefixes.

use crate::{
    migrate_tests::{meanwhile, migrate_json, wait_until},
    set_tests::Pins,
    subjects::{command, fails_with, maptrace, no_links_left, text, Request, Running, Subjects},
    tests::{temporary, wait_for_links, Test},
};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use maptrace::keys::clear_behind_prefix;
use serde_json::{json, Value as Json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

tests!(
    migrate_takes_hashes_with_a_value_for_each_cpu,
    migrate_writes_the_values_of_all_cpus,
    migrate_writes_the_value_of_the_first_cpu,
    a_resizable_hash_is_read_while_it_is_resized,
    a_trie_is_read_while_it_is_updated,
    record_and_replay_a_trie,
    migrate_takes_resizable_hashes,
    migrate_takes_tries,
    migrate_takes_a_set_of_them_and_goes_back,
    migrate_tells_prefixes_from_longer_ones,
    migrate_takes_long_prefixes,
    migrate_notes_the_prefixes_that_are_written,
    migrate_refuses_what_prefixes_cannot_be,
);

/// Threads that change the old map.
const WRITERS: usize = 4;

fn subjects() -> Result<Subjects> {
    Subjects::of(maptrace::embedded!("map_types"))
}

/// Migrates while some threads run `churn`, which the `--stop` command ends.
fn migrate_under_load(
    subjects: &Subjects,
    churn: &str,
    keys: impl Fn(usize) -> u32 + Sync,
    args: &[&str],
) -> Result<(i32, Json, String)> {
    let (stop, stopped) = (temporary("churn_stop"), temporary("churn_stopped"));
    let command = format!("touch {stop}; while [ ! -e {stopped} ]; do sleep 0.05; done");
    let ended = AtomicBool::new(false);
    let change = || -> Result<()> {
        for round in 0.. {
            if ended.load(Ordering::Relaxed) || Path::new(&stop).exists() {
                break;
            }
            let request = Request {
                key: keys(round),
                value: 64,
                ..Default::default()
            };
            subjects.run(churn, request)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    };
    let args = [args, &["--stop", &command, "--start", "true"]].concat();
    let (result, changed) = thread::scope(|scope| {
        let migrating = scope.spawn(|| {
            let result = migrate_json(&args);
            ended.store(true, Ordering::Relaxed);
            result
        });
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(change)).collect();
        let changed: Vec<_> = writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"))
            .collect();
        let said = fs::write(&stopped, "");
        (
            migrating
                .join()
                .expect("no panic")
                .and_then(|it| said.map(|()| it).map_err(Into::into)),
            changed,
        )
    });
    for file in [&stop, &stopped] {
        let _ = fs::remove_file(file);
    }
    changed.into_iter().collect::<Result<Vec<_>>>()?;
    result
}

/// All that is in a map which nobody changes, by the first bytes of its values: one, or one for each CPU.
fn content(map: &MapHandle, bytes: usize) -> Result<BTreeMap<Vec<u8>, Vec<Vec<u8>>>> {
    let mut content = BTreeMap::new();
    let keys: Vec<_> = map.keys().collect();
    for mut key in keys {
        let mut values = match map.map_type().is_percpu() {
            true => map.lookup_percpu(&key, MapFlags::ANY)?.context("gone")?,
            false => vec![map.lookup(&key, MapFlags::ANY)?.context("gone")?],
        };
        values.iter_mut().for_each(|value| value.truncate(bytes));
        if map.map_type() == libbpf_rs::MapType::LpmTrie {
            clear_behind_prefix(&mut key);
        }
        ensure!(
            content.insert(key, values).is_none(),
            "a key is there twice"
        );
    }
    Ok(content)
}

/// That one is the other one, and how many entries that is.
pub fn are_same(subjects: &Subjects, old: &str, new: &str, bytes: usize) -> Result<usize> {
    let (is, wanted) = (
        content(&subjects.map(new)?, bytes)?,
        content(&subjects.map(old)?, bytes)?,
    );
    let differ: Vec<_> = wanted
        .iter()
        .filter(|(key, values)| is.get(*key) != Some(values))
        .collect();
    ensure!(
        is.len() == wanted.len() && differ.is_empty(),
        "{} and {}; {differ:?}",
        is.len(),
        wanted.len()
    );
    Ok(wanted.len())
}

fn moved_under_load(
    churn: &str,
    keys: impl Fn(usize) -> u32 + Sync,
    names: [&str; 2],
    bytes: usize,
    more: &[&str],
) -> Result<usize> {
    let subjects = subjects()?;
    let [old, new] = names;
    let (old_id, new_id) = (subjects.id(old)?, subjects.id(new)?);
    let args = [&[&*old_id, &new_id], more].concat();
    let (status, json, said) = migrate_under_load(&subjects, churn, keys, &args)?;
    ensure!(
        status == 0 && json["wrong"] == json!([]) && json["lost"] == 0,
        "{json} {said}"
    );
    let entries = are_same(&subjects, old, new, bytes)?;
    ensure!(
        json["entries"] == entries && entries > 0,
        "{json} {entries}"
    );
    no_links_left()?;
    Ok(entries)
}

fn migrate_takes_hashes_with_a_value_for_each_cpu() -> Result<()> {
    for new in ["counts_v2", "counts_lru"] {
        let set = ["--set", "version=3"];
        moved_under_load("churn_counts", |_| 200, ["counts", new], 8, &set)?;
    }
    // An upgrade of both programs at once could write to what is another key by then.
    let subjects = subjects()?;
    let id = |name: &str| subjects.id(name);
    let (old, new) = (id("counts")?, id("counts_v2")?);
    let args = ["migrate", &old, &new, "--set=version=3", "--switch", "true"];
    fails_with(&args, 1, "has deleted: use --stop")?;
    let args = ["migrate", &old, &id("counts_one")?];
    fails_with(&args, 1, "only a map that has, too, can take these")?;
    let args = ["migrate", &id("objects")?, &id("objects_v2")?];
    fails_with(&args, 1, "fields of the kernel's own")?;
    no_links_left()
}

/// That of no other one, whichever CPU the tracer runs on.
fn migrate_writes_the_value_of_the_first_cpu() -> Result<()> {
    let subjects = subjects()?;
    let (old, new) = (subjects.id("counts_one")?, subjects.id("counts_v2")?);
    let args = [&*old, &new, "--set", "version=3"];
    let (status, json, said) = migrate_under_load(&subjects, "churn_counts_one", |_| 200, &args)?;
    ensure!(status == 0 && json["wrong"] == json!([]), "{json} {said}");
    let old = content(&subjects.map("counts_one")?, 8)?;
    let new = content(&subjects.map("counts_v2")?, 12)?;
    ensure!(
        !old.is_empty() && new.len() == old.len(),
        "{} {}",
        old.len(),
        new.len()
    );
    for (key, values) in new {
        let wanted = [&old[&key][0][..], &3_u32.to_ne_bytes()].concat();
        let others = &values[1..];
        ensure!(values[0] == wanted, "{key:?}: {values:?}");
        ensure!(
            others.iter().flatten().all(|byte| *byte == 0),
            "{key:?}: {values:?}"
        );
    }
    no_links_left()
}

fn opened(subjects: &Subjects, name: &str) -> Result<maptrace::map::Map> {
    let kernel = maptrace::kernel::Kernel::new()?;
    maptrace::map::select_single(&subjects.id(name)?.parse()?, &kernel)
}

/// What is there all the while is found each time, and once.
fn a_resizable_hash_is_read_while_it_is_resized() -> Result<()> {
    let subjects = subjects()?;
    let map = subjects.map("grown")?;
    // churn_grown has those below.
    let wanted: BTreeSet<u32> = (100_000..100_300).collect();
    for key in &wanted {
        map.update(&key.to_ne_bytes(), &[1; 8], MapFlags::ANY)?;
    }
    let rounds = AtomicUsize::new(0);
    let churn = || {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            key: [50, 7000][round / 64 % 2],
            value: 256,
            ..Default::default()
        };
        subjects.run("churn_grown", request).map(drop)
    };
    let read = || -> Result<()> {
        let map = opened(&subjects, "grown")?;
        for round in 0..30 {
            let keys = map.keys(|| Ok(()))?;
            let found: BTreeSet<_> = keys
                .iter()
                .map(|key| u32::from_ne_bytes(key[..].try_into().expect("4 bytes")))
                .collect();
            ensure!(found.len() == keys.len(), "{round}: a key is there twice");
            let missing = wanted.difference(&found).count();
            ensure!(
                missing == 0,
                "{round}: {missing} of {} are missing",
                keys.len()
            );
        }
        Ok(())
    };
    meanwhile(churn, read)
}

/// An update puts another node in the place of the old one, while the kernel looks for what is next.
fn a_trie_is_read_while_it_is_updated() -> Result<()> {
    let subjects = subjects()?;
    let routes = fill_routes(&subjects)?;
    for last in 0..200 {
        routes.update(&prefix(32, [10, 9, 0, last]), &[1; 4], MapFlags::ANY)?;
    }
    let update = || {
        for last in 0..200 {
            routes.update(&prefix(32, [10, 9, 0, last]), &[2; 4], MapFlags::ANY)?;
        }
        Ok(())
    };
    let read = || -> Result<()> {
        let map = opened(&subjects, "routes")?;
        let end = Instant::now() + Duration::from_secs(10);
        let mut rounds = 0;
        while Instant::now() < end {
            let keys = map.keys(|| Ok(()))?.len();
            ensure!(keys == 204, "{rounds}: {keys}");
            rounds += 1;
        }
        println!("# read {rounds} times");
        Ok(())
    };
    meanwhile(update, read)
}

/// Bits behind a prefix are zero, in elements and in changes.
fn record_and_replay_a_trie() -> Result<()> {
    let subjects = subjects()?;
    let routes = fill_routes(&subjects)?;
    let file = temporary("trie.recording");
    let args = ["record", &subjects.id("routes")?, &file, "--count", "3"];
    let mut record = command(&args).spawn()?;
    wait_for_links()?;
    routes.update(&prefix(20, [10, 2, 3, 4]), &[5; 4], MapFlags::ANY)?;
    routes.update(&prefix(20, [10, 2, 9, 9]), &[6; 4], MapFlags::ANY)?;
    routes.delete(&prefix(16, [10, 1, 200, 200]))?;
    ensure!(record.wait()?.success(), "{args:?}");
    let copy = subjects.id("routes_copy")?;
    let output = maptrace(&["replay", &file, &copy])?;
    let _ = fs::remove_file(&file);
    ensure!(output.status.success(), "{}", text(&output.stderr));
    ensure!(are_same(&subjects, "routes", "routes_copy", 4)? == 4);
    let output = maptrace(&["diff", &subjects.id("routes")?, &copy])?;
    // A trie and a hash, and the same in both
    ensure!(output.status.success(), "{output:?}");
    no_links_left()
}

/// Those too that the old map has as zero.
fn migrate_writes_the_values_of_all_cpus() -> Result<()> {
    let subjects = subjects()?;
    let old = subjects.map("counts")?;
    let cpus = libbpf_rs::num_possible_cpus()?;
    let key = 7_u32.to_ne_bytes();
    let (id, new) = (subjects.id("counts")?, subjects.id("counts_v2")?);
    let args = ["migrate", &id, &new, "--set=version=3"];
    let mut migrate = Running::start(&args, "in sync: 0 entries")?;
    let request = Request {
        key: 8,
        value: 64,
        ..Default::default()
    };
    subjects.run("churn_counts", request)?;
    let values: Vec<_> = (1..=cpus as u64)
        .map(|it| it.to_ne_bytes().to_vec())
        .collect();
    old.update_percpu(&key, &values, MapFlags::ANY)?;
    let keys: Vec<_> = content(&old, 8)?.into_keys().collect();
    let new = subjects.map("counts_v2")?;
    wait_until("all values of all keys have the version", || {
        let content = content(&new, 12)?;
        let mut values = content.values().flatten();
        Ok(content.keys().eq(&keys) && values.all(|value| value[8..] == 3_u32.to_ne_bytes()))
    })?;
    let moved = content(&new, 8)?;
    ensure!(moved.get(&key[..]) == Some(&values), "{moved:?}");
    migrate.signal(libc::SIGINT);
    migrate.wait_for_note("entries")?;
    migrate.end()?;
    no_links_left()
}

fn migrate_takes_resizable_hashes() -> Result<()> {
    // It grows, and shrinks again.
    let keys = |round| [50, 300, 2000, 6000, 500][round / 8 % 5];
    let set = ["--set", "version=3"];
    let entries = moved_under_load("churn_grown", keys, ["grown", "grown_v2"], 8, &set)?;
    println!("# {entries} entries");
    Ok(())
}

fn migrate_takes_tries() -> Result<()> {
    for new in ["routes_v2", "routes_hash"] {
        let set = ["--set", "metric=1"];
        let entries = moved_under_load("churn_routes", |_| 1, ["routes", new], 4, &set)?;
        println!("# {entries} prefixes");
    }
    Ok(())
}

/// All of them behind one switch, pinned, killed, and taken back.
fn migrate_takes_a_set_of_them_and_goes_back() -> Result<()> {
    let subjects = subjects()?;
    let pairs = [
        ("counts", "counts_v2", 8),
        ("grown", "grown_v2", 8),
        ("routes", "routes_v2", 4),
    ];
    for churn in ["churn_counts", "churn_grown"] {
        let request = Request {
            key: 100,
            value: 400,
            ..Default::default()
        };
        subjects.run(churn, request)?;
    }
    fill_routes(&subjects)?;
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_types");
    let mut args = vec!["migrate".to_owned()];
    for (old, new, _) in pairs {
        args.extend([subjects.id(old)?, subjects.id(new)?]);
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let switch = ["--stop", "true", "--start", "true"];
    let more = [
        "--set=version=3",
        "--set=metric=1",
        "--back",
        "--pin",
        &directory,
    ];
    let turned = "the old ones follow them from here";
    let are_all_same = || {
        let mut pairs = pairs.iter();
        pairs.try_for_each(|(old, new, bytes)| are_same(&subjects, old, new, *bytes).map(drop))
    };
    let migrate = Running::start(&[&args[..], &more, &switch].concat(), turned)?;
    are_all_same()?;
    migrate.signal(libc::SIGKILL);
    migrate.end()?;
    // The old maps go on to follow.
    let routes = subjects.map("routes_v2")?;
    let route = [7_u64.to_ne_bytes(), 1_u64.to_ne_bytes()].concat();
    routes.update(&prefix(20, [10, 7, 8, 9]), &route, MapFlags::ANY)?;
    routes.delete(&prefix(24, [10, 1, 2, 99]))?;
    subjects
        .map("grown_v2")?
        .update(&5_u32.to_ne_bytes(), &[5; 16], MapFlags::ANY)?;
    are_all_same()?;
    let args = ["migrate", "--resume", &directory];
    let migrate = Running::start(&[&args[..], &switch].concat(), turned)?;
    are_all_same()?;
    migrate.signal(libc::SIGKILL);
    migrate.end()?;
    let output = maptrace(&["migrate", "--abort", &directory])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    no_links_left()
}

fn prefix(len: u32, address: [u8; 4]) -> Vec<u8> {
    [len.to_ne_bytes(), address].concat()
}

pub fn fill_routes(subjects: &Subjects) -> Result<MapHandle> {
    let routes = subjects.map("routes")?;
    for (len, address, hop) in [
        (8, [10, 0, 0, 0], 1_u32),
        // Bits that do not count
        (16, [10, 1, 77, 88], 2),
        (24, [10, 1, 2, 0], 3),
        (32, [10, 1, 2, 3], 4),
    ] {
        routes.update(&prefix(len, address), &hop.to_ne_bytes(), MapFlags::ANY)?;
    }
    Ok(routes)
}

/// A lookup finds the longest prefix that matches: it is no proof that one is there.
fn migrate_tells_prefixes_from_longer_ones() -> Result<()> {
    let subjects = subjects()?;
    let routes = fill_routes(&subjects)?;
    let new = subjects.map("routes_v2")?;
    // One that a shorter one of the old map matches, and one that is to be replaced
    for (len, address) in [(20, [10, 1, 0, 0]), (24, [10, 1, 2, 0])] {
        new.update(&prefix(len, address), &[9; 16], MapFlags::ANY)?;
    }
    let ids = [subjects.id("routes")?, subjects.id("routes_v2")?];
    let args = ["migrate", &ids[0], &ids[1], "--set=metric=1", "--prune"];
    let mut migrate = Running::start(&args, "in sync: 4 entries")?;
    are_same(&subjects, "routes", "routes_v2", 4)?;
    // It had other bits behind it.
    routes.delete(&prefix(16, [10, 1, 200, 200]))?;
    wait_until("it is gone", || Ok(content(&new, 4)?.len() == 3))?;
    are_same(&subjects, "routes", "routes_v2", 4)?;
    migrate.signal(libc::SIGINT);
    migrate.wait_for_note("entries")?;
    migrate.end()?;

    // Nobody makes the one the other any more, and who compares them says so.
    let copy = subjects.id("routes_v2")?;
    routes.delete(&prefix(32, [10, 1, 2, 3]))?;
    let args = ["migrate", &ids[0], &copy, "--set=metric=1", "--wait"];
    fails_with(&args, 1, "is not empty")?;
    let output = maptrace(&[
        "migrate",
        &ids[0],
        &copy,
        "--set=metric=1",
        "--wait",
        "--prune",
    ])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    ensure!(are_same(&subjects, "routes", "routes_v2", 4)? == 2);

    // What no prefix of the old map becomes
    let hash = subjects.map("routes_hash")?;
    for key in [prefix(16, [10, 1, 77, 88]), prefix(33, [10, 1, 2, 3])] {
        hash.update(&key, &[9; 16], MapFlags::ANY)?;
    }
    let output = maptrace(&[
        "migrate",
        &ids[0],
        &subjects.id("routes_hash")?,
        "--set=metric=1",
        "--wait",
        "--prune",
    ])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    are_same(&subjects, "routes", "routes_hash", 4)?;

    let args = ["migrate", &ids[0], &subjects.id("routes_small")?];
    let args = [&args[..], &["--set=metric=1", "--wait"]].concat();
    routes.update(&prefix(9, [10, 0, 0, 0]), &[0; 4], MapFlags::ANY)?;
    let output = maptrace(&args)?;
    ensure!(
        text(&output.stderr).contains("1 do not fit"),
        "{}",
        text(&output.stderr)
    );
    no_links_left()
}

/// The longest keys that there are, and what notes who writes them.
fn migrate_takes_long_prefixes() -> Result<()> {
    let subjects = subjects()?;
    let names = subjects.map("names")?;
    for len in [0_u32, 9, 1000, 2048] {
        let key = [&len.to_ne_bytes()[..], &[0xff; 256]].concat();
        names.update(&key, &len.to_ne_bytes(), MapFlags::ANY)?;
    }
    let (old, new) = (subjects.id("names")?, subjects.id("names_v2")?);
    let args = ["migrate", &old, &new, "--set=metric=1", "--switch", "true"];
    let output = maptrace(&args)?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    ensure!(are_same(&subjects, "names", "names_v2", 4)? == 4);
    no_links_left()
}

/// Where both programs write a prefix, its bits behind may differ.
fn migrate_notes_the_prefixes_that_are_written() -> Result<()> {
    let subjects = subjects()?;
    let routes = fill_routes(&subjects)?;
    let (old, new) = (subjects.id("routes")?, subjects.id("routes_v2")?);
    let (began, go) = (temporary("prefix_began"), temporary("prefix_go"));
    let script = format!("touch {began}; while [ ! -e {go} ]; do sleep 0.05; done");
    let args = ["migrate", &old, &new, "--set=metric=1", "--switch", &script];
    let mut migrate = Running::start(&args, "in sync: 4 entries")?;
    let result = (|| {
        wait_until("the command runs", || Ok(Path::new(&began).exists()))?;
        let map = subjects.map("routes_v2")?;
        map.update(&prefix(16, [10, 1, 5, 6]), &[9; 16], MapFlags::ANY)?;
        map.update(&prefix(20, [10, 2, 5, 6]), &[8; 16], MapFlags::ANY)?;
        routes.update(&prefix(16, [10, 1, 7, 8]), &[1; 4], MapFlags::ANY)?;
        routes.update(&prefix(20, [10, 2, 4, 0]), &[1; 4], MapFlags::ANY)?;
        routes.update(&prefix(24, [10, 1, 2, 0]), &[1; 4], MapFlags::ANY)?;
        fs::write(&go, "")?;
        migrate.wait_for_note("have done 2 operations")?;
        let (status, _, notes) = migrate.end()?;
        ensure!(status.success(), "{status} {notes}");
        let content = content(&map, 4)?;
        let is = |len, address| content.get(&prefix(len, address)).map(|it| it[0].clone());
        ensure!(is(16, [10, 1, 0, 0]) == Some(vec![9; 4]), "{content:?}");
        // 10.2.5.6/20 and 10.2.4.0/20 are 10.2.0.0/20.
        ensure!(is(20, [10, 2, 0, 0]) == Some(vec![8; 4]), "{content:?}");
        ensure!(is(24, [10, 1, 2, 0]) == Some(vec![1; 4]), "{content:?}");
        Ok(())
    })();
    for file in [&began, &go] {
        let _ = fs::remove_file(file);
    }
    result.and_then(|()| no_links_left())
}

fn migrate_refuses_what_prefixes_cannot_be() -> Result<()> {
    let subjects = subjects()?;
    let id = |name: &str| subjects.id(name);
    for (old, new, args, what) in [
        (
            "routes_hash",
            "routes_v2",
            &[][..],
            "only a trie can become one",
        ),
        (
            "routes",
            "routes_zoned",
            &["--set=metric=1", "--set=key.zone=1"],
            "a prefix would mean other bits",
        ),
        (
            "routes",
            "routes_hash",
            &["--set=metric=1", "--back"],
            "only a trie can become one",
        ),
    ] {
        let (old, new) = (id(old)?, id(new)?);
        let args = [&["migrate", &old, &new], args].concat();
        fails_with(&args, 1, what)?;
    }
    no_links_left()
}
