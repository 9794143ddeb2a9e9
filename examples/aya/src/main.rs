// SPDX-License-Identifier: GPL-2.0

//! `follow MAP`: keeps a second map what a map in use holds, in another layout, until Ctrl-C. `MAP`
//! is an id, or where it is pinned.
//!
//! Each program of aya is loaded with the attach type of its kind, and none can be given another one. So
//! aya makes and reads the maps here, and its parser, aya-obj, the tracer, but that is loaded by bpf(2).
//! What is attached with it is in `map_trace.rs`.

#[path = "../../rust/src/map_trace.rs"]
mod map_trace;

use anyhow::{bail, Context, Result};
use aya::{
    maps::{HashMap, Map, MapData},
    EbpfLoader,
};
use aya_obj::{generated::bpf_prog_type::BPF_PROG_TYPE_TRACING, Object};
use map_trace::{bpf, follow_until_ctrl_c, wait, Kernel};
use std::{
    collections::HashSet,
    env, iter,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

const BPF_PROG_LOAD: u32 = 5;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/follow.bpf.o"));

/// What `BPF_PROG_LOAD` takes.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    rest: [u32; 9],
    attach_btf_id: u32,
}

/// Loads the program `follow`, with `second` for its map.
fn load(kernel: &Kernel, second: &MapData) -> Result<OwnedFd> {
    let none = HashSet::new();
    let mut object = Object::parse(OBJECT)?;
    let map = object.maps.remove("runs_v2").context("no map")?;
    let fd = second.fd().as_fd().as_raw_fd();
    object.relocate_maps(iter::once(("runs_v2", fd, &map)), &none)?;
    object.relocate_calls(&none)?;
    let program = object.programs.get("follow").context("no program")?;
    let instructions = &object.functions[&program.function_key()].instructions;
    let mut log = vec![0; 64 * 1024];
    let mut load = ProgLoad {
        prog_type: BPF_PROG_TYPE_TRACING as u32,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        prog_name: *b"follow\0\0\0\0\0\0\0\0\0\0",
        expected_attach_type: kernel.attach_type()?,
        attach_btf_id: kernel.target("bpf_map_trace__sync_elem")?,
        ..ProgLoad::default()
    };
    // SAFETY: what it points to is as long as it says, and outlives the call.
    let program = unsafe { bpf(BPF_PROG_LOAD, &mut load) }
        .with_context(|| String::from_utf8_lossy(&log).into_owned())
        .context("loading")?;
    // SAFETY: nobody else has this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

fn main() -> Result<()> {
    let map = env::args().nth(1).context("usage: follow MAP")?;
    let map = match map.parse() {
        Ok(id) => MapData::from_id(id),
        Err(_) => MapData::from_pin(map),
    }?;
    let kernel = Kernel::new()?;

    let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT)?;
    let second = ebpf.take_map("runs_v2").context("no map")?;
    let Map::HashMap(data) = &second else {
        bail!("no hash map");
    };
    let program = load(&kernel, data)?;

    let link = kernel.attach(program.as_fd(), map.fd().as_fd())?;
    wait(link.as_fd())?;
    follow_until_ctrl_c();
    kernel.flush(link.as_fd(), Duration::from_secs(60))?;
    // The tracer ends with its link.
    drop(link);

    for entry in HashMap::<_, u32, [u32; 2]>::try_from(&second)?.iter() {
        // struct run_v2 of runs.h
        let (pid, [last_s, times]) = entry?;
        println!("{pid} ran {times} times, the last time at {last_s} s");
    }
    Ok(())
}
