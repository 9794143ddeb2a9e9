// SPDX-License-Identifier: GPL-2.0

//! Recordings: what is written is read, and what is wrong with them is said.

use maptrace::format::{By, End, Header, Hex, Line, Reader, RecordedMap, State, VERSION};
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEY_SIZE: usize = 2;
const VALUE_SIZE: usize = 3;

fn map(cpus: usize, percpu: bool) -> RecordedMap {
    RecordedMap {
        id: 7,
        name: "conns".to_owned(),
        type_name: "hash".to_owned(),
        key_size: KEY_SIZE,
        value_size: VALUE_SIZE,
        max_entries: 16,
        cpus,
        percpu,
    }
}

fn recording(map: &RecordedMap, lines: &[Line]) -> String {
    let header = Header {
        maptrace: VERSION,
        time: "2026-01-01T00:00:00Z".to_owned(),
        map: map.clone(),
    };
    let mut text = serde_json::to_string(&header).unwrap() + "\n";
    for line in lines {
        text += &(serde_json::to_string(line).unwrap() + "\n");
    }
    text
}

fn read(text: &str) -> anyhow::Result<(Vec<Line>, Option<End>)> {
    let mut reader = Reader::new(text.as_bytes())?;
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line()? {
        lines.push(line);
    }
    let end = reader.end().cloned();
    Ok((lines, end))
}

fn hex(len: usize) -> impl Strategy<Value = Hex> {
    prop::collection::vec(any::<u8>(), len).prop_map(Hex)
}

/// Few keys, so that they are met again.
fn key() -> impl Strategy<Value = Hex> {
    (0..4_u8).prop_map(|key| Hex(vec![key, 0]))
}

fn by() -> impl Strategy<Value = By> {
    (any::<u64>(), any::<u32>(), ".{0,15}").prop_map(|(time_ns, pid, comm)| By {
        time_ns,
        pid,
        comm,
    })
}

fn change(cpus: usize) -> impl Strategy<Value = Line> {
    prop_oneof![
        (key(), hex(VALUE_SIZE), any::<u64>(), 0..cpus as u32, by()).prop_map(
            |(key, value, flags, cpu, by)| Line::Update {
                key,
                value,
                flags,
                cpu,
                by
            }
        ),
        (key(), by()).prop_map(|(key, by)| Line::Delete { key, by }),
    ]
}

fn element(cpus: usize) -> impl Strategy<Value = Line> {
    (key(), prop::collection::vec(hex(VALUE_SIZE), cpus))
        .prop_map(|(key, values)| Line::Element { key, values })
}

