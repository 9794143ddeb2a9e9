// SPDX-License-Identifier: GPL-2.0

//! How a key or a value of one map becomes that of another one, by the names in their types.
//!
//! What is derived is a list of steps, which convert.bpf.c and [`Conversion::apply`] both follow.
//! Nothing is lost that nobody has said may be: what cannot be derived is refused, with its name.

use crate::layout::{Kind, Layout, Member};
use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::{cell::Cell, fmt};

/// As `MAX_STEPS` of convert.bpf.c
pub const MAX_STEPS: usize = 1024;

/// As in convert.bpf.c
const COPY: u8 = 0;
const NUMBER: u8 = 1;

const FROM_SIGNED: u8 = 1;
const FROM_BIG: u8 = 2;
const TO_SIGNED: u8 = 4;
const TO_BIG: u8 = 8;

/// What is done to some bytes: `struct step` of convert.bpf.c
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Step {
    /// Where they are in the old one, and in the new one.
    pub from: u32,
    pub to: u32,
    /// How many are read.
    pub size: u32,
    pub operation: u8,
    pub flags: u8,
    /// A number: which bits of what is read.
    pub from_shift: u8,
    pub from_bits: u8,
    /// And where they go. Of 0 bytes, it has to be the number `to`.
    pub to_shift: u8,
    pub to_bits: u8,
    pub to_size: u8,
    pub pad: u8,
}

/// A value does not fit into what is to hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    pub field: String,
}

/// Whether it is about keys or about values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Key,
    Value,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Key => "key",
            Part::Value => "value",
        }
    }
}

/// A field, as the command line names it: `key.port`, `value.tcp.window`, or `tcp.window`, which is
/// of the value. Of one pair of a set it is `OLD:key.port`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Field {
    /// The old map; `None` for all of them.
    pub map: Option<String>,
    pub part: Part,
    /// Empty: all of it.
    pub path: String,
}

impl std::str::FromStr for Field {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // A path where it is pinned can have colons, a member cannot.
        let (map, text) = match text.rsplit_once(':') {
            Some((map, text)) => (Some(map.to_owned()), text),
            None => (None, text),
        };
        let (part, path) = match text.split_once('.') {
            Some(("key", rest)) => (Part::Key, rest),
            Some(("value", rest)) => (Part::Value, rest),
            None if text == "key" => (Part::Key, ""),
            None if text == "value" => (Part::Value, ""),
            _ => (Part::Value, text),
        };
        ensure!(
            !text.is_empty() && (path.is_empty() || path.split('.').all(|name| !name.is_empty())),
            "{text:?}: a member without a name"
        );
        Ok(Self {
            map,
            part,
            path: path.to_owned(),
        })
    }
}

impl TryFrom<String> for Field {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Field> for String {
    fn from(field: Field) -> Self {
        field.to_string()
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(map) = &self.map {
            write!(f, "{map}:")?;
        }
        match &*self.path {
            "" => f.write_str(self.part.name()),
            path => write!(f, "{}.{path}", self.part.name()),
        }
    }
}

/// What the user has said about fields.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// A new field, and what it is.
    pub set: Vec<(Field, Json)>,
    /// An old field, and the new one that it becomes.
    pub map: Vec<(Field, Field)>,
    /// New fields that may be smaller than the old ones, as long as nothing is cut; old fields of
    /// keys that may go, as long as they are zero.
    pub narrow: Vec<Field>,
    /// Old fields that may be lost.
    pub drop: Vec<Field>,
    /// New fields whose bytes are those of the old ones, whatever their types say.
    pub bytes: Vec<Field>,
}

impl Wishes {
    /// Those that are about an old map with one of these names.
    pub fn about(&self, names: &[String]) -> Self {
        let is_about = |field: &Field| {
            field
                .map
                .as_ref()
                .is_none_or(|map| names.iter().any(|it| it == map))
        };
        let some = |list: &[Field]| -> Vec<Field> {
            list.iter()
                .filter(|field| is_about(field))
                .cloned()
                .collect()
        };
        Self {
            set: (self.set.iter().filter(|(field, _)| is_about(field)))
                .cloned()
                .collect(),
            map: (self
                .map
                .iter()
                .filter(|(from, to)| is_about(from) && is_about(to)))
            .cloned()
            .collect(),
            narrow: some(&self.narrow),
            drop: some(&self.drop),
            bytes: some(&self.bytes),
        }
    }

    /// The old maps that they name.
    pub fn maps(&self) -> impl Iterator<Item = &str> {
        let fields = self.set.iter().map(|(field, _)| field);
        fields
            .chain(self.map.iter().flat_map(|(from, to)| [from, to]))
            .chain(self.narrow.iter())
            .chain(self.drop.iter())
            .chain(self.bytes.iter())
            .filter_map(|field| field.map.as_deref())
    }
}

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Copied,
    Widened,
    /// As long as nothing is cut.
    Narrowed,
    /// New, and zero.
    Zero,
    /// New, and set.
    Set(String),
    /// Not in the new one.
    Dropped,
    /// Not in the new one, and zero as long as keys can be told apart.
    MustBeZero,
    /// The kernel's: it is not copied.
    Special,
    /// By this object of the user.
    Converted(String),
    /// It cannot be derived, and why.
    Refused(String),
}

