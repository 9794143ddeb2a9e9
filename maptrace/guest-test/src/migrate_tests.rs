// SPDX-License-Identifier: GPL-2.0

use crate::{
    large::create,
    subjects::{
        command, fails_with, maptrace, no_links_left, text, Request, Running, Subjects, PATIENCE,
    },
    tests::{temporary, Test},
};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use serde_json::{json, Value as Json};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

tests!(
    migrate_moves_a_map_in_use_to_another_layout,
    migrate_keeps_the_new_map_in_sync,
    migrate_lists_what_does_not_fit,
    migrate_takes_large_values,
    migrate_leaves_locks_and_timers_to_the_kernel,
    migrate_takes_arrays_and_an_lru_map_of_another_size,
    migrate_switches_while_sync_goes_on,
    migrate_lets_the_old_program_win,
    migrate_takes_no_eviction_for_a_write,
    migrate_stops_and_starts,
    migrate_switches_nothing_where_a_command_fails,
    migrate_puts_the_new_map_into_its_outer_map,
    migrate_refuses_what_it_cannot_do,
    migrate_ends_with_the_map,
    migrate_leaves_no_link_behind,
);

/// What `conns_v2` takes.
const CONNS: [&str; 3] = ["--map=retries=tries", "--set=version=2", "--set=key.zone=7"];

pub fn migrate_json(args: &[&str]) -> Result<(i32, Json, String)> {
    let args: Vec<_> = ["migrate", "--json"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    let output = maptrace(&args)?;
    let said = text(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    Ok((output.status.code().unwrap_or(-1), json, said))
}

/// Runs `change` in a thread for as long as `body` takes.
pub fn meanwhile<T>(
    change: impl Fn() -> Result<()> + Sync,
    body: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let changing = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                change()?;
            }
            anyhow::Ok(())
        });
        let result = body();
        stop.store(true, Ordering::Relaxed);
        changing.join().expect("no panic")?;
        result
    })
}

pub fn number(map: &MapHandle, key: &[u8]) -> Result<Option<u64>> {
    let value = map.lookup(key, MapFlags::ANY)?;
    Ok(value.map(|value| {
        let mut bytes = [0; 8];
        let len = value.len().min(8);
        bytes[..len].copy_from_slice(&value[..len]);
        u64::from_ne_bytes(bytes)
    }))
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub fn fill_plain(subjects: &Subjects, count: u32) -> Result<()> {
    for key in 0..count {
        subjects.update("plain", key, u64::from(key) * 3)?;
    }
    Ok(())
}

fn migrate_moves_a_map_in_use_to_another_layout() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("conns")?, subjects.id("conns_v2")?);
    subjects.update("conns", 443, 7)?;
    let hammer = || {
        let request = Request {
            key: 50,
            value: 400,
            ..Default::default()
        };
        subjects.run("hammer", request)?;
        thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    let args = [&[&*old, &new, "--wait"], &CONNS[..]].concat();
    let (status, json, said) = meanwhile(hammer, || migrate_json(&args))?;
    ensure!(status == 0, "{json}\n{said}");
    for what in ["lost", "failed"] {
        ensure!(json[what] == 0, "{json}\n{said}");
    }
    let entries = json["entries"].as_u64().context("no entries")?;
    ensure!(entries > 1 && json["bytes"] == entries * 88, "{json}");
    ensure!(json["conversions"].as_u64() >= Some(entries), "{json}");

    // The layout says what it has to be now.
    let id: u32 = new.parse()?;
    let kernel = maptrace::kernel::Kernel::new()?;
    let map = maptrace::map::Map::from_id(id, &kernel)?.context("no map")?;
    let (key_layout, value_layout, _) = map.layouts();
    let mut found = None;
    map.for_each(|key, values| {
        let key = key_layout.decode(key).to_json();
        if key["dport"] == 443 {
            found = Some((key, value_layout.decode(&values[0]).to_json()));
        }
        Ok(())
    })?;
    let expected = (
        json!({
            "protocol": "PROTOCOL_TCP", "zone": 7, "daddr": 0x0102_0304, "saddr": "10.0.0.1",
            "dport": 443, "sport": 1024,
        }),
        json!({
            "version": 2, "owner": "nobody", "balance": -3, "packets": 7, "tries": 5,
            "established": 1, "tcp": { "scaled": true, "window": [10, 20, 0] },
            "mac": "0xdeadbeef0001",
        }),
    );
    ensure!(
        found.as_ref() == Some(&expected),
        "{found:?}\nis not\n{expected:?}"
    );
    no_links_left()
}

