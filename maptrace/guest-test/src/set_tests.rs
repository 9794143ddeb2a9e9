// SPDX-License-Identifier: GPL-2.0

//! Sets of maps, migrations that are pinned, and the way back.

use crate::{
    migrate_tests::{fill_plain, meanwhile, migrate_json, number, wait_until},
    subjects::{
        command, fails_with, maptrace, no_links_left, text, trace_links, Request, Running, Subjects,
    },
    tests::{temporary, Test},
};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ProgramInput};
use maptrace::object;
use serde_json::{json, Value as Json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

tests!(
    migrate_moves_a_set_behind_one_switch,
    migrate_takes_two_directories,
    migrate_prunes_what_the_old_map_does_not_have,
    migrate_goes_back,
    migrate_goes_on_when_it_was_killed,
    migrate_ends_where_it_was_killed_anywhere,
    migrate_keeps_what_is_pinned_when_a_command_fails,
    migrate_refuses_a_directory_that_is_no_good,
    migrate_a_conntrack_and_its_nat_map,
);

const BPFFS: &str = "/sys/fs/bpf";

/// What is pinned for a test, and goes with it.
#[derive(Default)]
pub struct Pins(Vec<PathBuf>);

impl Pins {
    pub fn directory(&mut self, name: &str) -> String {
        let path = Path::new(BPFFS).join(name);
        self.0.push(path.clone());
        path.display().to_string()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_dir_all(path);
            let _ = fs::remove_file(path);
        }
    }
}

fn pinned_id(path: &str) -> Result<String> {
    Ok(MapHandle::from_pinned_path(path)?
        .info()?
        .info
        .id
        .to_string())
}

pub fn status(directory: &str) -> Result<Json> {
    let output = maptrace(&["status", "--json", directory])?;
    let said = text(&output.stderr);
    serde_json::from_slice(&output.stdout).context(said)
}

/// The reports that maptrace has printed.
fn parse_reports(lines: &str) -> Result<Vec<Json>> {
    let reports = lines.lines().map(serde_json::from_str);
    Ok(reports.collect::<Result<_, _>>()?)
}

/// That those of both pairs say that nothing is wrong.
fn are_exact(reports: &[Json], said: &str) -> Result<()> {
    for report in &reports[..2] {
        println!("# {report}");
        ensure!(
            report["wrong"] == json!([]) && report["lost"] == 0,
            "{report} {said}"
        );
    }
    Ok(())
}

pub fn succeeds(args: &[&str]) -> Result<(String, String)> {
    let output = maptrace(args)?;
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success(),
        "{args:?}: {}: {said}",
        output.status
    );
    Ok((lines, said))
}

fn migrate_moves_a_set_behind_one_switch() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 10)?;
    subjects.update("conns", 443, 7)?;
    let (plain, copy) = (subjects.id("plain")?, subjects.id("copy")?);
    let (conns, conns_v2) = (subjects.id("conns")?, subjects.id("conns_v2")?);
    let mut pins = Pins::default();
    let path = pins.directory("maptrace_set_plain");
    subjects.map("plain")?.pin(&path)?;
    let script = temporary("set_script");
    let fields = [
        "--map=conns:retries=tries",
        "--set=conns:version=2",
        "--set=conns:key.zone=7",
    ];
    let pairs = [&*plain, &copy, &conns, &conns_v2];
    // One of them cannot be moved: neither is.
    let args = [&["migrate"], &pairs[..], &["--wait"]].concat();
    fails_with(&args, 1, "value.retries: not in the new map")?;
    let args = [
        &["migrate"],
        &pairs[..],
        &["--wait"],
        &fields,
        &["--set=other:x=1"],
    ]
    .concat();
    fails_with(&args, 1, "other: no old map is called so")?;
    let args = [
        &["migrate"],
        &pairs[..],
        &["--wait"],
        &fields,
        &["--drop=nothing"],
    ]
    .concat();
    fails_with(&args, 1, "--drop value.nothing: it is of no use")?;
    fails_with(
        &["migrate", &plain, &copy, &plain, &conns],
        1,
        "is there twice",
    )?;
    fails_with(
        &["migrate", &plain, &copy, &conns],
        1,
        "an OLD without a NEW",
    )?;
    ensure!(number(&subjects.map("copy")?, &1_u32.to_ne_bytes())?.is_none());

    let start = format!("echo $MAPTRACE_OLD / $MAPTRACE_NEW > {script}");
    let args = [
        &["migrate", "--json"],
        &pairs[..],
        &fields,
        &["--stop", "true", "--start", &start, "--repin", &path],
    ]
    .concat();
    let (lines, said) = succeeds(&args)?;
    let words = fs::read_to_string(&script)?;
    fs::remove_file(&script)?;
    ensure!(
        words == format!("{plain} {conns} / {copy} {conns_v2}\n"),
        "{words}"
    );
    let reports = parse_reports(&lines)?;
    let entries: Vec<_> = reports.iter().map(|it| it["entries"].clone()).collect();
    ensure!(entries == [10, 1], "{lines} {said}");
    ensure!(pinned_id(&path)? == copy);
    no_links_left()?;

    // What one of them lacks, none of them is switched for.
    fill_plain(&subjects, 40)?;
    let small = subjects.id("small")?;
    let pairs = [&*conns, &conns_v2, &plain, &small];
    let touch = format!("touch {script}");
    let args = [
        &["migrate", "--clear"],
        &pairs[..],
        &fields,
        &["--switch", &touch],
    ]
    .concat();
    fails_with(&args, 1, "24 do not fit")?;
    ensure!(!Path::new(&script).exists(), "it was switched");
    let stop = ["--stop", "true", "--start", "true", "--partial"];
    succeeds(&[&["migrate", "--clear"], &pairs[..], &fields, &stop].concat())?;
    no_links_left()
}