impl Fate {
    /// In a word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Fate::Copied => "copied",
            Fate::Widened => "widened",
            Fate::Narrowed => "narrowed",
            Fate::Zero => "zero",
            Fate::Set(_) => "set",
            Fate::Dropped => "lost",
            Fate::MustBeZero => "must_be_zero",
            Fate::Special => "special",
            Fate::Converted(_) => "converted",
            Fate::Refused(_) => "refused",
        }
    }

    /// Whether something goes away that was there.
    pub fn loses(&self) -> bool {
        matches!(self, Fate::Dropped)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Copied => f.write_str("copied"),
            Fate::Widened => f.write_str("widened"),
            Fate::Narrowed => f.write_str("narrowed: what does not fit is not migrated"),
            Fate::Zero => f.write_str("new: zero"),
            Fate::Set(value) => write!(f, "new: {value}"),
            Fate::Dropped => f.write_str("lost"),
            Fate::MustBeZero => f.write_str("gone: what is not zero is not migrated"),
            Fate::Special => f.write_str("not copied: it is the kernel's"),
            Fate::Converted(name) => write!(f, "converted by {name}"),
            Fate::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// A line of the table of fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The field, and its type.
    pub old: Option<(String, String)>,
    pub new: Option<(String, String)>,
    pub fate: Fate,
}

/// How keys, or values, are converted.
#[derive(Clone, Debug)]
pub struct Conversion {
    pub part: Part,
    pub old_size: usize,
    pub new_size: usize,
    pub rows: Vec<Row>,
    pub steps: Vec<Step>,
    /// Which row a step is of.
    step_rows: Vec<usize>,
    /// What a new one is before the steps are done.
    pub template: Vec<u8>,
    /// What is to be said of each wish if nothing has come of it, and whether something has.
    pub wishes: Vec<(String, bool)>,
}

impl Conversion {
    /// Derives it. What cannot be is a row that says so, see [`Conversion::problems`].
    pub fn new(part: Part, old: &Layout, new: &Layout, wishes: &Wishes) -> Self {
        let mut planner = Planner::new(part, old, new, wishes);
        let whole = |layout| Place {
            layout,
            path: String::new(),
            bit: 0,
            bits: 0,
        };
        planner.convert(&whole(new), Some(&whole(old)));
        planner.find_lost(&whole(old));
        planner.finish()
    }

    /// Why it cannot be done, wishes aside.
    pub fn refusals(&self) -> Vec<String> {
        self.rows
            .iter()
            .filter_map(|row| match &row.fate {
                Fate::Refused(why) => {
                    let name = row.new.as_ref().or(row.old.as_ref());
                    let name = name.map_or("", |(name, _)| name);
                    Some(format!("{name}: {why}"))
                }
                _ => None,
            })
            .collect()
    }

    /// Why it cannot be done, where there are no other conversions that the wishes can be about.
    pub fn problems(&self) -> Vec<String> {
        let unused = self.wishes.iter().filter(|(_, useful)| !useful);
        let mut problems = self.refusals();
        problems.extend(unused.map(|(what, _)| what.clone()));
        problems
    }

    /// The way back: what this makes of an old one, that makes the old one of. Of a key it takes
    /// only what this makes. Of a value, what only the new one has is left out, and what this leaves
    /// out is zero.
    ///
    /// Errors: a field that has become two.
    pub fn inverse(&self) -> Result<Self> {
        let mut inverse = Self {
            part: self.part,
            old_size: self.new_size,
            new_size: self.old_size,
            rows: self.rows.clone(),
            steps: Vec::new(),
            step_rows: Vec::new(),
            template: vec![0; self.old_size],
            wishes: Vec::new(),
        };
        for row in &mut inverse.rows {
            std::mem::swap(&mut row.old, &mut row.new);
        }
        let mut read = Bits::new(self.old_size);
        let mut made = Bits::new(self.new_size);
        for (step, row) in self.steps.iter().zip(&self.step_rows) {
            // It is zero there as it is.
            if step.operation == NUMBER && step.to_size == 0 {
                continue;
            }
            let (from, to) = step.bits();
            if from.clone().any(|bit| read.has(bit)) {
                let name = self.rows[*row].old.as_ref().map_or("", |(name, _)| name);
                bail!("{name} has become two fields: which of them it is made of is not known");
            }
            read.set(from);
            made.set(to);
            inverse.steps.push(step.reversed());
            inverse.step_rows.push(*row);
        }
        if self.part == Part::Key {
            inverse.rows.push(Row {
                old: Some(("key (what only the new map has)".to_owned(), String::new())),
                new: None,
                fate: Fate::MustBeZero,
            });
            // A byte each time, of which some bits may be made.
            for (at, byte) in self.template.iter().enumerate() {
                let free: Vec<_> = (at * 8..at * 8 + 8).filter(|bit| !made.has(*bit)).collect();
                for run in free.chunk_by(|a, b| a + 1 == *b) {
                    let shift = (run[0] % 8) as u8;
                    inverse.steps.push(Step {
                        from: at as u32,
                        to: low(u64::from(byte >> shift), run.len() as u8) as u32,
                        size: 1,
                        operation: NUMBER,
                        from_shift: shift,
                        from_bits: run.len() as u8,
                        ..Step::default()
                    });
                    inverse.step_rows.push(inverse.rows.len() - 1);
                }
            }
        }
        ensure!(
            inverse.steps.len() <= MAX_STEPS,
            "the way back takes {} steps, and {MAX_STEPS} are the most",
            inverse.steps.len()
        );
        Ok(inverse)
    }

    /// Whether the new one is the same bytes.
    pub fn is_identity(&self) -> bool {
        self.old_size == self.new_size
            && matches!(&*self.steps, [step] if step.operation == COPY
                && step.from == 0 && step.to == 0 && step.size as usize == self.old_size)
    }

