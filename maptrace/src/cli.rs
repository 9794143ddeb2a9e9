// SPDX-License-Identifier: GPL-2.0

//! The command line, from which the man page and the completions are made as well.

use crate::{
    conversion::{parse_map, parse_set, Field, Wishes},
    tracer::Operation,
};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::{path::PathBuf, time::Duration};

/// Watch and compare BPF maps that are in use
///
/// The programs that use the maps need not know. Watching and recording take a kernel with the
/// patches and the module of map_trace; the rest does not.
#[derive(Debug, Parser)]
#[command(name = "maptrace", version, max_term_width = 100, after_help = MAPS)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Print what libbpf says
    #[arg(long, global = true, hide_short_help = true)]
    pub debug: bool,
}

const MAPS: &str = "\
A MAP is an id, a name, or the path where it is pinned; id:ID, name:NAME and pinned:PATH say which. \
Where several maps are meant, it can be a directory with pinned maps, too, or \"prog ID\", for all \
maps of a program.

A signal that ends a command gives the status 128 and its number, as in a shell; what fails gives 1, \
and 2 for diff.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show which maps are traced, by what, and how full they are
    List(List),
    /// Print each change of a map as it happens
    Watch(Watch),
    /// Detach tracers, whoever has attached them
    ///
    /// They do not run any more when it returns, and their links stay as long as somebody has them:
    /// these say that they are of no map. A migration that is under way ends with an error.
    Detach(Detach),
    /// Print what differs between two maps
    ///
    /// They can be in use: what differs is looked at again, and said only if it still does when
    /// neither of them changes. The status is 0 if nothing differs, 1 if something does, 3 if
    /// that cannot be told of some keys, which change all the time, and 2 if something is wrong.
    Diff(Diff),
    /// Write the elements of a map to a file, then its changes
    Record(Record),
    /// Write a recording into a map
    Replay(Replay),
    /// Move the elements of a map in use to a map of another layout
    ///
    /// With --check, nothing is moved, and the status is 0 if it could be, 1 if not, and 2 if
    /// something is wrong.
    Migrate(Box<Migrate>),
    /// Tell where a migration stands that is pinned in a directory
    Status(Status),
    /// Print what completes commands in a shell
    Completions { shell: Shell },
    /// Print the man page, or write one for each command into a directory
    Man {
        #[arg(value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

impl Command {
    /// The exit status where something is wrong.
    pub fn trouble_status(&self) -> u8 {
        match self {
            // 1 says that something differs.
            Command::Diff(_) => 2,
            // 1 says that it could not be done.
            Command::Migrate(args) if args.check => 2,
            _ => 1,
        }
    }
}

#[derive(Debug, Args)]
pub struct List {
    /// These, whether they are traced or not
    #[arg(value_name = "MAP")]
    pub maps: Vec<String>,

    /// All maps, whether they are traced or not
    #[arg(long, conflicts_with = "maps")]
    pub all: bool,

    /// Again and again, with what is evicted a second from maps of the LRU types
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = seconds)]
    pub watch: Option<Duration>,

    /// Stop after so many times
    #[arg(long, value_name = "N", requires = "watch")]
    pub count: Option<u64>,

    /// As JSON: a line each time
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Detach {
    /// Those of these maps
    #[arg(value_name = "MAP", required_unless_present = "all")]
    pub maps: Vec<String>,

    /// Those of all maps, at once
    #[arg(long, conflicts_with = "maps")]
    pub all: bool,

    /// As JSON: the ids of the links
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Watch {
    #[arg(value_name = "MAP", required = true)]
    pub maps: Vec<String>,

    /// Only changes of this key, or of keys with this member: KEY, MEMBER=VALUE or
    /// MEMBER.MEMBER=VALUE; KEY can be JSON, or 0x and all of its bytes
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,

    /// Only this operation
    #[arg(long, value_name = "OPERATION")]
    pub op: Option<Op>,

    /// Only what this process changes
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Operations that fail, too, with their errno
    #[arg(long)]
    pub failed: bool,

    /// The kernel stack of each change
    #[arg(long)]
    pub stack: bool,

    /// Do not find out which program or system call made a change: it costs the map's programs
    /// less
    #[arg(long, conflicts_with = "stack")]
    pub no_origin: bool,

    /// A line of JSON for each change
    #[arg(long)]
    pub json: bool,

    /// Stop after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Stop after the first change
    #[arg(long, conflicts_with = "count")]
    pub once: bool,

    /// Stop after this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// Show no more than this of a value
    #[arg(long, value_name = "BYTES", default_value = "4K", value_parser = bytes)]
    pub max_value: usize,

    /// The size of the ring buffer
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = bytes)]
    pub buffer: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Op {
    Update,
    Delete,
}

