// SPDX-License-Identifier: GPL-2.0

//! What a migration keeps in a directory: how it is looked at, and taken away.

use super::{
    member::writer_path,
    place::Places,
    set::{self, Maps},
    state::{is_locked, look, Directory, Phase, State},
};
use crate::{
    cli::Status,
    kernel::{trace_link_info, Kernel},
    map::Map,
    migration::{Sync, WRITERS},
    output::{note, Output},
    pin,
};
use anyhow::{ensure, Context, Result};
use serde_json::{json, Value as Json};
use std::{fs, os::fd::AsFd, path::Path};

impl Phase {
    pub fn say(self) -> &'static str {
        match self {
            Phase::Moving => "what is there is moved",
            Phase::InSync => "in sync",
            Phase::Stopping => "--stop was begun, nothing is switched",
            Phase::Stopped => "--stop has run, nothing is switched",
            Phase::Starting => "--stop has run, the new maps are put in place and --start is run",
            Phase::Switching => "--switch was begun",
            Phase::Placing => "--switch has run, the new maps are put in place",
            Phase::Switched => "the new maps are the ones, what is left is taken away",
        }
    }

    /// Whether the new maps are what the old ones are, and are written by nobody else.
    pub fn is_before_the_switch(self) -> bool {
        matches!(
            self,
            Phase::Moving | Phase::InSync | Phase::Stopping | Phase::Stopped
        )
    }
}

/// `maptrace status`
pub fn status(args: &Status) -> Result<u8> {
    let kernel = Kernel::new()?;
    let path = &args.directory;
    let state = look(path)?;
    let is_at_work = is_locked(path);
    let mut output = Output::stdout();
    let mut pairs = Vec::new();
    for (index, pair) in state.pairs.iter().enumerate() {
        let (old, new) = match state.is_back {
            false => (pair.old, pair.new),
            true => (pair.new, pair.old),
        };
        let link = path.join(State::link_name(state.is_back, index));
        pairs.push(PairStatus {
            old: Map::from_id(old, &kernel)?,
            new: Map::from_id(new, &kernel)?,
            link: numbers(&link, old, new, &kernel)?,
            ids: (old, new),
        });
    }
    if args.json {
        output.line(json!({
            "phase": state.phase,
            "back": state.is_back,
            "at_work": is_at_work,
            "pairs": pairs.iter().map(PairStatus::to_json).collect::<Vec<_>>(),
        }))?;
    } else {
        let direction = match state.is_back {
            true => "the way back: ",
            false => "",
        };
        output.line(format!("{direction}{}", state.phase.say()))?;
        for pair in &pairs {
            output.line(pair.to_text())?;
        }
        output.line(match is_at_work {
            true => "a maptrace is at work on it",
            false => "no maptrace is at work on it",
        })?;
    }
    output.flush()?;
    Ok(0)
}

struct PairStatus {
    ids: (u32, u32),
    old: Option<Map>,
    new: Option<Map>,
    link: Option<Numbers>,
}

struct Numbers {
    id: u32,
    replayed: u64,
    pending: u64,
    lost: u64,
    updates: u64,
    deletes: u64,
}

fn numbers(path: &Path, old: u32, new: u32, kernel: &Kernel) -> Result<Option<Numbers>> {
    let Some(link) = pin::open(path, pin::Kind::Link)? else {
        return Ok(None);
    };
    let info = trace_link_info(link.as_fd())?;
    let (Some(old), Some(new)) = (Map::from_id(old, kernel)?, Map::from_id(new, kernel)?) else {
        return Ok(None);
    };
    let Some(sync) = Sync::from_link(link, &old, &new, kernel)? else {
        return Ok(None);
    };
    let counters = sync.counters()?;
    Ok(Some(Numbers {
        id: info.id,
        replayed: info.replayed,
        pending: info.pending,
        lost: info.lost,
        updates: counters.updates,
        deletes: counters.deletes,
    }))
}

