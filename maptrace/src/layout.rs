// SPDX-License-Identifier: GPL-2.0

//! Keys and values by their types: what bytes mean, and which bytes mean something.
//!
//! BTF is turned into a [`Layout`] once for each map. All sizes and offsets in there were checked
//! against the size of the type: BTF comes from whoever loaded the map.

use anyhow::{anyhow, bail, ensure, Result};
use btf_rs::{Btf, BtfType, Type};
use serde_json::{Map as JsonMap, Number, Value as Json};
use std::fmt;

/// How deep types may be nested: more than any program has, and less than the stack holds.
const MAX_DEPTH: usize = 32;

/// How many members a type has, with those of its members' types: unions in unions could have any number.
const MAX_LEAVES: usize = 1 << 20;

/// The structs that the kernel looks for in values.
const SPECIAL: [&str; 10] = [
    "bpf_spin_lock",
    "bpf_res_spin_lock",
    "bpf_timer",
    "bpf_wq",
    "bpf_task_work",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
];

/// The tags of what pointers in values lead to, where the kernel counts references.
const KPTR_TAGS: [&str; 4] = ["kptr", "kptr_untrusted", "percpu_kptr", "uptr"];

/// A type, with what is needed to read and to write it.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// In bytes.
    pub size: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Int {
        signed: bool,
        /// `__be16` and the like: shown as the number that it is on the wire.
        big_endian: bool,
    },
    Bool,
    Char,
    Float,
    Enum {
        signed: bool,
        names: Vec<(i128, String)>,
    },
    Pointer,
    /// `struct in_addr` and `struct in6_addr`.
    Address,
    Struct(Vec<Member>),
    Array {
        element: Box<Layout>,
        count: usize,
    },
    /// Of no type that is known here, or of none at all.
    Bytes,
    /// What the kernel keeps for itself, as a lock, a timer or a pointer to an object: it is named
    /// by its type. User space reads zeros, and cannot write it.
    Special(String),
}

/// A member of a struct or a union. Those of unnamed ones are members of what they are in.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: String,
    pub bit_offset: usize,
    /// Of a bitfield, else 0.
    pub bits: usize,
    pub layout: Layout,
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    Int(i128),
    Bool(bool),
    Float(f64),
    /// A character array, or a name of an enum.
    Text(String),
    Name(String),
    Bytes(Vec<u8>),
    Address(String),
    Struct(Vec<(String, Decoded)>),
    Array(Vec<Decoded>),
    /// Beyond what was copied.
    Cut,
}

impl Layout {
    /// Bytes that nothing is known about.
    pub fn bytes(size: usize) -> Self {
        Self {
            size,
            kind: Kind::Bytes,
        }
    }

    /// A `__u32`, as the keys of arrays are.
    pub fn u32() -> Self {
        Self {
            size: 4,
            kind: Kind::Int {
                signed: false,
                big_endian: false,
            },
        }
    }

    /// The type `id`, which has to take `size` bytes.
    pub fn from_btf(btf: &Btf, id: u32, size: usize) -> Result<Self> {
        let mut leaves = 0;
        let layout = Reader {
            btf,
            leaves: &mut leaves,
        }
        .read(id, 0)?;
        ensure!(
            layout.size == size,
            "its type has {} bytes, and the map {size}",
            layout.size
        );
        Ok(layout)
    }

    /// Reads a value. `bytes` may be less than the type takes, where it was cut.
    pub fn decode(&self, bytes: &[u8]) -> Decoded {
        match &self.kind {
            Kind::Struct(members) => Decoded::Struct(
                members
                    .iter()
                    .map(|member| (member.name.clone(), member.decode(bytes)))
                    .collect(),
            ),
            Kind::Array { element, count } => decode_array(element, *count, bytes),
            Kind::Bytes => Decoded::Bytes(bytes[..self.size.min(bytes.len())].to_vec()),
            Kind::Special(_) => Decoded::Struct(Vec::new()),
            _ => match bytes.get(..self.size) {
                Some(bytes) => self.decode_scalar(bytes),
                None => Decoded::Cut,
            },
        }
    }