fn migrate_takes_two_directories() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 10)?;
    subjects.update("table", 3, 33)?;
    let mut pins = Pins::default();
    let (old, new) = (
        pins.directory("maptrace_dir_v1"),
        pins.directory("maptrace_dir_v2"),
    );
    fs::create_dir(&old)?;
    fs::create_dir(&new)?;
    for (directory, name, map) in [
        (&old, "plain", "plain"),
        (&old, "table", "table"),
        (&old, "only_old", "queue"),
        (&old, "same", "large"),
        (&new, "plain", "copy"),
        (&new, "table", "table_percpu"),
        (&new, "same", "large"),
    ] {
        subjects.map(map)?.pin(format!("{directory}/{name}"))?;
    }
    let args = ["migrate", &old, &new, "--stop", "true", "--start", "true"];
    let with_wrong_place = [&args[..], &["--repin", BPFFS]].concat();
    fails_with(&with_wrong_place, 1, "--repin /sys/fs/bpf")?;
    let (_, said) = succeeds(&[&args[..], &["--repin", &old]].concat())?;
    ensure!(
        said.contains("large is in both, and stays") && said.contains("it is left out"),
        "{said}"
    );
    ensure!(pinned_id(&format!("{old}/plain"))? == subjects.id("copy")?);
    ensure!(pinned_id(&format!("{old}/table"))? == subjects.id("table_percpu")?);
    ensure!(pinned_id(&format!("{old}/same"))? == subjects.id("large")?);
    ensure!(fs::read_dir(&old)?.count() == 4);
    no_links_left()
}

fn migrate_prunes_what_the_old_map_does_not_have() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 10)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("plain_v2")?);
    let map = subjects.map("plain_v2")?;
    // A ghost, one that is there with another value, and one that no old key becomes.
    for key in [5_u64, 50, 1 << 40] {
        map.update(&key.to_ne_bytes(), &9999_u32.to_ne_bytes(), MapFlags::ANY)?;
    }
    let churn = || {
        let request = Request {
            key: 20,
            value: 400,
            ..Default::default()
        };
        subjects.run("change_both", request).map(drop)
    };
    let args = [&*old, &new, "--wait", "--narrow=value"];
    fails_with(&[&["migrate"], &args[..]].concat(), 1, "is not empty")?;
    meanwhile(churn, || {
        let (_, json, said) = migrate_json(&[&args[..], &["--prune"]].concat())?;
        let wrong = json["wrong"].as_array().context("nothing compared")?;
        ensure!(
            wrong.iter().all(|it| it["what"] == "unsettled"),
            "{json} {said}"
        );
        Ok(())
    })?;
    ensure!(number(&map, &5_u64.to_ne_bytes())? == Some(15));
    for key in [50_u64, 1 << 40] {
        ensure!(number(&map, &key.to_ne_bytes())?.is_none(), "{key}");
    }
    no_links_left()
}

