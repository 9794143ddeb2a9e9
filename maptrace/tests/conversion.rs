// SPDX-License-Identifier: GPL-2.0

//! Keys and values of any layout, and what becomes of them in another one.

use maptrace::{
    conversion::{parse_map, parse_set, Conversion, Fate, Field, Part, Wishes},
    layout::{same, Kind, Layout, Member},
};
use proptest::prelude::*;

fn int(size: usize, signed: bool) -> Layout {
    let kind = Kind::Int {
        signed,
        big_endian: false,
    };
    Layout { size, kind }
}

fn big(size: usize) -> Layout {
    let kind = Kind::Int {
        signed: false,
        big_endian: true,
    };
    Layout { size, kind }
}

fn plain(size: usize, kind: Kind) -> Layout {
    Layout { size, kind }
}

fn array(element: Layout, count: usize) -> Layout {
    Layout {
        size: element.size * count,
        kind: Kind::Array {
            element: Box::new(element),
            count,
        },
    }
}

fn enumeration(size: usize, names: &[(i128, &str)]) -> Layout {
    let names = names
        .iter()
        .map(|(value, name)| (*value, (*name).to_owned()));
    Layout {
        size,
        kind: Kind::Enum {
            signed: false,
            names: names.collect(),
        },
    }
}

/// Members one after the other: name, type, and bits of a bitfield.
fn record(parts: &[(&str, Layout, usize)]) -> Layout {
    let mut at = 0;
    let mut members = Vec::new();
    for (name, layout, bits) in parts {
        if *bits == 0 {
            at = usize::next_multiple_of(at, 8 * layout.size.clamp(1, 8).next_power_of_two());
        } else if at % (layout.size * 8) + bits > layout.size * 8 {
            at = usize::next_multiple_of(at, layout.size * 8);
        }
        members.push(Member {
            name: (*name).to_owned(),
            bit_offset: at,
            bits: *bits,
            layout: layout.clone(),
        });
        at += if *bits == 0 { layout.size * 8 } else { *bits };
    }
    Layout {
        size: at.div_ceil(64) * 8,
        kind: Kind::Struct(members),
    }
}

/// All members at the beginning.
fn union(parts: &[(&str, Layout)]) -> Layout {
    let members = parts.iter().map(|(name, layout)| Member {
        name: (*name).to_owned(),
        bit_offset: 0,
        bits: 0,
        layout: layout.clone(),
    });
    Layout {
        size: parts
            .iter()
            .map(|(_, layout)| layout.size)
            .max()
            .unwrap_or(0),
        kind: Kind::Struct(members.collect()),
    }
}

fn fields(words: &[&str]) -> Vec<Field> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

fn values(old: &Layout, new: &Layout, wishes: &Wishes) -> Conversion {
    Conversion::new(Part::Value, old, new, wishes)
}

fn keys(old: &Layout, new: &Layout, wishes: &Wishes) -> Conversion {
    Conversion::new(Part::Key, old, new, wishes)
}

fn fate(conversion: &Conversion, name: &str) -> Fate {
    let is_it = |side: &Option<(String, String)>| side.as_ref().is_some_and(|(it, _)| it == name);
    let row = conversion.rows.iter().find(|row| is_it(&row.new));
    let row = row.or_else(|| conversion.rows.iter().find(|row| is_it(&row.old)));
    row.unwrap_or_else(|| panic!("no {name} in {:#?}", conversion.rows))
        .fate
        .clone()
}

fn none() -> Wishes {
    Wishes::default()
}

fn converts(conversion: &Conversion) {
    assert_eq!(conversion.problems(), Vec::<String>::new());
}

fn refuses(conversion: &Conversion, why: &str) {
    let problems = conversion.problems();
    assert!(
        problems.iter().any(|problem| problem.contains(why)),
        "{why:?} is not in {problems:?}"
    );
}

