// SPDX-License-Identifier: GPL-2.0

//! Types of any shape: read from BTF, read and written by them.

use btf_rs::Btf;
use maptrace::layout::{same, Decoded, Kind, Layout, Member};
use proptest::prelude::*;
use serde_json::json;
use std::ffi::CString;

/// BTF as a compiler would make it, by libbpf.
struct Writer {
    btf: *mut libbpf_sys::btf,
}

impl Writer {
    fn new() -> Self {
        // SAFETY: it takes nothing.
        let btf = unsafe { libbpf_sys::btf__new_empty() };
        assert!(!btf.is_null());
        Self { btf }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut size = 0;
        // SAFETY: what it returns lives as long as the BTF does, which is not changed meanwhile.
        unsafe {
            let data = libbpf_sys::btf__raw_data(self.btf, &mut size);
            assert!(!data.is_null());
            std::slice::from_raw_parts(data.cast::<u8>(), size as usize).to_vec()
        }
    }

    /// Adds a type. Returns its id.
    fn add(&mut self, layout: &Layout) -> i32 {
        let size = layout.size;
        match &layout.kind {
            Kind::Int {
                signed,
                big_endian: false,
            } => {
                let encoding = if *signed {
                    libbpf_sys::BTF_INT_SIGNED
                } else {
                    0
                };
                self.int(&format!("int{size}"), size, encoding)
            }
            Kind::Int { .. } => {
                let id = self.int("unsigned", size, 0);
                let name = CString::new(format!("__be{}", size * 8)).unwrap();
                // SAFETY: `name` is a string.
                unsafe { libbpf_sys::btf__add_typedef(self.btf, name.as_ptr(), id) }
            }
            Kind::Bool => self.int("bool", size, libbpf_sys::BTF_INT_BOOL),
            Kind::Char => self.int("char", size, libbpf_sys::BTF_INT_SIGNED),
            Kind::Float => {
                // SAFETY: the name is a string.
                unsafe { libbpf_sys::btf__add_float(self.btf, c"float".as_ptr(), size as u64) }
            }
            // SAFETY: any id is good for a pointer.
            Kind::Pointer => unsafe { libbpf_sys::btf__add_ptr(self.btf, 0) },
            Kind::Enum { names, .. } => {
                // SAFETY: the names are strings.
                unsafe {
                    let id = libbpf_sys::btf__add_enum(self.btf, std::ptr::null(), size as u32);
                    for (value, name) in names {
                        let name = CString::new(&**name).unwrap();
                        let err =
                            libbpf_sys::btf__add_enum_value(self.btf, name.as_ptr(), *value as i64);
                        assert_eq!(err, 0);
                    }
                    id
                }
            }
            Kind::Array { element, count } => {
                let element = self.add(element);
                let index = self.int("index", 4, 0);
                // SAFETY: both types were added.
                unsafe { libbpf_sys::btf__add_array(self.btf, index, element, *count as u32) }
            }
            Kind::Struct(members) => {
                let types: Vec<_> = members
                    .iter()
                    .map(|member| self.add(&member.layout))
                    .collect();
                // SAFETY: the names are strings.
                unsafe {
                    let id = libbpf_sys::btf__add_struct(self.btf, c"s".as_ptr(), size as u32);
                    for (member, ty) in members.iter().zip(types) {
                        let name = CString::new(&*member.name).unwrap();
                        let err = libbpf_sys::btf__add_field(
                            self.btf,
                            name.as_ptr(),
                            ty,
                            member.bit_offset as u32,
                            member.bits as u32,
                        );
                        assert_eq!(err, 0);
                    }
                    id
                }
            }
            Kind::Address | Kind::Bytes | Kind::Special(_) => {
                unreachable!("not among the shapes")
            }
        }
    }

    fn int(&mut self, name: &str, size: usize, encoding: u32) -> i32 {
        let name = CString::new(name).unwrap();
        // SAFETY: `name` is a string.
        let id = unsafe {
            libbpf_sys::btf__add_int(self.btf, name.as_ptr(), size as u64, encoding as i32)
        };
        assert!(id > 0);
        id
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { libbpf_sys::btf__free(self.btf) };
    }
}

