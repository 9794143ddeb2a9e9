// SPDX-License-Identifier: GPL-2.0

//! Where the old map is found, and the new one is to be.

use crate::{
    cli::Switch,
    commands::watch::parse_key,
    kernel::Kernel,
    map::{self, Map, Selector},
    output::{errno_name, note},
};
use anyhow::{anyhow, ensure, Context, Result};
use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

pub struct Places {
    pins: Vec<PathBuf>,
    /// Maps of maps, and the keys in them.
    outers: Vec<(Map, Vec<u8>)>,
}

impl Places {
    /// Errors: the old map is not there.
    pub fn find(switch: &Switch, old: &Map, kernel: &Kernel) -> Result<Self> {
        for path in &switch.repin {
            let pinned = map::select_single(&Selector::Pinned(path.clone()), kernel)?;
            ensure!(
                pinned.id == old.id,
                "--repin {}: {} is pinned there, not {}",
                path.display(),
                pinned.label(),
                old.label()
            );
        }
        let mut outers = Vec::new();
        for words in switch.outer.chunks_exact(2) {
            let outer = map::select_single(&words[0].parse()?, kernel)?;
            ensure!(
                outer.holds_maps(),
                "--outer {}: no map of maps, but a {}",
                outer.label(),
                outer.type_name
            );
            let (layout, _, _) = outer.layouts();
            let (mut key, mut mask) = (vec![0; layout.size], vec![0; layout.size]);
            parse_key(&words[1], &layout)
                .and_then(|json| layout.encode(&json, &mut key, &mut mask))
                .with_context(|| format!("--outer {} {}", words[0], words[1]))?;
            let inner = outer.lookup(&key)?;
            let inner = inner.and_then(|values| <[u8; 4]>::try_from(&*values[0]).ok());
            ensure!(
                inner.map(u32::from_ne_bytes) == Some(old.id),
                "--outer {} {}: {} is not there",
                words[0],
                words[1],
                old.label()
            );
            outers.push((outer, key));
        }
        Ok(Self {
            pins: switch.repin.clone(),
            outers,
        })
    }

    /// Puts the new map there, each time in one step. What has been put is taken back where one
    /// of them fails.
    pub fn put(&self, new: &Map, old: &Map) -> Result<()> {
        let result = self.put_all(new);
        if result.is_err() {
            self.put_back(old);
        }
        result
    }

    fn put_all(&self, map: &Map) -> Result<()> {
        for (outer, key) in &self.outers {
            put_into(outer, key, map)?;
        }
        for path in &self.pins {
            pin(path, map)?;
        }
        Ok(())
    }

    /// Puts the old map there again, as far as that works.
    pub fn put_back(&self, old: &Map) {
        let results = self
            .outers
            .iter()
            .map(|(outer, key)| put_into(outer, key, old))
            .chain(self.pins.iter().map(|path| pin(path, old)));
        for err in results.filter_map(Result::err) {
            note(format!("putting {} back: {err:#}", old.label()));
        }
    }
}

fn put_into(outer: &Map, key: &[u8], map: &Map) -> Result<()> {
    let fd = (map.fd.as_raw_fd() as u32).to_ne_bytes().to_vec();
    outer
        .update(key, std::slice::from_ref(&fd))
        .map_err(|err| match err.raw_os_error() {
            Some(libc::EINVAL) => anyhow!(
                "{}: {} cannot be in it: the maps in there have other sizes, another type or \
                 other flags",
                outer.label(),
                map.label()
            ),
            errno => anyhow!(
                "{}: putting {} there: {}",
                outer.label(),
                map.label(),
                errno_name(errno.unwrap_or_default())
            ),
        })
}

fn pin(path: &Path, map: &Map) -> Result<()> {
    map.pin_over(path)
        .with_context(|| format!("pinning {} at {}", map.label(), path.display()))
}