#[test]
fn fields_go_where_their_names_are() {
    let old = record(&[("a", int(4, false), 0), ("b", int(2, true), 0)]);
    let new = record(&[
        ("b", int(4, true), 0),
        ("c", int(4, false), 0),
        ("a", int(8, false), 0),
    ]);
    let conversion = values(&old, &new, &none());
    converts(&conversion);
    assert_eq!(fate(&conversion, "value.a"), Fate::Widened);
    assert_eq!(fate(&conversion, "value.b"), Fate::Widened);
    assert_eq!(fate(&conversion, "value.c"), Fate::Zero);
    let bytes = [0xfe, 0xff, 0xff, 0xff, 0xfd, 0xff, 0x55, 0x55];
    let converted = conversion.apply(&bytes).unwrap();
    assert_eq!(converted[..4], (-3_i32).to_le_bytes());
    assert_eq!(converted[4..8], [0; 4]);
    assert_eq!(converted[8..], 0xffff_fffe_u64.to_le_bytes());
}

#[test]
fn what_is_the_same_is_one_copy() {
    let layout = record(&[("a", int(4, false), 0), ("b", int(1, true), 0)]);
    let conversion = values(&layout, &layout, &none());
    converts(&conversion);
    assert!(conversion.is_identity());
    // Padding of keys belongs to them.
    assert!(keys(&layout, &layout, &none()).is_identity());
    let untyped = Layout::bytes(12);
    assert!(values(&untyped, &untyped, &none()).is_identity());
    refuses(
        &values(&untyped, &Layout::bytes(16), &none()),
        "12 bytes does not become",
    );
}

#[test]
fn narrowing_has_to_be_asked_for_and_is_checked() {
    let old = record(&[("a", int(8, false), 0), ("b", int(4, true), 0)]);
    let new = record(&[("a", int(4, false), 0), ("b", int(4, false), 0)]);
    let refused = values(&old, &new, &none());
    refuses(&refused, "--narrow value.a");
    refuses(&refused, "--narrow value.b");
    let wishes = Wishes {
        narrow: fields(&["a", "value.b"]),
        ..none()
    };
    let conversion = values(&old, &new, &wishes);
    converts(&conversion);
    assert_eq!(fate(&conversion, "value.a"), Fate::Narrowed);
    let value = |a: u64, b: i32| [&a.to_le_bytes()[..], &b.to_le_bytes(), &[0; 4]].concat();
    let fits = conversion.apply(&value(0xffff_ffff, 7)).unwrap();
    assert_eq!(fits, [0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0]);
    let cut = |a, b| conversion.apply(&value(a, b)).unwrap_err().field;
    assert_eq!(cut(1 << 32, 7), "value.a");
    assert_eq!(cut(1, -7), "value.b");
}

#[test]
fn nothing_is_lost_that_nobody_has_dropped() {
    let old = record(&[("a", int(4, false), 0), ("b", int(4, false), 0)]);
    let new = record(&[("a", int(4, false), 0)]);
    refuses(&values(&old, &new, &none()), "--drop value.b");
    let wishes = Wishes {
        drop: fields(&["b"]),
        ..none()
    };
    let conversion = values(&old, &new, &wishes);
    converts(&conversion);
    assert_eq!(fate(&conversion, "value.b"), Fate::Dropped);
    // A wish that nothing comes of is a mistake.
    refuses(&values(&new, &new, &wishes), "of no use");
}

#[test]
fn fields_are_renamed() {
    let inner = |name| record(&[(name, int(2, false), 0), ("keep", int(2, false), 0)]);
    let old = record(&[("stats", inner("bytes"), 0), ("x", int(8, false), 0)]);
    let new = record(&[("stats", inner("octets"), 0), ("y", int(8, false), 0)]);
    let wishes = Wishes {
        map: vec![
            parse_map("stats.bytes=stats.octets").unwrap(),
            parse_map("x=y").unwrap(),
        ],
        ..none()
    };
    let conversion = values(&old, &new, &wishes);
    converts(&conversion);
    assert_eq!(conversion.steps.len(), 2);
    let bytes: Vec<u8> = (1..=16).collect();
    let mask = {
        let mut mask = vec![0; 16];
        new.mark(&mut mask);
        mask
    };
    assert!(same(&conversion.apply(&bytes).unwrap(), &bytes, &mask));
    let wrong = Wishes {
        map: vec![parse_map("nothing=y").unwrap()],
        ..none()
    };
    refuses(&values(&old, &new, &wrong), "no value.nothing");
    // In each element of an array
    let conversion = {
        let old = record(&[("rules", array(inner("bytes"), 3), 0)]);
        let new = record(&[("rules", array(inner("octets"), 4), 0)]);
        let wishes = Wishes {
            map: vec![parse_map("rules.bytes=rules.octets").unwrap()],
            ..none()
        };
        values(&old, &new, &wishes)
    };
    converts(&conversion);
    let converted = conversion.apply(&(1..=24).collect::<Vec<u8>>()).unwrap();
    assert_eq!(converted[16..18], [17, 18]);
    assert_eq!(converted[24..], [0; 8]);
}

