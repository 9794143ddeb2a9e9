// SPDX-License-Identifier: GPL-2.0

//! Recordings: a line of JSON for the map, one for each element that was there, one for each
//! change, and one for the end.
//!
//! Keys and values are hexadecimal digits, so that nothing of them is lost. The elements come
//! before all changes, though changes were made while they were read: a change says what its key
//! has become, so that it does not matter which of both the elements show.

use anyhow::{anyhow, bail, ensure, Context, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, io::BufRead};

/// The version of what is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(&text)
            .map(Hex)
            .map_err(serde::de::Error::custom)
    }
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub maptrace: u32,
    /// When it began, in UTC.
    pub time: String,
    pub map: RecordedMap,
}

/// The map that was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedMap {
    pub id: u32,
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub key_size: usize,
    pub value_size: usize,
    pub max_entries: u32,
    /// How many values a key has; 1 where there is not one for each CPU.
    pub cpus: usize,
    pub percpu: bool,
}

/// All other lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Line {
    /// What was there.
    Element { key: Hex, values: Vec<Hex> },
    Update {
        key: Hex,
        value: Hex,
        /// Of the update, as the kernel has them.
        flags: u64,
        /// Whose value it is, where each CPU has one.
        cpu: u32,
        #[serde(flatten)]
        by: By,
    },
    Delete {
        key: Hex,
        #[serde(flatten)]
        by: By,
    },
    /// From here on, what the lines before make is what the map had.
    Consistent,
    /// The last line.
    End(End),
}

/// When a change was made, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct By {
    /// Since the recording began.
    pub time_ns: u64,
    pub pid: u32,
    pub comm: String,
}

/// What became of the recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub elements: u64,
    pub changes: u64,
    /// Changes that are not in here, for lack of room in the ring buffer.
    pub lost: u64,
    /// And those after which the kernel has not run the tracer.
    pub missed: u64,
}

/// Reads a recording, and sees to it that it is one.
pub struct Reader<R> {
    lines: std::iter::Enumerate<std::io::Lines<R>>,
    pub header: Header,
    end: Option<End>,
}

impl<R: BufRead> Reader<R> {
    pub fn new(from: R) -> Result<Self> {
        let mut lines = from.lines().enumerate();
        let (_, first) = lines.next().context("it is empty")?;
        let first = first?;
        // Its version says whether the rest can be understood.
        let json: serde_json::Value = serde_json::from_str(&first)
            .map_err(|_| anyhow!("line 1: no recording of maptrace"))?;
        let version = json.get("maptrace").and_then(serde_json::Value::as_u64);
        let version = version.context("line 1: no recording of maptrace")?;
        ensure!(
            version == u64::from(VERSION),
            "line 1: version {version} of the format, and this maptrace reads {VERSION}"
        );
        let header: Header = serde_json::from_str(&first).context("line 1")?;
        ensure!(
            header.map.cpus > 0 && (header.map.percpu || header.map.cpus == 1),
            "line 1: {} values of a key",
            header.map.cpus
        );
        Ok(Self {
            lines,
            header,
            end: None,
        })
    }

    /// The next line, up to the end, which is found in [`Reader::end`] then.
    pub fn next_line(&mut self) -> Result<Option<Line>> {
        let Some((index, line)) = self.lines.next() else {
            return Ok(None);
        };
        let number = index + 1;
        let line = line.with_context(|| format!("line {number}"))?;
        ensure!(self.end.is_none(), "line {number}: after the end");
        let line: Line = serde_json::from_str(&line).with_context(|| format!("line {number}"))?;
        self.check(&line)
            .with_context(|| format!("line {number}"))?;
        if let Line::End(end) = &line {
            self.end = Some(end.clone());
        }
        Ok(Some(line))
    }

    /// The last line. `None` where the recording was cut off.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn check(&self, line: &Line) -> Result<()> {
        let map = &self.header.map;
        let key = |key: &Hex| match key.0.len() == map.key_size {
            true => Ok(()),
            false => Err(anyhow!(
                "a key of {} bytes, not {}",
                key.0.len(),
                map.key_size
            )),
        };
        let value = |value: &Hex| match value.0.len() == map.value_size {
            true => Ok(()),
            false => Err(anyhow!(
                "a value of {} bytes, not {}",
                value.0.len(),
                map.value_size
            )),
        };
        match line {
            Line::Element { key: this, values } => {
                key(this)?;
                ensure!(
                    values.len() == map.cpus,
                    "{} values, not {}",
                    values.len(),
                    map.cpus
                );
                values.iter().try_for_each(value)
            }
            Line::Update {
                key: this,
                value: new,
                cpu,
                ..
            } => {
                key(this)?;
                value(new)?;
                ensure!(
                    !map.percpu || (*cpu as usize) < map.cpus,
                    "CPU {cpu}, and there are {}",
                    map.cpus
                );
                Ok(())
            }
            Line::Delete { key: this, .. } => key(this),
            Line::Consistent | Line::End(_) => Ok(()),
        }
    }
}

/// What a recording makes of a map that is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub elements: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl State {
    pub fn apply(&mut self, map: &RecordedMap, line: &Line) -> Result<()> {
        match line {
            Line::Element { key, values } => {
                let values = values.iter().map(|value| value.0.clone()).collect();
                self.elements.insert(key.0.clone(), values);
            }
            Line::Update {
                key, value, cpu, ..
            } => {
                let cpu = if map.percpu { *cpu as usize } else { 0 };
                let empty = || vec![vec![0; map.value_size]; map.cpus];
                let values = self.elements.entry(key.0.clone()).or_insert_with(empty);
                match values.get_mut(cpu) {
                    Some(old) => *old = value.0.clone(),
                    None => bail!("CPU {cpu}, and there are {}", map.cpus),
                }
            }
            Line::Delete { key, .. } => {
                self.elements.remove(&key.0);
            }
            Line::Consistent | Line::End(_) => {}
        }
        Ok(())
    }
}
