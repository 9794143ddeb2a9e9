// SPDX-License-Identifier: GPL-2.0

//! BPF links: a `struct bpf_link` with the data of this module, from its creation to its end.
//!
//! The `bpf_link_ops` are built in (see `kernel/bpf/map_trace.c`), and call [`super::ops`].
//!
//! C header: [`include/linux/bpf.h`](srctree/include/linux/bpf.h)

use super::prog::Prog;
use core::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::{self, NonNull},
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    bindings,
    error::to_result,
    ffi::c_int,
    prelude::*,
    sync::aref::ARef,
    types::Opaque,
    uaccess::{UserPtr, UserSlice},
};

/// There is something to read.
pub(crate) const POLL_READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;

/// There is an error.
pub(crate) const POLL_ERROR: u32 = bindings::POLLERR;

/// There is nothing left to wait for.
pub(crate) const POLL_HUNG_UP: u32 = bindings::POLLHUP;

/// The events of a file that cannot be waited for (`DEFAULT_POLLMASK`).
pub(crate) const POLL_DEFAULT: u32 = POLL_READABLE | bindings::POLLOUT | bindings::POLLWRNORM;

/// A link with its data.
///
/// # Invariants
///
/// `link` was initialized by `bpf_map_trace_link_prime()`, so that it holds the module.
#[repr(C)]
pub(crate) struct Link<T> {
    link: Opaque<bindings::bpf_link>,
    data: T,
}

impl<T: Send + Sync> Link<T> {
    /// Wraps a link.
    ///
    /// # Safety
    ///
    /// `ptr` is the `bpf_link` of a [`Link<T>`] that stays alive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::bpf_link) -> &'a Self {
        // SAFETY: By the safety requirements; `Link` is `repr(C)`, so it is where its link is.
        unsafe { &*ptr.cast() }
    }

    /// Frees a link.
    ///
    /// # Safety
    ///
    /// `ptr` is the `bpf_link` of a [`Link<T>`] that nobody can reach any more.
    pub(crate) unsafe fn dealloc(ptr: *mut bindings::bpf_link) {
        // SAFETY: By the safety requirements. It was made by `prime()`.
        drop(unsafe { KBox::from_raw(ptr.cast::<Self>()) });
    }

    /// Creates a link, and reserves its file descriptor and id without publishing them yet.
    ///
    /// The reference to `prog` passes to the link when the link is settled.
    ///
    /// Context: process context, in `BPF_LINK_CREATE`.
    ///
    /// Errors: [`ENOMEM`], and those of a new file descriptor.
    pub(crate) fn prime(prog: &Prog, data: T) -> Result<PrimedLink<T>> {
        let link = KBox::new(
            Self {
                link: Opaque::zeroed(),
                data,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let link = KBox::into_raw(link);
        let mut primer = bindings::bpf_link_primer::default();

        // SAFETY: `link` is ours, and both it and the program are valid.
        let err = to_result(unsafe {
            bindings::bpf_map_trace_link_prime(link.cast(), prog.as_ptr(), &mut primer)
        });
        if let Err(err) = err {
            // SAFETY: After an error, the link is still ours alone.
            drop(unsafe { KBox::from_raw(link) });
            return Err(err);
        }
        // INVARIANT: It was initialized.
        Ok(PrimedLink {
            // SAFETY: `KBox::into_raw()` does not return null.
            link: unsafe { NonNull::new_unchecked(link) },
            primer,
        })
    }

    /// Makes `new` the program of the link, and returns the old one.
    ///
    /// The caller excludes other updates.
    pub(crate) fn set_prog(&self, new: ARef<Prog>) -> Option<ARef<Prog>> {
        let new = ARef::into_raw(new).as_ptr().cast::<bindings::bpf_prog>();
        // SAFETY: The link is initialized, and other writers are excluded. Readers use READ_ONCE().
        let old = unsafe {
            let prog = ptr::addr_of_mut!((*self.link.get()).prog);
            let old = *prog;
            prog.write_volatile(new);
            old
        };
        // SAFETY: The link had this reference, and gives it up.
        NonNull::new(old).map(|old| unsafe { ARef::from_raw(old.cast()) })
    }
}

impl<T> Deref for Link<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.data
    }
}

