// SPDX-License-Identifier: GPL-2.0

use crate::{
    migrate_tests::{fill_plain, wait_until},
    subjects::{command, fails_with, maptrace, no_links_left, text, Request, Running, Subjects},
};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{MapCore, MapFlags};
use maptrace::kernel::Kernel;
use serde_json::{json, Value as Json};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

pub type Test = fn() -> Result<()>;

tests!(
    watch_decodes_keys_and_values,
    watch_shows_what_is_evicted,
    watch_prints_a_line_a_change,
    watch_tells_who_it_was,
    watch_shows_the_stack,
    watch_filters_by_key,
    watch_filters_by_operation_and_process,
    watch_shows_what_fails,
    watch_shows_each_cpus_value,
    watch_takes_a_set_of_maps,
    watch_cuts_large_values,
    watch_counts_what_is_lost,
    watch_ends_with_the_map,
    list_shows_links_and_elements,
    list_shows_inner_maps_under_their_outer_map,
    list_counts_evictions,
    list_shows_how_far_a_sync_link_is,
    detach_ends_tracers_of_others,
    diff_compares_by_members,
    diff_of_maps_in_use_says_only_what_differs,
    record_and_replay_make_a_copy,
    record_and_replay_values_of_each_cpu,
    replay_refuses_what_does_not_fit,
    record_ends_with_the_map,
    a_signal_ends_a_replay_that_waits,
    bad_input_is_named,
    signals_leave_nothing_behind,
    a_closed_pipe_ends_it,
    missing_capabilities_are_named,
    a_missing_module_is_named,
);

/// One for each command, and that nothing is left behind.
pub const QUICK: &[&str] = &[
    "watch_decodes_keys_and_values",
    "watch_tells_who_it_was",
    "list_shows_links_and_elements",
    "detach_ends_tracers_of_others",
    "diff_of_maps_in_use_says_only_what_differs",
    "record_and_replay_make_a_copy",
    "a_closed_pipe_ends_it",
    "migrate_moves_a_map_in_use_to_another_layout",
    "migrate_stops_and_starts",
    "migrate_takes_hashes_with_a_value_for_each_cpu",
    "migrate_moves_a_set_behind_one_switch",
    "migrate_goes_on_when_it_was_killed",
    "migrate_with_makes_two_entries_of_one",
];

/// What is the same in all lines is taken out of them.
fn take(json: &mut Json, name: &str) -> Json {
    json.as_object_mut()
        .and_then(|object| object.shift_remove(name))
        .unwrap_or(Json::Null)
}

fn watch_decodes_keys_and_values() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("conns")?;
    let mut watch = Running::watch(&[&map, "--json", "--count", "2"])?;
    let tells_reasons = Kernel::new()?.tells_reasons();
    ensure!(
        watch.notes.contains("evicts is not shown") != tells_reasons,
        "{}",
        watch.notes
    );
    subjects.update("conns", 443, 7)?;
    subjects.delete("conns", 443)?;

    let mut update = watch.json()?;
    let key = json!({
        "saddr": "10.0.0.1", "daddr": 0x0102_0304, "sport": 1024, "dport": 443,
        "protocol": "PROTOCOL_TCP",
    });
    for name in ["time", "cpu", "pid", "tid", "comm", "origin"] {
        ensure!(!take(&mut update, name).is_null(), "no {name}");
    }
    let id: u32 = map.parse()?;
    let mut expected = json!({
        "map": { "id": id, "name": "conns" },
        "op": "update",
        "key": key,
        "value": {
            "packets": 7, "established": 1, "retries": 5, "balance": -3,
            "mac": "0xdeadbeef0001", "owner": "nobody",
            "tcp": { "window": [10, 20], "scaled": true },
        },
        "flags": [],
    });
    if tells_reasons {
        expected["reason"] = "operation".into();
    }
    ensure!(update == expected, "{update}\nis not\n{expected}");

    let delete = watch.json()?;
    ensure!(delete["op"] == "delete" && delete["key"] == key, "{delete}");
    ensure!(delete.get("value").is_none(), "{delete}");
    let (status, lines, notes) = watch.end()?;
    ensure!(status.success() && lines.is_empty(), "{status} {lines:?}");
    ensure!(notes.contains("2 changes, 0 lost, 0 missed"), "{notes}");
    no_links_left()
}

/// Where the kernel traces them; where not, the one above sees that it is said.
fn watch_shows_what_is_evicted() -> Result<()> {
    if !Kernel::new()?.tells_reasons() {
        println!("# this kernel does not trace evictions");
        return Ok(());
    }
    let subjects = Subjects::new()?;
    let conns = &*subjects.id("conns")?;
    let pid = &*std::process::id().to_string();
    let args = [conns, "--json", "--op", "delete", "--once"];
    let mut all = Running::watch(&args)?;
    let mut ours = Running::watch(&[&args[..], &["--pid", pid]].concat())?;
    let request = Request {
        key: 5000,
        value: 4096,
        ..Default::default()
    };
    subjects.run("hammer", request)?;
    let change = next_change(&mut all)?;
    ensure!(change["reason"] == "eviction", "{change}");
    // Whoever comes next reports it, and that tells nothing.
    for name in ["pid", "comm", "origin"] {
        ensure!(change.get(name).is_none(), "{change}");
    }
    subjects.update("conns", 80, 1)?;
    subjects.delete("conns", 80)?;
    let change = next_change(&mut ours)?;
    ensure!(change["reason"] == "operation", "{change}");
    Ok(())
}

