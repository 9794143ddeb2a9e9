// SPDX-License-Identifier: GPL-2.0

//! Where a change came from, by the kernel stack of the one who made it.

use crate::map::Map;
use anyhow::{ensure, Result};
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

/// What made a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    Program {
        id: u32,
        name: String,
    },
    /// `bpf(2)`, of many elements at once or not.
    SystemCall {
        batch: bool,
    },
    /// A program that runs in the interpreter, which does not say which one.
    Interpreter,
    /// No stack, or one that tells nothing.
    Unknown,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Program { id, name } => write!(f, "prog {id} {name}"),
            Origin::SystemCall { batch: false } => f.write_str("bpf(2)"),
            Origin::SystemCall { batch: true } => f.write_str("bpf(2) batch"),
            Origin::Interpreter => f.write_str("an interpreted program"),
            Origin::Unknown => f.write_str("unknown"),
        }
    }
}

/// A function of a program that was compiled.
#[derive(Clone, Debug)]
struct Code {
    end: u64,
    prog: u32,
    name: String,
}

/// Looks addresses up.
pub struct Resolver {
    /// By where it begins.
    programs: BTreeMap<u64, Code>,
    /// The kernel's functions, once one of them is asked for: there are many.
    kernel: OnceCell<BTreeMap<u64, String>>,
    /// Our own programs, which are on each stack.
    own: Vec<u32>,
    /// What a stack was found to be.
    known: HashMap<Vec<u64>, Origin>,
}

impl Resolver {
    /// `own`: the ids of the programs that took the stacks.
    pub fn new(own: Vec<u32>) -> Self {
        let mut resolver = Self {
            programs: BTreeMap::new(),
            kernel: OnceCell::new(),
            own,
            known: HashMap::new(),
        };
        resolver.read_programs();
        resolver
    }

    fn kernel(&self) -> &BTreeMap<u64, String> {
        self.kernel.get_or_init(|| {
            let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
            parse_kallsyms(&text)
        })
    }

    fn read_programs(&mut self) {
        let options = ProgInfoQueryOptions::default()
            .include_jited_ksyms(true)
            .include_jited_func_lens(true);
        for info in ProgInfoIter::with_query_opts(options) {
            for (start, len) in info.jited_ksyms.iter().zip(&info.jited_func_lens) {
                let start = *start as u64;
                self.programs.insert(
                    start,
                    Code {
                        end: start + u64::from(*len),
                        prog: info.id,
                        name: info.name.to_string_lossy().into_owned(),
                    },
                );
            }
        }
    }

    fn program(&self, address: u64) -> Option<&Code> {
        let (_, code) = self.programs.range(..=address).next_back()?;
        // A return address can be the end.
        (address <= code.end).then_some(code)
    }

    /// Whose change it was.
    pub fn origin(&mut self, stack: &[u64]) -> Origin {
        if let Some(origin) = self.known.get(stack) {
            return origin.clone();
        }
        let mut origin = self.find(stack);
        if origin == Origin::Unknown {
            // A program that was loaded since.
            self.read_programs();
            origin = self.find(stack);
        }
        // Nobody knows how many different stacks there will be.
        if self.known.len() >= 4096 {
            self.known.clear();
        }
        self.known.insert(stack.to_vec(), origin.clone());
        origin
    }

    fn find(&self, stack: &[u64]) -> Origin {
        // Most often it is a program, and the kernel's functions need not be known.
        let mut programs = stack.iter().filter_map(|address| self.program(*address));
        if let Some(code) = programs.find(|code| !self.own.contains(&code.prog)) {
            return Origin::Program {
                id: code.prog,
                name: code.name.clone(),
            };
        }
        let mut batch = false;
        for name in stack.iter().filter_map(|address| self.symbol(*address)) {
            if name.contains("_batch") {
                batch = true;
            } else if name.starts_with("___bpf_prog_run") {
                return Origin::Interpreter;
            } else if name.split('.').next() == Some("__sys_bpf") {
                return Origin::SystemCall { batch };
            }
        }
        Origin::Unknown
    }

