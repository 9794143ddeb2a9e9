// SPDX-License-Identifier: GPL-2.0

//! The BPF objects that are part of this program.

use crate::kernel::Kernel;
use anyhow::{ensure, Context, Result};
use btf_rs::Btf;
use libbpf_rs::{
    AsRawLibbpf, Map, MapCore, Object, ObjectBuilder, OpenMapMut, OpenObject, OpenProgramMut,
    PrintLevel, ProgramMut, ProgramType,
};
use std::{
    ffi::{CString, OsStr},
    io, ptr,
    sync::Mutex,
};

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

/// Whether a map is the one: that of a section has the name of the object before it.
fn is_map(is: &OsStr, name: &str) -> bool {
    is == name || name.starts_with('.') && is.to_string_lossy().ends_with(name)
}

/// The map that is called `name`, or is that of a section.
pub fn open_map<'a>(object: &'a mut OpenObject, name: &str) -> Result<OpenMapMut<'a>> {
    object
        .maps_mut()
        .find(|map| is_map(map.name(), name))
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
        .find(|map| is_map(map.name(), name))
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

/// Has this program loaded, and no other one of the object.
pub fn load_only(object: &mut OpenObject, name: &str) {
    for mut program in object.progs_mut() {
        let is_it = program.name() == name;
        program.set_autoload(is_it);
    }
}

/// The types of an object that is not loaded, if it has any.
pub fn btf(object: &OpenObject) -> Result<Option<Btf>> {
    // SAFETY: the object is open until the end of this function, and so is its BTF.
    unsafe {
        copy_btf(libbpf_sys::bpf_object__btf(
            object.as_libbpf_object().as_ptr(),
        ))
    }
}

/// The types of an object in a file, if it has any.
pub fn btf_of_file(path: &str) -> Result<Option<Btf>> {
    let path = CString::new(path)?;
    // SAFETY: `path` is a string.
    let btf = unsafe { libbpf_sys::btf__parse_elf(path.as_ptr(), ptr::null_mut()) };
    if btf.is_null() {
        return match io::Error::last_os_error() {
            err if err.raw_os_error() == Some(libc::ENODATA) => Ok(None),
            err => Err(err).context("its BTF cannot be read"),
        };
    }
    // SAFETY: it is there until it is freed, which is done once.
    unsafe {
        let copy = copy_btf(btf);
        libbpf_sys::btf__free(btf);
        copy
    }
}

/// # Safety
///
/// `btf` is what libbpf has made, or NULL.
unsafe fn copy_btf(btf: *const libbpf_sys::btf) -> Result<Option<Btf>> {
    if btf.is_null() {
        return Ok(None);
    }
    let mut size = 0;
    // SAFETY: as the caller says; what it has is as long as `size`.
    unsafe {
        let data = libbpf_sys::btf__raw_data(btf, &mut size);
        ensure!(!data.is_null(), "its BTF cannot be read");
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), size as usize);
        Ok(Some(Btf::from_bytes(bytes)?))
    }
}

/// Does something of which libbpf says more than an errno. Returns that as well: lines, each after the
/// end of another one. With `--debug`, they are printed as all others are.
pub fn listen<T>(work: impl FnOnce() -> T) -> (T, String) {
    static SAID: Mutex<String> = Mutex::new(String::new());
    fn hear(_: PrintLevel, text: String) {
        if let Ok(mut said) = SAID.lock() {
            *said += "\n";
            *said += text.trim_end();
        }
    }
    if libbpf_rs::get_print().is_some() {
        return (work(), String::new());
    }
    libbpf_rs::set_print(Some((PrintLevel::Warn, hear)));
    let result = work();
    libbpf_rs::set_print(None);
    let said = SAID.lock().map(|mut said| std::mem::take(&mut *said));
    (result, said.unwrap_or_default())
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