/// The next change, whatever was missed before it: a burst of evictions is.
fn next_change(watch: &mut Running) -> Result<Json> {
    loop {
        let line = watch.json()?;
        if line.get("missed").is_none() {
            return Ok(line);
        }
    }
}

fn watch_prints_a_line_a_change() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut watch = Running::watch(&[&subjects.id("plain")?, "--once"])?;
    let request = Request {
        key: 5,
        value: 17,
        flags: 1,
        ..Default::default()
    };
    subjects.run("change_plain", request)?;
    let line = watch.line()?;
    // 12:34:56.123456, then what happened, the CPU, the process and the program.
    let (time, rest) = line.split_at(15);
    ensure!(
        time.bytes().enumerate().all(|(i, byte)| match i {
            2 | 5 => byte == b':',
            8 => byte == b'.',
            _ => byte.is_ascii_digit(),
        }),
        "{line}"
    );
    let words: Vec<_> = rest.split_ascii_whitespace().collect();
    ensure!(
        words[..6] == ["update", "5", "=", "17", "BPF_NOEXIST", "cpu"],
        "{line}"
    );
    let who = format!("maptrace_test[{}]", std::process::id());
    let program = subjects.program_id("change_plain")?.to_string();
    ensure!(
        words[7..] == [&*who, "prog", &*program, "change_plain"],
        "{line}"
    );
    ensure!(watch.end()?.0.success());
    Ok(())
}

fn watch_tells_who_it_was() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut watch = Running::watch(&[&subjects.id("plain")?, "--json"])?;
    let pid = std::process::id();

    subjects.update("plain", 1, 1)?;
    let change = watch.json()?;
    let program = subjects.program_id("change_plain")?;
    let expected = json!({ "prog": { "id": program, "name": "change_plain" } });
    ensure!(change["origin"] == expected, "{change}");
    ensure!(
        change["pid"] == pid && change["comm"] == "maptrace_test",
        "{change}"
    );

    let plain = subjects.map("plain")?;
    plain.update(&2_u32.to_ne_bytes(), &2_u64.to_ne_bytes(), MapFlags::ANY)?;
    let change = watch.json()?;
    ensure!(
        change["origin"] == json!({ "syscall": "bpf", "batch": false }),
        "{change}"
    );
    ensure!(change["pid"] == pid, "{change}");

    let (keys, values) = (3_u32.to_ne_bytes(), 3_u64.to_ne_bytes());
    plain.update_batch(&keys, &values, 1, MapFlags::ANY, MapFlags::ANY)?;
    let change = watch.json()?;
    ensure!(
        change["origin"] == json!({ "syscall": "bpf", "batch": true }),
        "{change}"
    );

    // A program that was loaded after the watch has begun.
    let later = Subjects::new()?;
    let mut other = Running::watch(&[&later.id("table")?, "--json", "--once"])?;
    let newest = Subjects::new()?;
    drop(newest);
    later.update("table", 1, 1)?;
    let program = later.program_id("change_table")?;
    let change = other.json()?;
    ensure!(change["origin"]["prog"]["id"] == program, "{change}");
    Ok(())
}

fn watch_shows_the_stack() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut watch = Running::watch(&[&subjects.id("plain")?, "--json", "--stack", "--once"])?;
    subjects.update("plain", 1, 1)?;
    let change = watch.json()?;
    let stack: Vec<_> = change["stack"]
        .as_array()
        .context("no stack")?
        .iter()
        .collect();
    let program = format!("prog {} change_plain", subjects.program_id("change_plain")?);
    let at = |name: &str| {
        stack
            .iter()
            .position(|frame| frame.as_str().is_some_and(|frame| frame.starts_with(name)))
    };
    let (program, syscall) = (at(&program), at("__sys_bpf+"));
    ensure!(program.is_some() && program < syscall, "{change:#}");
    // Neither the tracer nor anything in it.
    ensure!(
        !change["stack"].to_string().contains("watch_update"),
        "{change:#}"
    );
    Ok(())
}

fn watch_filters_by_key() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut watch = Running::watch(&[
        &subjects.id("plain")?,
        "--json",
        "--key",
        "7",
        "--count",
        "2",
    ])?;
    for key in [6, 7, 8] {
        subjects.update("plain", key, key.into())?;
    }
    subjects.delete("plain", 6)?;
    subjects.delete("plain", 7)?;
    for op in ["update", "delete"] {
        let change = watch.json()?;
        ensure!(change["key"] == 7 && change["op"] == op, "{change}");
    }
    let (_, _, notes) = watch.end()?;
    ensure!(notes.contains("2 changes"), "{notes}");

    let by_member = ["--key", "dport=443", "--key", "saddr=10.0.0.1"];
    let conns = subjects.id("conns")?;
    let mut args = vec![&*conns, "--json", "--once"];
    args.extend(by_member);
    let mut watch = Running::watch(&args)?;
    for port in [80, 443] {
        subjects.update("conns", port, 1)?;
    }
    let change = watch.json()?;
    ensure!(change["key"]["dport"] == 443, "{change}");
    Ok(())
}