fn lines(cpus: usize) -> impl Strategy<Value = Vec<Line>> {
    let elements = prop::collection::vec(element(cpus), 0..6);
    let changes = prop::collection::vec(change(cpus), 0..20);
    (elements, changes).prop_map(|(mut lines, changes)| {
        let end = End {
            elements: lines.len() as u64,
            changes: changes.len() as u64,
            ..Default::default()
        };
        lines.extend(changes);
        lines.push(Line::Consistent);
        lines.push(Line::End(end));
        lines
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(lines in lines(2)) {
        let (found, end) = read(&recording(&map(2, true), &lines)).unwrap();
        prop_assert_eq!(&found, &lines);
        prop_assert!(end.is_some());
    }

    /// In whatever moment an element was read, before or after a change that was traced: what
    /// comes out in the end is what the last change has made of its key.
    #[test]
    fn elements_may_be_older_or_newer_than_the_changes(
        before in prop::collection::btree_map(0..4_u8, hex(VALUE_SIZE), 0..4),
        changes in prop::collection::vec(change(1), 0..20),
        moments in prop::collection::vec(any::<prop::sample::Index>(), 4),
    ) {
        let map = map(1, false);
        // What the map held after each change.
        let mut state = State::default();
        for (key, value) in &before {
            let key = Hex(vec![*key, 0]);
            let values = vec![value.clone()];
            state.apply(&map, &Line::Element { key, values }).unwrap();
        }
        let mut history = vec![state.clone()];
        for change in &changes {
            state.apply(&map, change).unwrap();
            history.push(state.clone());
        }
        // Each key is read at a moment of its own.
        let mut lines = Vec::new();
        for key in 0..4_u8 {
            let moment = &history[moments[key as usize].index(history.len())];
            if let Some(values) = moment.elements.get(&vec![key, 0]) {
                let values = values.iter().cloned().map(Hex).collect();
                lines.push(Line::Element { key: Hex(vec![key, 0]), values });
            }
        }
        lines.extend(changes);
        let mut replayed = State::default();
        for line in &lines {
            replayed.apply(&map, line).unwrap();
        }
        prop_assert_eq!(replayed, state);
    }

    #[test]
    fn a_recording_that_was_cut_off_has_no_end(lines in lines(1), cut in any::<prop::sample::Index>()) {
        let text = recording(&map(1, false), &lines);
        let body = text.find('\n').unwrap() + 1;
        let at = body + cut.index(text.len() - body);
        // It may be in the middle of a line, and in that of a character.
        if let Some(text) = text.get(..at) {
            let whole = text.ends_with('}') && text.contains("\"op\":\"end\"");
            prop_assert!(whole || !matches!(read(text), Ok((_, Some(_)))));
        }
    }

    #[test]
    fn whatever_it_is_it_is_no_reason_to_panic(text in ".*\n.*") {
        let _ = read(&text);
        let first = recording(&map(1, false), &[]);
        prop_assert!(read(&(first + &text)).is_err() || text.trim().is_empty());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let element = |key: usize, values: &[usize]| Line::Element {
        key: Hex(vec![0; key]),
        values: values.iter().map(|len| Hex(vec![0; *len])).collect(),
    };
    let by = By {
        time_ns: 0,
        pid: 0,
        comm: String::new(),
    };
    let update = Line::Update {
        key: Hex(vec![0; KEY_SIZE]),
        value: Hex(vec![0; VALUE_SIZE]),
        flags: 0,
        cpu: 2,
        by,
    };
    for (line, what) in [
        (element(1, &[3, 3]), "a key of 1 bytes, not 2"),
        (element(2, &[3]), "1 values, not 2"),
        (element(2, &[3, 4]), "a value of 4 bytes, not 3"),
        (update, "CPU 2, and there are 2"),
    ] {
        let err = read(&recording(&map(2, true), &[line])).unwrap_err();
        let err = format!("{err:#}");
        assert!(err.starts_with("line 2: ") && err.contains(what), "{err}");
    }
    let end = Line::End(End::default());
    let err = read(&recording(&map(1, false), &[end.clone(), end])).unwrap_err();
    assert!(format!("{err:#}").contains("line 3: after the end"));
}

#[test]
fn a_delete_takes_the_values_of_all_cpus() {
    let map = map(2, true);
    let key = Hex(vec![1, 0]);
    let by = By {
        time_ns: 0,
        pid: 1,
        comm: "x".to_owned(),
    };
    let update = |cpu, byte| Line::Update {
        key: key.clone(),
        value: Hex(vec![byte; VALUE_SIZE]),
        flags: 0,
        cpu,
        by: by.clone(),
    };
    let mut state = State::default();
    state.apply(&map, &update(1, 5)).unwrap();
    let values = vec![vec![0; VALUE_SIZE], vec![5; VALUE_SIZE]];
    assert_eq!(state.elements, BTreeMap::from([(vec![1, 0], values)]));
    let delete = Line::Delete {
        key: key.clone(),
        by: by.clone(),
    };
    state.apply(&map, &delete).unwrap();
    assert!(state.elements.is_empty());
    // The value of another CPU does not come back with the key.
    state.apply(&map, &update(0, 6)).unwrap();
    assert_eq!(state.elements[&vec![1, 0]][1], vec![0; VALUE_SIZE]);
}