impl From<Op> for Operation {
    fn from(op: Op) -> Self {
        match op {
            Op::Update => Operation::Update,
            Op::Delete => Operation::Delete,
        }
    }
}

#[derive(Debug, Args)]
pub struct Diff {
    pub a: String,
    pub b: String,

    /// A line of JSON for each key that differs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Record {
    pub map: String,
    /// - for standard output
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Stop after this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// Stop after so many changes
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,

    /// Overwrite the file
    #[arg(long)]
    pub force: bool,

    /// The size of the ring buffer
    #[arg(long, value_name = "BYTES", default_value = "32M", value_parser = bytes)]
    pub buffer: usize,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    pub map: String,

    /// Delete what is in the map before
    #[arg(long)]
    pub clear: bool,

    /// Keep what is in the map
    #[arg(long, conflicts_with = "clear")]
    pub keep: bool,

    /// At the pace at which it was recorded
    #[arg(long)]
    pub timed: bool,

    /// A recording that was cut off or that lacks changes, too
    #[arg(long)]
    pub partial: bool,
}

#[derive(Debug, Args)]
pub struct Migrate {
    /// The map that is in use, and the one that takes its place, and is empty. Several such pairs are
    /// moved together, and so are the maps with the same names in two directories of pinned maps
    #[arg(value_names = ["OLD", "NEW"], num_args = 2..,
          required_unless_present_any = ["resume", "abort"])]
    pub maps: Vec<String>,

    /// Only say what becomes of each field, what would be lost, and what NEW takes; a map can be
    /// FILE.bpf.o:MAP, too, of an object that is not loaded
    #[arg(long)]
    pub check: bool,

    #[command(flatten)]
    pub fields: Fields,

    /// Convert by this object of BPF, which has a MAPTRACE_CONVERT() of maptrace_convert.h: one old entry
    /// can become several
    #[arg(long, value_name = "[OLD:]FILE.bpf.o", value_hint = ValueHint::FilePath)]
    pub with: Vec<String>,

    #[command(flatten)]
    pub switch: Switch,

    /// End when all is in NEW, and compared; without this, NEW follows OLD until a signal comes
    #[arg(long, conflicts_with = "check")]
    pub wait: bool,

    /// Delete what is in NEW before
    #[arg(long, conflicts_with = "check")]
    pub clear: bool,

    /// Take out of NEW what OLD does not have
    #[arg(long, conflicts_with_all = ["check", "clear"])]
    pub prune: bool,

    /// Switch though some entries do not fit into NEW: they are listed
    #[arg(long, conflicts_with = "check")]
    pub partial: bool,

    /// Where both programs have written a key during --switch, what the old one does last counts
    #[arg(long, conflicts_with_all = ["check", "stop"])]
    pub old_wins: bool,

    /// After the switch, OLD follows NEW, until a signal comes: so it can be taken back
    #[arg(long, conflicts_with_all = ["check", "partial"])]
    pub back: bool,

    /// Keep it in this directory of a bpffs: it goes on whatever ends this command, until --abort, or
    /// until it is switched
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "check")]
    pub pin: Option<PathBuf>,

    /// Go on with what is kept in this directory; what is to be switched can be given anew
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath,
          conflicts_with_all = ["maps", "check", "pin", "clear", "prune", "back", "Fields",
                                "with"])]
    pub resume: Option<PathBuf>,

    /// Take away all that is kept in this directory. Before the switch, OLD is the map as it was;
    /// after it, NEW is, and OLD does not follow it any more
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath,
          conflicts_with_all = ["maps", "check", "pin", "clear", "prune", "back", "Fields", "with",
                                "Switch", "resume", "wait", "partial"])]
    pub abort: Option<PathBuf>,

    /// How long a flush may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,

    /// As JSON, a line for each pair
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// What --pin of maptrace migrate was given
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,

    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What is done once NEW has all that OLD has.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[command(next_help_heading = "Switch")]
