// SPDX-License-Identifier: GPL-2.0

//! Where the old maps are found, and the new ones are to be.

use super::set::Maps;
use crate::{
    cli::Switch,
    commands::watch::parse_key,
    kernel::Kernel,
    map::{self, Map, Selector},
    output::{errno_name, note},
    pin,
};
use anyhow::{anyhow, ensure, Context, Result};
use std::{
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

enum Where {
    Pin(PathBuf),
    /// A map of maps, and a key in it.
    Outer(Map, Vec<u8>),
}

/// Each is the place of one pair.
pub struct Places(Vec<(usize, Where)>);

impl Places {
    /// `is_resumed`: some of the new maps can be there already.
    ///
    /// Errors: the old map is not there.
    pub fn find(
        switch: &Switch,
        pairs: &[Maps],
        is_resumed: bool,
        kernel: &Kernel,
    ) -> Result<Self> {
        let whose = |id: u32| {
            pairs
                .iter()
                .position(|pair| pair.old.id == id || is_resumed && pair.new.id == id)
        };
        let mut places = Vec::new();
        for path in &switch.repin {
            let found = map::select(&[Selector::Pinned(path.clone())], kernel)
                .with_context(|| format!("--repin {}", path.display()))?;
            let before = places.len();
            for pinned in &found {
                match (whose(pinned.id), &pinned.pinned) {
                    (Some(index), Some(path)) if !pin::is_beside(path) => {
                        places.push((index, Where::Pin(path.clone())));
                    }
                    _ => {}
                }
            }
            let wanted: Vec<_> = pairs.iter().map(|pair| pair.old.label()).collect();
            let found: Vec<_> = found.iter().map(Map::label).collect();
            ensure!(
                places.len() > before,
                "--repin {}: {} is pinned there, not {}",
                path.display(),
                found.join(", "),
                wanted.join(" or ")
            );
            for (index, pair) in pairs.iter().enumerate() {
                // One of a directory that is left out would be found there by the new programs.
                ensure!(
                    !path.is_dir() || places.iter().any(|(other, _)| *other == index),
                    "--repin {}: {} is not pinned there",
                    path.display(),
                    pair.old.label()
                );
            }
        }
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
            let index = inner.and_then(|id| whose(u32::from_ne_bytes(id)));
            let index = index.with_context(|| {
                let wanted: Vec<_> = pairs.iter().map(|pair| pair.old.label()).collect();
                format!(
                    "--outer {} {}: {} is not there",
                    words[0],
                    words[1],
                    wanted.join(" or ")
                )
            })?;
            places.push((index, Where::Outer(outer, key)));
        }
        Ok(Self(places))
    }

    /// Puts the new maps there, each time in one step. What has been put is taken back where one
    /// of them fails.
    pub fn put(&self, pairs: &[Maps]) -> Result<()> {
        let result = self
            .0
            .iter()
            .try_for_each(|(index, place)| place.put(&pairs[*index].new));
        if result.is_err() {
            self.put_back(pairs);
        }
        result
    }

    /// Puts the old maps there again, as far as that works.
    pub fn put_back(&self, pairs: &[Maps]) {
        for (index, place) in &self.0 {
            let old = &pairs[*index].old;
            if let Err(err) = place.put(old) {
                note(format!("putting {} back: {err:#}", old.label()));
            }
        }
    }
}

impl Where {
    fn put(&self, map: &Map) -> Result<()> {
        match self {
            Where::Outer(outer, key) => put_into(outer, key, map),
            Where::Pin(path) => pin_over(path, map),
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

fn pin_over(path: &Path, map: &Map) -> Result<()> {
    pin::pin_over(map.as_fd(), path)
        .with_context(|| format!("pinning {} at {}", map.label(), path.display()))
}