fn migrate_goes_back() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 10)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("plain_v2")?);
    let mut pins = Pins::default();
    let path = pins.directory("maptrace_back");
    subjects.map("plain")?.pin(&path)?;
    for form in [
        &["--stop", "true", "--start", "true"][..],
        &["--switch", "true"],
    ] {
        subjects.map("plain")?.delete(&30_u32.to_ne_bytes()).ok();
        let args = ["migrate", &old, &new, "--prune", "--narrow=value", "--back"];
        let args = [&args[..], &["--repin", &path], form].concat();
        let mut migrate = Running::start(&args, "the old ones follow them from here")?;
        migrate.wait_for_note("it goes on until a signal comes")?;
        ensure!(pinned_id(&path)? == new, "it is not pinned");
        let (plain, map) = (subjects.map("plain")?, subjects.map("plain_v2")?);
        map.update(&30_u64.to_ne_bytes(), &77_u32.to_ne_bytes(), MapFlags::ANY)?;
        map.delete(&3_u64.to_ne_bytes())?;
        ensure!(number(&plain, &30_u32.to_ne_bytes())? == Some(77));
        ensure!(number(&plain, &3_u32.to_ne_bytes())?.is_none());
        // No key of the old map becomes it: the way back leaves it out, and says so.
        map.update(
            &(1_u64 << 40).to_ne_bytes(),
            &1_u32.to_ne_bytes(),
            MapFlags::ANY,
        )?;
        migrate.signal(libc::SIGTERM);
        let (status, _, notes) = migrate.end()?;
        ensure!(status.code() == Some(143), "{status} {notes}");
        ensure!(
            notes.contains("1 times for the map") || notes.contains("times for a field"),
            "{notes}"
        );
        map.delete(&(1_u64 << 40).to_ne_bytes())?;
        no_links_left()?;
        subjects
            .map("plain")?
            .update(&3_u32.to_ne_bytes(), &9_u64.to_ne_bytes(), MapFlags::ANY)?;
        fs::remove_file(&path)?;
        subjects.map("plain")?.pin(&path)?;
    }
    Ok(())
}

fn migrate_goes_on_when_it_was_killed() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 30)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_kept");
    let migrate = Running::start(&["migrate", &old, &new, "--pin", &directory], "in sync")?;
    ensure!(status(&directory)?["at_work"] == true);
    fails_with(
        &["migrate", "--resume", &directory],
        1,
        "another maptrace is at work on it",
    )?;
    fails_with(&["migrate", "--abort", &directory], 1, "at work on it")?;
    migrate.signal(libc::SIGKILL);
    migrate.end()?;

    // The kernel goes on by itself.
    let (plain, copy) = (subjects.map("plain")?, subjects.map("copy")?);
    subjects.update("plain", 5, 555)?;
    subjects.delete("plain", 6)?;
    ensure!(number(&copy, &5_u32.to_ne_bytes())? == Some(555));
    ensure!(number(&copy, &6_u32.to_ne_bytes())?.is_none());
    let told = status(&directory)?;
    ensure!(
        told["phase"] == "in_sync" && told["at_work"] == false && told["back"] == false,
        "{told}"
    );
    ensure!(told["pairs"][0]["link"]["lost"] == 0, "{told}");
    let (lines, _) = succeeds(&["status", &directory])?;
    ensure!(
        lines.contains("in sync") && lines.contains("0 lost"),
        "{lines}"
    );

    // By another command, as the first one said nothing of a switch.
    let (_, said) = succeeds(&[
        "migrate", "--resume", &directory, "--stop", "true", "--start", "true",
    ])?;
    ensure!(
        said.contains("29 entries") && said.contains("0 differ"),
        "{said}"
    );
    ensure!(!Path::new(&directory).exists(), "it is left");
    no_links_left()?;

    // A link that somebody has taken away is made anew, and what it has not seen is found.
    let args = [
        "migrate", &old, &new, "--pin", &directory, "--clear", "--wait",
    ];
    let (_, said) = succeeds(&args)?;
    ensure!(said.contains("it goes on in"), "{said}");
    fs::remove_file(format!("{directory}/forth0"))?;
    no_links_left()?;
    subjects.delete("plain", 7)?;
    let (_, said) = succeeds(&["migrate", "--resume", &directory, "--wait"])?;
    ensure!(
        said.contains("28 entries") && said.contains("0 differ"),
        "{said}"
    );
    ensure!(number(&copy, &7_u32.to_ne_bytes())?.is_none());
    ensure!(trace_links()? == 1);
    succeeds(&["migrate", "--abort", &directory])?;
    ensure!(!Path::new(&directory).exists(), "it is left");
    ensure!(number(&plain, &5_u32.to_ne_bytes())? == Some(555));
    no_links_left()
}

