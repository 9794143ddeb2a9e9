// SPDX-License-Identifier: GPL-2.0

//! What is watched, and maptrace as a user runs it.

use anyhow::{ensure, Context, Result};
use libbpf_rs::{MapCore, MapHandle, Object, ProgramInput};
use maptrace::object;
use serde_json::Value as Json;
use std::{
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{channel, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Nothing takes as long, on an emulated machine that checks each access to memory.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// `struct request` of subjects.bpf.c
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Request {
    pub delete: u32,
    pub key: u32,
    pub value: u64,
    pub flags: u64,
    pub result: i64,
}

/// Programs and maps that know nothing of maptrace.
pub struct Subjects {
    object: Object,
}

impl Subjects {
    /// Those of subjects.bpf.c
    pub fn new() -> Result<Self> {
        Self::of(maptrace::embedded!("subjects"))
    }

    pub fn of(object: &[u8]) -> Result<Self> {
        let open = object::open(object)?;
        Ok(Self {
            object: open.load()?,
        })
    }

    pub fn map(&self, name: &str) -> Result<MapHandle> {
        let map = self
            .object
            .maps()
            .find(|map| map.name() == name)
            .with_context(|| format!("no map {name}"))?;
        Ok(MapHandle::try_from(&map)?)
    }

    /// For the command line.
    pub fn id(&self, name: &str) -> Result<String> {
        Ok(self.map(name)?.info()?.info.id.to_string())
    }

    pub fn program_id(&self, name: &str) -> Result<u32> {
        let program = object::program(&self.object, name)?;
        Ok(libbpf_rs::Program::id_from_fd(program.as_fd())?)
    }

    /// Runs a program once. Returns what its operation returned.
    pub fn run(&self, name: &str, request: Request) -> Result<i64> {
        let mut context = request;
        // SAFETY: it is numbers, with no padding between.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut context).cast::<u8>(), size_of::<Request>())
        };
        let input = ProgramInput {
            context_in: Some(bytes),
            ..Default::default()
        };
        object::program(&self.object, name)?.test_run(input)?;
        Ok(context.result)
    }

    /// Updates an element by a program.
    pub fn update(&self, map: &str, key: u32, value: u64) -> Result<i64> {
        let request = Request {
            key,
            value,
            ..Default::default()
        };
        self.run(&format!("change_{map}"), request)
    }

    /// Deletes an element by a program.
    pub fn delete(&self, map: &str, key: u32) -> Result<i64> {
        let request = Request {
            key,
            delete: 1,
            ..Default::default()
        };
        self.run(&format!("change_{map}"), request)
    }
}

fn binary() -> PathBuf {
    match std::env::var_os("MAPTRACE") {
        Some(path) => path.into(),
        None => std::env::current_exe()
            .map(|path| path.with_file_name("maptrace"))
            .unwrap_or_default(),
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs maptrace to its end.
pub fn maptrace(args: &[&str]) -> Result<Output> {
    command(args).output().context("maptrace")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs maptrace, which has to fail with this status and say this.
pub fn fails_with(args: &[&str], status: i32, what: &str) -> Result<()> {
    let output = maptrace(args)?;
    let said = text(&output.stderr);
    ensure!(
        output.status.code() == Some(status),
        "{args:?}: {}, not {status}: {said}",
        output.status
    );
    ensure!(
        said.contains(what),
        "{args:?}: {what:?} is not in what it says: {said}"
    );
    Ok(())
}

/// maptrace, while it runs.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    said: Receiver<String>,
    /// What it has said so far.
    pub notes: String,
}

impl Running {
    /// Starts it, and waits until it says `ready`.
    pub fn start(args: &[&str], ready: &str) -> Result<Self> {
        let mut child = command(args).spawn().context("maptrace")?;
        let stdout = child.stdout.take().context("no output")?;
        let stderr: ChildStderr = child.stderr.take().context("no output")?;
        let mut running = Self {
            lines: read_lines(stdout),
            said: read_lines(stderr),
            notes: String::new(),
            child,
        };
        running.wait_for_note(ready)?;
        Ok(running)
    }

    /// `maptrace watch`, which watches when this returns.
    pub fn watch(args: &[&str]) -> Result<Self> {
        let args: Vec<_> = ["watch"].into_iter().chain(args.iter().copied()).collect();
        Self::start(&args, "watching")
    }

    pub fn wait_for_note(&mut self, wanted: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.notes.contains(wanted) {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => self.notes += &(line + "\n"),
                Err(err) => anyhow::bail!("{err}: it never said {wanted:?}: {}", self.notes),
            }
        }
        Ok(())
    }

    /// The next line of its output.
    pub fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(err) => {
                self.gather_notes(Duration::from_millis(100));
                anyhow::bail!("no line ({err}); it said: {}", self.notes)
            }
        }
    }

    pub fn json(&mut self) -> Result<Json> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| line)
    }

    fn gather_notes(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => self.notes += &(line + "\n"),
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return,
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: it takes numbers; nobody has waited for the child yet.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for its end. Returns the lines that are left, too.
    pub fn end(mut self) -> Result<(ExitStatus, Vec<String>, String)> {
        let mut lines = Vec::new();
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill()?;
                    anyhow::bail!("it does not end; it said: {}", self.notes);
                }
            }
        }
        self.gather_notes(PATIENCE);
        let status = self.child.wait()?;
        Ok((status, lines, self.notes.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines, as they come. Ends with the receiver, at the next line.
fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// How many links of tracers there are.
pub fn trace_links() -> Result<usize> {
    Ok(maptrace::kernel::Kernel::new()?.trace_links()?.len())
}

/// That none is left, soon after a process has ended.
pub fn no_links_left() -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while trace_links()? > 0 {
        ensure!(Instant::now() < end, "links are left: {}", trace_links()?);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
