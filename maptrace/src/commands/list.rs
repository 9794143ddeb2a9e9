// SPDX-License-Identifier: GPL-2.0

use crate::{
    census::Census,
    cli::List,
    kernel::{Kernel, TraceLinkInfo},
    map::{self, parse_selectors, Map},
    output::{note, table, Output, Signals},
};
use anyhow::Result;
use libbpf_rs::query::ProgInfoIter;
use serde_json::{json, Value as Json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::{replace, take},
    time::{Duration, Instant},
};

/// The columns, and which of them have numbers, which are aligned on the right.
const HEADER: [(&str, bool); 13] = [
    ("ID", false),
    ("NAME", false),
    ("TYPE", false),
    ("ELEMENTS", true),
    ("EVICTED/S", true),
    ("LINK", true),
    ("KIND", false),
    ("PROG", false),
    ("MISSED", true),
    ("FAILED", true),
    ("REPLAYED", true),
    ("PENDING", true),
    ("LOST", true),
];

/// What is known of a moment.
struct View {
    maps: BTreeMap<u32, Map>,
    /// The maps that are in a map of maps.
    inner: BTreeMap<u32, Vec<u32>>,
    links: Vec<TraceLinkInfo>,
    programs: HashMap<u32, String>,
    elements: HashMap<u32, u64>,
    /// Evicted a second.
    evicted: HashMap<u32, f64>,
    /// Which ones to show, and not only for what is in them.
    wanted: BTreeSet<u32>,
}

pub fn run(args: &List) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    let selectors = parse_selectors(&args.maps)?;
    // Says so at once where there is no such map.
    let selected = map::select(&selectors, &kernel)?;
    let selected: BTreeSet<u32> = selected.into_iter().map(|map| map.id).collect();
    let (census, notes) = Census::best(args.watch.is_some());
    notes.into_iter().for_each(note);
    let mut output = Output::stdout();
    let mut before: HashMap<u32, u64> = HashMap::new();
    let mut since = Instant::now();
    let mut left = args.count.unwrap_or(u64::MAX);
    loop {
        if let Some(interval) = args.watch {
            sleep(interval, &mut output, &signals)?;
        }
        let mut view = View::new(&kernel, census.as_ref(), args, &selected)?;
        let seconds = since.elapsed().as_secs_f64();
        since = Instant::now();
        if let Some(census) = census.as_ref().filter(|census| census.counts_evictions()) {
            for map in view.maps.values().filter(|map| map.is_lru()) {
                let now = census.evicted(map.id);
                let new = now - before.insert(map.id, now).unwrap_or(0).min(now);
                view.evicted.insert(map.id, new as f64 / seconds);
            }
        }
        match args.json {
            true => output.line(view.json(&kernel))?,
            false => view.text(&kernel, args.watch.is_some(), &mut output)?,
        }
        output.flush()?;
        left -= 1;
        if args.watch.is_none() || left == 0 {
            return Ok(0);
        }
    }
}

/// Waits, and looks meanwhile whether it is to end.
fn sleep(interval: Duration, output: &mut Output, signals: &Signals) -> Result<()> {
    let end = Instant::now() + interval;
    loop {
        signals.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        output.wait_for(
            -1,
            left.clamp(Duration::from_millis(1), Duration::from_millis(200)),
        )?;
    }
}

impl View {
    fn new(
        kernel: &Kernel,
        census: Option<&Census>,
        args: &List,
        selected: &BTreeSet<u32>,
    ) -> Result<Self> {
        let maps: BTreeMap<u32, Map> = map::all(kernel)?
            .into_iter()
            .map(|map| (map.id, map))
            .collect();
        let links = kernel.trace_links()?;
        let inner = maps
            .values()
            .filter(|map| map.holds_maps())
            .map(|map| (map.id, map.inner_ids()))
            .collect();
        let wanted = maps
            .keys()
            .copied()
            .filter(|id| match selected.is_empty() {
                true => args.all || links.iter().any(|link| link.map_id == *id),
                false => selected.contains(id),
            })
            .collect();
        Ok(Self {
            inner,
            programs: ProgInfoIter::default()
                .map(|info| (info.id, info.name.to_string_lossy().into_owned()))
                .collect(),
            elements: census.map_or_else(|| Ok(HashMap::new()), Census::elements)?,
            evicted: HashMap::new(),
            wanted,
            links,
            maps,
        })
    }

    /// Those that come first: the others are in one of them.
    fn outermost(&self) -> Vec<&Map> {
        let is_inner = |id: &u32| {
            self.inner
                .iter()
                .any(|(outer, inner)| inner.contains(id) && self.maps.contains_key(outer))
        };
        self.maps
            .values()
            .filter(|map| {
                let holds_wanted = || self.inner_maps(map.id).next().is_some();
                match self.wanted.contains(&map.id) {
                    true => !is_inner(&map.id),
                    false => holds_wanted(),
                }
            })
            .collect()
    }