fn watch_filters_by_operation_and_process() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("plain")?;
    let pid = std::process::id().to_string();
    let mut watch = Running::watch(&[&map, "--json", "--op", "delete", "--pid", &pid, "--once"])?;
    let mut other = Running::watch(&[&map, "--json", "--pid", "1", "--duration", "0.5"])?;
    subjects.update("plain", 1, 1)?;
    subjects.delete("plain", 1)?;
    let change = watch.json()?;
    ensure!(change["op"] == "delete", "{change}");
    let (status, lines, notes) = other_end(&mut other)?;
    ensure!(
        status == Some(0) && lines.is_empty(),
        "{status:?} {lines:?}"
    );
    ensure!(notes.contains("0 changes"), "{notes}");
    Ok(())
}

fn other_end(running: &mut Running) -> Result<(Option<i32>, Vec<String>, String)> {
    let placeholder = Running::start(&["--version"], "");
    let running = std::mem::replace(running, placeholder?);
    let (status, lines, notes) = running.end()?;
    Ok((status.code(), lines, notes))
}

fn watch_shows_what_fails() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("plain")?;
    let plain = subjects.map("plain")?;
    for key in 0..64_u32 {
        plain.update(&key.to_ne_bytes(), &[0; 8], MapFlags::ANY)?;
    }
    let mut watch = Running::watch(&[&map, "--json", "--failed", "--key", "100"])?;
    ensure!(subjects.update("plain", 100, 5)? == -i64::from(libc::E2BIG));
    let change = watch.json()?;
    let shown = [
        &change["op"],
        &change["errno"],
        &change["key"],
        &change["value"],
    ];
    ensure!(
        shown == [&json!("update"), &json!("E2BIG"), &json!(100), &json!(5)],
        "{change}"
    );
    ensure!(
        change["origin"]["prog"]["name"] == "change_plain",
        "{change}"
    );
    // By a system call, too; and another key's is none of ours.
    let no = plain.update(&101_u32.to_ne_bytes(), &[0; 8], MapFlags::ANY);
    ensure!(no.is_err());
    ensure!(subjects.delete("plain", 100)? == -i64::from(libc::ENOENT));
    let change = watch.json()?;
    ensure!(
        change["op"] == "delete" && change["errno"] == "ENOENT",
        "{change}"
    );
    drop(watch);

    let mut watch = Running::watch(&[&subjects.id("counters")?, "--json", "--failed"])?;
    let request = Request {
        key: 1,
        flags: 2,
        ..Default::default()
    };
    subjects.run("change_counters", request)?;
    let change = watch.json()?;
    ensure!(
        change["errno"] == "ENOENT" && change["flags"] == json!(["BPF_EXIST"]),
        "{change}"
    );
    Ok(())
}

fn watch_shows_each_cpus_value() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut watch = Running::watch(&[&subjects.id("counters")?, "--json"])?;
    let counters = subjects.map("counters")?;
    let cpus = libbpf_rs::num_possible_cpus()?;
    let values: Vec<_> = (0..cpus as u64)
        .map(|cpu| (100 + cpu).to_ne_bytes().to_vec())
        .collect();
    counters.update_percpu(&9_u32.to_ne_bytes(), &values, MapFlags::ANY)?;
    for cpu in 0..cpus {
        let change = watch.json()?;
        let expected = [json!(9), json!(cpu), json!(100 + cpu)];
        ensure!(
            [&change["key"], &change["cpu"], &change["value"]] == expected.each_ref(),
            "{change}"
        );
    }
    Ok(())
}

fn watch_takes_a_set_of_maps() -> Result<()> {
    let subjects = Subjects::new()?;
    let directory = "/sys/fs/bpf/maptrace_test";
    fs::create_dir(directory)?;
    let result = (|| {
        subjects.map("plain")?.pin(format!("{directory}/first"))?;
        subjects.map("table")?.pin(format!("{directory}/second"))?;
        let mut watch = Running::watch(&[directory, "--json", "--count", "2"])?;
        subjects.update("plain", 1, 2)?;
        subjects.update("table", 3, 4)?;
        // In the order in which it happened.
        for name in ["plain", "table"] {
            let change = watch.json()?;
            ensure!(change["map"]["name"] == name, "{change}");
        }
        let mut watch = Running::watch(&[&format!("{directory}/second"), "--once"])?;
        subjects.update("table", 3, 5)?;
        let line = watch.line()?;
        ensure!(line.contains("update 3 = 5 cpu"), "{line}");

        let program = subjects.program_id("change_plain")?.to_string();
        let mut watch = Running::watch(&["prog", &program, "--json", "--once"])?;
        subjects.update("plain", 4, 2)?;
        let change = watch.json()?;
        ensure!(
            change["map"]["name"] == "plain" && change["key"] == 4,
            "{change}"
        );

        // What cannot be traced is left out of a set.
        subjects.map("queue")?.pin(format!("{directory}/a_queue"))?;
        let mut watch = Running::watch(&[directory, "--json", "--once"])?;
        ensure!(
            watch.notes.contains("left out: ") && watch.notes.contains("queue"),
            "{}",
            watch.notes
        );
        subjects.update("table", 5, 6)?;
        let change = watch.json()?;
        ensure!(change["key"] == 5 && change["value"] == 6, "{change}");
        Ok(())
    })();
    fs::remove_dir_all(directory)?;
    result
}

