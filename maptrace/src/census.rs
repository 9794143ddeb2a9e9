// SPDX-License-Identifier: GPL-2.0

//! How full the maps of the machine are, and what those of the LRU types evict.

use crate::object::{self, embedded};
use anyhow::Result;
use libbpf_rs::{Iter, Link, MapCore, MapFlags, Object};
use std::{collections::HashMap, io::Read};

/// `struct count` of census.bpf.c
const COUNT_SIZE: usize = 16;

pub struct Census {
    // Before what they are links of.
    iterator: Link,
    evictions: Option<Link>,
    object: Object,
}

impl Census {
    /// `evictions`: count them from now on, which costs each of them a little.
    pub fn new(evictions: bool) -> Result<Self> {
        let mut open = object::open(embedded!("census"))?;
        object::open_program(&mut open, "count_eviction")?.set_autoload(evictions);
        let object = open.load()?;
        let iterator = object::program(&object, "count_elements")?.attach()?;
        let link = match evictions {
            true => Some(object::program(&object, "count_eviction")?.attach()?),
            false => None,
        };
        Ok(Self {
            iterator,
            evictions: link,
            object,
        })
    }

    /// As much of it as this kernel can do, and what it cannot, for people.
    pub fn best(evictions: bool) -> (Option<Self>, Vec<String>) {
        let mut notes = Vec::new();
        if evictions {
            match Self::new(true) {
                Ok(census) => return (Some(census), notes),
                Err(err) => notes.push(format!("evictions cannot be counted here: {err:#}")),
            }
        }
        match Self::new(false) {
            Ok(census) => (Some(census), notes),
            Err(err) => {
                notes.push(format!("elements cannot be counted here: {err:#}"));
                (None, notes)
            }
        }
    }

    pub fn counts_evictions(&self) -> bool {
        self.evictions.is_some()
    }

    /// The number of elements of each map whose type counts them, by the map's id.
    pub fn elements(&self) -> Result<HashMap<u32, u64>> {
        let mut bytes = Vec::new();
        Iter::new(&self.iterator)?.read_to_end(&mut bytes)?;
        Ok(bytes
            .chunks_exact(COUNT_SIZE)
            .filter_map(parse_count)
            .collect())
    }

    /// How many elements a map has evicted since they are counted.
    pub fn evicted(&self, id: u32) -> u64 {
        object::map(&self.object, "evicted")
            .ok()
            .and_then(|evicted| evicted.lookup(&id.to_ne_bytes(), MapFlags::ANY).ok()?)
            .and_then(|value| value.try_into().ok())
            .map_or(0, u64::from_ne_bytes)
    }
}

fn parse_count(bytes: &[u8]) -> Option<(u32, u64)> {
    let id = u32::from_ne_bytes(bytes[0..4].try_into().ok()?);
    let counted = u32::from_ne_bytes(bytes[4..8].try_into().ok()?);
    let elements = i64::from_ne_bytes(bytes[8..16].try_into().ok()?);
    // What is read CPU by CPU can come out below zero.
    (counted != 0).then_some((id, elements.max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::parse_count;

    #[test]
    fn maps_that_do_not_count_are_left_out() {
        let count = |id: u32, counted: u32, elements: i64| {
            let mut bytes = id.to_ne_bytes().to_vec();
            bytes.extend(counted.to_ne_bytes());
            bytes.extend(elements.to_ne_bytes());
            bytes
        };
        assert_eq!(parse_count(&count(3, 1, 9)), Some((3, 9)));
        assert_eq!(parse_count(&count(3, 1, -1)), Some((3, 0)));
        assert_eq!(parse_count(&count(3, 0, 0)), None);
    }
}