/// Whatever it was doing: who goes on brings it to its end, or takes it away.
fn migrate_ends_where_it_was_killed_anywhere() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 30)?;
    subjects.update("table", 3, 33)?;
    let plain = subjects.id("plain")?;
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_killed");
    let path = pins.directory("maptrace_killed_plain");
    let started = temporary("killed_started");
    let start = format!("echo >> {started}");
    let copy = subjects.id("copy")?;
    let args = [
        "migrate",
        &plain,
        &copy,
        &subjects.id("table")?,
        &subjects.id("table_percpu")?,
        "--prune",
        "--pin",
        &directory,
        "--repin",
        &path,
        "--stop",
        "sleep 0.1",
        "--start",
        &start,
    ];
    let mut phases = BTreeMap::new();
    // How long it takes where nobody kills it.
    let began = std::time::Instant::now();
    subjects.map("plain")?.pin(&path)?;
    succeeds(&args)?;
    let whole = began.elapsed();
    for round in 0..16_u32 {
        fs::remove_file(&path)?;
        subjects.map("plain")?.pin(&path)?;
        let _ = fs::remove_file(&started);
        let mut child = command(&args).spawn()?;
        thread::sleep(whole * (round + 1) / 17);
        child.kill()?;
        child.wait()?;
        subjects.update("plain", round, 7000 + u64::from(round))?;
        let Ok(told) = status(&directory) else {
            // Nothing was begun, or all of it has ended.
            *phases.entry("none".to_owned()).or_insert(0) += 1;
            if Path::new(&directory).exists() {
                succeeds(&["migrate", "--abort", &directory])?;
            }
            no_links_left()?;
            continue;
        };
        let phase = told["phase"].as_str().unwrap_or_default().to_owned();
        *phases.entry(phase.clone()).or_insert(0) += 1;
        if round % 4 == 3 {
            succeeds(&["migrate", "--abort", &directory])?;
            let expected = match phase.as_str() {
                "switched" => &copy,
                _ => &plain,
            };
            ensure!(
                pinned_id(&path)? == *expected,
                "{phase}: it is the wrong one"
            );
        } else {
            let (_, said) = succeeds(&["migrate", "--resume", &directory])?;
            ensure!(Path::new(&started).exists(), "{phase}: {said}");
            ensure!(pinned_id(&path)? == copy, "{phase}: {said}");
            // Nobody has written it since it was compared, where that was after the kill.
            if matches!(&*phase, "moving" | "in_sync" | "stopping" | "stopped") {
                let value = number(&subjects.map("copy")?, &round.to_ne_bytes())?;
                ensure!(value == Some(7000 + u64::from(round)), "{phase}: {value:?}");
            }
        }
        ensure!(!Path::new(&directory).exists(), "{phase}: it is left");
        let left: Vec<_> = fs::read_dir(BPFFS)?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with("-maptrace"))
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        no_links_left()?;
    }
    println!("# killed while: {phases:?}");
    ensure!(phases.len() > 2, "it was killed in too few phases");

    // When --start has run, and nobody knows how it has ended.
    fs::remove_file(&path)?;
    subjects.map("plain")?.pin(&path)?;
    let _ = fs::remove_file(&started);
    let kill = format!("echo >> {started}; kill -9 $PPID");
    let mut killed = args;
    killed[args.len() - 1] = &kill;
    let output = maptrace(&killed)?;
    ensure!(output.status.signal() == Some(libc::SIGKILL), "{output:?}");
    wait_until("the command has ended", || {
        let output = maptrace(&["migrate", "--abort", &directory])?;
        let said = text(&output.stderr);
        ensure!(
            said.contains("still runs")
                || said.contains("--start was begun: stop the new programs"),
            "{said}"
        );
        Ok(output.status.success())
    })?;
    ensure!(Path::new(&started).exists() && pinned_id(&path)? == plain);
    let _ = fs::remove_file(&started);
    no_links_left()
}