fn migrate_keeps_the_new_map_in_sync() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("plain")?, subjects.id("plain_v2")?);
    fill_plain(&subjects, 20)?;
    let mut migrate = Running::start(
        &["migrate", &old, &new, "--narrow", "value"],
        "in sync: 20 entries",
    )?;
    let map = subjects.map("plain_v2")?;
    subjects.update("plain", 5, 77)?;
    ensure!(number(&map, &5_u64.to_ne_bytes())? == Some(77));
    subjects.delete("plain", 6)?;
    ensure!(number(&map, &6_u64.to_ne_bytes())?.is_none());
    // Too large, until it is not: the kernel tries again by itself.
    subjects.update("plain", 7, 1 << 40)?;
    ensure!(number(&map, &7_u64.to_ne_bytes())? == Some(21));
    subjects.run(
        "write_plain",
        Request {
            key: 7,
            value: 99,
            ..Default::default()
        },
    )?;
    wait_until("it fits again", || {
        Ok(number(&map, &7_u64.to_ne_bytes())? == Some(99))
    })?;
    migrate.signal(libc::SIGINT);
    migrate.wait_for_note("20 entries")?;
    let (status, _, notes) = migrate.end()?;
    ensure!(status.code() == Some(130), "{status} {notes}");
    ensure!(
        notes.contains("0 lost, 0 differ") && notes.contains("for a field, 0 times for the map"),
        "{notes}"
    );
    no_links_left()
}

fn migrate_lists_what_does_not_fit() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("plain")?, subjects.id("small")?);
    fill_plain(&subjects, 40)?;
    let output = maptrace(&["migrate", &old, &new, "--wait"])?;
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.code() == Some(1), "{said}");
    let lacks = lines
        .lines()
        .filter(|line| line.ends_with("the new map lacks it"));
    ensure!(lacks.count() == 24, "{lines}\n{said}");
    ensure!(
        said.contains("40 entries") && said.contains("24 do not fit"),
        "{said}"
    );

    // A value that does not fit into its field.
    subjects.update("plain", 3, 1 << 33)?;
    let args = [&*old, &subjects.id("plain_v2")?, "--wait", "--narrow=value"];
    let (status, json, _) = migrate_json(&args)?;
    let expected = json!([{ "key": "3", "what": "does_not_fit", "detail": "value" }]);
    ensure!(status == 1 && json["wrong"] == expected, "{json}");
    ensure!(json["did_not_fit"]["fields"].as_u64() > Some(0), "{json}");
    // With it nothing is switched, unless that was said.
    let args = [
        &*old,
        &subjects.id("plain_v2")?,
        "--clear",
        "--narrow=value",
        "--switch",
        "true",
    ];
    let args = [&["migrate"], &args[..]].concat();
    fails_with(&args, 1, "nothing is switched: 0 differ, 1 do not fit")?;
    let output = maptrace(&[&args[..], &["--partial"]].concat())?;
    ensure!(
        text(&output.stdout).contains("- 3: does not fit into value"),
        "{output:?}"
    );
    no_links_left()
}

fn migrate_takes_large_values() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut value: Vec<u8> = (0..65536_u32).map(|i| (i / 7) as u8).collect();
    value[..4].copy_from_slice(&1234_u32.to_ne_bytes());
    let large = subjects.map("large")?;
    large.update(&1_u32.to_ne_bytes(), &value, MapFlags::ANY)?;
    let (old, new) = (subjects.id("large")?, subjects.id("large_v2")?);
    let (status, json, said) = migrate_json(&[&old, &new, "--wait", "--set", "added=5"])?;
    ensure!(status == 0 && json["entries"] == 1, "{json} {said}");
    let moved = subjects
        .map("large_v2")?
        .lookup(&1_u32.to_ne_bytes(), MapFlags::ANY)?;
    let moved = moved.context("it is not there")?;
    ensure!(moved[..8] == 1234_u64.to_ne_bytes() && moved[8..16] == 5_u64.to_ne_bytes());
    ensure!(moved[16..16 + 65532] == value[4..]);
    Ok(())
}

