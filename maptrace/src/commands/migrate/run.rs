// SPDX-License-Identifier: GPL-2.0

use super::{
    compare::Comparison,
    member::{Member, LOOK},
    place::Places,
    report::{self, summary, Bar, Done, Report},
    script::{self, Child},
    set::{self, Maps},
    state::{self, Directory, PairState, Phase, State},
};
use crate::{
    census::Census,
    cli::{Migrate, Switch},
    commands::replay::make_empty,
    kernel::Kernel,
    map::Map,
    migration::Winner,
    origin::{program_maps, Users},
    output::{note, Output, Signals},
    plan::Side,
    with::With,
};
use anyhow::{bail, ensure, Context, Result};
use std::{
    path::{Path, PathBuf},
    rc::Rc,
    thread,
};

pub fn run(args: &Migrate) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    match &args.resume {
        Some(path) => resume(args, path, &kernel, &signals),
        None => begin(args, &kernel, &signals),
    }
}

fn begin(args: &Migrate, kernel: &Kernel, signals: &Signals) -> Result<u8> {
    let words = set::pairs_of(&args.maps)?;
    let pairs = set::open(&words, kernel)?;
    let names: Vec<_> = words
        .iter()
        .zip(&pairs)
        .map(|(words, maps)| set::names(&words.old, Some(&maps.old)))
        .collect();
    let with = set::conversions(&args.with, &names)?;
    let mut objects = Vec::new();
    let mut kept = Vec::new();
    for ((maps, names), with) in pairs.iter().zip(names).zip(&with) {
        let with = with.as_ref().map(|with| {
            let at = objects.len();
            objects.extend(&with.bytes);
            (with.name.clone(), at..objects.len())
        });
        kept.push(PairState {
            old: maps.old.id,
            new: maps.new.id,
            names,
            with,
        });
    }
    let mut state = State::new(kept, args.fields.clone(), args.switch.clone());
    state.back = args.back;
    state.prune = args.prune;
    state.partial = args.partial;
    state.old_wins = args.old_wins;
    let members = members(&state, &pairs, &with, kernel, signals)?;
    let places = Places::find(&args.switch, &pairs, false, kernel)?;
    if args.back {
        // Not when it is too late.
        for member in &members {
            member.turned()?.load().context("the way back")?;
        }
    }
    // What the kernel does not take is known before the new maps are emptied.
    for member in &members {
        member.load()?;
    }
    empty(args, &pairs, signals)?;
    let directory = match &args.pin {
        Some(path) => Some(Directory::create(path, &state, objects)?),
        None => None,
    };
    let mut migration = Migration::new(args, state, members, places, directory, kernel, signals);
    // All of them, or none.
    if let Err(err) = migration.connect() {
        migration.dismantle()?;
        return Err(err);
    }
    let prune = args.prune;
    migration.go(prune)
}

fn empty(args: &Migrate, pairs: &[Maps], signals: &Signals) -> Result<()> {
    if args.prune {
        return Ok(());
    }
    if args.clear {
        let used = program_maps()?;
        for Maps { new, .. } in pairs {
            let is_used = |(_, maps): &&(u32, Vec<u32>)| maps.contains(&new.id);
            // Whoever mixes up both maps has not meant it.
            if let Some((prog, _)) = used.iter().find(is_used) {
                bail!(
                    "--clear: program {prog} uses {}, which is not cleared",
                    new.label()
                );
            }
        }
    }
    let advice = "--clear deletes what is there, --prune what the old map does not have";
    for Maps { new, .. } in pairs {
        make_empty(new, args.clear, advice, signals)?;
    }
    Ok(())
}