    /// Converts one.
    ///
    /// Errors: something would be cut.
    pub fn apply(&self, old: &[u8]) -> std::result::Result<Vec<u8>, Cut> {
        let mut new = self.template.clone();
        for (step, row) in self.steps.iter().zip(&self.step_rows) {
            if !step.apply(old, &mut new) {
                let row = &self.rows[*row];
                let name = row.new.as_ref().or(row.old.as_ref());
                return Err(Cut {
                    field: name.map_or_else(String::new, |(name, _)| name.clone()),
                });
            }
        }
        Ok(new)
    }
}

/// Some of the bits of a key or a value
struct Bits(Vec<u8>);

impl Bits {
    fn new(size: usize) -> Self {
        Self(vec![0; size])
    }

    fn has(&self, bit: usize) -> bool {
        self.0[bit / 8] & (1 << (bit % 8)) != 0
    }

    fn set(&mut self, bits: std::ops::Range<usize>) {
        for bit in bits {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }
}

/// The lowest `bits` of a number.
fn low(number: u64, bits: u8) -> u64 {
    match bits {
        0..=63 => number & ((1 << bits) - 1),
        _ => number,
    }
}

fn sign_extend(number: u64, bits: u8) -> u64 {
    match bits {
        1..=63 => ((number << (64 - bits)) as i64 >> (64 - bits)) as u64,
        _ => number,
    }
}

impl Step {
    /// The bits that it reads, and those that it makes.
    fn bits(&self) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let range = |byte: u32, shift: u8, bits: usize| {
            let first = byte as usize * 8 + usize::from(shift);
            first..first + bits
        };
        let (from_bits, to_bits) = match self.operation {
            COPY => (self.size as usize * 8, self.size as usize * 8),
            _ => (self.from_bits.into(), self.to_bits.into()),
        };
        (
            range(self.from, self.from_shift, from_bits),
            range(self.to, self.to_shift, to_bits),
        )
    }

    /// The way back. Not of one that only looks.
    fn reversed(&self) -> Self {
        let swap = |flag: u8, other: u8| match self.flags & flag {
            0 => 0,
            _ => other,
        };
        let size = match self.operation {
            COPY => self.size,
            _ => u32::from(self.to_size),
        };
        Self {
            from: self.to,
            to: self.from,
            size,
            operation: self.operation,
            flags: swap(FROM_SIGNED, TO_SIGNED)
                | swap(FROM_BIG, TO_BIG)
                | swap(TO_SIGNED, FROM_SIGNED)
                | swap(TO_BIG, FROM_BIG),
            from_shift: self.to_shift,
            from_bits: self.to_bits,
            to_shift: self.from_shift,
            to_bits: self.from_bits,
            to_size: match self.operation {
                COPY => 0,
                _ => self.size as u8,
            },
            pad: 0,
        }
    }

    /// Does it. False: something would be cut. convert.bpf.c does the same.
    fn apply(&self, old: &[u8], new: &mut [u8]) -> bool {
        let (from, size) = (self.from as usize, self.size as usize);
        let to = self.to as usize;
        if self.operation == COPY {
            new[to..to + size].copy_from_slice(&old[from..from + size]);
            return true;
        }
        let mut number = 0_u64;
        for (i, byte) in old[from..from + size].iter().enumerate() {
            let at = match self.flags & FROM_BIG {
                0 => i,
                _ => size - 1 - i,
            };
            number |= u64::from(*byte) << (8 * at);
        }
        number = low(number >> self.from_shift, self.from_bits);
        if self.flags & FROM_SIGNED != 0 {
            number = sign_extend(number, self.from_bits);
        }
        if self.to_size == 0 {
            return number == u64::from(self.to);
        }
        let kept = low(number, self.to_bits);
        let back = match self.flags & TO_SIGNED {
            0 => kept,
            _ => sign_extend(kept, self.to_bits),
        };
        let same_sign = (self.flags & FROM_SIGNED != 0) == (self.flags & TO_SIGNED != 0);
        if back != number || (!same_sign && (number as i64) < 0) {
            return false;
        }
        let kept = kept << self.to_shift;
        let to_size = usize::from(self.to_size);
        for i in 0..to_size {
            let at = match self.flags & TO_BIG {
                0 => i,
                _ => to_size - 1 - i,
            };
            new[to + i] |= (kept >> (8 * at)) as u8;
        }
        true
    }
}

/// A field, and where it is.
#[derive(Clone)]
struct Place<'a> {
    layout: &'a Layout,
    path: String,
    bit: usize,
    /// Of a bitfield, else 0.
    bits: usize,
}

impl<'a> Place<'a> {
    fn member(&self, member: &'a Member) -> Place<'a> {
        Place {
            layout: &member.layout,
            path: join(&self.path, &member.name),
            bit: self.bit + member.bit_offset,
            bits: member.bits,
        }
    }

    /// Members of elements bear the name of the array's.
    fn element(&self, element: &'a Layout, index: usize) -> Place<'a> {
        Place {
            layout: element,
            path: self.path.clone(),
            bit: self.bit + index * element.size * 8,
            bits: 0,
        }
    }

    /// How many bits it has.
    fn width(&self) -> usize {
        match self.bits {
            0 => self.layout.size * 8,
            bits => bits,
        }
    }

    fn members(&self) -> &'a [Member] {
        match &self.layout.kind {
            Kind::Struct(members) => members,
            _ => &[],
        }
    }

    fn find(&self, name: &str) -> Option<Place<'a>> {
        let member = self.members().iter().find(|member| member.name == name)?;
        Some(self.member(member))
    }

