// SPDX-License-Identifier: GPL-2.0

//! Pairs of maps that are migrated together: which they are, and whether they can be.

use crate::{
    cli::Fields,
    kernel::Kernel,
    map::{self, Map, Selector},
    output::note,
    plan::{wrong_wishes, Plan, Side},
    with::With,
};
use anyhow::{bail, ensure, Context, Result};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
};

/// What the command line calls a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Words {
    pub old: String,
    pub new: String,
}

/// A pair, in the direction in which it is moved.
#[derive(Clone)]
pub struct Maps {
    pub old: Rc<Map>,
    pub new: Rc<Map>,
}

impl Maps {
    pub fn turned(&self) -> Self {
        Self {
            old: Rc::clone(&self.new),
            new: Rc::clone(&self.old),
        }
    }
}

/// The pairs that words mean. Of two directories it is the maps with the same names.
pub fn pairs_of(words: &[String]) -> Result<Vec<Words>> {
    if let [old, new] = words {
        if Path::new(old).is_dir() && Path::new(new).is_dir() {
            return pairs_of_directories(Path::new(old), Path::new(new));
        }
    }
    ensure!(
        words.len() % 2 == 0,
        "an OLD without a NEW: {}",
        words.last().map_or("", String::as_str)
    );
    let pairs = words.chunks_exact(2);
    Ok(pairs
        .map(|pair| Words {
            old: pair[0].clone(),
            new: pair[1].clone(),
        })
        .collect())
}

fn pairs_of_directories(old: &Path, new: &Path) -> Result<Vec<Words>> {
    let kernel = Kernel::new()?;
    let maps = |directory: &Path| map::select(&[Selector::Pinned(directory.into())], &kernel);
    let (old_maps, new_maps) = (maps(old)?, maps(new)?);
    let name = |map: &Map| {
        map.pinned
            .as_deref()
            .and_then(Path::file_name)
            .map(PathBuf::from)
    };
    for new_map in &new_maps {
        if old_maps.iter().all(|it| name(it) != name(new_map)) {
            note(format!(
                "{} is not in {}: it is left out",
                new_map.label(),
                old.display()
            ));
        }
    }
    let mut pairs = Vec::new();
    for old_map in &old_maps {
        match new_maps.iter().find(|it| name(it) == name(old_map)) {
            Some(new_map) if new_map.id == old_map.id => {
                note(format!("{} is in both, and stays", old_map.label()));
            }
            Some(new_map) => {
                let word = |map: &Map| {
                    let path = map.pinned.as_deref().unwrap_or(Path::new(""));
                    path.to_string_lossy().into_owned()
                };
                pairs.push(Words {
                    old: word(old_map),
                    new: word(new_map),
                });
            }
            None => note(format!(
                "{} is not in {}: it is left out",
                old_map.label(),
                new.display()
            )),
        }
    }
    ensure!(
        !pairs.is_empty(),
        "{} and {} have no maps that differ and have the same name",
        old.display(),
        new.display()
    );
    Ok(pairs)
}

/// What can be said before `:FIELD` to mean the pair of this old map.
pub fn names(word: &str, map: Option<&Map>) -> Vec<String> {
    let mut names = vec![word.to_owned()];
    if let Some(name) = Path::new(word).file_name() {
        names.push(name.to_string_lossy().into_owned());
    }
    // FILE:MAP
    names.extend(word.rsplit_once(':').map(|(_, name)| name.to_owned()));
    if let Some(map) = map {
        names.push(map.id.to_string());
        names.push(map.name.clone());
    }
    names
}

