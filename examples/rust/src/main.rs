// SPDX-License-Identifier: GPL-2.0

//! `follow MAP`: keeps a second map what a map in use holds, in another layout, until Ctrl-C. `MAP`
//! is an id, or where it is pinned.
//!
//! To libbpf the tracer is a program of a type that it loads, for a function of the kernel that it
//! finds, with an attach type that it does not know, and does not look at. What is attached with it
//! is in `map_trace.rs`.

mod map_trace;

use anyhow::{ensure, Context, Result};
use libbpf_rs::{AsRawLibbpf, MapCore, MapFlags, MapHandle, ObjectBuilder};
use map_trace::{follow_until_ctrl_c, wait, Kernel};
use std::{env, os::fd::AsFd, time::Duration};

/// The headers in an object want it aligned.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/follow.bpf.o")));

fn main() -> Result<()> {
    let map = env::args().nth(1).context("usage: follow MAP")?;
    let map = match map.parse() {
        Ok(id) => MapHandle::from_map_id(id),
        Err(_) => MapHandle::from_pinned_path(map),
    }?;
    let kernel = Kernel::new()?;

    let mut object = ObjectBuilder::default().open_memory(&OBJECT.0)?;
    let program = object.progs_mut().next().context("no program")?;
    // SAFETY: the program is open, and not loaded.
    let err = unsafe {
        libbpf_sys::bpf_program__set_expected_attach_type(
            program.as_libbpf_object().as_ptr(),
            kernel.attach_type()?,
        )
    };
    ensure!(err == 0, "the attach type: {err}");
    let object = object.load()?;
    let program = object.progs().next().context("no program")?;
    let second = object.maps().next().context("no map")?;

    let link = kernel.attach(program.as_fd(), map.as_fd())?;
    wait(link.as_fd())?;
    follow_until_ctrl_c();
    kernel.flush(link.as_fd(), Duration::from_secs(60))?;
    // The tracer ends with its link.
    drop(link);

    for pid in second.keys() {
        let run = second.lookup(&pid, MapFlags::ANY)?.context("no value")?;
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        // struct run_v2 of runs.h
        let (pid, last_s, times) = (number(&pid), number(&run[..4]), number(&run[4..]));
        println!("{pid} ran {times} times, the last time at {last_s} s");
    }
    Ok(())
}