    /// The bytes that it is in, and where it begins in them.
    fn bytes(&self) -> (usize, usize, usize) {
        let shift = self.bit % 8;
        (self.bit / 8, (shift + self.width()).div_ceil(8), shift)
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

/// Whether `path` is `outer`, or in it.
fn is_within(path: &str, outer: &str) -> bool {
    outer.is_empty()
        || path == outer
        || path
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with('.'))
}

/// A number of up to 64 bits.
struct Number {
    /// How many it may use.
    bits: usize,
    signed: bool,
    big_endian: bool,
}

impl Number {
    fn of(place: &Place<'_>) -> Option<Self> {
        let width = place.width();
        let (signed, big_endian, bits) = match place.layout.kind {
            Kind::Int { signed, big_endian } => {
                (signed, big_endian && place.layout.size > 1, width)
            }
            Kind::Char => (true, false, width),
            Kind::Bool => (false, false, 1),
            Kind::Enum { signed, .. } => (signed, false, width),
            Kind::Pointer => (false, false, width),
            _ => return None,
        };
        // No program can take a big-endian bitfield apart.
        ((1..=64).contains(&width) && !(big_endian && place.bits != 0)).then_some(Self {
            bits,
            signed,
            big_endian,
        })
    }

    fn fits_into(&self, other: &Self) -> bool {
        match (self.signed, other.signed) {
            (true, false) => false,
            (false, true) => self.bits < other.bits,
            _ => self.bits <= other.bits,
        }
    }
}

struct Planner<'a> {
    part: Part,
    old: &'a Layout,
    new: &'a Layout,
    wishes: &'a Wishes,
    rows: Vec<Row>,
    steps: Vec<Step>,
    step_rows: Vec<usize>,
    template: Vec<u8>,
    /// The bits of the old one that are taken.
    used: Vec<u8>,
    /// Which wishes were of use: set, map, narrow, drop and bytes.
    useful: [Vec<Cell<bool>>; 5],
    /// The row of what is being converted.
    row: usize,
    /// In elements of an array that only the new one has.
    quiet: bool,
}

const SET: usize = 0;
const MAP: usize = 1;
const NARROW: usize = 2;
const DROP: usize = 3;
const BYTES: usize = 4;

impl<'a> Planner<'a> {
    fn new(part: Part, old: &'a Layout, new: &'a Layout, wishes: &'a Wishes) -> Self {
        let unused = |count: usize| vec![Cell::new(false); count];
        Self {
            part,
            old,
            new,
            wishes,
            rows: Vec::new(),
            steps: Vec::new(),
            step_rows: Vec::new(),
            template: vec![0; new.size],
            used: vec![0; old.size],
            useful: [
                unused(wishes.set.len()),
                unused(wishes.map.len()),
                unused(wishes.narrow.len()),
                unused(wishes.drop.len()),
                unused(wishes.bytes.len()),
            ],
            row: 0,
            quiet: false,
        }
    }

    fn full_name(&self, path: &str) -> String {
        let field = Field {
            map: None,
            part: self.part,
            path: path.to_owned(),
        };
        field.to_string()
    }

