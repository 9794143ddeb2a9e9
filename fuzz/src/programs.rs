// SPDX-License-Identifier: GPL-2.0

//! The programs that are loaded, instruction by instruction.

use crate::bpf::{
    address, address_mut, bpf, bpf_fd, number, Errno, Kernel, ProgLoad, TestRun, Traced,
    F_SLEEPABLE, PROG_LOAD, PROG_RAW_TRACEPOINT, PROG_SYSCALL, PROG_TEST_RUN, PROG_TRACING,
};
use std::os::fd::{AsRawFd, OwnedFd};

const LOOKUP: i32 = 1;
const UPDATE: i32 = 2;
const DELETE: i32 = 3;
const GET_ATTACH_COOKIE: i32 = 174;

/// What a writer is told to do.
pub const OP_UPDATE: u64 = 0;
pub const OP_DELETE: u64 = 1;
pub const OP_STORE: u64 = 2;
pub const OP_ADD: u64 = 3;

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    code as u64
        | ((dst as u64) << 8)
        | ((src as u64) << 12)
        | ((off as u16 as u64) << 16)
        | ((imm as u32 as u64) << 32)
}

const fn mov(dst: u8, src: u8) -> u64 {
    insn(0xbf, dst, src, 0, 0)
}

const fn mov_imm(dst: u8, imm: i32) -> u64 {
    insn(0xb7, dst, 0, 0, imm)
}

const fn add_imm(dst: u8, imm: i32) -> u64 {
    insn(0x07, dst, 0, 0, imm)
}

/// `dst = *(u64 *)(src + off)`
const fn load(dst: u8, src: u8, off: i16) -> u64 {
    insn(0x79, dst, src, off, 0)
}

/// `*(u64 *)(dst + off) = src`
const fn store(dst: u8, off: i16, src: u8) -> u64 {
    insn(0x7b, dst, src, off, 0)
}

/// `*(u32 *)(dst + off) = src`
const fn store_half(dst: u8, off: i16, src: u8) -> u64 {
    insn(0x63, dst, src, off, 0)
}

/// `*(u64 *)(dst) += src`, atomically
const fn atomic_add(dst: u8, src: u8) -> u64 {
    insn(0xdb, dst, src, 0, 0)
}

/// Jumps over so many instructions where `dst` is `imm`.
const fn jump_if(dst: u8, imm: i32, over: i16) -> u64 {
    insn(0x15, dst, 0, over, imm)
}

const fn call(helper: i32) -> u64 {
    insn(0x85, 0, 0, 0, helper)
}

const EXIT: u64 = insn(0x95, 0, 0, 0, 0);

/// `dst` is a map: two instructions.
fn map(dst: u8, fd: &impl AsRawFd) -> [u64; 2] {
    [insn(0x18, dst, 1, 0, fd.as_raw_fd()), 0]
}

/// Counts its runs at the index that is the cookie of its link.
pub fn counting(counts: &OwnedFd) -> Vec<u64> {
    let [low, high] = map(1, counts);
    vec![
        call(GET_ATTACH_COOKIE),
        store_half(10, -4, 0),
        low,
        high,
        mov(2, 10),
        add_imm(2, -4),
        call(LOOKUP),
        jump_if(0, 0, 2),
        mov_imm(1, 1),
        atomic_add(0, 1),
        mov_imm(0, 0),
        EXIT,
    ]
}

/// Keeps a map that has what the traced one has.
pub fn mirroring(mirror: &OwnedFd) -> Vec<u64> {
    let [low, high] = map(1, mirror);
    vec![
        load(2, 1, 0),
        load(3, 1, 8),
        jump_if(3, 0, 7),
        low,
        high,
        mov_imm(4, 0),
        call(UPDATE),
        jump_if(0, 0, 9),
        mov_imm(0, 1),
        EXIT,
        low,
        high,
        call(DELETE),
        jump_if(0, 0, 3),
        jump_if(0, -libc::ENOENT, 2),
        mov_imm(0, 1),
        EXIT,
        mov_imm(0, 0),
        EXIT,
    ]
}

/// Does to a map what its context says: the operation, the key, the value.
pub fn writing(written: &OwnedFd) -> Vec<u64> {
    let [low, high] = map(1, written);
    vec![
        mov(6, 1),
        load(7, 6, 8),
        store_half(10, -4, 7),
        load(8, 6, 16),
        store(10, -16, 8),
        load(9, 6, 0),
        low,
        high,
        mov(2, 10),
        add_imm(2, -4),
        jump_if(9, OP_UPDATE as i32, 11),
        jump_if(9, OP_DELETE as i32, 15),
        call(LOOKUP),
        jump_if(0, 0, 6),
        jump_if(9, OP_ADD as i32, 3),
        store(0, 0, 8),
        mov_imm(0, 0),
        EXIT,
        atomic_add(0, 8),
        insn(0x05, 0, 0, -4, 0),
        mov_imm(0, -libc::ENOENT),
        EXIT,
        mov(3, 10),
        add_imm(3, -16),
        mov_imm(4, 0),
        call(UPDATE),
        EXIT,
        call(DELETE),
        EXIT,
    ]
}

/// The arguments of a load of a tracer; `insns` outlives them.
pub fn tracer_attr(kernel: &Kernel, traced: Traced, insns: &[u64]) -> ProgLoad {
    ProgLoad {
        prog_type: PROG_TRACING,
        attach_type: kernel.attach_type,
        attach_btf_id: kernel.target(traced),
        ..attr(insns)
    }
}

fn attr(insns: &[u64]) -> ProgLoad {
    ProgLoad {
        insn_cnt: insns.len() as u32,
        insns: address(insns),
        license: address(b"GPL\0"),
        ..ProgLoad::default()
    }
}

pub fn load_tracer(kernel: &Kernel, traced: Traced, insns: &[u64]) -> Result<OwnedFd, Errno> {
    bpf_fd(PROG_LOAD, &mut tracer_attr(kernel, traced, insns))
}

/// A program that writes to a map, sleepable or not.
pub fn load_writer(written: &OwnedFd, sleepable: bool) -> Result<OwnedFd, Errno> {
    let insns = writing(written);
    let mut attr = attr(&insns);

    if sleepable {
        attr.prog_type = PROG_SYSCALL;
        attr.prog_flags = F_SLEEPABLE;
    } else {
        attr.prog_type = PROG_RAW_TRACEPOINT;
    }
    bpf_fd(PROG_LOAD, &mut attr)
}

/// Runs a writer. Returns what it has returned.
pub fn run_writer(prog: &OwnedFd, op: u64, key: u32, value: u64) -> Result<(), Errno> {
    // That of a sleepable one is copied back.
    let mut ctx = [op, key.into(), value];
    let mut run = TestRun {
        prog_fd: number(prog),
        ctx_in: address_mut(&mut ctx),
        ctx_size_in: size_of_val(&ctx) as u32,
        ..TestRun::default()
    };

    bpf(PROG_TEST_RUN, &mut run)?;
    match run.retval as i32 {
        0 => Ok(()),
        err => Err(-err),
    }
}
