// SPDX-License-Identifier: GPL-2.0

use super::set;
use crate::{
    cli::Migrate,
    conversion::{Fate, Row},
    kernel::Kernel,
    map,
    output::{note, table, Output},
    plan::{Plan, Side},
};
use anyhow::Result;
use serde_json::{json, Value as Json};

pub fn run(args: &Migrate) -> Result<u8> {
    let mut kernel = None;
    let mut sides = Vec::new();
    let mut names = Vec::new();
    for words in set::pairs_of(&args.maps)? {
        names.push(set::names(&words.old, None));
        sides.push((
            side(&words.old, &mut kernel)?,
            side(&words.new, &mut kernel)?,
        ));
    }
    let with = set::conversions(&args.with, &names)?;
    let (plans, problems) = set::plan(&sides, &names, &args.fields, &with);
    let mut output = Output::stdout();
    for (plan, (_, new)) in plans.iter().zip(&sides) {
        match args.json {
            true => output.line(to_json(plan, new))?,
            false => to_text(plan, &mut output)?,
        }
        output.flush()?;
        plan.notes.iter().for_each(note);
        let memory = human(new.memory_when_full());
        let cpus = match new.values_of_a_key() {
            1 => String::new(),
            cpus => format!(", with {cpus} CPUs"),
        };
        note(format!(
            "{} takes about {memory} when it is full{cpus}",
            new.label
        ));
    }
    problems.iter().for_each(note);
    let rows = plans.iter().flat_map(Plan::rows);
    let lost = rows.filter(|row| row.fate.loses()).count();
    let knows = plans.iter().all(Plan::knows_what_is_lost);
    note(match (problems.len(), lost) {
        (0, 0) if !knows => {
            "it can be migrated, if the kernel takes the conversion, which alone knows what is lost"
                .to_owned()
        }
        (0, 0) => "it can be migrated, and nothing is lost".to_owned(),
        (0, lost) => format!("it can be migrated, and {lost} fields are lost"),
        (problems, _) => format!("it cannot be migrated: {problems} reasons"),
    });
    Ok(u8::from(!problems.is_empty()))
}

/// A map, or what is to be one. The kernel is asked only where it has something to say.
fn side(text: &str, kernel: &mut Option<Kernel>) -> Result<Side> {
    if let Some(side) = Side::of_object(text)? {
        return Ok(side);
    }
    let kernel = match kernel {
        Some(kernel) => kernel,
        None => kernel.insert(Kernel::new()?),
    };
    Ok(Side::of_map(&map::select_single(&text.parse()?, kernel)?))
}

fn to_text(plan: &Plan, output: &mut Output) -> Result<()> {
    let mut rows = vec![["OLD", "TYPE", "NEW", "TYPE", "WHAT"]
        .map(str::to_owned)
        .to_vec()];
    for row in plan.rows() {
        let side = |side: &Option<(String, String)>| match side {
            Some((name, ty)) => [name.clone(), ty.clone()],
            None => ["-".to_owned(), String::new()],
        };
        let [old, old_type] = side(&row.old);
        let [new, new_type] = side(&row.new);
        let what = match &row.fate {
            // It is said below.
            Fate::Refused(_) => "refused".to_owned(),
            fate => fate.to_string(),
        };
        rows.push(vec![old, old_type, new, new_type, what]);
    }
    for line in table(&rows, &[]) {
        output.line(line)?;
    }
    Ok(())
}

fn to_json(plan: &Plan, new: &Side) -> Json {
    let field = |row: &Row| {
        let side = |side: &Option<(String, String)>| match side {
            Some((name, ty)) => json!({ "field": name, "type": ty }),
            None => Json::Null,
        };
        json!({
            "old": side(&row.old),
            "new": side(&row.new),
            "what": row.fate.word(),
            "detail": row.fate.to_string(),
        })
    };
    json!({
        "fields": plan.rows().map(field).collect::<Vec<_>>(),
        "problems": plan.problems,
        "notes": plan.notes,
        "memory": new.memory_when_full(),
    })
}

/// Bytes, for people.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["bytes", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut size = bytes as f64;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_have_units() {
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(5 << 30), "5.0 GiB");
        assert_eq!(human(1 << 50), "1048576.0 GiB");
    }
}