fn migrate_leaves_locks_and_timers_to_the_kernel() -> Result<()> {
    let subjects = Subjects::new()?;
    let value = [&[0; 24][..], &55_u32.to_ne_bytes(), &[0; 4]].concat();
    let key = 9_u32.to_ne_bytes();
    subjects
        .map("locked")?
        .update(&key, &value, MapFlags::ANY)?;
    let (old, new) = (subjects.id("locked")?, subjects.id("locked_v2")?);
    let (status, json, said) = migrate_json(&[&old, &new, "--wait"])?;
    ensure!(status == 0 && json["entries"] == 1, "{json} {said}");
    let moved = subjects.map("locked_v2")?.lookup(&key, MapFlags::ANY)?;
    let moved = moved.context("it is not there")?;
    ensure!(moved[..8] == 55_u64.to_ne_bytes(), "{moved:?}");
    Ok(())
}

fn migrate_takes_arrays_and_an_lru_map_of_another_size() -> Result<()> {
    let subjects = Subjects::new()?;
    for key in 0..8 {
        subjects.update("table", key, 100 + u64::from(key))?;
    }
    let (old, new) = (subjects.id("table")?, subjects.id("table_percpu")?);
    let (status, json, said) = migrate_json(&[&old, &new, "--wait"])?;
    ensure!(status == 0 && json["entries"] == 8, "{json} {said}");
    let values = subjects
        .map("table_percpu")?
        .lookup_percpu(&5_u32.to_ne_bytes(), MapFlags::ANY)?
        .context("no element")?;
    ensure!(values[0] == 105_u64.to_ne_bytes(), "{values:?}");
    ensure!(
        values[1..].iter().all(|value| **value == [0; 8]),
        "{values:?}"
    );

    // The values of all CPUs
    let values: Vec<Vec<u8>> = (0..values.len() as u64)
        .map(|cpu| (7000 + cpu).to_ne_bytes().to_vec())
        .collect();
    let (old_map, new_map) = (
        subjects.map("table_percpu")?,
        subjects.map("table_percpu_v2")?,
    );
    let key = 6_u32.to_ne_bytes();
    old_map.update_percpu(&key, &values, MapFlags::ANY)?;
    let (old, new) = (
        subjects.id("table_percpu")?,
        subjects.id("table_percpu_v2")?,
    );
    let (status, json, said) = migrate_json(&[&old, &new, "--wait"])?;
    ensure!(
        status == 0 && json["entries"] == 8 && json["wrong"] == json!([]),
        "{json} {said}"
    );
    let moved = new_map.lookup_percpu(&key, MapFlags::ANY)?;
    ensure!(moved.as_ref() == Some(&values), "{moved:?}");
    fails_with(
        &["migrate", &old, &subjects.id("table")?],
        1,
        "only a map that has, too, can take these",
    )?;

    for port in 0..100 {
        subjects.update("conns", port, port.into())?;
    }
    let (old, new) = (subjects.id("conns")?, subjects.id("conns_larger")?);
    let (status, json, said) = migrate_json(&[&old, &new, "--wait"])?;
    ensure!(status == 0 && json["entries"] == 100, "{json} {said}");
    // The same layout: one is a copy of the other.
    let output = maptrace(&["diff", &old, &new])?;
    ensure!(output.status.success(), "{}", text(&output.stdout));
    Ok(())
}