    fn decode_scalar(&self, bytes: &[u8]) -> Decoded {
        match &self.kind {
            Kind::Int { signed, big_endian } if self.size <= 16 => {
                let mut bytes = bytes.to_vec();
                if *big_endian {
                    bytes.reverse();
                }
                integer(bits_of(&bytes), self.size * 8, *signed)
                    .map_or_else(|| Decoded::Bytes(bytes), Decoded::Int)
            }
            Kind::Char => Decoded::Int(i128::from(bytes[0] as i8)),
            Kind::Bool => Decoded::Bool(bytes.iter().any(|byte| *byte != 0)),
            Kind::Float => match bytes.len() {
                4 => Decoded::Float(f32::from_le_bytes(bytes.try_into().unwrap()).into()),
                8 => Decoded::Float(f64::from_le_bytes(bytes.try_into().unwrap())),
                _ => Decoded::Bytes(bytes.to_vec()),
            },
            Kind::Enum { signed, names } => match integer(bits_of(bytes), self.size * 8, *signed) {
                Some(value) => enum_value(names, value),
                None => Decoded::Bytes(bytes.to_vec()),
            },
            Kind::Address if bytes.len() == 4 => {
                let bytes: [u8; 4] = bytes.try_into().unwrap();
                Decoded::Address(std::net::Ipv4Addr::from(bytes).to_string())
            }
            Kind::Address if bytes.len() == 16 => {
                let bytes: [u8; 16] = bytes.try_into().unwrap();
                Decoded::Address(std::net::Ipv6Addr::from(bytes).to_string())
            }
            _ => Decoded::Bytes(bytes.to_vec()),
        }
    }

    /// Sets the bits of `mask` that mean something: not those between members.
    pub fn mark(&self, mask: &mut [u8]) {
        match &self.kind {
            Kind::Struct(members) => {
                for member in members {
                    if member.bits == 0 {
                        let at = member.bit_offset / 8;
                        member.layout.mark(&mut mask[at..at + member.layout.size]);
                    } else {
                        for bit in member.bit_offset..member.bit_offset + member.bits {
                            mask[bit / 8] |= 1 << (bit % 8);
                        }
                    }
                }
            }
            Kind::Array { element, count } if has_padding(element) => {
                for i in 0..*count {
                    element.mark(&mut mask[i * element.size..(i + 1) * element.size]);
                }
            }
            Kind::Special(_) => {}
            _ => mask[..self.size].fill(0xff),
        }
    }

    /// Writes what `json` says into `bytes`, and marks in `mask` what that was. A struct need not
    /// have all of its members.
    pub fn encode(&self, json: &Json, bytes: &mut [u8], mask: &mut [u8]) -> Result<()> {
        // Bytes as they are shown where there is no better way, for any type.
        if let (Json::String(text), false) = (json, matches!(self.kind, Kind::Enum { .. })) {
            if let Some(digits) = text.strip_prefix("0x") {
                if let Some(raw) = hex::decode(digits)
                    .ok()
                    .filter(|raw| raw.len() == self.size && !self.has_special())
                {
                    bytes[..self.size].copy_from_slice(&raw);
                    mask[..self.size].fill(0xff);
                    return Ok(());
                }
            }
        }
        match &self.kind {
            Kind::Struct(members) => {
                let Json::Object(fields) = json else {
                    bail!("{json} is no struct: {{\"member\": value, ...}} is");
                };
                for (name, value) in fields {
                    let member = members.iter().find(|member| member.name == *name);
                    let member = member.ok_or_else(|| {
                        let names: Vec<_> = members.iter().map(|member| &*member.name).collect();
                        anyhow!("no member {name}: there are {}", names.join(", "))
                    })?;
                    member
                        .encode(value, bytes, mask)
                        .map_err(|err| anyhow!("{name}: {err}"))?;
                }
                Ok(())
            }
            Kind::Array { element, count } => encode_array(element, *count, json, bytes, mask),
            Kind::Bytes => bail!("{json} is not \"0x\" and {} digits", self.size * 2),
            Kind::Special(name) => bail!("a {name} is the kernel's"),
            _ => {
                let raw = self.encode_scalar(json)?;
                bytes[..self.size].copy_from_slice(&raw);
                mask[..self.size].fill(0xff);
                Ok(())
            }
        }
    }

