// SPDX-License-Identifier: GPL-2.0

//! What the running kernel has, by its BTF, and what it is asked for that libbpf does not know.

use anyhow::{anyhow, bail, ensure, Context, Result};
use caps::{CapSet, Capability};
use libbpf_rs::btf::{types::Enum, Btf};
use std::{
    collections::BTreeMap,
    ffi::c_void,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

/// The numbers that this kernel has for what it calls by name.
pub struct Kernel {
    btf: Btf<'static>,
    map_types: BTreeMap<u32, String>,
    trace_types: BTreeMap<u32, String>,
    reasons: BTreeMap<u32, String>,
    attach_type: Option<u32>,
    link_type: Option<u32>,
    flush: Option<u32>,
}

/// Its `struct bpf_link_info`, for links of map tracers.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TraceLinkInfo {
    pub link_type: u32,
    pub id: u32,
    pub prog_id: u32,
    pad: u32,
    pub map_id: u32,
    pub trace_type: u32,
    pub cookie: u64,
    pub missed: u64,
    pub failed: u64,
    /// Of those of states only: elements that were there before it, keys that the last round
    /// could not settle, and keys that are not told any more.
    pub replayed: u64,
    pub pending: u64,
    pub lost: u64,
}

/// The name of the operation of sync tracers.
pub const SYNC_ELEM: &str = "SYNC_ELEM";

/// What `BPF_LINK_CREATE` is given beside the program.
#[repr(C)]
struct TraceTarget {
    map_fd: u32,
    trace_type: u32,
    cookie: u64,
}

/// The arguments of `BPF_LINK_FLUSH`
#[repr(C)]
struct LinkFlush {
    link_fd: u32,
    flags: u32,
    keys: u64,
    count: u32,
    timeout_ms: u32,
    left: u64,
}

/// The arguments of `BPF_LINK_CREATE`
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

impl Kernel {
    /// Errors: no BTF, or none that can be read.
    pub fn new() -> Result<Self> {
        let btf = Btf::from_vmlinux().map_err(|err| {
            anyhow!(
                "this kernel has no BTF that can be read ({err}): \
                 it has to be built with CONFIG_DEBUG_INFO_BTF"
            )
        })?;
        let mut kernel = Self {
            map_types: BTreeMap::new(),
            trace_types: BTreeMap::new(),
            reasons: BTreeMap::new(),
            attach_type: None,
            link_type: None,
            flush: None,
            btf,
        };
        kernel.map_types = kernel.names("bpf_map_type", "BPF_MAP_TYPE_");
        kernel.trace_types = kernel.names("bpf_map_trace_type", "BPF_MAP_TRACE_");
        kernel.reasons = kernel.names("bpf_map_trace_reason", "BPF_MAP_TRACE_REASON_");
        let number = |names: BTreeMap<u32, String>, wanted: &str| {
            names
                .into_iter()
                .find(|(_, name)| name == wanted)
                .map(|(value, _)| value)
        };
        kernel.attach_type = number(kernel.names("bpf_attach_type", ""), "BPF_TRACE_MAP");
        kernel.link_type = number(kernel.names("bpf_link_type", ""), "BPF_LINK_TYPE_MAP_TRACE");
        kernel.flush = number(kernel.names("bpf_cmd", ""), "BPF_LINK_FLUSH");
        Ok(kernel)
    }