fn watch_cuts_large_values() -> Result<()> {
    let subjects = Subjects::new()?;
    let large = subjects.map("large")?;
    let mut value = vec![7; 65536];
    value[..4].copy_from_slice(&1234_u32.to_ne_bytes());

    let map = subjects.id("large")?;
    let mut cut = Running::watch(&[&map, "--json", "--once", "--max-value", "6"])?;
    let mut text = Running::watch(&[&map, "--once", "--max-value", "6"])?;
    let mut whole = Running::watch(&[&map, "--json", "--once", "--max-value", "64K"])?;
    large.update(&1_u32.to_ne_bytes(), &value, MapFlags::ANY)?;

    let change = cut.json()?;
    ensure!(
        change["value"] == json!({ "number": 1234, "data": "0x0707" }),
        "{change}"
    );
    ensure!(
        change["value_cut"] == json!({ "shown": 6, "of": 65536 }),
        "{change}"
    );
    let line = text.line()?;
    ensure!(
        line.contains("{number: 1234, data: 0x0707} (6 of 65536 bytes)"),
        "{line}"
    );
    let change = whole.json()?;
    let data = change["value"]["data"].as_str().context("no data")?;
    ensure!(
        data.len() == 2 + 65532 * 2 && data.ends_with("0707"),
        "{}",
        data.len()
    );
    ensure!(change.get("value_cut").is_none());
    Ok(())
}

fn watch_counts_what_is_lost() -> Result<()> {
    let subjects = Subjects::new()?;
    let args = [&*subjects.id("plain")?, "--json", "--buffer", "4K"];
    let mut watch = Running::watch(&args)?;
    watch.signal(libc::SIGSTOP);
    let changes = 300_u32;
    for key in 0..changes {
        subjects.update("plain", key % 64, key.into())?;
    }
    watch.signal(libc::SIGCONT);
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < changes.into() {
        let line = watch.json()?;
        match line.get("lost") {
            Some(new) => lost += new.as_u64().context("no number")?,
            None => seen += 1,
        }
    }
    ensure!(
        lost > 0 && seen > 0 && seen + lost == u64::from(changes),
        "{seen} {lost}"
    );
    watch.signal(libc::SIGINT);
    let (status, _, notes) = watch.end()?;
    ensure!(status.code() == Some(130), "{status}");
    ensure!(
        notes.contains(&format!("{seen} changes, {lost} lost, 0 missed")),
        "{notes}"
    );
    ensure!(notes.contains("the ring buffer was full"), "{notes}");
    Ok(())
}

fn watch_ends_with_the_map() -> Result<()> {
    let subjects = Subjects::new()?;
    let watch = Running::watch(&[&subjects.id("plain")?])?;
    // Twice as long as it takes to be seen.
    thread::sleep(Duration::from_millis(500));
    drop(subjects);
    let (status, _, notes) = watch.end()?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(
        notes.contains("plain: no program uses it any more"),
        "{notes}"
    );
    no_links_left()
}

fn record_ends_with_the_map() -> Result<()> {
    let subjects = Subjects::new()?;
    let path = temporary("gone");
    let mut record = command(&["record", &subjects.id("plain")?, &path]).spawn()?;
    wait_for_links()?;
    // Twice as long as it takes to be seen.
    thread::sleep(Duration::from_secs(2));
    drop(subjects);
    let status = record.wait()?;
    ensure!(status.code() == Some(1), "{status}");
    // What there was is a whole recording.
    ensure!(fs::read_to_string(&path)?.contains("\"op\":\"end\""));
    fs::remove_file(path)?;
    no_links_left()
}

fn a_signal_ends_a_replay_that_waits() -> Result<()> {
    let subjects = Subjects::new()?;
    let mut replay = command(&["replay", "-", &subjects.id("copy")?]);
    let mut replay = replay.stdin(std::process::Stdio::piped()).spawn()?;
    // Kept open: it waits for the first line.
    let input = replay.stdin.take();
    let status = format!("/proc/{}/status", replay.id());
    wait_until("it catches signals", || {
        let status = fs::read_to_string(&status)?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16)?;
        Ok(caught & (1 << (libc::SIGINT - 1)) != 0)
    })?;
    // SAFETY: it takes numbers; nobody has waited for the child yet.
    unsafe { libc::kill(replay.id() as i32, libc::SIGINT) };
    let output = replay.wait_with_output()?;
    drop(input);
    ensure!(
        output.status.code() == Some(130) && text(&output.stderr) == "maptrace: interrupted\n",
        "{output:?}"
    );
    Ok(())
}