#[group(conflicts_with = "check")]
pub struct Switch {
    /// Puts the new programs in place of the old ones, while NEW goes on to follow OLD
    #[arg(long, value_name = "CMD", conflicts_with_all = ["stop", "start"])]
    pub switch: Option<String>,

    /// Stops what writes OLD: the rest is moved and compared then, and --start run
    #[arg(long, value_name = "CMD", requires = "start")]
    pub stop: Option<String>,

    /// Starts what writes NEW
    #[arg(long, value_name = "CMD", requires = "stop")]
    pub start: Option<String>,

    /// Pin NEW here, where OLD is pinned, in one step; a directory is all in it that are OLD
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub repin: Vec<PathBuf>,

    /// Put NEW into this map of maps, where OLD is at KEY
    #[arg(long, value_names = ["MAP", "KEY"], num_args = 2)]
    pub outer: Vec<String>,

    /// They are the places of a switch that is over, and are those of the next one.
    #[arg(skip)]
    pub places_only: bool,
}

impl Switch {
    /// Whether anything is to be switched.
    pub fn is_wanted(&self) -> bool {
        let has_places = !self.repin.is_empty() || !self.outer.is_empty();
        self.switch.is_some() || self.stop.is_some() || has_places && !self.places_only
    }

    /// Whether both programs can write the new map for a while.
    pub fn is_while_in_use(&self) -> bool {
        self.is_wanted() && self.stop.is_none()
    }

    /// It is switched; whoever takes it back says how.
    pub fn forget_commands(&mut self) {
        (self.switch, self.stop, self.start) = (None, None, None);
        self.places_only = true;
    }
}

/// What becomes of fields: those of keys are key.FIELD, those of values value.FIELD or FIELD.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(
    next_help_heading = "Fields (key.FIELD, value.FIELD or FIELD, of the value; OLD:FIELD, of one pair)"
)]
pub struct Fields {
    /// This field of OLD is that one of NEW
    #[arg(long, value_name = "OLD=NEW", value_parser = map_of)]
    pub map: Vec<(Field, Field)>,

    /// What a field is that only NEW has, and that is zero else
    #[arg(long, value_name = "FIELD=VALUE", value_parser = set_of)]
    pub set: Vec<(Field, Json)>,

    /// A field may be smaller in NEW: each value is checked, and what does not fit is not moved
    #[arg(long, value_name = "FIELD", value_parser = field)]
    pub narrow: Vec<Field>,

    /// A field of OLD may be lost
    #[arg(long, value_name = "FIELD", value_parser = field)]
    pub drop: Vec<Field>,

    /// Take the bytes of a field as they are, whatever its types say
    #[arg(long, value_name = "FIELD", value_parser = field)]
    pub bytes: Vec<Field>,
}

impl Fields {
    pub fn wishes(&self) -> Wishes {
        Wishes {
            set: self.set.clone(),
            map: self.map.clone(),
            narrow: self.narrow.clone(),
            drop: self.drop.clone(),
            bytes: self.bytes.clone(),
        }
    }
}

fn field(text: &str) -> Result<Field, String> {
    text.parse().map_err(|err| format!("{err:#}"))
}

fn map_of(text: &str) -> Result<(Field, Field), String> {
    parse_map(text).map_err(|err| format!("{err:#}"))
}

fn set_of(text: &str) -> Result<(Field, Json), String> {
    parse_set(text).map_err(|err| format!("{err:#}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "no number of seconds".to_owned())?;
    // As long as anybody waits, and no shorter than poll(2) can.
    match (0.001..=1e9).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not between 0.001 and 1000000000".to_owned()),
    }
}

/// A number, with K, M or G behind it.
fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: usize = digits
        .parse()
        .map_err(|_| "no number of bytes".to_owned())?;
    number
        .checked_mul(unit)
        .filter(|bytes| (1..=1 << 30).contains(bytes))
        .ok_or_else(|| "not between 1 and 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("12"), Ok(12));
        assert_eq!(bytes("4K"), Ok(4096));
        assert_eq!(bytes("1G"), Ok(1 << 30));
        for wrong in ["", "K", "0", "-1", "2G", "1T", "99999999999999999999", "é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "0", "-1", "inf", "NaN", "1s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