fn migrate_switches_while_sync_goes_on() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 10)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let path = "/sys/fs/bpf/maptrace_migrate";
    subjects.map("plain")?.pin(path)?;
    let (began, go) = (temporary("switch_began"), temporary("switch_go"));
    let result = (|| {
        let script = format!(
            "echo $MAPTRACE_OLD $MAPTRACE_NEW > {began}; while [ ! -e {go} ]; do sleep 0.05; done"
        );
        let mut migrate = Running::start(
            &["migrate", &old, &new, "--switch", &script, "--repin", path],
            "in sync: 10 entries",
        )?;
        let words = || fs::read_to_string(&began).unwrap_or_default();
        wait_until("the command runs", || Ok(words().ends_with('\n')))?;
        ensure!(words() == format!("{old} {new}\n"), "{}", words());
        // The old program still writes the old map, the new one writes the new one already.
        let map = subjects.map("copy")?;
        subjects.update("plain", 1, 1000)?;
        map.update(&2_u32.to_ne_bytes(), &2000_u64.to_ne_bytes(), MapFlags::ANY)?;
        // Where both write a key, the new one wins.
        subjects.update("plain", 2, 1)?;
        map.delete(&3_u32.to_ne_bytes())?;
        subjects.update("plain", 3, 1)?;
        fs::write(&go, "")?;
        migrate.wait_for_note("conversions")?;
        let (status, _, notes) = migrate.end()?;
        ensure!(status.success(), "{status} {notes}");
        // Nothing has undone what the new one has written.
        ensure!(number(&map, &1_u32.to_ne_bytes())? == Some(1000));
        ensure!(number(&map, &2_u32.to_ne_bytes())? == Some(2000));
        ensure!(number(&map, &3_u32.to_ne_bytes())?.is_none());
        ensure!(
            notes.contains("have done 2 operations on keys that the new ones had written"),
            "{notes}"
        );
        let pinned = MapHandle::from_pinned_path(path)?;
        ensure!(
            pinned.info()?.info.id.to_string() == new,
            "it is pinned no more"
        );
        ensure!(fs::read_dir("/sys/fs/bpf")?
            .flatten()
            .all(|entry| { !entry.file_name().to_string_lossy().contains("-maptrace-") }));
        // It does not follow any more.
        subjects.update("plain", 1, 1)?;
        ensure!(number(&map, &1_u32.to_ne_bytes())? == Some(1000));
        Ok(())
    })();
    for file in [path, &began, &go] {
        let _ = fs::remove_file(file);
    }
    result.and_then(|()| no_links_left())
}

fn migrate_lets_the_old_program_win() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 10)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let (began, go) = (temporary("wins_began"), temporary("wins_go"));
    let script = format!("touch {began}; while [ ! -e {go} ]; do sleep 0.05; done");
    let args = ["migrate", &old, &new, "--switch", &script, "--old-wins"];
    let mut migrate = Running::start(&args, "in sync: 10 entries")?;
    let result = (|| {
        wait_until("the command runs", || Ok(Path::new(&began).exists()))?;
        let map = subjects.map("copy")?;
        map.update(&2_u32.to_ne_bytes(), &2000_u64.to_ne_bytes(), MapFlags::ANY)?;
        subjects.update("plain", 2, 1)?;
        fs::write(&go, "")?;
        migrate.wait_for_note("have done 1 operations")?;
        let (status, _, notes) = migrate.end()?;
        ensure!(status.success(), "{status} {notes}");
        ensure!(number(&map, &2_u32.to_ne_bytes())? == Some(1));
        Ok(())
    })();
    for file in [&began, &go] {
        let _ = fs::remove_file(file);
    }
    result.and_then(|()| no_links_left())
}

/// An LRU makes room for the tracer itself, and reports that later: nobody has written these keys.
fn migrate_takes_no_eviction_for_a_write() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 60)?;
    let map = create(MapType::LruHash, "small", 16)?;
    let (old, new) = (subjects.id("plain")?, map.info()?.info.id.to_string());
    let (began, go) = (temporary("evicts_began"), temporary("evicts_go"));
    let script = format!("touch {began}; while [ ! -e {go} ]; do sleep 0.05; done");
    let args = [
        "migrate",
        &*old,
        &new,
        "--bytes",
        "key",
        "--bytes",
        "value",
        "--partial",
        "--switch",
        &script,
    ];
    let mut migrate = Running::start(&args, "in sync")?;
    let result = (|| {
        wait_until("the command runs", || Ok(Path::new(&began).exists()))?;
        for round in 0..10 {
            for key in 0..60 {
                let value = 1000 * round + u64::from(key);
                subjects.update("plain", key, value)?;
                ensure!(number(&map, &key.to_ne_bytes())? == Some(value), "{key}");
            }
            // Some are reported by the map's worker, once a tick.
            thread::sleep(Duration::from_millis(50));
        }
        fs::write(&go, "")?;
        migrate.wait_for_note("conversions")?;
        let (_, _, notes) = migrate.end()?;
        ensure!(!notes.contains("have done"), "{notes}");
        Ok(())
    })();
    for file in [&began, &go] {
        let _ = fs::remove_file(file);
    }
    result.and_then(|()| no_links_left())
}