fn int(size: usize, signed: bool) -> Layout {
    let kind = Kind::Int {
        signed,
        big_endian: false,
    };
    Layout { size, kind }
}

fn scalar() -> impl Strategy<Value = Layout> {
    let sizes = prop::sample::select(vec![1_usize, 2, 4, 8, 16]);
    prop_oneof![
        (sizes, any::<bool>()).prop_map(|(size, signed)| int(size, signed)),
        prop::sample::select(vec![2_usize, 4, 8]).prop_map(|size| Layout {
            size,
            kind: Kind::Int {
                signed: false,
                big_endian: true
            },
        }),
        Just(Layout {
            size: 1,
            kind: Kind::Bool
        }),
        Just(Layout {
            size: 1,
            kind: Kind::Char
        }),
        prop::sample::select(vec![4_usize, 8]).prop_map(|size| Layout {
            size,
            kind: Kind::Float
        }),
        Just(Layout {
            size: 8,
            kind: Kind::Pointer
        }),
        prop::collection::btree_set(0..300_i128, 1..4).prop_map(|values| Layout {
            size: 4,
            kind: Kind::Enum {
                signed: false,
                names: values
                    .into_iter()
                    .map(|value| (value, format!("NAME_{value}")))
                    .collect(),
            },
        }),
    ]
}