impl PairStatus {
    fn labels(&self) -> (String, String) {
        let label = |map: &Option<Map>, id: u32| {
            let gone = || format!("map {id}, which has gone");
            map.as_ref().map_or_else(gone, Map::label)
        };
        (label(&self.old, self.ids.0), label(&self.new, self.ids.1))
    }

    fn to_text(&self) -> String {
        let (old, new) = self.labels();
        match &self.link {
            Some(link) => format!(
                "{old} -> {new}: link {}, {} replayed, {} pending, {} lost, {} conversions, {} \
                 deletes",
                link.id, link.replayed, link.pending, link.lost, link.updates, link.deletes
            ),
            None => format!("{old} -> {new}: no link"),
        }
    }

    fn to_json(&self) -> Json {
        let link = self.link.as_ref().map(|link| {
            json!({
                "id": link.id, "replayed": link.replayed, "pending": link.pending,
                "lost": link.lost, "conversions": link.updates, "deletes": link.deletes,
            })
        });
        json!({ "old": self.ids.0, "new": self.ids.1, "link": link })
    }
}

/// `maptrace migrate --abort`
pub fn abort(path: &Path) -> Result<u8> {
    // Whoever was killed at the end of this has left it empty.
    if pin::is_bpffs(path)? && fs::read_dir(path)?.next().is_none() {
        fs::remove_dir(path)?;
        note(format!("{}: nothing was in it", path.display()));
        return Ok(0);
    }
    let (directory, state) = Directory::open(path)?;
    if let Some(child) = state.child.as_ref().filter(|child| child.runs()) {
        anyhow::bail!("{child} still runs, which it has begun: end it first");
    }
    let is_placed = matches!(state.phase, Phase::Starting | Phase::Placing);
    if is_placed {
        put_back(&state)?;
    }
    for is_back in [false, true] {
        for index in 0..state.pairs.len() {
            let link = directory.link(&State::link_name(is_back, index));
            let writers = WRITERS.iter().map(|(name, ..)| writer_path(&link, name));
            for link in writers.chain([link.clone()]) {
                take_away(&link).with_context(|| link.display().to_string())?;
            }
        }
    }
    directory.remove()?;
    note(match (state.phase, state.is_back) {
        (Phase::Moving | Phase::InSync, false) => {
            "the old maps are as they were, and no link is left"
        }
        (Phase::Moving | Phase::InSync, true) => {
            "the new maps are the ones; the old ones do not follow them any more"
        }
        (Phase::Stopping, _) => {
            "no link is left; --stop was begun: see whether the old programs have to be started"
        }
        (Phase::Starting, _) if state.child.is_some() => {
            "no link is left, and the old maps are put back; --start was begun: stop the new programs, \
             if it has started them, and start the old ones"
        }
        (Phase::Stopped | Phase::Starting, _) => {
            "no link is left; the old programs were stopped (--stop): start them again"
        }
        (Phase::Switching | Phase::Placing, _) => {
            "no link is left; --switch was begun: see which programs run, and what they have \
             written is in their maps only"
        }
        (Phase::Switched, _) => "the new maps are the ones, and no link is left",
    });
    Ok(0)
}

fn put_back(state: &State) -> Result<()> {
    let kernel = Kernel::new()?;
    let ids = state.pairs.iter().map(|pair| match state.is_back {
        false => (pair.old, pair.new),
        true => (pair.new, pair.old),
    });
    let pairs: Vec<Maps> = set::reopen(ids, &kernel)?;
    Places::find(&state.switch, &pairs, true, &kernel)?.put_back(&pairs);
    Ok(())
}

/// Detaches a link, if it is there, and takes its pin away.
fn take_away(path: &Path) -> Result<()> {
    let Some(link) = pin::open(path, pin::Kind::Link)? else {
        return Ok(());
    };
    crate::migration::detach(link.as_fd())?;
    pin::remove(path)?;
    ensure!(!path.exists(), "it is still there");
    Ok(())
}