    fn say(&mut self, old: Option<&Place<'_>>, new: Option<&Place<'_>>, fate: Fate) {
        let describe = |place: &Place<'_>| {
            let ty = match place.bits {
                0 => type_name(place.layout),
                bits => format!("{}:{bits}", type_name(place.layout)),
            };
            (self.full_name(&place.path), ty)
        };
        let row = Row {
            old: old.map(describe),
            new: new.map(describe),
            fate,
        };
        // Elements of an array have the same one.
        match self.rows.iter().position(|other| *other == row) {
            Some(index) => self.row = index,
            None if self.quiet => {}
            None => {
                self.row = self.rows.len();
                self.rows.push(row);
            }
        }
    }

    fn refuse(&mut self, old: Option<&Place<'_>>, new: Option<&Place<'_>>, why: &str) {
        if let Some(old) = old {
            self.mark_used(old);
        }
        self.say(old, new, Fate::Refused(why.to_owned()));
    }

    fn mark_used(&mut self, place: &Place<'_>) {
        self.mark_bits(place.bit, place.width());
    }

    fn mark_bits(&mut self, bit: usize, width: usize) {
        for bit in bit..bit + width {
            self.used[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Whether a field, or what it is in, is in a list of wishes.
    fn is_wished(&self, which: usize, list: &[Field], path: &str) -> bool {
        let mut found = false;
        for (field, useful) in list.iter().zip(&self.useful[which]) {
            if field.part == self.part && is_within(path, &field.path) {
                useful.set(true);
                found = true;
            }
        }
        found
    }

    /// Whether something was said of what is in a field.
    fn is_touched(&self, old: Option<&Place<'_>>, new: &Place<'_>) -> bool {
        let within =
            |field: &Field, path: &str| field.part == self.part && is_within(&field.path, path);
        let wishes = self.wishes;
        wishes.set.iter().any(|(field, _)| within(field, &new.path))
            || wishes.map.iter().any(|(from, to)| {
                within(to, &new.path) || old.is_some_and(|old| within(from, &old.path))
            })
    }

    fn push(&mut self, step: Step) {
        if let Some(last) = self.steps.last_mut() {
            let follows = last.operation == COPY
                && step.operation == COPY
                && last.from + last.size == step.from
                && last.to + last.size == step.to;
            if follows {
                last.size += step.size;
                return;
            }
        }
        self.steps.push(step);
        self.step_rows.push(self.row);
    }

    fn copy(&mut self, old: &Place<'_>, new: &Place<'_>, size: usize) {
        self.mark_bits(old.bit, size * 8);
        if size > 0 {
            self.push(Step {
                from: (old.bit / 8) as u32,
                to: (new.bit / 8) as u32,
                size: size as u32,
                operation: COPY,
                ..Step::default()
            });
        }
    }

    /// Has bits of the old one be zero.
    fn expect_zero(&mut self, bit: usize, width: usize) {
        let mut at = bit;
        while at < bit + width {
            let shift = at % 8;
            let bits = (bit + width - at).min(64 - shift);
            self.push(Step {
                from: (at / 8) as u32,
                size: (shift + bits).div_ceil(8) as u32,
                operation: NUMBER,
                from_shift: shift as u8,
                from_bits: bits as u8,
                ..Step::default()
            });
            at += bits;
        }
        self.mark_bits(bit, width);
    }

    /// Finds out how `new` is made, of `old` if that has the same name.
    fn convert(&mut self, new: &Place<'a>, old: Option<&Place<'a>>) {
        let wishes = self.wishes;
        let is_set = |field: &Field| field.part == self.part && field.path == new.path;
        if let Some(index) = wishes.set.iter().position(|(field, _)| is_set(field)) {
            self.useful[SET][index].set(true);
            return self.set(new, old, &wishes.set[index].1);
        }
        let Some(old) = old else {
            if matches!(new.layout.kind, Kind::Struct(_)) && self.is_touched(None, new) {
                for member in new.members() {
                    let place = new.member(member);
                    let source = self.source_of(&place, None);
                    self.convert_from(&place, source);
                }
                return;
            }
            let fate = match new.layout.has_special() {
                true => Fate::Special,
                false => Fate::Zero,
            };
            return self.say(None, Some(new), fate);
        };
        match (&new.layout.kind, &old.layout.kind) {
            (Kind::Special(_), _) | (_, Kind::Special(_)) if self.part == Part::Key => {
                return self.refuse(Some(old), Some(new), "no key has what is the kernel's");
            }
            (Kind::Special(_), Kind::Special(_)) => {
                self.mark_used(old);
                return self.say(Some(old), Some(new), Fate::Special);
            }
            // It is data that goes, or comes.
            (Kind::Special(_), _) => return self.say(None, Some(new), Fate::Special),
            (_, Kind::Special(_)) => return self.convert(new, None),
            _ => {}
        }
        let is_bytes = |field: &Field| field.part == self.part && field.path == new.path;
        if let Some(index) = wishes.bytes.iter().position(is_bytes) {
            self.useful[BYTES][index].set(true);
            return self.take_bytes(new, old);
        }
        let same = new.layout == old.layout && new.bits == 0 && old.bits == 0;
        if same && !new.layout.has_special() && !self.is_touched(Some(old), new) {
            self.say(Some(old), Some(new), Fate::Copied);
            return self.copy(old, new, new.layout.size);
        }
        match (&new.layout.kind, &old.layout.kind) {
            (Kind::Struct(_), Kind::Struct(_)) => self.convert_struct(new, old),
            (
                Kind::Array { element, count },
                Kind::Array {
                    element: old_element,
                    count: old_count,
                },
            ) => self.convert_array(new, (element, *count), old, (old_element, *old_count)),
            _ => self.convert_scalar(new, old),
        }
    }

    fn convert_from(&mut self, new: &Place<'a>, source: Source<'a>) {
        match source {
            Source::Found(old) => self.convert(new, Some(&old)),
            Source::None => self.convert(new, None),
            Source::Wrong(why) => self.refuse(None, Some(new), &why),
        }
    }

    /// Where a new field comes from.
    fn source_of(&self, new: &Place<'a>, old_parent: Option<&Place<'a>>) -> Source<'a> {
        let wishes = self.wishes;
        let renamed = wishes
            .map
            .iter()
            .position(|(_, to)| to.part == self.part && to.path == new.path);
        if let Some(index) = renamed {
            self.useful[MAP][index].set(true);
            let (from, _) = &wishes.map[index];
            if from.part != self.part {
                return Source::Wrong(
                    match self.part {
                        Part::Key => {
                            "a key that depends on the value: a delete knows only the old key"
                        }
                        Part::Value => "values are made of values only",
                    }
                    .to_owned(),
                );
            }
            return match self.lookup(&from.path, old_parent) {
                Some(place) => Source::Found(place),
                None => Source::Wrong(format!("the old map has no {from} that this could be")),
            };
        }
        let name = new.path.rsplit('.').next().unwrap_or_default();
        let Some(place) = old_parent.and_then(|parent| parent.find(name)) else {
            return Source::None;
        };
        // What is renamed is not what has the name by chance.
        let is_renamed = wishes
            .map
            .iter()
            .any(|(from, _)| from.part == self.part && from.path == place.path);
        match is_renamed {
            true => Source::None,
            false => Source::Found(place),
        }
    }

    /// The old field of a path: in the same struct, or in none that is in an array.
    fn lookup(&self, path: &str, parent: Option<&Place<'a>>) -> Option<Place<'a>> {
        if let Some(parent) = parent {
            let name = match &*parent.path {
                "" => Some(path),
                outer => path
                    .strip_prefix(outer)
                    .and_then(|rest| rest.strip_prefix('.')),
            };
            if let Some(place) = name.and_then(|name| descend(parent, name)) {
                return Some(place);
            }
        }
        let root = Place {
            layout: self.old,
            path: String::new(),
            bit: 0,
            bits: 0,
        };
        descend(&root, path)
    }

    fn set(&mut self, new: &Place<'a>, old: Option<&Place<'a>>, value: &Json) {
        if let Some(old) = old {
            return self.refuse(Some(old), Some(new), "set, though the old map has it");
        }
        let member = Member {
            name: new.path.clone(),
            bit_offset: new.bit,
            bits: new.bits,
            layout: new.layout.clone(),
        };
        let mut mask = vec![0; self.template.len()];
        match member.encode(value, &mut self.template, &mut mask) {
            Ok(()) => self.say(None, Some(new), Fate::Set(value.to_string())),
            Err(err) => self.refuse(None, Some(new), &format!("{err:#}")),
        }
    }

    fn take_bytes(&mut self, new: &Place<'a>, old: &Place<'a>) {
        let (size, old_size) = (new.layout.size, old.layout.size);
        if new.bits != 0 || old.bits != 0 {
            return self.refuse(Some(old), Some(new), "a bitfield has no bytes of its own");
        }
        if size != old_size || new.layout.has_special() || old.layout.has_special() {
            let why = format!("{old_size} bytes, and {size} in the new map");
            return self.refuse(Some(old), Some(new), &why);
        }
        self.say(Some(old), Some(new), Fate::Copied);
        self.copy(old, new, size);
    }

    fn convert_struct(&mut self, new: &Place<'a>, old: &Place<'a>) {
        let members: Vec<_> = new
            .members()
            .iter()
            .map(|member| new.member(member))
            .collect();
        for group in overlapping(members) {
            match &*group {
                [one] => {
                    let source = self.source_of(one, Some(old));
                    self.convert_from(one, source);
                }
                _ => self.convert_union(&group, old),
            }
        }
    }

    /// Fields that share their bits: which of them is meant, nobody knows. So all have to stay.
    fn convert_union(&mut self, group: &[Place<'a>], old: &Place<'a>) {
        let mut found = Vec::new();
        for new in group {
            match self.source_of(new, Some(old)) {
                Source::Found(place) => found.push((new, place)),
                Source::None => {}
                Source::Wrong(why) => return self.refuse(None, Some(new), &why),
            }
        }
        let Some((first, place)) = found.first() else {
            for new in group {
                self.convert(new, None);
            }
            return;
        };
        let distance = first.bit as i128 - place.bit as i128;
        let stays = |new: &Place<'_>, place: &Place<'_>| {
            new.layout == place.layout
                && new.bits == place.bits
                && new.bit as i128 - place.bit as i128 == distance
                && !new.layout.has_special()
        };
        if let Some((new, place)) = found.iter().find(|(new, place)| !stays(new, place)) {
            let why = "a member of a union that changes: which member is meant is not known";
            let (new, place) = ((*new).clone(), place.clone());
            return self.refuse(Some(&place), Some(&new), why);
        }
        let begin = found.iter().map(|(_, place)| place.bit).min().unwrap_or(0);
        let ends = found.iter().map(|(_, place)| place.bit + place.width());
        let end = ends.max().unwrap_or(0);
        if distance % 8 != 0 || begin % 8 != 0 || end % 8 != 0 {
            let why = "a union of bitfields that moves";
            return self.refuse(Some(place), Some(first), why);
        }
        let source = Place {
            bit: begin,
            ..place.clone()
        };
        let target = Place {
            bit: (begin as i128 + distance) as usize,
            ..(*first).clone()
        };
        for (new, place) in &found {
            self.say(Some(place), Some(new), Fate::Copied);
        }
        self.copy(&source, &target, (end - begin) / 8);
        for new in group {
            if !found.iter().any(|(other, _)| other.path == new.path) {
                self.say(None, Some(new), Fate::Zero);
            }
        }
    }

    fn convert_array(
        &mut self,
        new: &Place<'a>,
        (element, count): (&'a Layout, usize),
        old: &Place<'a>,
        (old_element, old_count): (&'a Layout, usize),
    ) {
        let both = count.min(old_count);
        if old_count > count && !self.may_narrow(new) {
            let why = format!(
                "{old_count} elements, and {count} in the new map (--narrow {} takes it if the \
                 others are zero)",
                self.full_name(&new.path)
            );
            return self.refuse(Some(old), Some(new), &why);
        }
        let is_plain = element.size == old_element.size
            && (element == old_element || is_byte(element) && is_byte(old_element))
            && !element.has_special()
            && !self.is_touched(Some(old), new);
        let fate = match count.cmp(&old_count) {
            std::cmp::Ordering::Less => Fate::Narrowed,
            std::cmp::Ordering::Equal => Fate::Copied,
            std::cmp::Ordering::Greater => Fate::Widened,
        };
        if is_plain || fate != Fate::Copied {
            self.say(Some(old), Some(new), fate);
        }
        if is_plain {
            self.copy(old, new, both * element.size);
        } else {
            for i in 0..both {
                self.convert(&new.element(element, i), Some(&old.element(old_element, i)));
                // It is refused for its length as it is.
                if self.steps.len() > MAX_STEPS {
                    break;
                }
            }
        }
        if old_count > count {
            let rest = old.element(old_element, count);
            self.say(Some(old), Some(new), Fate::Narrowed);
            self.expect_zero(rest.bit, (old_count - count) * old_element.size * 8);
        } else if count > old_count && !is_plain {
            // Where something is to be set in the new ones.
            let was_quiet = self.quiet;
            self.quiet = true;
            for i in old_count..count {
                let place = new.element(element, i);
                if matches!(element.kind, Kind::Struct(_)) && self.is_touched(None, &place) {
                    self.convert(&place, None);
                }
            }
            self.quiet = was_quiet;
        }
    }

    fn may_narrow(&self, new: &Place<'_>) -> bool {
        self.is_wished(NARROW, &self.wishes.narrow, &new.path)
    }

    fn convert_scalar(&mut self, new: &Place<'a>, old: &Place<'a>) {
        let size = new.layout.size;
        let is_whole = new.bits == 0 && old.bits == 0;
        let same_bytes = is_whole
            && size == old.layout.size
            && match (&new.layout.kind, &old.layout.kind) {
                (Kind::Float, Kind::Float)
                | (Kind::Address, Kind::Address)
                | (Kind::Bytes, Kind::Bytes) => true,
                // The same on the wire
                (Kind::Address, Kind::Int { big_endian, .. })
                | (Kind::Int { big_endian, .. }, Kind::Address) => *big_endian && size == 4,
                (
                    Kind::Int { signed, big_endian },
                    Kind::Int {
                        signed: old_signed,
                        big_endian: old_big_endian,
                    },
                ) => signed == old_signed && big_endian == old_big_endian,
                _ => is_byte(new.layout) && is_byte(old.layout),
            };
        if same_bytes {
            self.say(Some(old), Some(new), Fate::Copied);
            return self.copy(old, new, size);
        }
        let (Some(number), Some(target)) = (Number::of(old), Number::of(new)) else {
            let why = format!(
                "{} does not become {} by itself{}",
                type_name(old.layout),
                type_name(new.layout),
                match is_whole && size == old.layout.size {
                    true => " (--bytes takes its bytes as they are)",
                    false => "",
                }
            );
            return self.refuse(Some(old), Some(new), &why);
        };
        if number.big_endian != target.big_endian && old.layout.size > 1 && size > 1 {
            let why = "another byte order: whether it is to be the same number or the same bytes \
                       is not known (--bytes takes the bytes)";
            return self.refuse(Some(old), Some(new), why);
        }
        if let (Kind::Enum { names, .. }, Kind::Enum { names: was, .. }) =
            (&new.layout.kind, &old.layout.kind)
        {
            let moved = was.iter().find_map(|(value, name)| {
                let now = names.iter().find(|(_, other)| other == name)?;
                (now.0 != *value)
                    .then(|| format!("{name} is {value}, and {} in the new map", now.0))
            });
            if let Some(why) = moved {
                return self.refuse(Some(old), Some(new), &why);
            }
        }
        let (from, from_size, from_shift) = old.bytes();
        let (to, to_size, to_shift) = new.bytes();
        if from_size > 8 || to_size > 8 {
            let why = "a bitfield that 8 bytes do not hold";
            return self.refuse(Some(old), Some(new), why);
        }
        let fate = if !number.fits_into(&target) {
            if !self.may_narrow(new) {
                let why = format!(
                    "{} may not fit into {} (--narrow {} takes what does)",
                    type_name(old.layout),
                    type_name(new.layout),
                    self.full_name(&new.path)
                );
                return self.refuse(Some(old), Some(new), &why);
            }
            Fate::Narrowed
        } else if number.bits == target.bits && number.signed == target.signed {
            Fate::Copied
        } else {
            Fate::Widened
        };
        self.say(Some(old), Some(new), fate);
        self.mark_used(old);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        self.push(Step {
            from: from as u32,
            to: to as u32,
            size: from_size as u32,
            operation: NUMBER,
            flags: flag(number.signed, FROM_SIGNED)
                | flag(number.big_endian, FROM_BIG)
                | flag(target.signed, TO_SIGNED)
                | flag(target.big_endian, TO_BIG),
            from_shift: from_shift as u8,
            // What a bool of the old map has beside its bit is not cut, it is refused.
            from_bits: old.width() as u8,
            to_shift: to_shift as u8,
            to_bits: target.bits as u8,
            to_size: to_size as u8,
            pad: 0,
        });
    }

    /// What is in the old one, and not in the new one.
    fn find_lost(&mut self, place: &Place<'a>) {
        self.find_lost_in(place);
        if self.part == Part::Key {
            self.check_padding();
        }
    }

    fn find_lost_in(&mut self, place: &Place<'a>) {
        let is_used = |bit: usize| self.used[bit / 8] & (1 << (bit % 8)) != 0;
        let bits = place.bit..place.bit + place.width();
        let used = bits.clone().filter(|bit| is_used(*bit)).count();
        if used == bits.len() {
            return;
        }
        match &place.layout.kind {
            Kind::Struct(_) if used > 0 || place.path.is_empty() => {
                for member in place.members() {
                    self.find_lost_in(&place.member(member));
                }
            }
            Kind::Array { element, count } if used > 0 => {
                for i in 0..*count {
                    self.find_lost_in(&place.element(element, i));
                }
            }
            Kind::Special(_) => self.say(Some(place), None, Fate::Special),
            _ => self.lose(place),
        }
    }

    fn lose(&mut self, place: &Place<'a>) {
        let wishes = self.wishes;
        let name = self.full_name(&place.path);
        match self.part {
            Part::Key if self.is_wished(NARROW, &wishes.narrow, &place.path) => {
                self.say(Some(place), None, Fate::MustBeZero);
                self.expect_zero(place.bit, place.width());
            }
            Part::Key => {
                let why = format!(
                    "not in the new map: two keys that differ in it would become one \
                     (--narrow {name} takes those where it is zero)"
                );
                self.refuse(Some(place), None, &why);
            }
            Part::Value if self.is_wished(DROP, &wishes.drop, &place.path) => {
                self.say(Some(place), None, Fate::Dropped);
            }
            Part::Value => {
                let why = format!(
                    "not in the new map: it would be lost (--drop {name}, or --map {name}=NEW)"
                );
                self.refuse(Some(place), None, &why);
            }
        }
    }

    /// Keys are compared with their padding: two of them may not become one.
    fn check_padding(&mut self) {
        let mut mask = vec![0; self.old.size];
        self.old.mark(&mut mask);
        for (mask, used) in mask.iter_mut().zip(&self.used) {
            *mask |= used;
        }
        let is_padding = |bit: usize| mask[bit / 8] & (1 << (bit % 8)) == 0;
        let bits = mask.len() * 8;
        let mut runs = Vec::new();
        let mut bit = 0;
        while bit < bits {
            let end = (bit..bits).find(|bit| !is_padding(*bit)).unwrap_or(bits);
            if end > bit {
                runs.push((bit, end - bit));
            }
            bit = end.max(bit + 1);
        }
        if runs.is_empty() {
            return;
        }
        let width: usize = runs.iter().map(|(_, width)| width).sum();
        self.row = self.rows.len();
        self.rows.push(Row {
            old: Some(("key (padding)".to_owned(), format!("{width} bits"))),
            new: None,
            fate: Fate::MustBeZero,
        });
        for (bit, width) in runs {
            self.expect_zero(bit, width);
        }
    }

    fn finish(mut self) -> Conversion {
        let wishes = self.wishes;
        let mut said = Vec::new();
        let mut note = |option: &str, which: usize, index: usize, field: &Field, side: &str| {
            if field.part == self.part && !field.path.is_empty() {
                let what = format!("--{option} {field}: it is of no use, is it a field of {side}?");
                said.push((what, self.useful[which][index].get()));
            }
        };
        for (i, (field, _)) in wishes.set.iter().enumerate() {
            note("set", SET, i, field, "the new map");
        }
        for (i, (_, field)) in wishes.map.iter().enumerate() {
            note("map", MAP, i, field, "the new map");
        }
        for (i, field) in wishes.narrow.iter().enumerate() {
            note("narrow", NARROW, i, field, "a map that gets smaller");
        }
        for (i, field) in wishes.drop.iter().enumerate() {
            note("drop", DROP, i, field, "the old map alone");
        }
        for (i, field) in wishes.bytes.iter().enumerate() {
            note("bytes", BYTES, i, field, "both maps");
        }
        if self.steps.len() > MAX_STEPS {
            self.rows.push(Row {
                old: None,
                new: Some((self.part.name().to_owned(), type_name(self.new))),
                fate: Fate::Refused(format!(
                    "it takes {} steps to convert, and {MAX_STEPS} are the most",
                    self.steps.len()
                )),
            });
        }
        Conversion {
            part: self.part,
            old_size: self.old.size,
            new_size: self.new.size,
            rows: self.rows,
            steps: self.steps,
            step_rows: self.step_rows,
            template: self.template,
            wishes: said,
        }
    }
}

enum Source<'a> {
    Found(Place<'a>),
    None,
    Wrong(String),
}

fn descend<'a>(from: &Place<'a>, path: &str) -> Option<Place<'a>> {
    path.split('.')
        .try_fold(from.clone(), |place, name| place.find(name))
}

/// A character, or a number of one byte: what strings and data are made of.
fn is_byte(layout: &Layout) -> bool {
    layout.size == 1
        && matches!(
            layout.kind,
            Kind::Char | Kind::Int { signed: false, .. } | Kind::Bytes
        )
}

/// Fields in groups of those that share bits.
fn overlapping(mut places: Vec<Place<'_>>) -> Vec<Vec<Place<'_>>> {
    places.sort_by_key(|place| place.bit);
    let mut groups: Vec<Vec<Place<'_>>> = Vec::new();
    let mut end = 0;
    for place in places {
        let this_end = place.bit + place.width();
        match groups.last_mut() {
            Some(group) if place.bit < end && place.width() > 0 => group.push(place),
            _ => groups.push(vec![place]),
        }
        end = end.max(this_end);
    }
    groups
}

/// A type, as short as a table needs it.
pub fn type_name(layout: &Layout) -> String {
    let bits = layout.size * 8;
    match &layout.kind {
        Kind::Int {
            big_endian: true, ..
        } => format!("be{bits}"),
        Kind::Int { signed: true, .. } => format!("s{bits}"),
        Kind::Int { .. } => format!("u{bits}"),
        Kind::Bool => "bool".to_owned(),
        Kind::Char => "char".to_owned(),
        Kind::Float => format!("float{bits}"),
        Kind::Enum { .. } => format!("enum{bits}"),
        Kind::Pointer => "pointer".to_owned(),
        Kind::Address => match layout.size {
            4 => "in_addr".to_owned(),
            _ => "in6_addr".to_owned(),
        },
        Kind::Struct(_) => format!("struct of {}", layout.size),
        Kind::Array { element, count } => format!("{}[{count}]", type_name(element)),
        Kind::Bytes => format!("{} bytes", layout.size),
        Kind::Special(name) => name.clone(),
    }
}

/// `FIELD=VALUE` of the command line.
pub fn parse_set(text: &str) -> Result<(Field, Json)> {
    let (field, value) = text.split_once('=').context("FIELD=VALUE is expected")?;
    // Whatever is no JSON is a string: an address, the name of an enum, 0x and digits.
    let json = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
    Ok((field.parse()?, json))
}

/// `OLD=NEW` of the command line. The part that one of them names is that of both.
pub fn parse_map(text: &str) -> Result<(Field, Field)> {
    let (old, new) = text.split_once('=').context("OLD=NEW is expected")?;
    if old.is_empty() || new.is_empty() {
        bail!("OLD=NEW is expected");
    }
    let (mut old, mut new): (Field, Field) = (old.parse()?, new.parse()?);
    old.map = old.map.or_else(|| new.map.clone());
    new.map = new.map.or_else(|| old.map.clone());
    ensure!(
        old.map == new.map,
        "{text}: both have to be of the same pair of maps"
    );
    Ok((old, new))
}
