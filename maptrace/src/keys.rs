// SPDX-License-Identifier: GPL-2.0

//! Keys of the maps whose keys take more than a comparison of bytes, or more than a walk from one to
//! the next.

use crate::{
    map::Map,
    object::{self, embedded},
};
use anyhow::{Context, Result};
use libbpf_rs::Iter;
use std::{io::Read, os::fd::AsFd};

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

/// The keys of a map, by an iterator of the kernel. A resizable hash has no other way to be read as a
/// whole while it is resized: what is moved meanwhile is found, maybe twice.
pub fn walk(map: &Map) -> Result<Vec<Vec<u8>>> {
    let read = || -> Result<Vec<u8>> {
        let mut open = object::open(embedded!("keys"))?;
        let key_size = u32::try_from(map.key_size)?.to_ne_bytes();
        object::open_map(&mut open, ".rodata")?.set_initial_value(&key_size)?;
        let object = open.load()?;
        let link = object::program(&object, "write_key")?.attach_iter(map.as_fd())?;
        let mut bytes = Vec::new();
        Iter::new(&link)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("{}: reading its keys", map.label()))?;
    let keys = bytes.chunks_exact(map.key_size.max(1));
    Ok(keys.map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::clear_behind_prefix;

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
}