    fn encode_scalar(&self, json: &Json) -> Result<Vec<u8>> {
        match &self.kind {
            Kind::Int { signed, big_endian } => {
                let value = number(json)?;
                let mut raw = integer_bytes(value, self.size * 8, *signed)?;
                if *big_endian {
                    raw.reverse();
                }
                Ok(raw)
            }
            Kind::Char => {
                let value = match json {
                    Json::String(text) if text.len() == 1 => i128::from(text.as_bytes()[0] as i8),
                    _ => number(json)?,
                };
                integer_bytes(value, 8, value < 0)
            }
            Kind::Bool => match json {
                Json::Bool(value) => integer_bytes(i128::from(*value), self.size * 8, false),
                _ => integer_bytes(number(json)?, self.size * 8, false),
            },
            Kind::Float => {
                let value = match json {
                    Json::String(text) => text.parse().ok(),
                    _ => json.as_f64(),
                };
                let value = value.ok_or_else(|| anyhow!("{json} is no number"))?;
                match self.size {
                    4 => Ok((value as f32).to_le_bytes().to_vec()),
                    8 => Ok(value.to_le_bytes().to_vec()),
                    size => bail!("floating point numbers of {size} bytes can only be hex"),
                }
            }
            Kind::Enum { signed, names } => {
                let value = match json {
                    Json::String(text) => names
                        .iter()
                        .find(|(_, name)| name == text)
                        .map(|(value, _)| *value)
                        .map_or_else(|| number(json), Ok)
                        .map_err(|_| {
                            let names: Vec<_> = names.iter().map(|(_, name)| &**name).collect();
                            anyhow!("no {text} in the enum: there are {}", names.join(", "))
                        })?,
                    _ => number(json)?,
                };
                integer_bytes(value, self.size * 8, *signed)
            }
            Kind::Pointer => integer_bytes(number(json)?, self.size * 8, false),
            Kind::Address => {
                let text = json.as_str().unwrap_or_default();
                let raw = match self.size {
                    4 => text
                        .parse()
                        .ok()
                        .map(|ip: std::net::Ipv4Addr| ip.octets().to_vec()),
                    _ => text
                        .parse()
                        .ok()
                        .map(|ip: std::net::Ipv6Addr| ip.octets().to_vec()),
                };
                raw.ok_or_else(|| anyhow!("{json} is no address"))
            }
            Kind::Struct(_) | Kind::Array { .. } | Kind::Bytes | Kind::Special(_) => {
                unreachable!("no scalar")
            }
        }
    }

    /// Whether the kernel keeps some of it for itself.
    pub fn has_special(&self) -> bool {
        match &self.kind {
            Kind::Special(_) => true,
            Kind::Struct(members) => members.iter().any(|member| member.layout.has_special()),
            Kind::Array { element, .. } => element.has_special(),
            _ => false,
        }
    }

    /// Where a value differs from another one: the names of the members on the way, and both.
    pub fn differences(&self, a: &[u8], b: &[u8], path: &str, found: &mut Vec<Difference>) {
        let mut mask = vec![0; self.size];
        self.mark(&mut mask);
        if same(a, b, &mask) {
            return;
        }
        match &self.kind {
            Kind::Struct(members) => {
                for member in members {
                    member.differences(a, b, path, found);
                }
            }
            Kind::Array { element, count } if !is_text(element) && element.size > 1 => {
                for i in 0..*count {
                    let at = i * element.size..(i + 1) * element.size;
                    element.differences(&a[at.clone()], &b[at], &format!("{path}[{i}]"), found);
                }
            }
            _ => {
                let (mut left, mut right) = (self.decode(a), self.decode(b));
                // What follows the end of a string
                if left == right {
                    left = Decoded::Bytes(a.to_vec());
                    right = Decoded::Bytes(b.to_vec());
                }
                found.push(Difference {
                    path: path.to_owned(),
                    left,
                    right,
                });
            }
        }
    }
}

/// A member that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Such as `tuple.ports[1]`; empty where there are no members.
    pub path: String,
    pub left: Decoded,
    pub right: Decoded,
}