#[test]
fn new_fields_are_zero_or_set() {
    let old = record(&[("a", int(4, false), 0)]);
    let new = record(&[
        ("a", int(4, false), 0),
        ("version", int(2, false), 0),
        ("flag", int(4, false), 3),
        (
            "inner",
            record(&[("owner", array(plain(1, Kind::Char), 8), 0)]),
            0,
        ),
    ]);
    let wishes = Wishes {
        set: vec![
            parse_set("version=0x0201").unwrap(),
            parse_set("flag=5").unwrap(),
            parse_set("inner.owner=root").unwrap(),
        ],
        ..none()
    };
    let conversion = values(&old, &new, &wishes);
    converts(&conversion);
    let converted = conversion.apply(&[9, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(
        new.decode(&converted).to_string(),
        "{a: 9, version: 258, flag: 5, inner: {owner: \"root\"}}"
    );
    let wishes = Wishes {
        set: vec![parse_set("a=1").unwrap(), parse_set("flag=9").unwrap()],
        ..none()
    };
    let refused = values(&old, &new, &wishes);
    refuses(&refused, "the old map has it");
    refuses(&refused, "9 does not fit into 3 bits");
}

#[test]
fn two_old_keys_never_become_one() {
    let old = record(&[("a", int(4, false), 0), ("b", int(1, false), 0)]);
    let new = record(&[("a", int(4, false), 0)]);
    refuses(
        &keys(&old, &new, &none()),
        "two keys that differ in it would become one",
    );
    let wishes = Wishes {
        narrow: fields(&["key.b"]),
        ..none()
    };
    let conversion = keys(&old, &new, &wishes);
    converts(&conversion);
    assert!(conversion.apply(&[1, 0, 0, 0, 0, 0, 0, 0]).is_ok());
    assert_eq!(
        conversion
            .apply(&[1, 0, 0, 0, 2, 0, 0, 0])
            .unwrap_err()
            .field,
        "key.b"
    );
    // What is in the padding tells keys apart as well.
    assert_eq!(
        conversion
            .apply(&[1, 0, 0, 0, 0, 0, 0, 3])
            .unwrap_err()
            .field,
        "key (padding)"
    );
    // A value's does not.
    let wishes = Wishes {
        drop: fields(&["b"]),
        ..none()
    };
    assert!(values(&old, &new, &wishes)
        .apply(&[1, 0, 0, 0, 2, 0, 0, 3])
        .is_ok());
}

#[test]
fn keys_do_not_depend_on_values() {
    let old = record(&[("a", int(4, false), 0)]);
    let new = record(&[("a", int(4, false), 0), ("b", int(4, false), 0)]);
    let wishes = Wishes {
        map: vec![parse_map("value.x=key.b").unwrap()],
        ..none()
    };
    refuses(
        &keys(&old, &new, &wishes),
        "a delete knows only the old key",
    );
}

#[test]
fn numbers_on_the_wire_stay_there() {
    let old = record(&[("port", big(2), 0), ("address", big(4), 0)]);
    let new = record(&[("port", big(4), 0), ("address", plain(4, Kind::Address), 0)]);
    let conversion = values(&old, &new, &none());
    converts(&conversion);
    let converted = conversion.apply(&[0x01, 0xbb, 0, 0, 10, 0, 0, 1]).unwrap();
    assert_eq!(converted, [0, 0, 0x01, 0xbb, 10, 0, 0, 1]);
    let host = record(&[("port", int(2, false), 0), ("address", int(4, false), 0)]);
    let refused = values(&old, &host, &none());
    refuses(&refused, "value.port: another byte order");
    let wishes = Wishes {
        bytes: fields(&["port", "address"]),
        ..none()
    };
    let conversion = values(&old, &host, &wishes);
    converts(&conversion);
    assert_eq!(
        conversion.apply(&[1, 2, 0, 0, 5, 6, 7, 8]).unwrap(),
        [1, 2, 0, 0, 5, 6, 7, 8]
    );
}

#[test]
fn arrays_get_longer_and_shorter_only_if_the_rest_is_zero() {
    let old = array(int(4, false), 3);
    let longer = values(&old, &array(int(8, false), 4), &none());
    converts(&longer);
    let bytes: Vec<u8> = [1_u32, 2, 3].iter().flat_map(|n| n.to_le_bytes()).collect();
    let expected: Vec<u8> = [1_u64, 2, 3, 0]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    assert_eq!(longer.apply(&bytes).unwrap(), expected);
    let new = array(int(4, false), 2);
    refuses(&values(&old, &new, &none()), "3 elements, and 2");
    let wishes = Wishes {
        narrow: fields(&["value"]),
        ..none()
    };
    let shorter = values(&old, &new, &wishes);
    converts(&shorter);
    assert!(shorter.apply(&bytes).is_err());
    assert_eq!(
        shorter
            .apply(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
            .unwrap(),
        bytes[..8]
    );
}

#[test]
fn enums_keep_what_their_names_mean() {
    let old = enumeration(4, &[(0, "NONE"), (1, "TCP")]);
    let more = enumeration(1, &[(0, "NONE"), (1, "TCP"), (2, "UDP")]);
    let wishes = Wishes {
        narrow: fields(&["value"]),
        ..none()
    };
    converts(&values(&old, &more, &wishes));
    converts(&values(&old, &int(8, false), &none()));
    let moved = enumeration(4, &[(0, "NONE"), (2, "TCP")]);
    refuses(
        &values(&old, &moved, &none()),
        "TCP is 1, and 2 in the new map",
    );
}

#[test]
fn unions_stay_as_they_are() {
    let old = record(&[
        ("kind", int(4, false), 0),
        (
            "u",
            union(&[("v4", int(4, false)), ("bytes", array(int(1, false), 8))]),
            0,
        ),
    ]);
    let grown = union(&[
        ("v4", int(4, false)),
        ("bytes", array(int(1, false), 8)),
        ("v6", array(int(1, false), 16)),
    ]);
    let new = record(&[("kind", int(8, false), 0), ("u", grown, 0)]);
    let conversion = values(&old, &new, &none());
    converts(&conversion);
    let converted = conversion
        .apply(&[7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        .unwrap();
    assert_eq!(converted[..8], [7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        converted[8..24],
        [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    let changed = union(&[("v4", int(8, false)), ("bytes", array(int(1, false), 8))]);
    let new = record(&[("kind", int(4, false), 0), ("u", changed, 0)]);
    refuses(&values(&old, &new, &none()), "a union that changes");
}

#[test]
fn what_is_the_kernels_is_not_copied() {
    let timer = || plain(16, Kind::Special("bpf_timer".to_owned()));
    let old = record(&[("a", int(4, false), 0), ("timer", timer(), 0)]);
    let new = record(&[("timer", timer(), 0), ("a", int(8, false), 0)]);
    let conversion = values(&old, &new, &none());
    converts(&conversion);
    assert_eq!(fate(&conversion, "value.timer"), Fate::Special);
    assert_eq!(conversion.apply(&[1; 24]).unwrap()[..16], [0; 16]);
    let same = values(&old, &old, &none());
    converts(&same);
    assert!(!same.is_identity());
    // That it is gone is no loss of data.
    converts(&values(&old, &record(&[("a", int(4, false), 0)]), &none()));
}

#[test]
fn what_has_nothing_in_common_is_refused() {
    let float = |size| plain(size, Kind::Float);
    refuses(
        &values(&float(4), &float(8), &none()),
        "float32 does not become float64",
    );
    refuses(
        &values(&int(4, false), &record(&[("a", int(4, false), 0)]), &none()),
        "u32 does not become struct",
    );
    refuses(
        &values(&int(16, true), &int(8, true), &none()),
        "does not become",
    );
}

#[test]
fn too_many_steps_are_refused() {
    let element = |size| record(&[("a", int(size, false), 0), ("b", int(4, false), 0)]);
    refuses(
        &values(&array(element(4), 5000), &array(element(8), 5000), &none()),
        "are the most",
    );
    // In one piece they are one step.
    converts(&values(
        &array(element(4), 5000),
        &array(element(4), 6000),
        &none(),
    ));
}

fn scalar() -> impl Strategy<Value = Layout> {
    prop_oneof![
        (
            prop::sample::select(vec![1_usize, 2, 4, 8, 16]),
            any::<bool>()
        )
            .prop_map(|(size, signed)| int(size, signed)),
        prop::sample::select(vec![2_usize, 4, 8]).prop_map(big),
        Just(plain(1, Kind::Bool)),
        Just(plain(1, Kind::Char)),
        Just(plain(8, Kind::Float)),
        Just(plain(8, Kind::Pointer)),
        Just(plain(4, Kind::Address)),
        Just(plain(16, Kind::Address)),
        Just(plain(16, Kind::Special("bpf_timer".to_owned()))),
        prop::sample::select(vec![1_usize, 4, 8])
            .prop_map(|size| enumeration(size, &[(0, "ZERO"), (1, "ONE")])),
    ]
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn arrange(parts: Vec<(Layout, usize)>) -> Layout {
    let is_plain = |layout: &Layout| {
        let number = matches!(
            layout.kind,
            Kind::Int {
                big_endian: false,
                ..
            }
        );
        number && layout.size <= 8
    };
    let named: Vec<_> = parts
        .into_iter()
        .zip(NAMES)
        .map(|((layout, bits), name)| {
            let bits = match is_plain(&layout) {
                true => bits.min(layout.size * 8 - 1),
                false => 0,
            };
            (name, layout, bits)
        })
        .collect();
    record(&named)
}

fn bits() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 1 => 1..40_usize]
}

fn layout() -> impl Strategy<Value = Layout> {
    scalar().prop_recursive(3, 40, 6, |inner| {
        prop_oneof![
            (inner.clone(), 1..5_usize).prop_map(|(element, count)| array(element, count)),
            prop::collection::vec((inner, bits()), 1..6).prop_map(arrange),
        ]
    })
}

/// What a type may become without loss, by random numbers: `dice` says what.
fn grow(layout: &Layout, dice: &mut impl FnMut() -> usize) -> Layout {
    match &layout.kind {
        Kind::Int {
            signed,
            big_endian: false,
        } if layout.size < 8 => match dice() % 3 {
            0 => layout.clone(),
            1 => int(layout.size * 2, *signed),
            _ => int(8, true),
        },
        Kind::Int {
            big_endian: true, ..
        } if layout.size < 8 && dice() % 2 == 0 => big(layout.size * 2),
        Kind::Enum { names, .. } if layout.size < 8 && dice() % 2 == 0 => {
            let mut grown = layout.clone();
            let mut names = names.clone();
            names.push((7, "SEVEN".to_owned()));
            grown.size *= 2;
            grown.kind = Kind::Enum {
                signed: false,
                names,
            };
            grown
        }
        Kind::Array { element, count } => array(grow(element, dice), count + dice() % 3),
        Kind::Struct(members) => {
            let mut parts: Vec<(String, Layout, usize)> = members
                .iter()
                .map(|member| match member.bits {
                    0 => (member.name.clone(), grow(&member.layout, dice), 0),
                    bits => (
                        member.name.clone(),
                        member.layout.clone(),
                        (bits + dice() % 2).min(member.layout.size * 8),
                    ),
                })
                .collect();
            if dice() % 2 == 0 {
                parts.push(("more".to_owned(), int(4, false), 0));
            }
            let by = dice() % parts.len();
            parts.rotate_left(by);
            let parts: Vec<_> = parts
                .iter()
                .map(|(name, layout, bits)| (&**name, layout.clone(), *bits))
                .collect();
            record(&parts)
        }
        _ => layout.clone(),
    }
}

/// Makes the bytes of a value ones that a program can have written: bools are 0 or 1, padding is 0.
fn tidy(layout: &Layout, bytes: &mut [u8]) {
    let mut mask = vec![0; layout.size];
    layout.mark(&mut mask);
    for (byte, mask) in bytes.iter_mut().zip(&mask) {
        *byte &= mask;
    }
    tidy_bools(layout, bytes);
}

fn tidy_bools(layout: &Layout, bytes: &mut [u8]) {
    match &layout.kind {
        Kind::Bool => bytes[0] &= 1,
        Kind::Array { element, count } => {
            for i in 0..*count {
                tidy_bools(
                    element,
                    &mut bytes[i * element.size..(i + 1) * element.size],
                );
            }
        }
        Kind::Struct(members) => {
            for member in members.iter().filter(|member| member.bits == 0) {
                let at = member.bit_offset / 8;
                tidy_bools(&member.layout, &mut bytes[at..at + member.layout.size]);
            }
        }
        _ => {}
    }
}

/// All may get smaller again, and go.
fn anything_goes(part: &str) -> Wishes {
    Wishes {
        narrow: fields(&[part]),
        drop: fields(&[part]),
        ..none()
    }
}

fn there_and_back(
    part: Part,
    old: &Layout,
    new: &Layout,
    bytes: &[u8],
) -> Result<(), TestCaseError> {
    let there = Conversion::new(part, old, new, &none());
    if !there.problems().is_empty() {
        return Ok(());
    }
    let name = if part == Part::Key { "key" } else { "value" };
    let back = Conversion::new(part, new, old, &anything_goes(name));
    prop_assert_eq!(back.problems(), Vec::<String>::new());
    let converted = there.apply(bytes).unwrap();
    prop_assert_eq!(converted.len(), new.size);
    let returned = back.apply(&converted).unwrap();
    let mut mask = vec![0; old.size];
    old.mark(&mut mask);
    prop_assert!(same(&returned, bytes, &mask), "{:?} {:?}", bytes, returned);
    // The way back that is made of the steps, and not of the layouts
    let returned = there.inverse().unwrap().apply(&converted).unwrap();
    prop_assert!(same(&returned, bytes, &mask), "{:?} {:?}", bytes, returned);
    // What is beside the fields is zero, which lookups of keys rely on.
    let mut mask = vec![0; new.size];
    new.mark(&mut mask);
    if old != new {
        prop_assert!(converted
            .iter()
            .zip(&mask)
            .all(|(byte, mask)| byte & !mask == 0));
    }
    Ok(())
}

/// Enough for any of these layouts.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xff)], 61)
}

#[test]
fn the_way_back_of_a_key_takes_only_what_the_way_there_makes() {
    let old = record(&[("a", int(2, true), 0), ("flag", plain(1, Kind::Bool), 0)]);
    let new = record(&[
        ("flag", plain(1, Kind::Bool), 0),
        ("zone", int(2, false), 0),
        ("a", int(4, true), 0),
    ]);
    let wishes = Wishes {
        set: vec![parse_set("key.zone=0x0102").unwrap()],
        ..none()
    };
    let there = keys(&old, &new, &wishes);
    converts(&there);
    let back = there.inverse().unwrap();
    let key = |a: i32, flag: u8, zone: u16| {
        let mut key = vec![flag, 0];
        key.extend(zone.to_le_bytes());
        key.extend(a.to_le_bytes());
        key
    };
    let mut bytes = vec![0; old.size];
    bytes[..2].copy_from_slice(&(-5_i16).to_le_bytes());
    bytes[2] = 1;
    assert_eq!(there.apply(&bytes).unwrap(), key(-5, 1, 513));
    assert_eq!(back.apply(&key(-5, 1, 513)).unwrap(), bytes);
    // Another zone, a number that is too large, and padding
    for wrong in [key(-5, 1, 514), key(1 << 20, 1, 513)] {
        assert!(back.apply(&wrong).is_err(), "{wrong:?}");
    }
    let mut padded = key(-5, 1, 513);
    padded[1] = 1;
    assert!(back.apply(&padded).is_err());
}

#[test]
fn the_way_back_of_a_value_leaves_out_what_is_new() {
    let old = record(&[("a", int(4, false), 0), ("gone", int(4, false), 0)]);
    let new = record(&[("more", int(4, false), 0), ("a", int(8, false), 0)]);
    let wishes = Wishes {
        drop: fields(&["gone"]),
        ..none()
    };
    let back = values(&old, &new, &wishes).inverse().unwrap();
    let value = |more: u64, a: u64| [more.to_le_bytes(), a.to_le_bytes()].concat();
    let expected = [7, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(back.apply(&value(3, 7)).unwrap(), expected);
    assert_eq!(back.apply(&value(3, 1 << 32)).unwrap_err().field, "value.a");
    // Nobody knows which of the two it is made of.
    let new = record(&[("b", int(4, false), 0), ("c", int(4, false), 0)]);
    let wishes = Wishes {
        map: vec![parse_map("a=b").unwrap(), parse_map("a=c").unwrap()],
        drop: fields(&["gone"]),
        ..none()
    };
    let err = values(&old, &new, &wishes).inverse().unwrap_err();
    assert_eq!(
        err.to_string(),
        "value.a has become two fields: which of them it is made of is not known"
    );
}

#[test]
fn wishes_can_be_about_one_pair() {
    let wishes = Wishes {
        set: vec![parse_set("conns:version=2").unwrap()],
        map: vec![parse_map("conns:a=b").unwrap(), parse_map("x=y").unwrap()],
        narrow: fields(&["/sys/fs/bpf/a:b:key.c"]),
        ..none()
    };
    let about = |name: &str| wishes.about(&[name.to_owned()]);
    assert_eq!(about("conns").set.len(), 1);
    assert_eq!(about("conns").map.len(), 2);
    assert_eq!(about("nats").set.len(), 0);
    assert_eq!(about("nats").map, [parse_map("x=y").unwrap()]);
    assert_eq!(about("/sys/fs/bpf/a:b").narrow.len(), 1);
    assert!(parse_map("conns:a=nats:b").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pair_of_layouts_that_converts_converts_back(
        old in layout(), new in layout(), noise in noise(),
    ) {
        let mut bytes: Vec<u8> = noise.iter().copied().cycle().take(old.size).collect();
        tidy(&old, &mut bytes);
        for part in [Part::Key, Part::Value] {
            there_and_back(part, &old, &new, &bytes)?;
        }
    }

    #[test]
    fn what_has_grown_converts_there_and_back(old in layout(), noise in noise()) {
        let mut at = 0;
        let new = grow(&old, &mut || { at += 1; usize::from(noise[at % noise.len()]) });
        let mut bytes: Vec<u8> = noise.iter().copied().cycle().take(old.size).collect();
        tidy(&old, &mut bytes);
        let parts = [Part::Value, Part::Key];
        // No key has what is the kernel's.
        for part in parts.into_iter().take(if old.has_special() { 1 } else { 2 }) {
            let there = Conversion::new(part, &old, &new, &none());
            prop_assert_eq!(there.problems(), Vec::<String>::new());
            there_and_back(part, &old, &new, &bytes)?;
        }
    }

    #[test]
    fn keys_stay_apart(old in layout(), noise in noise(), bit in any::<usize>()) {
        let mut at = 0;
        let new = grow(&old, &mut || { at += 1; usize::from(noise[at % noise.len()]) });
        let conversion = Conversion::new(Part::Key, &old, &new, &none());
        prop_assume!(conversion.problems().is_empty() && old.size > 0);
        let one: Vec<u8> = noise.iter().copied().cycle().take(old.size).collect();
        let mut other = one.clone();
        other[bit / 8 % old.size] ^= 1 << (bit % 8);
        // Where both can be converted, whatever is in them.
        if let (Ok(one), Ok(other)) = (conversion.apply(&one), conversion.apply(&other)) {
            prop_assert_ne!(one, other);
        }
    }

    #[test]
    fn no_two_new_keys_have_one_way_back(
        old in layout(), noise in noise(), bit in any::<usize>(),
    ) {
        let mut at = 0;
        let new = grow(&old, &mut || { at += 1; usize::from(noise[at % noise.len()]) });
        let there = Conversion::new(Part::Key, &old, &new, &none());
        prop_assume!(there.problems().is_empty() && new.size > 0);
        let back = there.inverse().unwrap();
        let mut bytes: Vec<u8> = noise.iter().copied().cycle().take(old.size).collect();
        tidy(&old, &mut bytes);
        let mut key = there.apply(&bytes).unwrap();
        key[bit / 8 % new.size] ^= 1 << (bit % 8);
        for key in [key, noise.iter().copied().cycle().take(new.size).collect()] {
            if let Ok(returned) = back.apply(&key) {
                prop_assert_eq!(there.apply(&returned), Ok(key));
            }
        }
    }

    #[test]
    fn no_pair_of_layouts_panics(old in layout(), new in layout(), noise in noise()) {
        let bytes: Vec<u8> = noise.iter().copied().cycle().take(old.size).collect();
        for part in [Part::Key, Part::Value] {
            let name = if part == Part::Key { "key" } else { "value" };
            let conversion = Conversion::new(part, &old, &new, &anything_goes(name));
            if conversion.problems().is_empty() {
                let _ = conversion.apply(&bytes);
            }
        }
    }
}
