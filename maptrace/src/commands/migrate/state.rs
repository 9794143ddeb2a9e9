// SPDX-License-Identifier: GPL-2.0

//! Where a migration stands, in a directory of a bpffs, for whoever goes on with it.
//!
//! The directory has the links, which keep the maps as well, and a map with one element, which is
//! this. All of it goes with the machine. An element is written by one system call: whoever is
//! killed has written all of it, or nothing.

use super::script::Child;
use crate::{
    cli::{Fields, Switch},
    pin,
    with::With,
};
use anyhow::{anyhow, bail, ensure, Context, Result};
use libbpf_rs::{
    libbpf_sys::{bpf_map_create_opts, BPF_F_RDONLY_PROG},
    MapCore, MapFlags, MapHandle, MapType,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::{Duration, SystemTime},
};

const VERSION: u32 = 1;

/// Room for the command line of anybody.
const SIZE: usize = 1 << 16;

const STATE: &str = "state";

/// What was begun last. It is kept before the first thing is done that it stands for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The new maps are told what is there.
    Moving,
    /// They follow.
    InSync,
    /// `--stop` runs.
    Stopping,
    /// It has run: nobody writes the old maps.
    Stopped,
    /// The new maps are put in place, and `--start` runs.
    Starting,
    /// `--switch` runs.
    Switching,
    /// It has run: the new maps are put in place.
    Placing,
    /// The new maps are the ones.
    Switched,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PairState {
    pub old: u32,
    pub new: u32,
    /// What the old one was called by whoever began.
    pub names: Vec<String>,
    /// The conversion of the user: what it was called, and its bytes behind this.
    pub with: Option<(String, Range<usize>)>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    version: u32,
    pub phase: Phase,
    /// It leads from the new maps to the old ones.
    pub is_back: bool,
    /// Old and new as they were at first, on the way back as well.
    pub pairs: Vec<PairState>,
    pub fields: Fields,
    pub switch: Switch,
    pub back: bool,
    pub prune: bool,
    pub partial: bool,
    pub old_wins: bool,
    /// The command that runs, or has run last.
    pub child: Option<Child>,
    /// When it began, and when `--stop` did: seconds of 1970.
    pub began: f64,
    pub stopped: Option<f64>,
}

impl State {
    pub fn new(pairs: Vec<PairState>, fields: Fields, switch: Switch) -> Self {
        Self {
            version: VERSION,
            phase: Phase::Moving,
            is_back: false,
            pairs,
            fields,
            switch,
            back: false,
            prune: false,
            partial: false,
            old_wins: false,
            child: None,
            began: now(),
            stopped: None,
        }
    }

    /// What the links of a direction are called.
    pub fn link_name(is_back: bool, index: usize) -> String {
        let direction = if is_back { "back" } else { "forth" };
        format!("{direction}{index}")
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let len = bytes.iter().position(|byte| *byte == 0);
        let state: Self = serde_json::from_slice(&bytes[..len.unwrap_or(bytes.len())])?;
        ensure!(
            state.version == VERSION,
            "it is of version {}, and this maptrace knows {VERSION}",
            state.version
        );
        Ok(state)
    }
}

pub fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// A directory that nobody else is at work in.
pub struct Directory {
    pub path: PathBuf,
    map: MapHandle,
    /// What is kept behind the state: the objects of `--with`, which may not be there any more.
    objects: Vec<u8>,
    _lock: File,
}

impl Directory {
    /// Makes one. It can be there, if nothing is in it.
    pub fn create(path: &Path, state: &State, objects: Vec<u8>) -> Result<Self> {
        let what = || format!("--pin {}", path.display());
        let is_new = match fs::create_dir(path) {
            Ok(()) => true,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => false,
            Err(err) => return Err(err).with_context(what),
        };
        let directory = Self::fill(path, state, objects).with_context(what);
        if is_new && directory.is_err() {
            let _ = fs::remove_dir(path);
        }
        directory
    }