/// Whether what is marked in `mask` is the same.
pub fn same(a: &[u8], b: &[u8], mask: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .zip(mask)
            .all(|((a, b), mask)| (a ^ b) & mask == 0)
}

impl Member {
    fn decode(&self, bytes: &[u8]) -> Decoded {
        if self.bits == 0 {
            return match bytes.get(self.bit_offset / 8..) {
                Some(rest) if !rest.is_empty() || self.layout.size == 0 => self.layout.decode(rest),
                _ => Decoded::Cut,
            };
        }
        let Some(value) = take_bits(bytes, self.bit_offset, self.bits) else {
            return Decoded::Cut;
        };
        match &self.layout.kind {
            Kind::Bool => Decoded::Bool(value != 0),
            Kind::Enum { signed, names } => enum_value(
                names,
                integer(value, self.bits, *signed).unwrap_or_default(),
            ),
            Kind::Int { signed, .. } => {
                Decoded::Int(integer(value, self.bits, *signed).unwrap_or_default())
            }
            _ => Decoded::Int(value as i128),
        }
    }

    /// As [`Layout::encode`], into the struct that it is a member of.
    pub fn encode(&self, json: &Json, bytes: &mut [u8], mask: &mut [u8]) -> Result<()> {
        let at = self.bit_offset / 8;
        if self.bits == 0 {
            let end = at + self.layout.size;
            return self
                .layout
                .encode(json, &mut bytes[at..end], &mut mask[at..end]);
        }
        let (value, signed) = match (&self.layout.kind, json) {
            (Kind::Bool, Json::Bool(value)) => (i128::from(*value), false),
            (Kind::Enum { signed, names }, Json::String(text)) => (
                names
                    .iter()
                    .find(|(_, name)| name == text)
                    .map(|(value, _)| *value)
                    .map_or_else(|| number(json), Ok)?,
                *signed,
            ),
            (Kind::Enum { signed, .. } | Kind::Int { signed, .. }, _) => (number(json)?, *signed),
            _ => (number(json)?, false),
        };
        let raw = integer_bytes(value, self.bits, signed)?;
        for bit in 0..self.bits {
            let to = self.bit_offset + bit;
            let set = (raw[bit / 8] >> (bit % 8)) & 1;
            bytes[to / 8] = (bytes[to / 8] & !(1 << (to % 8))) | (set << (to % 8));
            mask[to / 8] |= 1 << (to % 8);
        }
        Ok(())
    }

    fn differences(&self, a: &[u8], b: &[u8], path: &str, found: &mut Vec<Difference>) {
        let path = match path {
            "" => self.name.clone(),
            _ => format!("{path}.{}", self.name),
        };
        if self.bits == 0 {
            let at = self.bit_offset / 8..self.bit_offset / 8 + self.layout.size;
            return self
                .layout
                .differences(&a[at.clone()], &b[at], &path, found);
        }
        let (left, right) = (self.decode(a), self.decode(b));
        if left != right {
            found.push(Difference { path, left, right });
        }
    }
}

fn is_text(element: &Layout) -> bool {
    matches!(element.kind, Kind::Char)
}

/// Unsigned bytes are data, which nobody wants to read as a list of numbers.
fn is_data(element: &Layout) -> bool {
    element.size == 1 && matches!(element.kind, Kind::Int { signed: false, .. } | Kind::Bytes)
}

fn has_padding(layout: &Layout) -> bool {
    match &layout.kind {
        Kind::Struct(_) => {
            let mut mask = vec![0; layout.size];
            layout.mark(&mut mask);
            mask.iter().any(|byte| *byte != 0xff)
        }
        Kind::Array { element, .. } => has_padding(element),
        Kind::Special(_) => true,
        _ => false,
    }
}

fn decode_array(element: &Layout, count: usize, bytes: &[u8]) -> Decoded {
    let size = element.size * count;
    let have = &bytes[..size.min(bytes.len())];
    if is_text(element) && have.len() == size {
        if let Some(text) = printable(have) {
            return Decoded::Text(text);
        }
    }
    if is_text(element) || is_data(element) || element.size == 0 {
        return Decoded::Bytes(have.to_vec());
    }
    let mut elements: Vec<_> = have
        .chunks_exact(element.size)
        .map(|chunk| element.decode(chunk))
        .collect();
    if elements.len() < count {
        elements.push(Decoded::Cut);
    }
    Decoded::Array(elements)
}