    /// Those of the maps in a map that are to be shown; all where it was asked for itself.
    fn inner_maps(&self, outer: u32) -> impl Iterator<Item = &Map> {
        let all = self.wanted.contains(&outer);
        let mut ids: Vec<u32> = self.inner.get(&outer).cloned().unwrap_or_default();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .filter(move |id| all || self.wanted.contains(id))
            .filter_map(|id| self.maps.get(&id))
    }

    fn links_of(&self, id: u32) -> impl Iterator<Item = &TraceLinkInfo> {
        self.links.iter().filter(move |link| link.map_id == id)
    }

    fn program(&self, id: u32) -> &str {
        self.programs.get(&id).map_or("", |name| name)
    }

    fn text(&self, kernel: &Kernel, evictions: bool, output: &mut Output) -> Result<()> {
        let shown = self.outermost();
        if shown.is_empty() {
            match kernel.attach_type() {
                Ok(_) => note("no map is traced; --all shows those that are not"),
                Err(err) => note(format!(
                    "no map is traced, --all shows those that are not: {err}"
                )),
            }
            return Ok(());
        }
        let header = HEADER.map(|(name, _)| name.to_owned());
        let mut rows = vec![header.to_vec()];
        for map in shown {
            self.rows(kernel, map, "", &mut rows);
            for inner in self.inner_maps(map.id) {
                self.rows(kernel, inner, "  ", &mut rows);
            }
        }
        // Columns that have nothing to say are left out.
        let last = HEADER.len() - 1;
        let any_sync = rows[1..]
            .iter()
            .any(|row| row.len() > last && !row[last].is_empty());
        let is_shown = |column: usize| match HEADER[column].0 {
            "EVICTED/S" => evictions,
            "REPLAYED" | "PENDING" | "LOST" => any_sync,
            _ => true,
        };
        let columns: Vec<_> = (0..HEADER.len())
            .filter(|column| is_shown(*column))
            .collect();
        let right: Vec<_> = (0..columns.len())
            .filter(|at| HEADER[columns[*at]].1)
            .collect();
        for row in &mut rows {
            row.resize(HEADER.len(), String::new());
            *row = columns
                .iter()
                .map(|column| take(&mut row[*column]))
                .collect();
        }
        for line in table(&rows, &right) {
            output.line(line)?;
        }
        Ok(())
    }

    /// A row for each link, or one.
    fn rows(&self, kernel: &Kernel, map: &Map, indent: &str, rows: &mut Vec<Vec<String>>) {
        let elements = match self.elements.get(&map.id) {
            Some(elements) => format!("{elements}/{}", map.max_entries),
            None => format!("-/{}", map.max_entries),
        };
        let evicted = self.evicted.get(&map.id);
        let mut first = vec![
            format!("{indent}{}", map.id),
            map.name.clone(),
            map.type_name.clone(),
            elements,
            evicted.map_or_else(String::new, |rate| format!("{rate:.1}")),
        ];
        let mut any = false;
        for link in self.links_of(map.id) {
            any = true;
            first.extend([
                link.id.to_string(),
                kernel.trace_type_name(link.trace_type),
                format!("{} {}", link.prog_id, self.program(link.prog_id)),
                link.missed.to_string(),
                link.failed.to_string(),
            ]);
            first.extend(match kernel.is_sync(link.trace_type) {
                true => [link.replayed, link.pending, link.lost].map(|count| count.to_string()),
                false => Default::default(),
            });
            rows.push(replace(&mut first, vec![String::new(); 5]));
        }
        if !any {
            rows.push(first);
        }
    }

    fn json(&self, kernel: &Kernel) -> Json {
        let maps: Vec<_> = self
            .outermost()
            .into_iter()
            .map(|map| {
                let mut json = self.json_map(kernel, map);
                if map.holds_maps() {
                    let inner: Vec<_> = self
                        .inner_maps(map.id)
                        .map(|inner| self.json_map(kernel, inner))
                        .collect();
                    json["inner"] = inner.into();
                }
                json
            })
            .collect();
        json!({ "maps": maps })
    }

    fn json_map(&self, kernel: &Kernel, map: &Map) -> Json {
        let links: Vec<_> = self
            .links_of(map.id)
            .map(|link| {
                let mut json = json!({
                    "id": link.id,
                    "kind": kernel.trace_type_name(link.trace_type),
                    "prog": { "id": link.prog_id, "name": self.program(link.prog_id) },
                    "missed": link.missed,
                    "failed": link.failed,
                });
                if kernel.is_sync(link.trace_type) {
                    json["replayed"] = link.replayed.into();
                    json["pending"] = link.pending.into();
                    json["lost"] = link.lost.into();
                }
                json
            })
            .collect();
        let mut json = json!({
            "id": map.id,
            "name": map.name,
            "type": map.type_name,
            "max_entries": map.max_entries,
            "elements": self.elements.get(&map.id),
            "links": links,
        });
        if let Some(rate) = self.evicted.get(&map.id) {
            json["evicted_per_second"] = (*rate).into();
        }
        json
    }
}