fn resume(args: &Migrate, path: &Path, kernel: &Kernel, signals: &Signals) -> Result<u8> {
    let (directory, mut state) = Directory::open(path)?;
    change_switch(&mut state, &args.switch)?;
    state.partial |= args.partial;
    ensure!(
        !(state.partial && state.back),
        "--partial: what does not fit would be taken out of the old map on the way back"
    );
    let ids = state.pairs.iter().map(|pair| match state.is_back {
        false => (pair.old, pair.new),
        true => (pair.new, pair.old),
    });
    let pairs = set::reopen(ids, kernel)?;
    let with = state.pairs.iter().map(|pair| directory.with(pair));
    let with = with.collect::<Result<Vec<_>>>()?;
    let members = members(&state, &pairs, &with, kernel, signals)?;
    let places = Places::find(&state.switch, &pairs, true, kernel)?;
    directory.save(&state)?;
    let child = state.child.clone();
    let phase = state.phase;
    let mut migration = Migration::new(
        args,
        state,
        members,
        places,
        Some(directory),
        kernel,
        signals,
    );
    if let Some(child) = child {
        migration.wait_for(&child)?;
    }
    note(format!("{}: going on, {}", path.display(), phase.say()));
    if phase.is_before_the_switch() {
        migration.connect()?;
    } else if phase != Phase::Switched {
        migration.take_up()?;
    }
    // What a link that is new has not seen.
    migration.go(phase.is_before_the_switch())
}

/// Whoever goes on can say anew what is to be switched.
fn change_switch(state: &mut State, given: &Switch) -> Result<()> {
    if !given.is_wanted() {
        return Ok(());
    }
    let kept = &state.switch;
    let is_early = matches!(state.phase, Phase::Moving | Phase::InSync);
    let same_form = kept.switch.is_some() == given.switch.is_some()
        && (given.repin.is_empty() || given.repin == kept.repin)
        && (given.outer.is_empty() || given.outer == kept.outer);
    ensure!(
        is_early || same_form,
        "it has begun to switch already: the commands can be others, but not the way"
    );
    let mut new = given.clone();
    if new.repin.is_empty() && new.outer.is_empty() {
        new.repin.clone_from(&kept.repin);
        new.outer.clone_from(&kept.outer);
    }
    new.places_only = false;
    state.switch = new;
    Ok(())
}

/// The pairs, with what is done to each of them.
fn members<'a>(
    state: &State,
    pairs: &[Maps],
    with: &[Option<Rc<With>>],
    kernel: &'a Kernel,
    signals: &'a Signals,
) -> Result<Vec<Member<'a>>> {
    // The plan is made in the first direction, whichever it is now.
    let sides: Vec<_> = pairs
        .iter()
        .map(|maps| match state.is_back {
            false => (Side::of_map(&maps.old), Side::of_map(&maps.new)),
            true => (Side::of_map(&maps.new), Side::of_map(&maps.old)),
        })
        .collect();
    let names: Vec<_> = state.pairs.iter().map(|pair| pair.names.clone()).collect();
    let (plans, mut problems) = set::plan(&sides, &names, &state.fields, with);
    if state.switch.is_while_in_use() {
        problems.extend(sides.iter().filter_map(|(old, new)| match state.is_back {
            false => new.not_in_use(),
            true => old.not_in_use(),
        }));
    }
    if !state.is_back {
        plans.iter().flat_map(|plan| &plan.notes).for_each(note);
    }
    problems.iter().for_each(note);
    ensure!(
        problems.is_empty(),
        "{} cannot be migrated to {}: nothing was done (see --check)",
        list_maps(pairs.iter().map(|maps| &*maps.old)),
        list_maps(pairs.iter().map(|maps| &*maps.new)),
    );
    let mut members = Vec::new();
    for ((maps, plan), (old, new)) in pairs.iter().zip(plans).zip(&sides) {
        let back = match state.back {
            true => Some(Rc::new(plan.back(old, new).context("--back")?)),
            false => None,
        };
        if let Some(back) = &back {
            let notes = back.notes.iter();
            notes.for_each(|what| note(format!("the way back: {what}")));
        }
        let plan = Rc::new(plan);
        let (plan, other) = match (state.is_back, back) {
            (true, Some(back)) => (back, Some(plan)),
            (_, back) => (plan, back),
        };
        members.push(Member::new(maps.clone(), plan, other, kernel, signals)?);
    }
    Ok(members)
}