fn encode_array(
    element: &Layout,
    count: usize,
    json: &Json,
    bytes: &mut [u8],
    mask: &mut [u8],
) -> Result<()> {
    let size = element.size * count;
    match json {
        Json::String(text) if is_text(element) => {
            ensure!(
                text.len() <= size,
                "{json} is longer than {size} characters"
            );
            bytes[..size].fill(0);
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            // Up to the end of the string: what follows is nobody's business.
            mask[..size.min(text.len() + 1)].fill(0xff);
            Ok(())
        }
        Json::Array(values) => {
            ensure!(
                values.len() <= count,
                "{} elements, and the array has {count}",
                values.len()
            );
            for (i, value) in values.iter().enumerate() {
                let at = i * element.size..(i + 1) * element.size;
                element.encode(value, &mut bytes[at.clone()], &mut mask[at])?;
            }
            Ok(())
        }
        _ if is_text(element) => bail!("{json} is no string"),
        _ if is_data(element) => bail!("{json} is not \"0x\" and {} digits", size * 2),
        _ => bail!("{json} is no array: [value, ...] is"),
    }
}

/// The string up to the first NUL, if there is nothing in it that is not to be printed.
fn printable(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .then(|| text.to_owned())
}

fn bits_of(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .take(16)
        .rev()
        .fold(0, |bits, byte| (bits << 8) | u128::from(*byte))
}

/// `None` where it does not fit: an unsigned number of 128 bits with the highest one set.
fn integer(bits: u128, width: usize, signed: bool) -> Option<i128> {
    if width == 0 || width > 128 {
        return None;
    }
    let shift = 128 - width as u32;
    if signed {
        Some((bits << shift) as i128 >> shift)
    } else {
        i128::try_from(bits << shift >> shift).ok()
    }
}

fn integer_bytes(value: i128, width: usize, signed: bool) -> Result<Vec<u8>> {
    ensure!(
        (1..=128).contains(&width) && integer(value as u128, width, signed) == Some(value),
        "{value} does not fit into {} bits{}",
        width,
        if signed { "" } else { " without a sign" }
    );
    Ok(value.to_le_bytes()[..width.div_ceil(8)].to_vec())
}

fn take_bits(bytes: &[u8], offset: usize, width: usize) -> Option<u128> {
    let last = (offset + width).div_ceil(8);
    let have = bytes.get(offset / 8..last)?;
    // 128 bits that do not begin with a byte are in 17 of them.
    let mut value = bits_of(have) >> (offset % 8);
    if let Some(byte) = have.get(16) {
        value |= u128::from(*byte).checked_shl(128 - (offset % 8) as u32)?;
    }
    Some(if width < 128 {
        value & ((1 << width) - 1)
    } else {
        value
    })
}

fn enum_value(names: &[(i128, String)], value: i128) -> Decoded {
    match names.iter().find(|(number, _)| *number == value) {
        Some((_, name)) => Decoded::Name(name.clone()),
        None => Decoded::Int(value),
    }
}

/// A number, in JSON or in the strings that the command line has.
fn number(json: &Json) -> Result<i128> {
    let value = match json {
        // serde_json keeps integers of up to 64 bits.
        Json::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from)),
        Json::String(text) => match text.strip_prefix("0x") {
            Some(digits) => u128::from_str_radix(digits, 16)
                .ok()
                .and_then(|value| value.try_into().ok()),
            None => text.parse().ok(),
        },
        _ => None,
    };
    value.ok_or_else(|| anyhow!("{json} is no integer"))
}