/// The user's conversion of each pair: `FILE` where there is one pair, and `OLD:FILE`.
pub fn conversions(words: &[String], names: &[Vec<String>]) -> Result<Vec<Option<Rc<With>>>> {
    let mut found = vec![None; names.len()];
    for word in words {
        // A path can have colons, and so has what a map is called.
        let whose = word.match_indices(':').find_map(|(at, _)| {
            let is_it = |names: &Vec<String>| names.iter().any(|name| *name == word[..at]);
            let several = names.iter().filter(|names| is_it(names)).count() > 1;
            Some((names.iter().position(is_it)?, &word[at + 1..], several))
        });
        let (index, path) = match (whose, names) {
            (Some((.., true)), _) => {
                bail!("--with {word}: several pairs have that name: use an id")
            }
            (Some((index, path, _)), _) => (index, path),
            (None, [_]) => (0, &**word),
            (None, _) => bail!("--with {word}: of which pair? OLD:{word} says it"),
        };
        ensure!(
            found[index].is_none(),
            "--with {word}: the pair has one already"
        );
        found[index] = Some(Rc::new(With::read(path)?));
    }
    Ok(found)
}

/// How each pair is moved, and why not.
pub fn plan(
    sides: &[(Side, Side)],
    names: &[Vec<String>],
    fields: &Fields,
    with: &[Option<Rc<With>>],
) -> (Vec<Plan>, Vec<String>) {
    let wishes = fields.wishes();
    let plans: Vec<_> = sides
        .iter()
        .zip(names)
        .zip(with)
        .map(|(((old, new), names), with)| Plan::new(old, new, &wishes.about(names), with.as_ref()))
        .collect();
    let mut problems: Vec<_> = plans
        .iter()
        .flat_map(|plan| plan.problems.clone())
        .collect();
    let refs: Vec<_> = plans.iter().collect();
    problems.extend(wrong_wishes(&refs, &wishes, &names.concat()));
    (plans, problems)
}

/// The maps that words mean.
///
/// Errors: one is there twice.
pub fn open(words: &[Words], kernel: &Kernel) -> Result<Vec<Maps>> {
    let select = |word: &str| -> Result<Rc<Map>> {
        Ok(Rc::new(map::select_single(&word.parse()?, kernel)?))
    };
    let mut pairs = Vec::new();
    let mut seen = BTreeSet::new();
    for words in words {
        let (old, new) = (select(&words.old)?, select(&words.new)?);
        ensure!(old.id != new.id, "{} is both of them", old.label());
        for map in [&old, &new] {
            ensure!(seen.insert(map.id), "{} is there twice", map.label());
        }
        pairs.push(Maps { old, new });
    }
    Ok(pairs)
}

/// The maps of a migration that is pinned.
pub fn reopen(ids: impl Iterator<Item = (u32, u32)>, kernel: &Kernel) -> Result<Vec<Maps>> {
    let open = |id: u32| -> Result<Rc<Map>> {
        let map = Map::from_id(id, kernel)?;
        Ok(Rc::new(map.with_context(|| {
            format!("map {id} has gone: --abort takes away what is left")
        })?))
    };
    ids.map(|(old, new)| {
        Ok(Maps {
            old: open(old)?,
            new: open(new)?,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pairs() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let pairs = pairs_of(&words("a b c d")).unwrap();
        assert_eq!(pairs[1].old, "c");
        assert_eq!(pairs[1].new, "d");
        let err = pairs_of(&words("a b c")).unwrap_err();
        assert!(err.to_string().contains("an OLD without a NEW: c"));
    }

    #[test]
    fn a_conversion_is_of_one_pair() {
        let names = [names("old", None), names("nat", None)];
        let err = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            format!("{:#}", conversions(&words, &names).err().unwrap())
        };
        assert!(err(&["a.bpf.o"]).contains("of which pair? OLD:a.bpf.o"));
        assert!(err(&["other:a.bpf.o"]).contains("of which pair?"));
        assert!(err(&["nat:/nosuch:a.bpf.o"]).contains("--with /nosuch:a.bpf.o: No such file"));
    }

    #[test]
    fn a_pair_has_the_names_of_its_old_map() {
        assert_eq!(names("/sys/fs/bpf/conns", None)[1], "conns");
        assert!(names("a.bpf.o:conns", None).contains(&"conns".to_owned()));
    }
}