fn migrate_stops_and_starts() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 64)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let (stop, stopped, started) = (
        temporary("stop"),
        temporary("stopped"),
        temporary("started"),
    );
    let counter = std::sync::atomic::AtomicU64::new(0);
    // Through pointers, which no tracer sees: 0 differ takes the flush after the stop.
    let write = || {
        if Path::new(&stop).exists() {
            fs::write(&stopped, "")?;
            thread::sleep(Duration::from_millis(10));
            return Ok(());
        }
        let value = counter.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            key: (value % 64) as u32,
            value: 1000 + value,
            ..Default::default()
        };
        subjects.run("write_plain", request).map(drop)
    };
    let stop_command = format!("touch {stop}; while [ ! -e {stopped} ]; do sleep 0.05; done");
    let start_command = format!("touch {started}");
    let args = [
        &*old,
        &new,
        "--stop",
        &stop_command,
        "--start",
        &start_command,
    ];
    let result = meanwhile(write, || migrate_json(&args));
    let was_started = Path::new(&started).exists();
    for file in [&stop, &stopped, &started] {
        let _ = fs::remove_file(file);
    }
    let (status, json, said) = result?;
    ensure!(status == 0 && was_started, "{json}\n{said}");
    ensure!(
        json["entries"] == 64 && json["lost"] == 0 && json["wrong"] == json!([]),
        "{json}\n{said}"
    );
    ensure!(json["pause"].as_f64() > Some(0.0), "{json}");
    let (plain, copy) = (subjects.map("plain")?, subjects.map("copy")?);
    for key in 0..64_u32 {
        let key = key.to_ne_bytes();
        ensure!(number(&plain, &key)? == number(&copy, &key)?, "{key:?}");
    }
    no_links_left()
}

fn migrate_switches_nothing_where_a_command_fails() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 5)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let path = "/sys/fs/bpf/maptrace_migrate";
    subjects.map("plain")?.pin(path)?;
    let result = (|| {
        let migrate = |args: &[&str], what: &str| {
            let args = [&["migrate", &old, &new, "--clear", "--repin", path], args].concat();
            fails_with(&args, 1, what)?;
            let pinned = MapHandle::from_pinned_path(path)?;
            ensure!(
                pinned.info()?.info.id.to_string() == old,
                "{args:?}: it is pinned"
            );
            no_links_left()
        };
        migrate(
            &["--switch", "exit 3"],
            "nothing is switched: --switch \"exit 3\" has failed with status 3",
        )?;
        migrate(&["--switch", "kill -9 $$"], "was ended by signal 9")?;
        migrate(
            &["--stop", "false", "--start", "true"],
            "nothing is switched: --stop \"false\"",
        )?;
        migrate(
            &["--stop", "true", "--start", "false"],
            "neither the old programs run nor the new ones",
        )
    })();
    fs::remove_file(path)?;
    result
}

fn migrate_puts_the_new_map_into_its_outer_map() -> Result<()> {
    let subjects = Subjects::new()?;
    subjects.update("inner", 3, 33)?;
    let (old, new) = (subjects.id("inner")?, subjects.id("inner_v2")?);
    let outer = subjects.id("outer")?;
    fails_with(
        &["migrate", &old, &new, "--outer", &outer, "1"],
        1,
        "--outer",
    )?;
    let is_inside = |wanted: &str| -> Result<bool> {
        let inside = subjects
            .map("outer")?
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        let inside: [u8; 4] = inside.context("nothing is there")?[..4].try_into()?;
        Ok(u32::from_ne_bytes(inside).to_string() == wanted)
    };
    // The kernel takes only a map that is as the first one.
    let other = subjects.id("plain_v2")?;
    let args = [
        "migrate",
        &old,
        &other,
        "--narrow=value",
        "--outer",
        &outer,
        "0",
        "--stop",
        "true",
        "--start",
        "true",
    ];
    fails_with(
        &args,
        1,
        "cannot be in it: the maps in there have other sizes",
    )?;
    ensure!(is_inside(&old)?, "it is there no more");
    no_links_left()?;
    let (status, json, said) = migrate_json(&[&old, &new, "--outer", &outer, "0"])?;
    ensure!(status == 0, "{json} {said}");
    ensure!(is_inside(&new)?, "it is not there");
    ensure!(number(&subjects.map("inner_v2")?, &3_u32.to_ne_bytes())? == Some(33));
    Ok(())
}