impl Decoded {
    /// For `--json`. Bytes are strings that begin with 0x.
    pub fn to_json(&self) -> Json {
        match self {
            Decoded::Int(value) => i64::try_from(*value)
                .map(Json::from)
                .or_else(|_| u64::try_from(*value).map(Json::from))
                .unwrap_or_else(|_| Json::from(value.to_string())),
            Decoded::Bool(value) => Json::from(*value),
            Decoded::Float(value) => {
                Number::from_f64(*value).map_or_else(|| Json::from(value.to_string()), Json::Number)
            }
            Decoded::Text(text) | Decoded::Name(text) | Decoded::Address(text) => {
                Json::from(&**text)
            }
            Decoded::Bytes(bytes) => Json::from(format!("0x{}", hex::encode(bytes))),
            Decoded::Struct(fields) => Json::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_json()))
                    .collect::<JsonMap<_, _>>(),
            ),
            Decoded::Array(elements) => elements.iter().map(Decoded::to_json).collect(),
            Decoded::Cut => Json::Null,
        }
    }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decoded::Int(value) => write!(f, "{value}"),
            Decoded::Bool(value) => write!(f, "{value}"),
            Decoded::Float(value) => write!(f, "{value}"),
            Decoded::Text(text) => write!(f, "{text:?}"),
            Decoded::Name(text) | Decoded::Address(text) => f.write_str(text),
            Decoded::Bytes(bytes) => write!(f, "0x{}", hex::encode(bytes)),
            Decoded::Struct(fields) => {
                f.write_str("{")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{name}: {value}")?;
                }
                f.write_str("}")
            }
            Decoded::Array(elements) => {
                f.write_str("[")?;
                for (i, value) in elements.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
            Decoded::Cut => f.write_str("..."),
        }
    }
}

/// Reads types, and counts what they have in all.
struct Reader<'a> {
    btf: &'a Btf,
    leaves: &'a mut usize,
}