    /// The values of an enum, by number.
    fn names(&self, name: &str, prefix: &str) -> BTreeMap<u32, String> {
        let Some(list) = self.btf.type_by_name::<Enum<'_>>(name) else {
            return BTreeMap::new();
        };
        list.iter()
            .filter_map(|member| {
                let name = member.name?.to_str()?.strip_prefix(prefix)?;
                let value = u32::try_from(member.value).ok()?;
                (!name.starts_with("__")).then(|| (value, name.to_owned()))
            })
            .collect()
    }

    /// What it calls a type of maps.
    pub fn map_type_name(&self, map_type: u32) -> String {
        self.map_types
            .get(&map_type)
            .map_or_else(|| format!("type {map_type}"), |name| name.to_lowercase())
    }

    /// What it calls an operation that is traced.
    pub fn trace_type_name(&self, trace_type: u32) -> String {
        self.trace_types
            .get(&trace_type)
            .cloned()
            .unwrap_or_else(|| format!("type {trace_type}"))
    }

    /// Whether this is the operation of sync tracers.
    pub fn is_sync(&self, trace_type: u32) -> bool {
        self.trace_types
            .get(&trace_type)
            .is_some_and(|name| name == SYNC_ELEM)
    }

    /// Whether it tells tracers why they run. Such a kernel traces evictions.
    pub fn tells_reasons(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// What it calls the reason of a change. The first one is that somebody made it.
    pub fn reason_name(&self, reason: u32) -> String {
        self.reasons
            .get(&reason)
            .map_or_else(|| format!("reason {reason}"), |name| name.to_lowercase())
    }

    /// The number of an operation that can be traced.
    pub fn trace_type(&self, wanted: &str) -> Result<u32> {
        self.trace_types
            .iter()
            .find(|(_, name)| *name == wanted)
            .map(|(value, _)| *value)
            .ok_or_else(cannot_trace)
    }

    /// `BPF_TRACE_MAP`
    pub fn attach_type(&self) -> Result<u32> {
        self.attach_type.ok_or_else(cannot_trace)
    }

    /// Whether it has a function of this name that programs can attach to.
    pub fn has_function(&self, name: &str) -> bool {
        self.btf
            .type_by_name::<libbpf_rs::btf::types::Func<'_>>(name)
            .is_some()
    }

    /// All links of map tracers that there are.
    pub fn trace_links(&self) -> Result<Vec<TraceLinkInfo>> {
        let mut links = Vec::new();
        let Some(link_type) = self.link_type else {
            return Ok(links);
        };
        let mut id = 0;
        // SAFETY: `id` is valid for the call.
        while unsafe { libbpf_sys::bpf_link_get_next_id(id, &mut id) } == 0 {
            let Some(fd) = open_link(id)? else {
                continue;
            };
            let info = trace_link_info(fd.as_fd())?;
            if info.link_type == link_type {
                links.push(info);
            }
        }
        Ok(links)
    }

    /// Attaches a tracer to a map.
    pub fn attach(
        &self,
        prog: BorrowedFd<'_>,
        map: BorrowedFd<'_>,
        trace_type: u32,
    ) -> Result<OwnedFd, io::Error> {
        let target = TraceTarget {
            map_fd: map.as_raw_fd() as u32,
            trace_type,
            cookie: 0,
        };
        let create = LinkCreate {
            prog_fd: prog.as_raw_fd() as u32,
            target_fd: 0,
            attach_type: self.attach_type.unwrap_or(u32::MAX),
            flags: 0,
            info: &raw const target as u64,
            info_len: size_of::<TraceTarget>() as u32,
            pad: 0,
        };
        // SAFETY: `create` is as long as it says, and `target` outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                libbpf_sys::BPF_LINK_CREATE,
                &raw const create,
                size_of::<LinkCreate>(),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: nobody else has this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Has a sync tracer told all that was written before, and these keys, whether the map has
    /// them or not. Returns for how many keys it could not follow, and will be told again.
    pub fn flush(
        &self,
        link: BorrowedFd<'_>,
        keys: &[Vec<u8>],
        timeout: Duration,
    ) -> io::Result<u64> {
        let all = keys.concat();
        let mut flush = LinkFlush {
            link_fd: link.as_raw_fd() as u32,
            flags: 0,
            keys: match keys.is_empty() {
                true => 0,
                false => all.as_ptr() as u64,
            },
            count: keys.len() as u32,
            // 0 is forever.
            timeout_ms: u32::try_from(timeout.as_millis())
                .unwrap_or(u32::MAX)
                .max(1),
            left: 0,
        };
        // SAFETY: `flush` is as long as it says, and `all` is as many keys and outlives the call.
        let err = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                self.flush.unwrap_or(u32::MAX),
                &raw mut flush,
                size_of::<LinkFlush>(),
            )
        };
        match err {
            0 => Ok(0),
            _ => match io::Error::last_os_error() {
                err if err.raw_os_error() == Some(libc::EAGAIN) => Ok(flush.left.max(1)),
                err => Err(err),
            },
        }
    }
}

fn cannot_trace() -> anyhow::Error {
    anyhow!(
        "this kernel cannot trace maps: it is built without the patches of map_trace\n\
         boot one that has them (\"make vm\" in the source of map_trace does)"
    )
}

