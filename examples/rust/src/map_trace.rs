// SPDX-License-Identifier: GPL-2.0

//! What no library for BPF knows yet: the numbers of map tracing, from the BTF of the kernel that
//! runs, and its system calls, as Documentation/raw-bpf.rst has them.

use anyhow::{ensure, Context, Result};
use btf_rs::{Btf, Type};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

const BPF_LINK_CREATE: u32 = 28;

/// What `BPF_LINK_CREATE` takes.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    pad: u32,
}

/// And what that points to.
#[repr(C)]
struct LinkInfo {
    map_fd: u32,
    trace_type: u32,
    cookie: u64,
}

/// What `BPF_LINK_FLUSH` takes. No keys: all that are in the map.
#[repr(C)]
#[derive(Default)]
struct LinkFlush {
    link_fd: u32,
    flags: u32,
    keys: u64,
    count: u32,
    timeout_ms: u32,
    left: u64,
}

/// bpf(2), with arguments that have the layout of its command. Returns what it returns, a descriptor
/// where it makes one.
///
/// # Safety
///
/// What the arguments point to is there.
pub unsafe fn bpf<T>(command: u32, arguments: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: they are as long as `size` says, and the caller vouches for what they point to.
    match unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *arguments, size) } {
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}

/// The kernel that runs
pub struct Kernel(Btf);

impl Kernel {
    pub fn new() -> Result<Self> {
        Ok(Self(Btf::from_file("/sys/kernel/btf/vmlinux")?))
    }

    /// The number of a name in an enum.
    fn number(&self, list: &str, name: &str) -> Result<u32> {
        for found in self.0.resolve_types_by_name(list).unwrap_or_default() {
            let Type::Enum(list) = found else { continue };
            for member in &list.members {
                if self.0.resolve_name(member)? == name {
                    return Ok(member.val());
                }
            }
        }
        anyhow::bail!("this kernel cannot trace maps: it has no {name}")
    }

    /// What a tracer is loaded with, for `expected_attach_type`.
    pub fn attach_type(&self) -> Result<u32> {
        self.number("bpf_attach_type", "BPF_TRACE_MAP")
    }

    /// The function that a tracer is loaded for, for `attach_btf_id`. libbpf finds it itself.
    #[allow(dead_code)]
    pub fn target(&self, name: &str) -> Result<u32> {
        let ids = self.0.resolve_ids_by_name(name)?;
        let is_function = |id: &u32| matches!(self.0.resolve_type_by_id(*id), Ok(Type::Func(_)));
        let id = ids.into_iter().find(is_function);
        id.with_context(|| format!("this kernel cannot trace maps: it has no {name}()"))
    }

    /// Attaches a sync tracer to a map.
    pub fn attach(&self, program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> Result<OwnedFd> {
        let info = LinkInfo {
            map_fd: map.as_raw_fd() as u32,
            trace_type: self.number("bpf_map_trace_type", "BPF_MAP_TRACE_SYNC_ELEM")?,
            cookie: 0,
        };
        let mut create = LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_fd: 0,
            attach_type: self.attach_type()?,
            flags: 0,
            info: &raw const info as u64,
            info_len: size_of::<LinkInfo>() as u32,
            pad: 0,
        };
        // SAFETY: `info` outlives the call.
        let link = unsafe { bpf(BPF_LINK_CREATE, &mut create) }.context("attaching")?;
        // SAFETY: nobody else has this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(link) })
    }

    /// Has the tracer told all that was written so far, also through pointers into values.
    pub fn flush(&self, link: BorrowedFd<'_>, timeout: Duration) -> Result<()> {
        let mut flush = LinkFlush {
            link_fd: link.as_raw_fd() as u32,
            timeout_ms: timeout.as_millis() as u32,
            ..LinkFlush::default()
        };
        let command = self.number("bpf_cmd", "BPF_LINK_FLUSH")?;
        // SAFETY: it points to nothing.
        unsafe { bpf(command, &mut flush) }.context("flushing")?;
        Ok(())
    }
}

/// Waits until the tracer was told all that was in the map before it.
pub fn wait(link: BorrowedFd<'_>) -> Result<()> {
    let mut poll = libc::pollfd {
        fd: link.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: `poll` is one.
    let count = unsafe { libc::poll(&mut poll, 1, -1) };
    ensure!(count == 1, "waiting: {}", io::Error::last_os_error());
    ensure!(
        poll.revents == libc::POLLIN,
        "the link is detached, or has lost keys"
    );
    Ok(())
}

/// Until then, Ctrl-C ends the process, and the link with it.
pub fn follow_until_ctrl_c() {
    // SAFETY: `signals` and `signal` are valid for the calls.
    unsafe {
        let (mut signals, mut signal) = (std::mem::zeroed(), 0);
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGINT);
        libc::sigprocmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        println!("following");
        libc::sigwait(&signals, &mut signal);
    }
}
