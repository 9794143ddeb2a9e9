// SPDX-License-Identifier: GPL-2.0

//! What it takes to move a large map, for the command line.

use crate::subjects::{maptrace, text};
use anyhow::{ensure, Result};
use libbpf_rs::{libbpf_sys::bpf_map_create_opts, MapCore, MapFlags, MapHandle, MapType};

const BATCH: u32 = 10_000;

/// A map with keys of 4 bytes and values of 8, of which nothing more is known.
pub fn create(map_type: MapType, name: &str, entries: u32) -> Result<MapHandle> {
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as _,
        ..Default::default()
    };
    Ok(MapHandle::create(
        map_type,
        Some(name),
        4,
        8,
        entries,
        &options,
    )?)
}

/// Fills a map, and moves it to one with as much room as that.
pub fn print(entries: &str, room: &str) -> Result<()> {
    let (entries, room): (u32, u32) = (entries.parse()?, room.parse()?);
    let old = create(MapType::Hash, "large_old", entries)?;
    let new = create(MapType::Hash, "large_new", room)?;
    for first in (0..entries).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(entries);
        let count = numbers.len() as u32;
        let keys: Vec<u8> = numbers.clone().flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = numbers
            .flat_map(|number| (u64::from(number) * 3).to_ne_bytes())
            .collect();
        old.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)?;
    }
    let id = |map: &MapHandle| -> Result<String> { Ok(map.info()?.info.id.to_string()) };
    let output = maptrace(&[
        "migrate",
        &id(&old)?,
        &id(&new)?,
        "--wait",
        "--timeout",
        "600",
    ])?;
    let listed = text(&output.stdout);
    for line in listed.lines().take(2).chain(listed.lines().last()) {
        println!("{line}");
    }
    print!("{}", text(&output.stderr));
    println!("{}", output.status);
    ensure!(
        output.status.success() == (room >= entries),
        "it should have said what does not fit"
    );
    Ok(())
}