fn migrate_refuses_what_it_cannot_do() -> Result<()> {
    let subjects = Subjects::new()?;
    let id = |name: &str| subjects.id(name);
    let plain = id("plain")?;
    for (old, new, what) in [
        (&plain, &plain, "is both of them"),
        (&plain, &id("read_only")?, "BPF_F_RDONLY_PROG"),
        (
            &plain,
            &id("table")?,
            "the elements of an array cannot be deleted",
        ),
        (&plain, &id("plain_v2")?, "--narrow value takes what does"),
        (
            &plain,
            &id("queue")?,
            "a map of type queue cannot be the new one",
        ),
        (
            &id("queue")?,
            &plain,
            "a map of type queue cannot be followed",
        ),
        (&id("conns")?, &id("plain")?, "does not become u32"),
    ] {
        fails_with(&["migrate", old, new], 1, what)?;
    }
    let copy = subjects.map("copy")?;
    copy.update(&1_u32.to_ne_bytes(), &[0; 8], MapFlags::ANY)?;
    fails_with(
        &["migrate", &plain, &id("copy")?],
        1,
        "is not empty: --clear",
    )?;
    fails_with(
        &["migrate", &id("mirror")?, &plain, "--clear"],
        1,
        "plain, which is not cleared",
    )?;
    copy.freeze()?;
    fails_with(&["migrate", &plain, &id("copy")?], 1, "it is frozen")?;
    fails_with(
        &[
            "migrate",
            &plain,
            &id("mirror")?,
            "--repin",
            "/sys/fs/bpf/nosuch",
        ],
        1,
        "/sys/fs/bpf/nosuch",
    )?;
    // What the new map leads to already is a loop.
    let _first = Running::start(&["migrate", &plain, &id("mirror")?], "in sync")?;
    fails_with(&["migrate", &id("mirror")?, &plain], 1, "leads to")?;
    let output = maptrace(&["migrate", "--check", &plain, &id("plain_v2")?])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let args = [
        "migrate",
        "--check",
        &plain,
        &id("plain_v2")?,
        "--narrow=value",
    ];
    let output = maptrace(&args)?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    Ok(())
}

fn migrate_ends_with_the_map() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let migrate = Running::start(&["migrate", &old, &new], "in sync")?;
    // Twice as long as it takes to be seen.
    thread::sleep(Duration::from_secs(2));
    drop(subjects);
    let (status, _, notes) = migrate.end()?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(
        notes.contains("plain: no program uses it any more"),
        "{notes}"
    );
    no_links_left()
}

fn migrate_leaves_no_link_behind() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 30)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    for (delay, signal) in [
        (0, libc::SIGINT),
        (200, libc::SIGTERM),
        (600, libc::SIGINT),
        (1500, libc::SIGHUP),
        (1000, libc::SIGKILL),
    ] {
        let mut child = command(&["migrate", &old, &new, "--clear"]).spawn()?;
        thread::sleep(Duration::from_millis(delay));
        // SAFETY: it takes numbers; nobody has waited for the child yet.
        unsafe { libc::kill(child.id() as i32, signal) };
        let status = child.wait()?;
        ensure!(!status.success(), "{delay} ms: {status}");
        no_links_left()?;
    }
    // While a command runs, which is ended with it.
    let began = temporary("long_command");
    let script = format!("touch {began}; exec sleep 300");
    let migrate = Running::start(
        &["migrate", &old, &new, "--clear", "--switch", &script],
        "in sync",
    )?;
    wait_until("the command runs", || Ok(Path::new(&began).exists()))?;
    migrate.signal(libc::SIGINT);
    let (status, _, notes) = migrate.end()?;
    fs::remove_file(began)?;
    ensure!(status.code() == Some(130), "{status} {notes}");
    ensure!(
        notes.ends_with("nothing is switched: --switch was ended: interrupted\n"),
        "{notes}"
    );
    no_links_left()
}