fn migrate_keeps_what_is_pinned_when_a_command_fails() -> Result<()> {
    let subjects = Subjects::new()?;
    fill_plain(&subjects, 5)?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let copy = subjects.map("copy")?;
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_failing");
    let path = pins.directory("maptrace_failing_plain");
    subjects.map("plain")?.pin(&path)?;
    let args = ["migrate", &old, &new, "--pin", &directory, "--repin", &path];
    fails_with(
        &[&args[..], &["--switch", "exit 3"]].concat(),
        1,
        "it is kept in",
    )?;
    // Both maps stay in sync, also for what is found by a flush.
    subjects.update("plain", 1, 11)?;
    ensure!(number(&copy, &1_u32.to_ne_bytes())? == Some(11));
    subjects.run(
        "write_plain",
        Request {
            key: 2,
            value: 22,
            ..Default::default()
        },
    )?;
    let resume = ["migrate", "--resume", &directory];
    fails_with(
        &[&resume[..], &["--stop", "true", "--start", "false"]].concat(),
        1,
        "neither the old programs run nor the new ones",
    )?;
    ensure!(number(&copy, &2_u32.to_ne_bytes())? == Some(22));
    ensure!(pinned_id(&path)? == old);
    ensure!(status(&directory)?["phase"] == "stopped");
    fails_with(
        &[&resume[..], &["--switch", "true"]].concat(),
        1,
        "it has begun to switch already",
    )?;
    // With a command that is right.
    succeeds(&[&resume[..], &["--stop", "true", "--start", "true"]].concat())?;
    ensure!(pinned_id(&path)? == new);
    no_links_left()
}

fn migrate_refuses_a_directory_that_is_no_good() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("plain")?, subjects.id("copy")?);
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_no_good");
    let pin = |directory: &str, what: &str| {
        fails_with(
            &["migrate", &old, &new, "--wait", "--pin", directory],
            1,
            what,
        )
    };
    pin("/tmp", "it is not in a bpffs")?;
    pin("/sys/fs/bpf/nosuch/deeper", "/sys/fs/bpf/nosuch/deeper")?;
    pin(BPFFS, "it is the bpffs itself")?;
    fs::create_dir(&directory)?;
    subjects.map("plain")?.pin(format!("{directory}/other"))?;
    pin(&directory, "something else is in it")?;
    fs::remove_file(format!("{directory}/other"))?;
    for args in [
        &["status", &*directory][..],
        &["migrate", "--resume", &directory],
    ] {
        fails_with(args, 1, "no migration is pinned here")?;
    }
    // An empty one is as good as none.
    succeeds(&["migrate", &old, &new, "--wait", "--pin", &directory])?;
    pin(&directory, "a migration is in it: --resume goes on with it")?;
    succeeds(&["migrate", "--abort", &directory])?;
    // What cannot be moved leaves nothing behind.
    let args = ["migrate", &old, &old, "--pin", &directory];
    fails_with(&args, 1, "is both of them")?;
    ensure!(!Path::new(&directory).exists());
    no_links_left()
}

/// As a datapath that is upgraded: how many entries there are is in `MAPTRACE_ENTRIES`.
struct Datapath {
    object: Object,
    entries: u32,
    range: u32,
}

/// `struct traffic` of nat.bpf.c
#[derive(Clone, Copy)]
#[repr(C)]
struct Traffic {
    pub packets: u32,
    pub range: u32,
    pub step: u32,
    pub pad: u32,
}

impl Datapath {
    fn new(entries: u32) -> Result<Self> {
        let mut open = object::open(maptrace::embedded!("nat"))?;
        // More connections than the old map has room for: some are evicted.
        let range = entries + entries / 5;
        for (name, room) in [
            ("conns", entries),
            ("nats", range),
            // What an LRU map with a common list keeps back for each CPU.
            ("conns_v2", range + 1024),
            ("nats_v2", range),
        ] {
            let mut map = open
                .maps_mut()
                .find(|map| map.name() == name)
                .with_context(|| format!("no map {name}"))?;
            map.set_max_entries(room)?;
        }
        Ok(Self {
            object: open.load()?,
            entries,
            range,
        })
    }

