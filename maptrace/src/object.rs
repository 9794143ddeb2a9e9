// SPDX-License-Identifier: GPL-2.0

//! The BPF objects that are part of this program.

use crate::kernel::Kernel;
use anyhow::{ensure, Context, Result};
use libbpf_rs::{
    AsRawLibbpf, Map, MapCore, Object, ObjectBuilder, OpenMapMut, OpenObject, OpenProgramMut,
    ProgramMut, ProgramType,
};
use std::{io, ptr};

/// Aligned as the headers in it want it.
#[repr(align(8))]
pub struct Aligned<T: ?Sized>(pub T);

/// The object that the build made of `src/bpf/NAME.bpf.c`.
#[macro_export]
macro_rules! embedded {
    ($name:literal) => {{
        static OBJECT: &$crate::object::Aligned<[u8]> = &$crate::object::Aligned(*include_bytes!(
            concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")
        ));
        &OBJECT.0
    }};
}
pub use embedded;

pub fn open(bytes: &[u8]) -> Result<OpenObject> {
    ObjectBuilder::default()
        .name("maptrace")
        .and_then(|builder| builder.open_memory(bytes))
        .context("a BPF object of maptrace")
}

/// The program `name` of an object that is not loaded.
pub fn open_program<'a>(object: &'a mut OpenObject, name: &str) -> Result<OpenProgramMut<'a>> {
    object
        .progs_mut()
        .find(|program| program.name() == name)
        .with_context(|| format!("no program {name}"))
}

/// The map that is called `name`, or, of sections, ends with it.
pub fn open_map<'a>(object: &'a mut OpenObject, name: &str) -> Result<OpenMapMut<'a>> {
    object
        .maps_mut()
        .find(|map| map.name().to_string_lossy().ends_with(name))
        .with_context(|| format!("no map {name}"))
}

pub fn program<'a>(object: &'a Object, name: &str) -> Result<ProgramMut<'a>> {
    object
        .progs_mut()
        .find(|program| program.name() == name)
        .with_context(|| format!("no program {name}"))
}

pub fn map<'a>(object: &'a Object, name: &str) -> Result<Map<'a>> {
    object
        .maps()
        .find(|map| map.name().to_string_lossy().ends_with(name))
        .with_context(|| format!("no map {name}"))
}

/// Makes a program a tracer of maps, which the libbpf of a distribution does not know by the
/// section.
pub fn make_tracer(prog: &mut OpenProgramMut<'_>, kernel: &Kernel, target: &str) -> Result<()> {
    prog.set_prog_type(ProgramType::Tracing);
    // SAFETY: the program is open, and not loaded.
    let err = unsafe {
        libbpf_sys::bpf_program__set_expected_attach_type(
            prog.as_libbpf_object().as_ptr(),
            kernel.attach_type()?,
        )
    };
    ensure!(
        err == 0,
        "the attach type: {}",
        io::Error::from_raw_os_error(-err)
    );
    prog.set_attach_target(0, Some(target.to_owned()))?;
    Ok(())
}

/// What a program reads.
///
/// # Safety
///
/// `T` has no padding.
pub unsafe fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: it is as long as that, and has no padding.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}