/// A link that user space does not see yet. Dropping it frees the link, without `release()`.
///
/// # Invariants
///
/// `primer` belongs to `link`, and was neither settled nor cleaned up.
pub(crate) struct PrimedLink<T> {
    link: NonNull<Link<T>>,
    primer: bindings::bpf_link_primer,
}

impl<T> PrimedLink<T> {
    /// Returns the id that the link will have.
    pub(crate) fn id(&self) -> u32 {
        self.primer.id
    }

    /// Publishes the link to user space, and returns its file descriptor.
    pub(crate) fn settle(self) -> c_int {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: By the invariants; `self` is used up by it.
        unsafe { bindings::bpf_link_settle(&mut this.primer) }
    }
}

impl<T> Deref for PrimedLink<T> {
    type Target = Link<T>;

    fn deref(&self) -> &Link<T> {
        // SAFETY: By the invariants, the primer's file keeps the link.
        unsafe { self.link.as_ref() }
    }
}

impl<T> Drop for PrimedLink<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants. It frees the link through `dealloc()`, later.
        unsafe { bindings::bpf_link_cleanup(&mut self.primer) };
    }
}

/// Another link, or the program of another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The link with this id.
    Link(u32),
    /// A link of the program with this id.
    Prog(u32),
}

/// Where a link goes in the order of the links.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Before this one; before the first one of a program.
    Before(Peer),
    /// After this one; after the last one of a program.
    After(Peer),
}

impl Place {
    /// Finds out what `flags` of `BPF_LINK_CREATE` mean, with a file descriptor or an id of another
    /// link or of a program.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`EINVAL`] if the flags contradict each other, or a file descriptor is not of that
    /// kind; [`EBADF`] if it is not open.
    pub(crate) fn new(flags: u32, relative: u32) -> Result<Self> {
        const BEFORE: u32 = bindings::BPF_F_BEFORE;
        const AFTER: u32 = bindings::BPF_F_AFTER;
        const ID: u32 = bindings::BPF_F_ID;
        const LINK: u32 = bindings::BPF_F_LINK;

        if flags & !(BEFORE | AFTER | ID | LINK) != 0 {
            return Err(EINVAL);
        }
        let has_peer = relative != 0 || flags & (ID | LINK) != 0;

        match (flags & (BEFORE | AFTER), has_peer) {
            (0, false) => return Ok(Self::Last),
            (BEFORE, false) => return Ok(Self::First),
            (AFTER, false) => return Ok(Self::Last),
            (BEFORE | AFTER, true) => {}
            // Both, or something that nothing goes beside.
            _ => return Err(EINVAL),
        }
        // SAFETY: No requirements but the context.
        let id = unsafe { bindings::bpf_map_trace_relative_id(relative, flags) };
        to_result(id)?;
        let peer = if flags & LINK != 0 {
            Peer::Link(id as u32)
        } else {
            Peer::Prog(id as u32)
        };

        Ok(if flags & BEFORE != 0 {
            Self::Before(peer)
        } else {
            Self::After(peer)
        })
    }
}

/// The arguments of `BPF_LINK_CREATE`, from user space.
pub(crate) struct LinkCreateAttr<'a>(&'a bindings::bpf_attr);

impl<'a> LinkCreateAttr<'a> {
    /// Wraps the arguments.
    ///
    /// # Safety
    ///
    /// `ptr` are the arguments of a `BPF_LINK_CREATE` of the current task, zero where the task gave
    /// less, and stay valid for `'a`.
    pub(crate) unsafe fn from_raw(ptr: *const bindings::bpf_attr) -> Self {
        // SAFETY: By the safety requirements.
        Self(unsafe { &*ptr })
    }

    /// Returns `link_create.target_fd`.
    pub(crate) fn target_fd(&self) -> u32 {
        // SAFETY: All bits of the union are initialized, and each value is valid.
        unsafe { self.0.link_create.__bindgen_anon_2.target_fd }
    }

    /// Returns `link_create.flags`.
    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: As above.
        unsafe { self.0.link_create.flags }
    }

    /// Returns the user memory that `link_create.map_trace_info` points to.
    pub(crate) fn map_trace_info(&self) -> UserSlice {
        // SAFETY: As above.
        let info = unsafe { self.0.link_create.__bindgen_anon_3.__bindgen_anon_2 };
        UserSlice::new(
            UserPtr::from_addr(info.map_trace_info as usize),
            info.map_trace_info_len as usize,
        )
    }
}