    fn map(&self, name: &str) -> Result<MapHandle> {
        let maps = self.object.maps().find(|map| map.name() == name);
        Ok(MapHandle::try_from(&maps.context("no map")?)?)
    }

    fn id(&self, name: &str) -> Result<String> {
        Ok(self.map(name)?.info()?.info.id.to_string())
    }

    fn run(&self, program: &str, packets: u32, step: u32) -> Result<()> {
        let mut traffic = Traffic {
            packets,
            range: self.range,
            step,
            pad: 0,
        };
        // SAFETY: it is numbers, with no padding between.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut traffic).cast::<u8>(), size_of::<Traffic>())
        };
        let input = ProgramInput {
            context_in: Some(bytes),
            ..Default::default()
        };
        object::program(&self.object, program)?.test_run(input)?;
        Ok(())
    }

    /// How many entries both maps of a pair hold, by members, whatever maptrace says.
    fn compare(&self) -> Result<u64> {
        let u32_at = |bytes: &[u8], at: usize| -> Result<u64> {
            Ok(u32::from_ne_bytes(bytes[at..at + 4].try_into()?).into())
        };
        let u64_at = |bytes: &[u8], at: usize| -> Result<u64> {
            Ok(u64::from_ne_bytes(bytes[at..at + 8].try_into()?))
        };
        let all = |name: &str| -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
            let map = self.map(name)?;
            let mut found = BTreeMap::new();
            for key in map.keys() {
                if let Some(value) = map.lookup(&key, MapFlags::ANY)? {
                    found.insert(key, value);
                }
            }
            Ok(found)
        };
        let (old, new) = (all("conns")?, all("conns_v2")?);
        ensure!(
            old.keys().eq(new.keys()),
            "{} and {} connections",
            old.len(),
            new.len()
        );
        for (key, value) in &old {
            let was = [u32_at(value, 0)?, u32_at(value, 4)?, u32_at(value, 8)?];
            let value = &new[key];
            let is = [u64_at(value, 0)?, u64_at(value, 8)?, u32_at(value, 24)?];
            ensure!(was == is, "{key:?}: {was:?} {is:?}");
        }
        let entries = old.len() as u64;
        let (old, new) = (all("nats")?, all("nats_v2")?);
        ensure!(
            old.keys().eq(new.keys()),
            "{} and {} addresses",
            old.len(),
            new.len()
        );
        for (key, value) in &old {
            let used = u64::from(u16::from_ne_bytes(value[6..8].try_into()?));
            let new = &new[key];
            ensure!(value[..6] == new[..6], "{key:?}");
            ensure!(used == u32_at(new, 8)?, "{key:?}");
        }
        Ok(entries + old.len() as u64)
    }
}

const V1: u32 = 1;
const V2: u32 = 2;
const PAUSED: u32 = 0;

/// Who has traffic, and who asks that it stops: commands of maptrace, by files.
struct Control {
    version: AtomicU32,
    at_work: AtomicU32,
    over: AtomicBool,
    directory: PathBuf,
}

impl Control {
    fn new() -> Result<Self> {
        let directory = PathBuf::from(temporary("datapath"));
        fs::create_dir_all(&directory)?;
        Ok(Self {
            version: AtomicU32::new(V1),
            at_work: AtomicU32::new(0),
            over: AtomicBool::new(false),
            directory,
        })
    }

    /// A command that has a version take over, or none, and returns when that is so.
    fn command(&self, version: u32) -> String {
        let directory = self.directory.display();
        format!(
            "touch {directory}/{version}; while [ -e {directory}/{version} ]; do sleep 0.05; done"
        )
    }

