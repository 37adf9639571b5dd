//! What is wanted of an object, put together pattern by pattern and name by name, and then cut out of its members.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use headwater_schemas::model::{FieldType, ShapeField};

use super::fit::{Cut, Misfit, Place, Taken, Wrong, check};
use super::pattern::{Slice, Step};

/// What is wanted of an object, before its own members are looked at.
#[derive(Default)]
pub(super) struct Level {
    /// Also what is not named, whole.
    all: bool,
    named: BTreeMap<String, Wanted>,
}

/// What is wanted of a member.
#[derive(Default)]
struct Wanted {
    slice: Option<Slice>,
    shown_as: Option<(String, String)>,
    /// Whether it was asked for by itself.
    whole: bool,
    below: Level,
}

impl Level {
    /// Nothing yet, or everything.
    pub(super) fn new(all: bool) -> Self {
        Self { all, ..Self::default() }
    }

    /// Adds a path that leads somewhere.
    pub(super) fn add(&mut self, path: &[Step], model: &str) -> Result<(), Wrong> {
        let [step, rest @ ..] = path else { return Ok(()) };
        if step.name == "*" {
            self.all = true;
            return Ok(());
        }
        let before = self.named.get(&step.name);
        if before.is_some_and(|before| before.slice != step.slice) {
            let message = format!("different elements of `{}` of {model} are chosen", step.name);
            return Err((message, format!("write one pattern: {}[0:3].{{…}}", step.name)));
        }
        let wanted = self.named.entry(step.name.clone()).or_default();
        wanted.slice = step.slice;
        wanted.whole |= rest.is_empty();
        wanted.below.add(rest, model)
    }

    /// Gives the field at `path` another last name.
    pub(super) fn rename(
        &mut self,
        path: &str,
        shown_as: &str,
        model: &str,
        fields: &[ShapeField],
    ) -> Result<(), Wrong> {
        let steps: Vec<Step> = path.split('.').map(|name| Step { name: name.to_string(), slice: None }).collect();
        check(&steps, model, fields)?;
        let mut letters = shown_as.bytes();
        let starts = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !letters.all(|b| b.is_ascii_alphanumeric() || b == b'_') || shown_as.starts_with("__") {
            let help = "use a letter, then letters, digits and `_`".to_string();
            return Err((format!("`{shown_as}` cannot name a field"), help));
        }
        let mut level = self;
        for (at, step) in steps.iter().enumerate() {
            let is_all = level.all;
            let wanted = match level.named.entry(step.name.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                // It is among those that are not named one by one.
                Entry::Vacant(place) if is_all => place.insert(Wanted { whole: true, ..Wanted::default() }),
                Entry::Vacant(_) => {
                    let message = format!("`{path}` of {model} gets another name, and the channel does not show it");
                    return Err((message, "add it to `fields`, or take the new name out".into()));
                }
            };
            if at + 1 == steps.len() {
                wanted.shown_as = Some((path.to_string(), shown_as.to_string()));
                return Ok(());
            }
            if std::mem::take(&mut wanted.whole) {
                // It stays whole but for names, whatever else was said of it.
                wanted.below = Level { all: true, ..Level::default() };
            }
            level = &mut wanted.below;
        }
        Ok(())
    }

    /// What is taken of an object with these members.
    pub(super) fn cut(&self, model: &str, fields: &[ShapeField], misfits: &mut Vec<Misfit>) -> Cut {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let clash = |path: &String, name: &str| Misfit {
            place: Place::Rename(path.clone()),
            message: format!("two fields of {model} get the name `{name}`"),
            help: "choose another name".into(),
        };
        // New names first: where a field that came later has the same one by itself, readers go on to find what they
        // found by it before.
        let renamed = |field: &&ShapeField| self.named.get(&field.name).is_some_and(|of| of.shown_as.is_some());
        let mut taken: BTreeMap<usize, Taken> = BTreeMap::new();
        let order = |wanted: bool| {
            fields.iter().enumerate().filter(move |(_, field)| renamed(field) == wanted).collect::<Vec<_>>()
        };
        for (at, field) in order(true).into_iter().chain(order(false)) {
            let wanted = self.named.get(&field.name);
            if wanted.is_none() && !self.all {
                continue;
            }
            let new = wanted.map_or(&None, |wanted| &wanted.shown_as);
            let shown_as = new.as_ref().map_or(&field.name, |(_, shown_as)| shown_as);
            if !names.insert(shown_as) {
                // It is told where the new name stands.
                let new = new.as_ref().or_else(|| {
                    self.named.values().find_map(|of| of.shown_as.as_ref().filter(|(_, to)| to == shown_as))
                });
                misfits.extend(new.map(|(path, _)| clash(path, shown_as)));
                continue;
            }
            let mut one = Taken { name: field.name.clone(), shown_as: shown_as.clone(), slice: None, below: None };
            if let (Some(wanted), FieldType::Nested { fields, .. }) = (wanted, &field.kind) {
                one.slice = wanted.slice;
                // What was asked for whole stays whole, whatever else was said of it.
                one.below = (!wanted.whole).then(|| wanted.below.cut(model, fields, misfits));
            }
            taken.insert(at, one);
        }
        Cut(taken.into_values().collect())
    }
}
