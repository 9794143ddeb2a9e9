// SPDX-License-Identifier: GPL-2.0

//! Keys of the maps whose keys take more than a comparison of bytes, or more than a walk from one to
//! the next.

use crate::{
    map::Map,
    object::{self, embedded},
};
use anyhow::{Context, Result};
use libbpf_rs::{Iter, Link, Object};
use std::{
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
};

/// Of a key of a trie, the length of the prefix comes first, in bits.
const PREFIX_LEN: usize = 4;

/// Clears the bits of a key of a trie that do not count. The trie keeps them as they were given.
pub fn clear_behind_prefix(key: &mut [u8]) {
    let Some((len, data)) = key.split_first_chunk_mut::<PREFIX_LEN>() else {
        return;
    };
    let bits = u32::from_ne_bytes(*len) as usize;
    let (whole, part) = (bits / 8, bits % 8);
    for byte in data.iter_mut().skip(whole + usize::from(part > 0)) {
        *byte = 0;
    }
    if part > 0 {
        if let Some(byte) = data.get_mut(whole) {
            *byte &= !(0xff >> part);
        }
    }
}

/// Whether a trie could have this key, with nothing behind the prefix.
pub fn is_prefix(key: &[u8]) -> bool {
    let mut cleared = key.to_vec();
    clear_behind_prefix(&mut cleared);
    let len = key.first_chunk::<PREFIX_LEN>().copied();
    let most = 8 * key.len().saturating_sub(PREFIX_LEN);
    cleared == key && len.is_some_and(|len| u32::from_ne_bytes(len) as usize <= most)
}

/// Calls `found` for the keys of a map, by an iterator of the kernel. A resizable hash has no other way
/// to be read as a whole while it is resized: what is moved meanwhile is found, maybe twice.
pub fn walk(map: &Map, mut found: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let what = || format!("{}: reading its keys", map.label());
    let begin = || -> Result<(Object, Link)> {
        let mut open = object::open(embedded!("keys"))?;
        let key_size = u32::try_from(map.key_size)?.to_ne_bytes();
        object::open_map(&mut open, ".rodata")?.set_initial_value(&key_size)?;
        let object = open.load()?;
        let link = object::program(&object, "write_key")?.attach_iter(map.as_fd())?;
        Ok((object, link))
    };
    let (_object, link) = begin().with_context(what)?;
    let mut keys = BufReader::new(Iter::new(&link).with_context(what)?);
    let mut key = vec![0; map.key_size];
    while !keys.fill_buf().with_context(what)?.is_empty() {
        keys.read_exact(&mut key).with_context(what)?;
        found(&key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{clear_behind_prefix, is_prefix};

    #[test]
    fn bits_behind_a_prefix_are_cleared() {
        let cleared = |bits: u32, data: [u8; 4]| {
            let mut key = [bits.to_ne_bytes(), data].concat();
            clear_behind_prefix(&mut key);
            assert_eq!(key[..4], bits.to_ne_bytes());
            <[u8; 4]>::try_from(&key[4..]).unwrap()
        };
        assert_eq!(cleared(0, [10, 1, 2, 3]), [0, 0, 0, 0]);
        assert_eq!(cleared(8, [10, 1, 2, 3]), [10, 0, 0, 0]);
        assert_eq!(cleared(12, [10, 0xff, 2, 3]), [10, 0xf0, 0, 0]);
        assert_eq!(cleared(31, [10, 1, 2, 3]), [10, 1, 2, 2]);
        assert_eq!(cleared(32, [10, 1, 2, 3]), [10, 1, 2, 3]);
        // As no map has it.
        assert_eq!(cleared(u32::MAX, [10, 1, 2, 3]), [10, 1, 2, 3]);
        clear_behind_prefix(&mut [1, 2]);
    }

    #[test]
    fn a_prefix_has_nothing_behind_it() {
        let is = |bits: u32, data: [u8; 2]| is_prefix(&[&bits.to_ne_bytes()[..], &data].concat());
        assert!(is(0, [0, 0]) && is(9, [1, 0x80]) && is(16, [1, 1]));
        assert!(!is(0, [1, 0]) && !is(9, [1, 0x40]) && !is(17, [1, 1]) && !is_prefix(&[0; 3]));
    }
}