    fn listen(&self, datapath: &Datapath) -> Result<()> {
        while !self.over.load(Ordering::SeqCst) {
            for version in [PAUSED, V1, V2] {
                let file = self.directory.join(version.to_string());
                if file.exists() {
                    if version == V2 {
                        // So the old map has room for what comes until it is taken back.
                        datapath.run("expire_v2", 0, 2)?;
                    }
                    self.version.store(version, Ordering::SeqCst);
                    while version == PAUSED && self.at_work.load(Ordering::SeqCst) > 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let _ = fs::remove_file(file);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn work(&self, datapath: &Datapath) -> Result<()> {
        while !self.over.load(Ordering::SeqCst) {
            self.at_work.fetch_add(1, Ordering::SeqCst);
            // Whoever pauses waits for those who have not seen it.
            let result = match self.version.load(Ordering::SeqCst) {
                V1 => datapath.run("traffic_v1", 256, 1),
                V2 => datapath.run("traffic_v2", 256, 2),
                _ => Ok(()),
            };
            self.at_work.fetch_sub(1, Ordering::SeqCst);
            result?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn migrate_a_conntrack_and_its_nat_map() -> Result<()> {
    let entries = std::env::var("MAPTRACE_ENTRIES").unwrap_or_else(|_| "2000".to_owned());
    let datapath = Datapath::new(entries.parse()?)?;
    let control = Control::new()?;
    let threads = thread::available_parallelism()?.get();
    datapath.run("traffic_v1", datapath.range * 3, 1)?;
    println!(
        "# {} connections of {}, {threads} CPUs",
        datapath.map("conns")?.keys().count(),
        datapath.entries
    );
    let mut pins = Pins::default();
    let directory = pins.directory("maptrace_datapath");
    let result = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| control.work(&datapath)))
            .collect();
        let listener = scope.spawn(|| control.listen(&datapath));
        let result = take_there_and_back(&datapath, &control, &directory);
        control.over.store(true, Ordering::SeqCst);
        for thread in workers.into_iter().chain([listener]) {
            thread.join().expect("no panic")?;
        }
        result
    });
    let _ = fs::remove_dir_all(&control.directory);
    result?;
    no_links_left()
}

fn take_there_and_back(datapath: &Datapath, control: &Control, directory: &str) -> Result<()> {
    let ids = ["conns", "conns_v2", "nats", "nats_v2"].map(|name| datapath.id(name));
    let [conns, conns_v2, nats, nats_v2] = ids;
    let (conns, conns_v2, nats, nats_v2) = (conns?, conns_v2?, nats?, nats_v2?);
    let (pause, go) = (control.command(PAUSED), control.command(V2));
    let args = [
        "migrate",
        &conns,
        &conns_v2,
        &nats,
        &nats_v2,
        "--pin",
        directory,
        "--back",
        "--stop",
        &pause,
        "--start",
        &go,
        "--timeout",
        "600",
    ];
    let migrate = Running::start(&args, "moving")?;
    migrate.signal(libc::SIGKILL);
    migrate.end()?;
    let told = status(directory)?;
    println!("# killed while {}", told["phase"]);
    // Nobody is there, and traffic goes on.
    thread::sleep(Duration::from_secs(2));

    // The old map has no room for all that is in the new one yet: the last report may say so.
    let output = maptrace(&[
        "migrate",
        "--resume",
        directory,
        "--json",
        "--wait",
        "--timeout",
        "600",
    ])?;
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    let reports = parse_reports(&lines)?;
    ensure!(reports.len() == 4, "{lines} {said}");
    are_exact(&reports, &said)?;
    for report in &reports[..2] {
        ensure!(report["pause"].as_f64() > Some(0.0), "{report}");
    }
    let told = status(directory)?;
    ensure!(
        told["back"] == true && told["phase"] != "switched",
        "{told}"
    );
    // The new version has traffic.
    thread::sleep(Duration::from_secs(2));

    let go = control.command(V1);
    let expected = [
        "migrate",
        "--resume",
        directory,
        "--json",
        "--wait",
        "--stop",
        &pause,
        "--start",
        &go,
        "--timeout",
        "600",
    ];
    let output = maptrace(&expected)?;
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    let reports = parse_reports(&lines)?;
    ensure!(reports.len() == 4, "{lines} {said}");
    are_exact(&reports, &said)?;
    ensure!(status(directory)?["back"] == false);

    // It has gone both ways, and whoever follows whom now: both maps are the same at rest.
    let paused = std::process::Command::new("sh")
        .args(["-c", &pause])
        .status()?;
    ensure!(paused.success());
    succeeds(&[
        "migrate",
        "--resume",
        directory,
        "--wait",
        "--timeout",
        "600",
    ])?;
    let same = datapath.compare()?;
    println!("# {same} entries are the same");
    ensure!(same > 0);
    succeeds(&["migrate", "--abort", directory])?;
    Ok(())
}