    fn symbol(&self, address: u64) -> Option<&str> {
        let (_, name) = self.kernel().range(..=address).next_back()?;
        Some(name)
    }

    /// What a frame is called.
    pub fn frame(&self, address: u64) -> String {
        if let Some(code) = self.program(address) {
            return format!("prog {} {}", code.prog, code.name);
        }
        match self.kernel().range(..=address).next_back() {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }

    /// The frames that are not ours.
    pub fn without_own<'a>(&self, stack: &'a [u64]) -> &'a [u64] {
        let own = stack.iter().rposition(|address| {
            self.program(*address)
                .is_some_and(|code| self.own.contains(&code.prog))
        });
        &stack[own.map_or(0, |own| own + 1)..]
    }
}

/// The functions of the kernel and of its modules.
fn parse_kallsyms(text: &str) -> BTreeMap<u64, String> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let kind = words.next()?;
            let name = words.next()?;
            // Not those that the kernel does not show to everybody.
            (address != 0 && matches!(kind, "t" | "T" | "w" | "W"))
                .then(|| (address, name.to_owned()))
        })
        .collect()
}

/// The maps that each program uses.
pub fn program_maps() -> Result<Vec<(u32, Vec<u32>)>> {
    crate::kernel::need_admin()?;
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    Ok(ProgInfoIter::with_query_opts(options)
        .map(|info| (info.id, info.map_ids))
        .collect())
}

/// Who uses the maps that are looked at. Those would stay for as long as they are looked at.
#[derive(Default)]
pub struct Users {
    /// The maps that were seen to be used.
    seen: BTreeSet<u32>,
    looked: Option<Instant>,
}

impl Users {
    /// Looks now and then. Errors: a map is used by nobody any more.
    pub fn check<'a>(&mut self, maps: impl Iterator<Item = &'a Map>) -> Result<()> {
        let looked = self.looked.as_ref();
        if looked.is_some_and(|looked| looked.elapsed() < Duration::from_secs(1)) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let used: BTreeSet<u32> = program_maps()?
            .into_iter()
            .flat_map(|(_, maps)| maps)
            .collect();
        for map in maps {
            // Where it is pinned, the next program takes it up from.
            let is_pinned = map.pinned.as_deref().is_some_and(Path::exists);
            if used.contains(&map.id) {
                self.seen.insert(map.id);
            } else {
                ensure!(
                    is_pinned || !self.seen.contains(&map.id),
                    "{}: no program uses it any more, it has gone",
                    map.label()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver() -> Resolver {
        let code = |end, prog, name: &str| Code {
            end,
            prog,
            name: name.to_owned(),
        };
        Resolver {
            programs: BTreeMap::from([
                (0x1000, code(0x1100, 7, "watch_update")),
                (0x2000, code(0x2100, 8, "count")),
            ]),
            kernel: OnceCell::from(parse_kallsyms(
                "0000000000005000 T map_update_elem\n\
                 0000000000006000 T __sys_bpf\n\
                 0000000000007000 t generic_map_update_batch\t[some]\n\
                 0000000000008000 d data\n",
            )),
            own: vec![7],
            known: HashMap::new(),
        }
    }

    #[test]
    fn our_own_programs_are_nobodys_origin() {
        let found = resolver().find(&[0x1010, 0x5008, 0x2020, 0x6010]);
        let name = "count".to_owned();
        assert_eq!(found, Origin::Program { id: 8, name });
    }

    #[test]
    fn system_calls_are_told_from_programs() {
        let resolver = resolver();
        let batch = |stack: &[u64]| resolver.find(stack);
        assert_eq!(
            batch(&[0x1010, 0x5008, 0x6010]),
            Origin::SystemCall { batch: false }
        );
        assert_eq!(
            batch(&[0x1010, 0x7008, 0x6010]),
            Origin::SystemCall { batch: true }
        );
        assert_eq!(batch(&[0x1010, 0x5008]), Origin::Unknown);
    }

    #[test]
    fn data_is_no_function() {
        assert_eq!(resolver().symbol(0x8010), Some("generic_map_update_batch"));
    }
}