    fn fill(path: &Path, state: &State, objects: Vec<u8>) -> Result<Self> {
        ensure!(
            pin::is_bpffs(path)?,
            "nothing can be pinned there: it is not in a bpffs, as /sys/fs/bpf is"
        );
        ensure!(
            !pin::is_mount_point(path)?,
            "it is the bpffs itself: name a directory in it"
        );
        let lock = lock(path)?;
        ensure!(
            !path.join(STATE).exists(),
            "a migration is in it: --resume goes on with it, --abort takes it away"
        );
        ensure!(
            fs::read_dir(path)?.next().is_none(),
            "something else is in it"
        );
        let options = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as _,
            map_flags: BPF_F_RDONLY_PROG,
            ..Default::default()
        };
        let map = MapHandle::create(
            MapType::Array,
            Some("maptrace_state"),
            4,
            u32::try_from(SIZE + objects.len())?,
            1,
            &options,
        )?;
        let directory = Self {
            path: path.to_owned(),
            map,
            objects,
            _lock: lock,
        };
        directory.save(state)?;
        pin::pin(directory.map.as_fd(), &path.join(STATE))?;
        Ok(directory)
    }

    /// One that is there.
    pub fn open(path: &Path) -> Result<(Self, State)> {
        let map = open_map(path)?;
        let lock = lock(path).with_context(|| path.display().to_string())?;
        let (state, objects) = read(&map).with_context(|| path.display().to_string())?;
        let directory = Self {
            path: path.to_owned(),
            map,
            objects,
            _lock: lock,
        };
        Ok((directory, state))
    }

    pub fn save(&self, state: &State) -> Result<()> {
        let mut bytes = serde_json::to_vec(state)?;
        ensure!(
            bytes.len() < SIZE,
            "the command line is longer than {SIZE} bytes: this cannot be pinned"
        );
        bytes.resize(SIZE, 0);
        bytes.extend(&self.objects);
        self.map
            .update(&0_u32.to_ne_bytes(), &bytes, MapFlags::ANY)
            .context("keeping where it stands")
    }

    /// The conversion of a pair, if it has one of the user.
    pub fn with(&self, pair: &PairState) -> Result<Option<Rc<With>>> {
        let Some((name, range)) = &pair.with else {
            return Ok(None);
        };
        let bytes = self.objects.get(range.clone());
        let bytes = bytes.with_context(|| format!("--with {name}: it is not all there"))?;
        Ok(Some(Rc::new(With::new(name, bytes.to_vec())?)))
    }

    pub fn link(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Nothing of it is left, if the links have gone.
    pub fn remove(self) -> Result<()> {
        pin::remove(&self.path.join(STATE))
            .and_then(|()| fs::remove_dir(&self.path))
            .with_context(|| format!("removing {}", self.path.display()))
    }
}

/// Where the migration of a directory stands, whoever is at work on it.
pub fn look(path: &Path) -> Result<State> {
    let (state, _) = read(&open_map(path)?).with_context(|| path.display().to_string())?;
    Ok(state)
}

/// Whether somebody is at work on it.
pub fn is_locked(path: &Path) -> bool {
    matches!(try_lock(path), Ok(None))
}

fn open_map(path: &Path) -> Result<MapHandle> {
    let opened = pin::open(&path.join(STATE), pin::Kind::Map);
    let fd = opened.with_context(|| path.display().to_string())?;
    let fd = fd.ok_or_else(|| anyhow!("{}: no migration is pinned here", path.display()))?;
    let info: libbpf_rs::libbpf_sys::bpf_map_info = crate::kernel::object_info(fd.as_fd())?;
    ensure!(
        info.key_size == 4 && info.value_size as usize >= SIZE && info.max_entries == 1,
        "{}: it is not what maptrace keeps",
        path.join(STATE).display()
    );
    Ok(MapHandle::from_map_id(info.id)?)
}

fn read(map: &MapHandle) -> Result<(State, Vec<u8>)> {
    // Whoever is at work on it can write it meanwhile.
    let mut last = None;
    for _ in 0..100 {
        let value = map
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?
            .context("nothing is in it")?;
        if last.as_ref() == Some(&value) {
            let (state, objects) = value.split_at(SIZE);
            return Ok((State::from_bytes(state)?, objects.to_vec()));
        }
        last = Some(value);
    }
    bail!("it changes all the time")
}

/// Nobody else has it until the file is closed.
fn lock(path: &Path) -> Result<File> {
    // Whoever only asks whether somebody has it, has it for a moment.
    for _ in 0..10 {
        if let Some(file) = try_lock(path)? {
            return Ok(file);
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("another maptrace is at work on it")
}

/// `None`: somebody else has it.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = File::open(path)?;
    // SAFETY: it takes a descriptor.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(Some(file)),
        _ => match io::Error::last_os_error() {
            err if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
            err => Err(err.into()),
        },
    }
}