/// The link of an id. `None`: it has gone meanwhile, or is being made.
pub fn open_link(id: u32) -> Result<Option<OwnedFd>> {
    // SAFETY: it takes a number.
    let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
    if fd < 0 {
        let err = io::Error::last_os_error();
        return match err.raw_os_error() {
            Some(libc::ENOENT | libc::EAGAIN) => Ok(None),
            _ => Err(err).context("opening a link"),
        };
    }
    // SAFETY: nobody else has this descriptor.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// What a link says about itself, whatever it is a link of.
pub fn trace_link_info(link: BorrowedFd<'_>) -> Result<TraceLinkInfo> {
    object_info(link).context("asking a link about itself")
}

/// `BPF_OBJ_GET_INFO_BY_FD`. What this kernel knows and `T` does not is left out, and the other
/// way round is zero.
pub fn object_info<T: Copy>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: the structs of `bpf(2)` are plain numbers.
    let mut info: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as u32;
    // SAFETY: `info` is as long as `len` says.
    let err = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            fd.as_raw_fd(),
            (&raw mut info).cast::<c_void>(),
            &mut len,
        )
    };
    if err != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// What the maps of a machine can be looked at with.
pub fn need_admin() -> Result<()> {
    need(&[(Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN")])
}

/// What loading a tracer takes.
pub fn need_tracing() -> Result<()> {
    need(&[
        (Capability::CAP_BPF, "CAP_BPF"),
        (Capability::CAP_PERFMON, "CAP_PERFMON"),
    ])
}

fn need(wanted: &[(Capability, &str)]) -> Result<()> {
    let mut missing = Vec::new();
    for (capability, name) in wanted {
        if !caps::has_cap(None, CapSet::Effective, *capability)? {
            missing.push(*name);
        }
    }
    ensure!(
        missing.is_empty(),
        "this needs {}: run it as root",
        missing.join(" and ")
    );
    Ok(())
}

/// Says what went wrong where a tracer was loaded.
pub fn explain_load(err: &libbpf_rs::Error, kernel: &Kernel) -> anyhow::Error {
    if let Err(err) = kernel.attach_type() {
        return err;
    }
    match err.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => anyhow!(
            "the kernel does not let this process load a tracer ({err}): \
             it needs CAP_BPF and CAP_PERFMON, run it as root"
        ),
        _ if std::path::Path::new("/sys/module/map_trace").exists() => {
            anyhow!("the kernel does not load the tracer: {err}")
        }
        _ => anyhow!(
            "the kernel does not load the tracer ({err}): its module is not there\n\
             \"modprobe map_trace\" loads it"
        ),
    }
}

/// Says what went wrong where a tracer was attached.
pub fn explain_attach(err: &io::Error, what: &str, operation: &str) -> anyhow::Error {
    match err.raw_os_error() {
        Some(libc::EOPNOTSUPP) => anyhow!("{what}: its {operation}s cannot be traced"),
        Some(libc::EPERM) => anyhow!(
            "{what}: it must not be traced: programs may not read it, \
             or it is for one program alone"
        ),
        Some(libc::E2BIG) => anyhow!("{what}: its {operation}s have 64 tracers, and no room"),
        _ => anyhow!("{what}: its {operation}s cannot be traced: {err}"),
    }
}

/// How many CPUs a map with a value for each has values for.
pub fn possible_cpus() -> Result<usize> {
    match libbpf_rs::num_possible_cpus() {
        Ok(cpus) => Ok(cpus),
        Err(err) => bail!("the number of CPUs: {err}"),
    }
}

/// The same, where these are their numbers as well.
pub fn numbered_cpus() -> Result<usize> {
    let path = "/sys/devices/system/cpu/possible";
    let list = std::fs::read_to_string(path).context(path)?;
    let last = has_no_gap(list.trim());
    last.with_context(|| {
        format!(
            "the numbers of the CPUs have gaps ({path}: {})",
            list.trim()
        )
    })
}

/// How many CPUs `0-LAST` or `0` is. `None`: it is more than that.
fn has_no_gap(list: &str) -> Option<usize> {
    let last = match list.split_once('-') {
        Some(("0", last)) => last.parse().ok()?,
        Some(_) => return None,
        None => (list == "0").then_some(0)?,
    };
    Some(last + 1_usize)
}

/// The clock of `bpf_ktime_get_ns()`
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::has_no_gap;

    #[test]
    fn gaps_between_cpus_are_found() {
        assert_eq!(has_no_gap("0"), Some(1));
        assert_eq!(has_no_gap("0-63"), Some(64));
        assert_eq!(has_no_gap("0,2"), None);
        assert_eq!(has_no_gap("0-3,8-11"), None);
        assert_eq!(has_no_gap("1-3"), None);
    }
}
