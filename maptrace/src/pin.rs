// SPDX-License-Identifier: GPL-2.0

//! What is pinned in a bpffs, and stays when the process has ended.

use anyhow::{anyhow, ensure, Context, Result};
use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

/// What can be pinned, of what is opened here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Map,
    Link,
}

const BESIDE: &str = "-maptrace";

/// Pins it where nothing is yet.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `c_path` is a string.
    match unsafe { libbpf_sys::bpf_obj_pin(fd.as_raw_fd(), c_path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where something is pinned before it takes the place of what is at `path`: in the same directory,
/// as it is renamed, and without a dot, which a bpffs does not take.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(BESIDE);
    beside.into()
}

/// Whether it is what somebody has left who was killed before it took its place.
pub fn is_beside(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(BESIDE.as_bytes())
}

/// Pins it in place of what is pinned at `path`, in one step.
pub fn pin_over(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let beside = beside(path);
    // Whoever was killed in between has left it.
    remove(&beside)?;
    pin(fd, &beside)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// Takes a pin away, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// What is pinned at `path`; `None` if nothing is.
///
/// Errors: it is something else.
pub fn open(path: &Path, wanted: Kind) -> Result<Option<OwnedFd>> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `c_path` is a string.
    let fd = unsafe { libbpf_sys::bpf_obj_get(c_path.as_ptr()) };
    if fd < 0 {
        let err = io::Error::last_os_error();
        return match err.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            Some(libc::EINVAL) => Err(anyhow!("nothing that is pinned, by what it looks")),
            _ => Err(err.into()),
        };
    }
    // SAFETY: nobody else has this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let word = match wanted {
        Kind::Map => "map",
        Kind::Link => "link",
    };
    let found = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let found = found.to_string_lossy();
    // bpf-map, bpf_link, bpf-prog
    ensure!(
        found.contains("bpf") && found.contains(word),
        "no {word}: {found}"
    );
    Ok(Some(fd))
}

/// Whether a directory is where its file system is mounted, and cannot be removed.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let device = |path: &Path| {
        let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
        Ok::<_, anyhow::Error>(metadata.dev())
    };
    Ok(device(path)? != device(&path.join(".."))?)
}

/// Whether a directory is one of a bpffs.
pub fn is_bpffs(path: &Path) -> Result<bool> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the struct is plain numbers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for the call.
    match unsafe { libc::statfs(c_path.as_ptr(), &mut stat) } {
        0 => Ok(stat.f_type == libc::BPF_FS_MAGIC),
        _ => Err(io::Error::last_os_error()).with_context(|| path.display().to_string()),
    }
}