impl Reader<'_> {
    fn count(&mut self, more: usize) -> Result<()> {
        *self.leaves = self.leaves.saturating_add(more);
        ensure!(*self.leaves <= MAX_LEAVES, "its type has too many members");
        Ok(())
    }

    fn read(&mut self, id: u32, depth: usize) -> Result<Layout> {
        ensure!(depth < MAX_DEPTH, "its types are nested too deep");
        // void
        if id == 0 {
            return Ok(Layout::bytes(0));
        }
        self.count(1)?;
        let ty = self.btf.resolve_type_by_id(id)?;
        let (size, kind) = match &ty {
            Type::Int(int) => {
                ensure!(
                    (1..=16).contains(&int.size()),
                    "an integer of {} bytes",
                    int.size()
                );
                let name = self.btf.resolve_name(int)?;
                let kind = if int.is_bool() {
                    Kind::Bool
                } else if int.size() == 1 && (int.is_char() || name == "char") {
                    Kind::Char
                } else {
                    Kind::Int {
                        signed: int.is_signed(),
                        big_endian: false,
                    }
                };
                (int.size(), kind)
            }
            Type::Float(float) => (float.size(), Kind::Float),
            Type::Ptr(pointer) => (8, self.pointer(type_id(pointer)?)?),
            Type::Enum(list) => {
                let signed = list.is_signed();
                let mut names = Vec::new();
                for member in &list.members {
                    let name = self.btf.resolve_name(member)?;
                    names.push((extend(member.val().into(), 32, signed), name));
                }
                (enum_size(list.size())?, Kind::Enum { signed, names })
            }
            Type::Enum64(list) => {
                let signed = list.is_signed();
                let mut names = Vec::new();
                for member in &list.members {
                    let name = self.btf.resolve_name(member)?;
                    names.push((extend(member.val(), 64, signed), name));
                }
                (enum_size(list.size())?, Kind::Enum { signed, names })
            }
            Type::Array(array) => {
                let element = self.read(type_id(array)?, depth + 1)?;
                let size = element.size.checked_mul(array.len());
                let size = size.ok_or_else(|| anyhow!("an array that is too large"))?;
                (
                    size,
                    Kind::Array {
                        element: Box::new(element),
                        count: array.len(),
                    },
                )
            }
            Type::Struct(list) | Type::Union(list) => {
                let name = self.btf.resolve_name(list).unwrap_or_default();
                if matches!((&*name, list.size()), ("in_addr", 4) | ("in6_addr", 16)) {
                    return Ok(Layout {
                        size: list.size(),
                        kind: Kind::Address,
                    });
                }
                if SPECIAL.contains(&&*name) {
                    return Ok(Layout {
                        size: list.size(),
                        kind: Kind::Special(name),
                    });
                }
                let mut members = Vec::new();
                for member in &list.members {
                    let name = self.btf.resolve_name(member).unwrap_or_default();
                    let offset = member.bit_offset() as usize;
                    let bits = member.bitfield_size().unwrap_or(0) as usize;
                    self.member(&mut members, name, offset, bits, type_id(member)?, depth)?;
                }
                check_members(&members, list.size())?;
                (list.size(), Kind::Struct(members))
            }
            Type::Datasec(section) => {
                let mut members = Vec::new();
                for variable in &section.variables {
                    let Type::Var(var) = self.btf.resolve_type_by_id(type_id(variable)?)? else {
                        bail!("a section of what are no variables");
                    };
                    let name = self.btf.resolve_name(&var)?;
                    let offset = variable.offset() as usize * 8;
                    self.member(&mut members, name, offset, 0, type_id(&var)?, depth)?;
                }
                check_members(&members, section.size())?;
                (section.size(), Kind::Struct(members))
            }
            Type::Typedef(typedef) => {
                let name = self.btf.resolve_name(typedef)?;
                let mut layout = self.read(type_id(typedef)?, depth + 1)?;
                if let ("__be16" | "__be32" | "__be64", Kind::Int { big_endian, .. }) =
                    (&*name, &mut layout.kind)
                {
                    *big_endian = true;
                }
                return Ok(layout);
            }
            Type::Volatile(modifier) | Type::Const(modifier) | Type::Restrict(modifier) => {
                return self.read(type_id(modifier)?, depth + 1);
            }
            Type::TypeTag(tag) => return self.read(type_id(tag)?, depth + 1),
            other => bail!("a type that no key or value can have: {}", other.name()),
        };
        Ok(Layout { size, kind })
    }

    /// A pointer to the type `id`. Those to objects of the kernel have a tag.
    fn pointer(&self, id: u32) -> Result<Kind> {
        if id != 0 {
            if let Type::TypeTag(tag) = self.btf.resolve_type_by_id(id)? {
                let name = self.btf.resolve_name(&tag)?;
                if KPTR_TAGS.contains(&&*name) {
                    return Ok(Kind::Special(name));
                }
            }
        }
        Ok(Kind::Pointer)
    }

    fn member(
        &mut self,
        members: &mut Vec<Member>,
        name: String,
        bit_offset: usize,
        bits: usize,
        id: u32,
        depth: usize,
    ) -> Result<()> {
        let layout = self.read(id, depth + 1)?;
        match layout.kind {
            Kind::Struct(inner) if name.is_empty() => {
                for mut member in inner {
                    member.bit_offset += bit_offset;
                    members.push(member);
                }
            }
            // An unnamed bitfield is padding.
            _ if name.is_empty() => {}
            _ => members.push(Member {
                name,
                bit_offset,
                bits,
                layout,
            }),
        }
        Ok(())
    }
}

fn type_id(ty: &dyn BtfType) -> Result<u32> {
    ty.get_type_id().ok_or_else(|| anyhow!("broken BTF"))
}

/// The value of an enum's name.
fn extend(value: u64, width: usize, signed: bool) -> i128 {
    integer(value.into(), width, signed).unwrap_or_default()
}

fn enum_size(size: usize) -> Result<usize> {
    ensure!((1..=8).contains(&size), "an enum of {size} bytes");
    Ok(size)
}

/// Nothing of what reads and writes members looks again.
fn check_members(members: &[Member], size: usize) -> Result<()> {
    for member in members {
        let bits = match member.bits {
            0 => {
                ensure!(
                    member.bit_offset % 8 == 0,
                    "{}: it begins within a byte",
                    member.name
                );
                member.layout.size.saturating_mul(8)
            }
            bits => bits,
        };
        ensure!(
            bits <= 128 || member.bits == 0,
            "{}: too many bits",
            member.name
        );
        ensure!(
            member.bit_offset.saturating_add(bits) <= size.saturating_mul(8),
            "{}: outside of what it is a member of",
            member.name
        );
    }
    Ok(())
}