fn list(args: &[&str]) -> Result<Json> {
    let args: Vec<_> = ["list", "--json"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    let output = maptrace(&args)?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn detach_ends_tracers_of_others() -> Result<()> {
    let subjects = Subjects::new()?;
    let (plain, conns) = (subjects.id("plain")?, subjects.id("conns")?);
    let mut watch = Running::watch(&[&plain, &conns, "--json"])?;
    let output = maptrace(&["detach", &plain, "--json"])?;
    let json: Json = serde_json::from_slice(&output.stdout)?;
    ensure!(
        output.status.success() && json["detached"].as_array().is_some_and(|it| it.len() == 2),
        "{output:?}"
    );
    // Of one map it sees nothing any more, and of the other one everything.
    subjects.update("plain", 1, 1)?;
    subjects.update("conns", 443, 7)?;
    ensure!(watch.json()?["map"]["name"] == "conns");
    // Those of a sync link end with all others, and whoever waits is told.
    let mirror = subjects.id("mirror")?;
    let migrate = Running::start(&["migrate", &plain, &mirror], "in sync")?;
    let output = maptrace(&["detach", "--all"])?;
    ensure!(
        output.status.success() && text(&output.stdout) == "3 links are detached\n",
        "{output:?}"
    );
    subjects.update("plain", 1, 2)?;
    ensure!(
        subjects
            .map("mirror")?
            .lookup(&1_u32.to_ne_bytes(), MapFlags::ANY)?
            == Some(1_u64.to_ne_bytes().to_vec())
    );
    let of_no_map = Kernel::new()?.trace_links()?;
    ensure!(of_no_map.iter().all(|link| link.map_id == 0), "one is left");
    drop((watch, migrate));
    // More links than a process may open, of whoever is left
    let program = subjects.program_id("change_plain")?.to_string();
    let directory = "/sys/fs/bpf/maptrace_detach";
    fs::create_dir(directory)?;
    let names = [
        "plain", "mirror", "copy", "conns", "table", "counters", "small", "many", "halves",
    ];
    let result = (|| {
        for name in names {
            subjects.map(name)?.pin(format!("{directory}/{name}"))?;
        }
        let watches: Vec<_> = (0..3)
            .map(|_| Running::watch(&[directory, "prog", &program]))
            .collect::<Result<_>>()?;
        let links = Kernel::new()?.trace_links()?.len();
        let script = "ulimit -n 40; exec \"$0\" detach --all --json";
        let maptrace = command(&[]).get_program().to_owned();
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(maptrace)
            .output()?;
        let json: Json =
            serde_json::from_slice(&output.stdout).with_context(|| text(&output.stderr))?;
        let detached = json["detached"].as_array().map_or(0, Vec::len);
        ensure!(
            links > 40 && detached == links,
            "{detached} of {links}: {output:?}"
        );
        drop(watches);
        Ok(())
    })();
    fs::remove_dir_all(directory)?;
    result?;
    let output = maptrace(&["detach", "--all"])?;
    ensure!(
        text(&output.stdout) == "0 links are detached\n",
        "{output:?}"
    );
    fails_with(&["detach"], 2, "required")?;
    fails_with(&["detach", "no_such_map"], 1, "there is no map")?;
    no_links_left()
}

fn list_shows_links_and_elements() -> Result<()> {
    let subjects = Subjects::new()?;
    for key in 0..5 {
        subjects.update("plain", key, 1)?;
    }
    let watch = Running::watch(&[&subjects.id("plain")?])?;
    let found = list(&[])?;
    let map = &found["maps"][0];
    ensure!(
        found["maps"].as_array().is_some_and(|maps| maps.len() == 1),
        "{found:#}"
    );
    ensure!(map["name"] == "plain" && map["type"] == "hash", "{found:#}");
    ensure!(
        map["elements"] == 5 && map["max_entries"] == 64,
        "{found:#}"
    );
    let kinds: Vec<_> = map["links"]
        .as_array()
        .context("no links")?
        .iter()
        .collect();
    ensure!(kinds.len() == 2, "{found:#}");
    ensure!(
        kinds[0]["kind"] == "UPDATE_ELEM" && kinds[1]["kind"] == "DELETE_ELEM",
        "{found:#}"
    );
    ensure!(kinds[0]["prog"]["name"] == "watch_update", "{found:#}");
    ensure!(
        kinds[0]["missed"] == 0 && kinds[0]["failed"] == 0,
        "{found:#}"
    );

    let shown = text(&maptrace(&["list"])?.stdout);
    let lines: Vec<_> = shown.lines().collect();
    ensure!(lines.len() == 3 && lines[0].starts_with("ID"), "{shown}");
    ensure!(
        lines[1].contains("plain") && lines[1].contains("5/64"),
        "{shown}"
    );
    ensure!(lines[2].contains("DELETE_ELEM"), "{shown}");
    drop(watch);
    no_links_left()?;
    let output = maptrace(&["list"])?;
    ensure!(output.status.success() && output.stdout.is_empty());
    ensure!(text(&output.stderr).contains("no map is traced"));
    Ok(())
}

fn list_shows_inner_maps_under_their_outer_map() -> Result<()> {
    let subjects = Subjects::new()?;
    subjects.update("inner", 1, 1)?;
    let _watch = Running::watch(&[&subjects.id("inner")?])?;
    let found = list(&[])?;
    let maps = found["maps"].as_array().context("no maps")?;
    ensure!(maps.len() == 1 && maps[0]["name"] == "outer", "{found:#}");
    ensure!(maps[0]["type"] == "array_of_maps", "{found:#}");
    let inner = &maps[0]["inner"][0];
    ensure!(
        inner["name"] == "inner" && inner["elements"] == 1,
        "{found:#}"
    );
    let shown = text(&maptrace(&["list"])?.stdout);
    let id = subjects.id("inner")?;
    ensure!(
        shown
            .lines()
            .any(|line| line.starts_with(&format!("  {id}"))),
        "{shown}"
    );
    Ok(())
}

fn list_shows_how_far_a_sync_link_is() -> Result<()> {
    let subjects = Subjects::new()?;
    let (old, new) = (subjects.id("plain")?, subjects.id("plain_v2")?);
    fill_plain(&subjects, 20)?;
    let migrate = Running::start(
        &["migrate", &old, &new, "--narrow", "value"],
        "in sync: 20 entries",
    )?;
    let found = list(&[])?;
    let link = &found["maps"][0]["links"][0];
    ensure!(link["kind"] == "SYNC_ELEM", "{found:#}");
    ensure!(
        link["replayed"] == 20 && link["pending"] == 0 && link["lost"] == 0,
        "{found:#}"
    );
    // The tracer fails for it, again and again: it is too large for the new map.
    subjects.update("plain", 7, 1 << 40)?;
    wait_until("a key is pending", || {
        Ok(list(&[])?["maps"][0]["links"][0]["pending"] == 1)
    })?;
    let shown = text(&maptrace(&["list"])?.stdout);
    let lines: Vec<_> = shown.lines().collect();
    ensure!(
        lines.len() == 2 && lines[0].ends_with("REPLAYED  PENDING  LOST"),
        "{shown}"
    );
    let counts: Vec<_> = lines[1].split_whitespace().rev().take(3).collect();
    ensure!(counts == ["0", "1", "20"], "{shown}");

    // No other link has these columns.
    drop(migrate);
    no_links_left()?;
    let _watch = Running::watch(&[&old])?;
    let found = list(&[])?;
    ensure!(
        found["maps"][0]["links"][0].get("replayed").is_none(),
        "{found:#}"
    );
    let shown = text(&maptrace(&["list"])?.stdout);
    ensure!(
        shown
            .lines()
            .next()
            .is_some_and(|header| header.ends_with("FAILED")),
        "{shown}"
    );
    Ok(())
}

fn list_counts_evictions() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("conns")?;
    let args = ["list", &map, "--json", "--watch", "1", "--count", "3"];
    let mut list = Running::start(&args, "")?;
    let first = list.json()?;
    ensure!(first["maps"][0]["evicted_per_second"] == 0.0, "{first:#}");
    let request = Request {
        key: 20_000,
        value: 4096,
        ..Default::default()
    };
    subjects.run("hammer", request)?;
    let rates = [list.json()?, list.json()?];
    let evicted = rates
        .iter()
        .filter_map(|json| json["maps"][0]["evicted_per_second"].as_f64())
        .sum::<f64>();
    ensure!(evicted > 100.0, "{rates:?}");
    ensure!(
        rates[1]["maps"][0]["elements"].as_u64() <= Some(1024),
        "{rates:?}"
    );
    let (status, _, _) = list.end()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn diff_compares_by_members() -> Result<()> {
    let subjects = Subjects::new()?;
    let (plain, mirror) = (subjects.map("plain")?, subjects.map("mirror")?);
    let (a, b) = (subjects.id("plain")?, subjects.id("mirror")?);
    let put = |map: &libbpf_rs::MapHandle, key: u32, value: u64| {
        map.update(&key.to_ne_bytes(), &value.to_ne_bytes(), MapFlags::ANY)
    };
    put(&plain, 1, 1)?;
    put(&mirror, 1, 1)?;
    let output = maptrace(&["diff", &a, &b])?;
    ensure!(
        output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    ensure!(
        text(&output.stderr).contains("1 keys, 0 differ"),
        "{output:?}"
    );

    put(&plain, 2, 2)?;
    put(&mirror, 3, 3)?;
    put(&mirror, 1, 9)?;
    let output = maptrace(&["diff", &a, &b])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let shown = text(&output.stdout);
    ensure!(
        shown == "~ 1\n    value: 1 -> 9\n- 2 = 2\n+ 3 = 3\n",
        "{shown}"
    );
    let shown = text(&maptrace(&["diff", &a, &b, "--json"])?.stdout);
    let lines: Vec<Json> = shown
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let expected = [
        json!({ "key": 1, "a": 1, "b": 9 }),
        json!({ "key": 2, "a": 2 }),
        json!({ "key": 3, "b": 3 }),
    ];
    ensure!(lines == expected, "{shown}");

    // By what differs in a struct; and of one map with itself nothing does.
    let (one, two) = (Subjects::new()?, Subjects::new()?);
    one.update("conns", 80, 1)?;
    two.update("conns", 80, 2)?;
    let output = maptrace(&["diff", &one.id("conns")?, &two.id("conns")?])?;
    let shown = text(&output.stdout);
    ensure!(
        shown.lines().skip(1).collect::<Vec<_>>() == ["    packets: 1 -> 2"],
        "{shown}"
    );
    ensure!(maptrace(&["diff", &one.id("conns")?, &one.id("conns")?])?
        .status
        .success());
    let wrong = one.id("table")?;
    fails_with(
        &["diff", &one.id("conns")?, &wrong],
        2,
        "they cannot be compared",
    )
}

/// Runs `work` in threads again and again while `meanwhile` runs.
fn under_load<T>(
    work: &[&(dyn Fn() -> Result<i64> + Sync)],
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = work
            .iter()
            .map(|work| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        work()?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        let result = meanwhile();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("no panic")?;
        }
        result
    })
}

fn both(subjects: &Subjects, key: u32) -> Result<i64> {
    let request = Request {
        key,
        value: 500,
        ..Default::default()
    };
    subjects.run("change_both", request)
}

/// As much of it as an emulated guest can write down in time.
fn both_slowly(subjects: &Subjects, key: u32) -> Result<i64> {
    thread::sleep(Duration::from_millis(20));
    let request = Request {
        key,
        value: 100,
        ..Default::default()
    };
    subjects.run("change_both", request)
}

fn diff_of_maps_in_use_says_only_what_differs() -> Result<()> {
    let subjects = Subjects::new()?;
    let (a, b) = (subjects.id("plain")?, subjects.id("mirror")?);
    subjects.update("plain", 60, 1)?;
    let output = under_load(&[&|| both(&subjects, 0), &|| both(&subjects, 16)], || {
        maptrace(&["diff", &a, &b])
    })?;
    let shown = text(&output.stdout);
    ensure!(output.status.code() == Some(1), "{output:?}");
    let said: Vec<_> = shown
        .lines()
        .filter(|line| !line.starts_with('?'))
        .collect();
    ensure!(said == ["- 60 = 1"], "{shown}");

    subjects.delete("plain", 60)?;
    let output = under_load(&[&|| both(&subjects, 0), &|| both(&subjects, 16)], || {
        maptrace(&["diff", &a, &b])
    })?;
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    // When they rest, they are the same.
    let output = maptrace(&["diff", &a, &b])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

pub fn temporary(name: &str) -> String {
    let path = format!("/tmp/maptrace_test.{}.{name}", std::process::id());
    let _ = fs::remove_file(&path);
    path
}

fn record_and_replay_make_a_copy() -> Result<()> {
    let subjects = Subjects::new()?;
    let (plain, copy) = (subjects.id("plain")?, subjects.id("copy")?);
    let path = temporary("recording");
    for key in 48..56 {
        subjects.update("plain", key, key.into())?;
    }
    // Each key is written by one thread.
    under_load(
        &[&|| both_slowly(&subjects, 0), &|| {
            both_slowly(&subjects, 16)
        }],
        || {
            let output = maptrace(&[
                "record",
                &plain,
                &path,
                "--duration",
                "1",
                "--buffer",
                "64M",
            ])?;
            ensure!(output.status.success(), "{}", text(&output.stderr));
            Ok(())
        },
    )?;
    // A recording of a map that others go on to write is compared with what it says itself.
    let recording = fs::read_to_string(&path)?;
    let lines: Vec<Json> = recording
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(
        lines[0]["maptrace"] == 1 && lines[0]["map"]["name"] == "plain",
        "{}",
        lines[0]
    );
    let op = |line: &Json| line["op"].as_str().map(str::to_owned).unwrap_or_default();
    let count = |wanted: &str| lines.iter().filter(|line| op(line) == wanted).count();
    ensure!(count("element") >= 8 && count("update") > 0 && count("delete") > 0);
    ensure!(count("consistent") == 1 && count("end") == 1);
    ensure!(
        lines[lines.len() - 1]["lost"] == 0,
        "{}",
        lines[lines.len() - 1]
    );

    fails_with(&["record", &plain, &path, "--duration", "1"], 1, "--force")?;
    // Nothing changes any more: what was recorded is what is there.
    let resting = temporary("resting");
    let mut record = command(&["record", &plain, &resting, "--count", "3"]);
    let mut record = record.spawn()?;
    wait_for_links()?;
    for key in 57..60 {
        subjects.update("plain", key, 1)?;
    }
    ensure!(record.wait()?.success());
    let output = maptrace(&["replay", &resting, &copy])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    let output = maptrace(&["diff", &plain, &copy])?;
    ensure!(output.status.success(), "{}", text(&output.stdout));

    // And the one that was recorded under load.
    fails_with(&["replay", &path, &copy], 1, "is not empty")?;
    let output = maptrace(&["replay", &path, &copy, "--clear"])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    for key in 48..56_u32 {
        let value = subjects
            .map("copy")?
            .lookup(&key.to_ne_bytes(), MapFlags::ANY)?;
        ensure!(
            value == Some(u64::from(key).to_ne_bytes().to_vec()),
            "{key}: {value:?}"
        );
    }
    fs::remove_file(path)?;
    fs::remove_file(resting)?;
    no_links_left()
}

pub fn wait_for_links() -> Result<()> {
    for _ in 0..6000 {
        if crate::subjects::trace_links()? >= 2 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("it does not attach")
}

fn record_and_replay_values_of_each_cpu() -> Result<()> {
    let subjects = Subjects::new()?;
    let path = temporary("percpu");
    let counters = subjects.id("counters")?;
    let mut record = Running::start(&["record", &counters, &path], "")?;
    wait_for_links()?;
    let request = Request {
        value: 200,
        ..Default::default()
    };
    subjects.run("count", request)?;
    record.signal(libc::SIGINT);
    record.wait_for_note("changes")?;
    let (status, _, notes) = record.end()?;
    // It was interrupted, and is whole all the same.
    ensure!(
        status.code() == Some(130) && notes.contains("interrupted"),
        "{status} {notes}"
    );
    let copy = subjects.id("counters_copy")?;
    let output = maptrace(&["replay", &path, &copy])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    let output = maptrace(&["diff", &counters, &copy])?;
    ensure!(output.status.success(), "{}", text(&output.stdout));
    fs::remove_file(path)?;
    Ok(())
}

fn replay_refuses_what_does_not_fit() -> Result<()> {
    let subjects = Subjects::new()?;
    let copy = subjects.id("copy")?;
    let path = temporary("wrong");
    let header = r#"{"maptrace":1,"time":"","map":{"id":1,"name":"x","type":"hash","key_size":4,"value_size":8,"max_entries":64,"cpus":1,"percpu":false}}"#;
    let element = r#"{"op":"element","key":"01000000","values":["0100000000000000"]}"#;
    let end = r#"{"op":"end","elements":1,"changes":0,"lost":0,"missed":0}"#;
    let lacks = end.replace("\"lost\":0", "\"lost\":3");
    for (content, what) in [
        (String::new(), "it is empty"),
        ("hello\n".to_owned(), "line 1: no recording"),
        (header.replace(":1,\"time", ":2,\"time"), "version 2"),
        (format!("{header}\n{element}\n"), "it was cut off"),
        (format!("{header}\n{element}\n{{\"op\":"), "line 3"),
        (
            format!("{header}\n{}\n{end}\n", element.replace("01000000", "01")),
            "line 2: a key of",
        ),
        (format!("{header}\n{element}\n{lacks}\n"), "3 lost"),
        (
            header.replace("\"key_size\":4", "\"key_size\":8"),
            "keys of 8 bytes",
        ),
    ] {
        fs::write(&path, content)?;
        fails_with(&["replay", &path, &copy], 1, what)?;
    }
    // The map was left alone.
    ensure!(subjects.map("copy")?.keys().next().is_none());
    fs::write(&path, format!("{header}\n{element}\n"))?;
    let output = maptrace(&["replay", &path, &copy, "--partial"])?;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    ensure!(subjects.map("copy")?.keys().count() == 1);
    fs::remove_file(path)?;
    Ok(())
}

fn bad_input_is_named() -> Result<()> {
    let subjects = Subjects::new()?;
    fails_with(&["watch", "4000000000"], 1, "there is no map 4000000000")?;
    fails_with(&["watch", "nosuchmap"], 1, "there is no map \"nosuchmap\"")?;
    fails_with(&["watch", "/sys/fs/bpf/nosuch"], 1, "/sys/fs/bpf/nosuch")?;
    fails_with(&["watch", "/etc/passwd"], 1, "/etc/passwd")?;
    fails_with(&["watch", "prog", "4000000000"], 1, "there is no program")?;
    fails_with(
        &["watch", &subjects.id("queue")?],
        1,
        "(queue): its updates cannot be traced",
    )?;
    fails_with(
        &["watch", &subjects.id("table")?, "--op", "delete"],
        1,
        "an array has none",
    )?;
    fails_with(
        &["watch", &subjects.id("plain")?, "--key", "x"],
        1,
        "--key x: \"x\" is no integer",
    )?;
    let conns = subjects.id("conns")?;
    fails_with(
        &["watch", &conns, "--key", "port=1"],
        1,
        "no member port: there are saddr",
    )?;
    fails_with(&["record", &conns, "/nosuch/file"], 1, "/nosuch/file")?;
    let other = Subjects::new()?;
    let ids = (subjects.id("mirror")?, other.id("mirror")?);
    fails_with(
        &["watch", "mirror"],
        1,
        &format!("by its id: {}, {}", ids.0, ids.1),
    )?;
    no_links_left()
}

fn signals_leave_nothing_behind() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("plain")?;
    for (delay, signal) in [
        (0, libc::SIGINT),
        (150, libc::SIGTERM),
        (400, libc::SIGINT),
        (700, libc::SIGHUP),
        (1000, libc::SIGKILL),
    ] {
        let mut child = command(&["watch", &map, "--failed"]).spawn()?;
        thread::sleep(Duration::from_millis(delay));
        // SAFETY: it takes numbers; nobody has waited for the child yet.
        unsafe { libc::kill(child.id() as i32, signal) };
        let status = child.wait()?;
        ensure!(!status.success(), "{delay} ms: {status}");
        no_links_left()?;
    }
    let watch = Running::watch(&[&map])?;
    watch.signal(libc::SIGINT);
    let (status, _, notes) = watch.end()?;
    ensure!(
        status.code() == Some(130) && notes.ends_with("maptrace: interrupted\n"),
        "{status} {notes}"
    );
    no_links_left()
}

fn a_closed_pipe_ends_it() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("plain")?;
    // Whether there is anything to write or not.
    for write in [true, false] {
        let mut watch = command(&["watch", &map]).spawn()?;
        wait_for_links()?;
        drop(watch.stdout.take());
        if write {
            subjects.update("plain", 1, 1)?;
        }
        let output = watch.wait_with_output()?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(
            text(&output.stderr).contains("nobody reads the output"),
            "{output:?}"
        );
        no_links_left()?;
    }
    Ok(())
}

fn missing_capabilities_are_named() -> Result<()> {
    let subjects = Subjects::new()?;
    let path = "/sys/fs/bpf/maptrace_test_map";
    subjects.map("plain")?.pin(path)?;
    let without = |capability: u64, what: &str| {
        let mut command = command(&["watch", path]);
        // SAFETY: prctl() is a system call.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
                Ok(())
            });
        }
        let output = command.output()?;
        let said = text(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && said.contains(what),
            "{said}"
        );
        Ok(())
    };
    let result = (|| {
        // CAP_SYS_ADMIN stands for both, but not for us: it is more than this takes.
        without(39, "this needs CAP_BPF: run it as root")?;
        without(38, "this needs CAP_PERFMON: run it as root")
    })();
    fs::remove_file(path)?;
    result
}

fn a_missing_module_is_named() -> Result<()> {
    let subjects = Subjects::new()?;
    let map = subjects.id("plain")?;
    let modprobe = "/proc/sys/kernel/modprobe";
    let before = fs::read_to_string(modprobe)?;
    fs::write(modprobe, "/nosuch\n")?;
    let result = (|| {
        // Links hold it until they are freed.
        for _ in 0..600 {
            if !Path::new("/sys/module/map_trace").exists() {
                break;
            }
            Command::new("rmmod").arg("map_trace").output()?;
            thread::sleep(Duration::from_millis(100));
        }
        ensure!(
            !Path::new("/sys/module/map_trace").exists(),
            "it is still in use"
        );
        fails_with(&["watch", &map], 1, "\"modprobe map_trace\" loads it")
    })();
    fs::write(modprobe, before)?;
    result
}
