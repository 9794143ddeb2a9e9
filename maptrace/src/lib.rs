// SPDX-License-Identifier: GPL-2.0

//! Watch and compare BPF maps that are in use, of programs that know nothing of it.
//!
//! | module | question |
//! | --- | --- |
//! | [`map`] | which maps are meant, what are they, what is in them? |
//! | [`keys`] | which keys does a map have, where that is not simple? |
//! | [`layout`] | what do the bytes of a key or a value mean? |
//! | [`conversion`] | how does a key or a value become that of another map? |
//! | [`with`] | how, where the user says it? |
//! | [`plan`] | can the elements of one map move to another one? |
//! | [`migration`] | how does one map follow another one? |
//! | [`pin`] | what stays when the process has ended? |
//! | [`kernel`] | what can this kernel do, and what is missing? |
//! | [`tracer`] | what is changed? |
//! | [`origin`] | by whom? |
//! | [`census`] | how full are the maps? |
//! | [`format`] | what is in a recording? |
//! | [`output`] | how does it end: a signal, a closed pipe, an error? |
//! | [`cli`], [`commands`] | what does the user want? |

pub mod census;
pub mod cli;
pub mod commands;
pub mod conversion;
pub mod format;
pub mod kernel;
pub mod keys;
pub mod layout;
pub mod map;
pub mod migration;
pub mod object;
pub mod origin;
pub mod output;
pub mod pin;
pub mod plan;
pub mod tracer;
pub mod with;