/// Members one after the other, with padding and with bitfields.
fn arrange(parts: Vec<(Layout, usize, usize)>, padding: usize) -> Layout {
    let mut members = Vec::new();
    let mut at = 0;
    for (i, (layout, gap, bits)) in parts.into_iter().enumerate() {
        let name = format!("member{i}");
        let is_integer = matches!(
            layout.kind,
            Kind::Int {
                big_endian: false,
                ..
            }
        ) && layout.size <= 8;
        let bits = if is_integer {
            bits.min(layout.size * 8)
        } else {
            0
        };
        // A bitfield begins anywhere.
        at = match bits {
            0 => usize::next_multiple_of(at, 8) + gap * 8,
            _ => at + gap,
        };
        let bit_offset = at;
        at += if bits == 0 { layout.size * 8 } else { bits };
        members.push(Member {
            name,
            bit_offset,
            bits,
            layout,
        });
    }
    Layout {
        size: at.div_ceil(8) + padding,
        kind: Kind::Struct(members),
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    scalar().prop_recursive(3, 24, 5, |inner| {
        let member = (inner.clone(), 0..3_usize, prop_oneof![Just(0), 1..20_usize]);
        prop_oneof![
            (prop::collection::vec(member, 1..5), 0..4_usize)
                .prop_map(|(parts, padding)| arrange(parts, padding)),
            (inner, 0..4_usize).prop_map(|(element, count)| Layout {
                size: element.size * count,
                kind: Kind::Array {
                    element: Box::new(element),
                    count
                },
            }),
        ]
    })
}

fn layout_and_bytes() -> impl Strategy<Value = (Layout, Vec<u8>)> {
    layout().prop_flat_map(|layout| {
        let bytes = prop::collection::vec(any::<u8>(), layout.size);
        (Just(layout), bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_compiler_writes_is_read(layout in layout()) {
        let mut writer = Writer::new();
        let id = writer.add(&layout);
        let btf = Btf::from_bytes(&writer.bytes()).unwrap();
        let read = Layout::from_btf(&btf, id as u32, layout.size).unwrap();
        prop_assert_eq!(&read, &layout);
        // Of another size it is refused.
        prop_assert!(Layout::from_btf(&btf, id as u32, layout.size + 1).is_err());
    }

    #[test]
    fn what_was_shown_can_be_written((layout, bytes) in layout_and_bytes()) {
        let shown = layout.decode(&bytes);
        let (mut written, mut mask) = (vec![0; layout.size], vec![0; layout.size]);
        layout.encode(&shown.to_json(), &mut written, &mut mask).unwrap();
        // NaN is not what it is.
        prop_assert_eq!(format!("{:?}", layout.decode(&written)), format!("{shown:?}"));
        // Nothing between the members.
        let mut marked = vec![0; layout.size];
        layout.mark(&mut marked);
        prop_assert!(mask.iter().zip(&marked).all(|(mask, marked)| mask & !marked == 0));
    }

    #[test]
    fn what_is_cut_is_read_as_far_as_it_goes((layout, bytes) in layout_and_bytes()) {
        for len in 0..bytes.len() {
            layout.decode(&bytes[..len]).to_json();
        }
    }

    #[test]
    fn one_bit_is_a_difference_unless_it_is_padding(
        (layout, bytes) in layout_and_bytes(),
        bit in any::<prop::sample::Index>(),
    ) {
        prop_assume!(layout.size > 0);
        let bit = bit.index(layout.size * 8);
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let mut mask = vec![0; layout.size];
        layout.mark(&mut mask);
        let means_something = (mask[bit / 8] >> (bit % 8)) & 1 == 1;
        prop_assert_eq!(same(&bytes, &other, &mask), !means_something);
        let mut found = Vec::new();
        layout.differences(&bytes, &other, "", &mut found);
        prop_assert_eq!(found.len(), usize::from(means_something), "{:?}", found);
    }

    #[test]
    fn nonsense_is_an_error(layout in layout(), text in ".*") {
        let (mut bytes, mut mask) = (vec![0; layout.size], vec![0; layout.size]);
        for json in [json!(text), json!({ text.clone(): 1 }), json!([text]), json!(null)] {
            let _ = layout.encode(&json, &mut bytes, &mut mask);
        }
    }
}

/// Broken BTF is refused, or read as something.
#[test]
fn broken_btf_is_no_reason_to_panic() {
    let mut writer = Writer::new();
    let parts = vec![(int(4, true), 0, 3), (int(8, false), 1, 0)];
    let id = writer.add(&arrange(parts, 2)) as u32;
    let good = writer.bytes();
    for at in 24..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            if let Ok(btf) = Btf::from_bytes(&bytes) {
                if let Ok(layout) = Layout::from_btf(&btf, id, 16) {
                    layout.decode(&[0; 16]);
                    layout.mark(&mut [0; 16]);
                }
            }
        }
    }
}

#[test]
fn types_that_contain_themselves_are_refused() {
    let writer = Writer::new();
    // SAFETY: the names are strings, and the ids are those of the types.
    let id = unsafe {
        let outer = libbpf_sys::btf__add_typedef(writer.btf, c"a".as_ptr(), 2);
        libbpf_sys::btf__add_typedef(writer.btf, c"b".as_ptr(), 1);
        outer
    };
    let btf = Btf::from_bytes(&writer.bytes()).unwrap();
    assert!(Layout::from_btf(&btf, id as u32, 4).is_err());
}

#[test]
fn kernel_types_look_as_people_write_them() {
    let mut writer = Writer::new();
    let number = writer.int("unsigned int", 4, 0);
    // SAFETY: the names are strings.
    let id = unsafe {
        let id = libbpf_sys::btf__add_struct(writer.btf, c"in_addr".as_ptr(), 4);
        assert_eq!(
            libbpf_sys::btf__add_field(writer.btf, c"s_addr".as_ptr(), number, 0, 0),
            0
        );
        id
    };
    let btf = Btf::from_bytes(&writer.bytes()).unwrap();
    let layout = Layout::from_btf(&btf, id as u32, 4).unwrap();
    assert_eq!(layout.decode(&[10, 0, 0, 1]).to_string(), "10.0.0.1");
    let (mut bytes, mut mask) = ([0; 4], [0; 4]);
    layout
        .encode(&json!("192.0.2.7"), &mut bytes, &mut mask)
        .unwrap();
    assert_eq!(bytes, [192, 0, 2, 7]);
    assert!(layout
        .encode(&json!("192.0.2"), &mut bytes, &mut mask)
        .is_err());
}

#[test]
fn what_the_kernel_keeps_for_itself_is_no_data() {
    let mut writer = Writer::new();
    let number = writer.int("unsigned long long", 8, 0);
    // SAFETY: the names are strings, and the types were added.
    let id = unsafe {
        let btf = writer.btf;
        let timer = libbpf_sys::btf__add_struct(btf, c"bpf_timer".as_ptr(), 16);
        let task = libbpf_sys::btf__add_struct(btf, c"task_struct".as_ptr(), 8);
        let tagged = libbpf_sys::btf__add_type_tag(btf, c"kptr".as_ptr(), task);
        let other = libbpf_sys::btf__add_type_tag(btf, c"user".as_ptr(), task);
        let (tagged, other) = (
            libbpf_sys::btf__add_ptr(btf, tagged),
            libbpf_sys::btf__add_ptr(btf, other),
        );
        let id = libbpf_sys::btf__add_struct(btf, c"value".as_ptr(), 40);
        for (name, ty, bit) in [
            (c"count", number, 0),
            (c"timer", timer, 64),
            (c"task", tagged, 192),
            (c"plain", other, 256),
        ] {
            let err = libbpf_sys::btf__add_field(btf, name.as_ptr(), ty, bit, 0);
            assert_eq!(err, 0);
        }
        id
    };
    let btf = Btf::from_bytes(&writer.bytes()).unwrap();
    let layout = Layout::from_btf(&btf, id as u32, 40).unwrap();
    let mut mask = [0; 40];
    layout.mark(&mut mask);
    assert_eq!(mask[..8], [0xff; 8]);
    assert_eq!(mask[8..32], [0; 24]);
    assert_eq!(mask[32..], [0xff; 8]);
    assert_eq!(
        layout.decode(&[0; 40]).to_string(),
        "{count: 0, timer: {}, task: {}, plain: 0x0000000000000000}"
    );
    let err = layout.encode(&json!({ "timer": {} }), &mut [0; 40], &mut mask);
    assert!(err.unwrap_err().to_string().contains("bpf_timer"));
}

#[test]
fn members_of_unnamed_structs_are_members() {
    let mut writer = Writer::new();
    let number = writer.int("unsigned int", 4, 0);
    // SAFETY: the names are strings.
    let id = unsafe {
        let inner = libbpf_sys::btf__add_union(writer.btf, std::ptr::null(), 4);
        assert_eq!(
            libbpf_sys::btf__add_field(writer.btf, c"a".as_ptr(), number, 0, 0),
            0
        );
        assert_eq!(
            libbpf_sys::btf__add_field(writer.btf, c"b".as_ptr(), number, 0, 0),
            0
        );
        let outer = libbpf_sys::btf__add_struct(writer.btf, c"outer".as_ptr(), 8);
        assert_eq!(
            libbpf_sys::btf__add_field(writer.btf, c"first".as_ptr(), number, 0, 0),
            0
        );
        assert_eq!(
            libbpf_sys::btf__add_field(writer.btf, std::ptr::null(), inner, 32, 0),
            0
        );
        outer
    };
    let btf = Btf::from_bytes(&writer.bytes()).unwrap();
    let layout = Layout::from_btf(&btf, id as u32, 8).unwrap();
    let shown = layout.decode(&[1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(shown.to_string(), "{first: 1, a: 2, b: 2}");
}

#[test]
fn strings_and_bytes_are_told_apart() {
    let text = |bytes: &[u8]| {
        let layout = Layout {
            size: bytes.len(),
            kind: Kind::Array {
                element: Box::new(Layout {
                    size: 1,
                    kind: Kind::Char,
                }),
                count: bytes.len(),
            },
        };
        layout.decode(bytes)
    };
    assert_eq!(text(b"eth0\0\0"), Decoded::Text("eth0".to_owned()));
    assert_eq!(text(b"eth0\0\x01"), Decoded::Text("eth0".to_owned()));
    assert_eq!(text(b"\x01eth0"), Decoded::Bytes(b"\x01eth0".to_vec()));
    let data = Layout {
        size: 3,
        kind: Kind::Array {
            element: Box::new(int(1, false)),
            count: 3,
        },
    };
    assert_eq!(data.decode(&[1, 2, 255]).to_string(), "0x0102ff");
}
