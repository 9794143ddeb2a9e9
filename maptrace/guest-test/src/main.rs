// SPDX-License-Identifier: GPL-2.0

//! Tests of maptrace in a guest whose kernel can trace maps. Prints TAP.
//!
//! `maptrace_test all` runs all of them, `maptrace_test TEST...` those whose names begin so, and without
//! arguments it runs one or two for each command, which is what an emulated guest has the time for. The
//! maptrace that is tested is the one beside it, or `$MAPTRACE`. Three commands run no test:
//! `maptrace_test load SECONDS THREADS` gives maptrace something to look at, `maptrace_test cost
//! [THREADS]` measures what an update takes while it looks, with one CPU that does nothing else, or with
//! as many that are busy, and `maptrace_test move ENTRIES ROOM` moves a map of so many entries to one
//! with room for so many.

/// The tests of a file, with their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[(&str, Test)] = &[$((stringify!($name), $name)),*];
    };
}

mod cost;
mod large;
mod load;
mod map_type_tests;
mod migrate_tests;
mod set_tests;
mod subjects;
mod tests;
mod with_tests;

use std::{
    panic::{catch_unwind, AssertUnwindSafe},
    process::ExitCode,
    time::Instant,
};

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<_> = wanted.iter().map(String::as_str).collect();
    let command = match *words {
        ["load", seconds, threads] => Some(load::print(seconds, threads)),
        ["move", entries, room] => Some(large::print(entries, room)),
        ["cost"] => Some(cost::alone()),
        ["cost", threads] => Some(threads.parse().map_err(Into::into).and_then(cost::busy)),
        _ => None,
    };
    if let Some(result) = command {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                eprintln!("{err:?}");
                ExitCode::FAILURE
            }
        };
    }
    let tests: Vec<_> = tests::ALL
        .iter()
        .chain(migrate_tests::ALL)
        .chain(map_type_tests::ALL)
        .chain(set_tests::ALL)
        .chain(with_tests::ALL)
        .filter(|(name, _)| match &*wanted {
            [] => tests::QUICK.contains(name),
            [all] if all == "all" => true,
            wanted => wanted.iter().any(|wanted| name.starts_with(wanted)),
        })
        .collect();
    println!("TAP version 13\n1..{}", tests.len());
    let mut failed = 0;
    for (number, (name, test)) in (1..).zip(&tests) {
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(test));
        let verdict = match result {
            Ok(Ok(())) => "ok",
            Ok(Err(err)) => {
                println!("# {}", format!("{err:?}").replace('\n', "\n# "));
                "not ok"
            }
            // The panic was printed.
            Err(_) => "not ok",
        };
        failed += i32::from(verdict != "ok");
        println!("# {:.1} s", began.elapsed().as_secs_f64());
        println!("{verdict} {number} - {name}");
    }
    ExitCode::from(u8::from(failed > 0))
}