fn list_maps<'a>(maps: impl Iterator<Item = &'a Map>) -> String {
    maps.map(Map::label).collect::<Vec<_>>().join(", ")
}

struct Migration<'a> {
    args: &'a Migrate,
    state: State,
    members: Vec<Member<'a>>,
    /// The other direction, once it has begun, as long as it is not all there is.
    turned: Vec<Member<'a>>,
    places: Places,
    directory: Option<Directory>,
    kernel: &'a Kernel,
    signals: &'a Signals,
    users: Users,
    output: Output,
}

impl<'a> Migration<'a> {
    fn new(
        args: &'a Migrate,
        state: State,
        members: Vec<Member<'a>>,
        places: Places,
        directory: Option<Directory>,
        kernel: &'a Kernel,
        signals: &'a Signals,
    ) -> Self {
        Self {
            args,
            state,
            members,
            turned: Vec::new(),
            places,
            directory,
            kernel,
            signals,
            users: Users::default(),
            output: Output::stdout(),
        }
    }

    /// Where the link of a pair is pinned, if it is to be.
    fn link_path(&self, is_back: bool, index: usize) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.link(&State::link_name(is_back, index)))
    }

    fn enter(&mut self, phase: Phase) -> Result<()> {
        self.state.phase = phase;
        self.save()
    }

    fn save(&self) -> Result<()> {
        match &self.directory {
            Some(directory) => directory.save(&self.state),
            None => Ok(()),
        }
    }

    fn pairs(&self) -> Vec<Maps> {
        let pairs = self.members.iter().map(|member| member.maps.clone());
        pairs.collect()
    }

    /// Takes up the links that are pinned. False: not all of them are there.
    fn take_up(&mut self) -> Result<bool> {
        let mut all = true;
        for index in 0..self.members.len() {
            if let Some(path) = self.link_path(self.state.is_back, index) {
                let member = &mut self.members[index];
                all &= member.follows() || member.take_up(&path)?;
            }
        }
        Ok(all)
    }

    /// Has each new map follow its old one, if it does not yet.
    fn connect(&mut self) -> Result<()> {
        self.take_up()?;
        for index in 0..self.members.len() {
            let path = self.link_path(self.state.is_back, index);
            if !self.members[index].follows() {
                self.signals.check()?;
                self.members[index].attach(path.as_deref())?;
            }
        }
        Ok(())
    }

    /// Takes away all links, and what is pinned.
    fn dismantle(&mut self) -> Result<()> {
        self.detach_all()?;
        match self.directory.take() {
            Some(directory) => directory.remove(),
            None => Ok(()),
        }
    }

    fn detach_all(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            let path = self.link_path(self.state.is_back, index);
            self.members[index].detach(path.as_deref())?;
        }
        Ok(())
    }

    fn go(mut self, prune: bool) -> Result<u8> {
        let result = self.drive(prune);
        self.output.flush()?;
        if let (Err(_), Some(directory)) = (&result, &self.directory) {
            let path = directory.path.display();
            note(format!(
                "it is kept in {path}: --resume {path} goes on, --abort {path} takes it away"
            ));
        }
        result
    }

    fn drive(&mut self, prune: bool) -> Result<u8> {
        if self.state.phase.is_before_the_switch() {
            self.replay()?;
            if prune {
                self.prune()?;
            }
        }
        let mut status = 0;
        loop {
            match self.state.phase {
                Phase::Moving | Phase::InSync => {
                    self.settle(self.state.switch.stop.is_some())?;
                    if !self.state.switch.is_wanted() {
                        return self.follow();
                    }
                    self.begin_to_switch()?;
                }
                Phase::Stopping => self.stop()?,
                Phase::Stopped => self.compare_stopped()?,
                Phase::Starting => self.start()?,
                Phase::Switching => self.replace()?,
                Phase::Placing => status = self.place()?,
                Phase::Switched => {
                    if !self.turn()? {
                        return Ok(status);
                    }
                }
            }
        }
    }

    /// Waits until the new maps were told all that was there.
    fn replay(&mut self) -> Result<()> {
        let census = Census::best(false).0;
        let elements = census.and_then(|census| census.elements().ok());
        let total = self.members.iter().map(|member| {
            let old = &member.maps.old;
            match old.is_array() {
                true => Some(u64::from(old.max_entries)),
                false => elements.as_ref()?.get(&old.id).copied(),
            }
        });
        let mut bar = Bar::new(total.sum());
        for Maps { old, new } in self.pairs() {
            note(format!("{} -> {}: moving", old.label(), new.label()));
        }
        loop {
            self.check()?;
            let (mut sum, mut all) = (0, true);
            for member in &self.members {
                let (replayed, done) = member.replayed()?;
                sum += replayed;
                all &= done;
            }
            bar.show(sum, all);
            if all {
                return Ok(());
            }
        }
    }

    /// Errors: there is reason to end.
    fn check(&mut self) -> Result<()> {
        self.signals.check()?;
        let olds = self.members.iter().map(|member| &*member.maps.old);
        self.users.check(olds)
    }

    fn prune(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.prune(self.args.timeout)?;
        }
        Ok(())
    }

    /// Flushes all, and compares. With `values_later`, values are compared when nobody writes them.
    fn settle(&mut self, values_later: bool) -> Result<()> {
        for member in &mut self.members {
            let comparison = member.settle(values_later, self.args.timeout)?;
            if !self.args.json {
                report::list(comparison, &mut self.output)?;
            }
        }
        Ok(())
    }

    /// Whether what was compared is good enough to go on.
    fn is_good(&self, nobody_writes: bool) -> bool {
        self.members.iter().all(|member| {
            member.comparison.as_ref().is_some_and(|it| {
                it.differ() == 0
                    && (it.unfit() == 0 || self.state.partial)
                    && (it.unsettled() == 0 || !nobody_writes)
            })
        })
    }

    /// Of all pairs.
    fn sum(&self, count: impl Fn(&Comparison) -> u64) -> u64 {
        let comparisons = self.members.iter().filter_map(|it| it.comparison.as_ref());
        comparisons.map(count).sum()
    }

    fn entries(&self) -> u64 {
        self.sum(|comparison| comparison.entries)
    }

    /// What is wrong, of each pair.
    fn summary(&self) -> String {
        let parts: Vec<_> = self
            .members
            .iter()
            .map(|member| {
                let text = member.comparison.as_ref().map_or_else(String::new, summary);
                match &*self.members {
                    [_] => text,
                    _ => format!("{}: {text}", member.maps.new.label()),
                }
            })
            .collect();
        parts.join("; ")
    }

    /// The new maps follow the old ones until somebody ends it.
    fn follow(&mut self) -> Result<u8> {
        let is_good = self.is_good(false);
        self.enter(if is_good {
            Phase::InSync
        } else {
            Phase::Moving
        })?;
        if self.args.wait {
            self.report(&self.done()?, None)?;
            self.leave()?;
            return Ok(u8::from(!is_good));
        }
        note(match is_good {
            true => format!(
                "in sync: {} entries; it goes on until a signal comes",
                self.entries()
            ),
            false => format!(
                "not in sync: {}; it goes on until a signal comes",
                self.summary()
            ),
        });
        let ended = loop {
            if let Err(reason) = self.check() {
                break reason;
            }
            self.output.wait_for(-1, LOOK)?;
        };
        self.report(&self.done()?, None)?;
        self.leave()?;
        Err(ended)
    }

    /// Ends it, unless it is pinned.
    fn leave(&mut self) -> Result<()> {
        match &self.directory {
            Some(directory) => {
                note(format!("it goes on in {}", directory.path.display()));
                Ok(())
            }
            None => self.detach_all(),
        }
    }

    fn begin_to_switch(&mut self) -> Result<()> {
        ensure!(
            self.is_good(false),
            "not in sync, so nothing is switched: {}{}",
            self.summary(),
            match self.sum(Comparison::differ) {
                0 => " (--partial switches all the same)",
                _ => "",
            }
        );
        self.enter(Phase::InSync)?;
        note(format!("in sync: {} entries", self.entries()));
        self.state.stopped = Some(state::now());
        self.enter(match self.state.switch.stop {
            Some(_) => Phase::Stopping,
            None => Phase::Switching,
        })
    }

    /// Runs a command of the user. Whoever comes when this was killed knows that it ran, until the next
    /// phase is entered.
    fn run_command(&mut self, option: &str, command: &str) -> Result<()> {
        let ids = |id: fn(&Maps) -> u32| {
            let ids = self
                .members
                .iter()
                .map(|member| id(&member.maps).to_string());
            ids.collect::<Vec<_>>().join(" ")
        };
        let maps = (ids(|maps| maps.old.id), ids(|maps| maps.new.id));
        let signals = self.signals;
        let result = script::run(option, command, maps, signals, |child| {
            self.state.child = Some(child);
            self.save()
        });
        self.state.child = None;
        if result.is_err() {
            self.save()?;
        }
        result
    }

    /// A command of a maptrace that was killed.
    fn wait_for(&mut self, child: &Child) -> Result<()> {
        if child.runs() {
            note(format!("waiting for {child}, which was begun before"));
        }
        while child.runs() {
            self.signals.check()?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let command = self.state.switch.stop.clone().unwrap_or_default();
        self.run_command("--stop", &command)
            .context("nothing is switched")?;
        self.enter(Phase::Stopped)
    }

    fn compare_stopped(&mut self) -> Result<()> {
        self.settle(false).context(STOPPED)?;
        ensure!(self.is_good(true), "{}: {STOPPED}", self.summary());
        self.enter(Phase::Starting)
    }

    /// Nobody writes either of the maps, and they hold the same.
    fn start(&mut self) -> Result<()> {
        let done = self.done()?;
        if let Err(err) = self.places.put(&self.pairs()) {
            // Whoever goes on compares again.
            self.enter(Phase::Stopped)?;
            return Err(err.context(STOPPED));
        }
        // What waits to be told again would undo what the new programs write.
        self.detach_all()?;
        let started = self.turn_ahead().and_then(|()| {
            let command = self.state.switch.start.clone().unwrap_or_default();
            self.run_command("--start", &command)
        });
        if let Err(err) = started {
            self.places.put_back(&self.pairs());
            self.drop_turned()?;
            self.enter(Phase::Stopped)?;
            return Err(err.context("neither the old programs run nor the new ones"));
        }
        self.enter(Phase::Switched)?;
        let pause = self.state.stopped.map(|stopped| state::now() - stopped);
        self.report(&done, pause)
    }

    /// The new programs write the new maps from some moment on.
    fn replace(&mut self) -> Result<()> {
        ensure!(
            self.members.iter().all(Member::follows),
            "a link has gone while --switch ran: --abort takes away what is left"
        );
        let winner = match self.state.old_wins {
            true => Winner::Old,
            false => Winner::New,
        };
        for index in 0..self.members.len() {
            let path = self.link_path(self.state.is_back, index);
            self.members[index].hand_over(winner, path.as_deref())?;
        }
        if let Some(command) = self.state.switch.switch.clone() {
            if let Err(err) = self.run_command("--switch", &command) {
                self.take_back()?;
                return Err(err.context("nothing is switched"));
            }
        }
        self.enter(Phase::Placing)
    }

    /// Nothing was switched: the new maps are what the old ones are again.
    fn take_back(&mut self) -> Result<()> {
        if self.directory.is_none() {
            return Ok(());
        }
        for index in 0..self.members.len() {
            let path = self.link_path(self.state.is_back, index);
            self.members[index].take_back(path.as_deref())?;
        }
        self.enter(Phase::InSync)?;
        // Not where a signal has come; whoever goes on does it.
        match self.signals.check() {
            Ok(()) => self.prune(),
            Err(_) => Ok(()),
        }
    }

    fn place(&mut self) -> Result<u8> {
        self.places
            .put(&self.pairs())
            .with_context(|| match self.state.switch.switch {
                Some(_) => "--switch is done, but the new map is not where the old one is",
                None => "nothing is switched",
            })?;
        // What the old programs were about to write when they were replaced.
        let mut all_told = true;
        for member in &self.members {
            if member.follows() {
                all_told &= member.flush(&[], self.args.timeout)?;
            }
        }
        if !all_told {
            note("some of what was written during the switch does not fit");
        }
        let done = self.done()?;
        self.enter(Phase::Switched)?;
        self.report(&done, None)?;
        let lost = done.iter().flatten().any(|done| done.lost > 0);
        Ok(u8::from(!all_told || lost))
    }

    /// The new maps are the ones. True: the old ones follow them now.
    fn turn(&mut self) -> Result<bool> {
        // A link whose pin is taken away goes some time later, and both directions are a loop.
        self.take_up()?;
        self.detach_all()?;
        if !self.state.back {
            self.dismantle()?;
            return Ok(false);
        }
        if self.turned.is_empty() {
            self.turned = self.turned_members()?;
        }
        self.members = std::mem::take(&mut self.turned);
        self.state.is_back = !self.state.is_back;
        self.state.phase = Phase::Moving;
        self.state.switch.forget_commands();
        self.save()?;
        let places = Places::find(&self.state.switch, &self.pairs(), true, self.kernel)?;
        self.places = places;
        note("the new maps are the ones, and the old ones follow them from here");
        self.connect()?;
        self.replay()?;
        self.prune()?;
        Ok(true)
    }

    fn turned_members(&self) -> Result<Vec<Member<'a>>> {
        self.members.iter().map(Member::turned).collect()
    }

    /// The old maps follow the new ones from before the first change of these on.
    fn turn_ahead(&mut self) -> Result<()> {
        if !self.state.back {
            return Ok(());
        }
        self.turned = self.turned_members()?;
        for index in 0..self.turned.len() {
            let path = self.link_path(!self.state.is_back, index);
            let member = &mut self.turned[index];
            let is_there = match &path {
                Some(path) => member.take_up(path)?,
                None => false,
            };
            if !is_there {
                member.attach(path.as_deref())?;
            }
        }
        Ok(())
    }

    fn drop_turned(&mut self) -> Result<()> {
        for index in 0..self.turned.len() {
            let path = self.link_path(!self.state.is_back, index);
            self.turned[index].detach(path.as_deref())?;
        }
        self.turned.clear();
        Ok(())
    }

    /// What the links have done, where they are there.
    fn done(&self) -> Result<Vec<Option<Done>>> {
        let done = self.members.iter().map(|member| match member.follows() {
            true => member.done().map(Some),
            false => Ok(None),
        });
        done.collect()
    }

    fn report(&mut self, done: &[Option<Done>], pause: Option<f64>) -> Result<()> {
        for (member, done) in self.members.iter().zip(done) {
            let Some(done) = done else {
                let Maps { old, new } = &member.maps;
                note(format!("{} -> {}: switched", old.label(), new.label()));
                continue;
            };
            let report = Report {
                maps: &member.maps,
                done: *done,
                comparison: member.comparison.as_ref(),
                unfit: member.unfit(),
                seconds: state::now() - self.state.began,
                pause,
            };
            report.print(self.args.json, &mut self.output)?;
        }
        Ok(())
    }
}

const STOPPED: &str =
    "the old programs were stopped (--stop), and nothing is switched: start them again";
