//! What of an index, or of the ids, one scan covers; entries and ids as they are stored.

use mongodb::bson::{Document, doc};

use super::stored::entry;
use crate::{Filter, KeyRange};

/// A [`Filter`] on entries as they are stored.
pub(super) struct TextFilter {
    /// Beginning of the entries of its index.
    prefix: String,
    ranges: Vec<(String, String)>,
    negated: bool,
}

impl TextFilter {
    pub(super) fn new(filter: &Filter) -> Self {
        let end = match filter.index.checked_add(1) {
            Some(next) => entry(next, &[]),
            // Above every entry.
            None => "\u{100}".to_owned(),
        };
        let range = |range: &KeyRange| {
            let high = range.high.as_ref().map_or_else(|| end.clone(), |high| entry(filter.index, high));
            (entry(filter.index, &range.low), high)
        };
        let ranges = filter.ranges.iter().map(range).filter(|(low, high)| low < high).collect();
        Self { prefix: entry(filter.index, &[]), ranges, negated: filter.negated }
    }

    pub(super) fn within(&self, entry: &str) -> bool {
        let behind = self.ranges.partition_point(|(low, _)| low.as_str() <= entry);
        behind > 0 && entry < self.ranges[behind - 1].1.as_str()
    }

    pub(super) fn matches(&self, entries: &[&str]) -> bool {
        if self.negated {
            let mut own = entries.iter().filter(|entry| entry.starts_with(&self.prefix)).peekable();
            own.peek().is_some() && own.all(|entry| !self.within(entry))
        } else {
            entries.iter().any(|entry| self.within(entry))
        }
    }
}

/// A part of what is walked that one scan covers.
#[derive(Clone, Debug)]
pub(super) enum Window {
    /// Ids behind this one.
    Ids { after: Option<String> },
    /// Entries from `low`, also itself unless it is `behind`, to `high`, exclusive.
    Range { low: String, behind: bool, high: String },
    /// Exactly these entries.
    Points(Vec<String>),
    /// Exactly this entry, with ids behind this one.
    Rest { entry: String, after: String },
}

impl Window {
    pub(super) fn filter(&self, descending: bool) -> Document {
        let beyond = if descending { "$lt" } else { "$gt" };
        match self {
            Self::Ids { after: None } => doc! {},
            Self::Ids { after: Some(after) } => doc! { "_id": { beyond: after } },
            Self::Range { low, behind, high } => {
                let from = if *behind { "$gt" } else { "$gte" };
                doc! { "_hw.e": { "$elemMatch": { from: low, "$lt": high } } }
            }
            Self::Points(entries) => doc! { "_hw.e": { "$elemMatch": { "$in": entries } } },
            Self::Rest { entry, after } => {
                doc! { "_hw.e": { "$elemMatch": { "$eq": entry } }, "_id": { beyond: after } }
            }
        }
    }

    /// The entry at which a scan meets a document.
    pub(super) fn met<'e>(&self, entries: &[&'e str], descending: bool) -> Option<&'e str> {
        let within = |entry: &&&str| match self {
            Self::Ids { .. } => false,
            Self::Range { low, behind, high } => {
                let from = if *behind { **entry > low.as_str() } else { **entry >= low.as_str() };
                from && **entry < high.as_str()
            }
            Self::Points(points) => points.binary_search_by(|point| point.as_str().cmp(entry)).is_ok(),
            Self::Rest { entry: exactly, .. } => **entry == exactly,
        };
        let mut met = entries.iter().filter(within);
        if descending { met.next_back() } else { met.next() }.copied()
    }

    /// What is left of it behind a place.
    pub(super) fn behind(&self, entry: &str, id: &str, descending: bool) -> Vec<Self> {
        let rest = Self::Rest { entry: entry.to_owned(), after: id.to_owned() };
        match self {
            Self::Ids { .. } => vec![Self::Ids { after: Some(id.to_owned()) }],
            Self::Rest { entry: exactly, .. } if exactly == entry => vec![rest],
            Self::Rest { entry: exactly, .. } => {
                let further = if descending { exactly.as_str() < entry } else { exactly.as_str() > entry };
                if further { vec![self.clone()] } else { vec![] }
            }
            Self::Range { low, behind, high } => {
                let inside =
                    if *behind { entry > low.as_str() } else { entry >= low.as_str() } && entry < high.as_str();
                let further = if descending {
                    let high = high.as_str().min(entry).to_owned();
                    Self::Range { low: low.clone(), behind: *behind, high }
                } else if entry >= low.as_str() {
                    Self::Range { low: entry.to_owned(), behind: true, high: high.clone() }
                } else {
                    self.clone()
                };
                let Self::Range { low, high, .. } = &further else { return vec![] };
                let some = low < high;
                inside.then_some(rest).into_iter().chain(some.then_some(further)).collect()
            }
            Self::Points(points) => {
                let inside = points.binary_search_by(|point| point.as_str().cmp(entry)).is_ok();
                let further =
                    |point: &&String| if descending { point.as_str() < entry } else { point.as_str() > entry };
                let further: Vec<String> = points.iter().filter(further).cloned().collect();
                let some = !further.is_empty();
                inside.then_some(rest).into_iter().chain(some.then_some(Self::Points(further))).collect()
            }
        }
    }
}

/// Scans that cover the ranges, ascending: neighbouring ranges of one value each share one.
pub(super) fn windows(filter: &TextFilter) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for (low, high) in &filter.ranges {
        let single = high.strip_prefix(low.as_str()) == Some("\0");
        match windows.last_mut() {
            Some(Window::Points(points)) if single => points.push(low.clone()),
            _ if single => windows.push(Window::Points(vec![low.clone()])),
            _ => windows.push(Window::Range { low: low.clone(), behind: false, high: high.clone() }),
        }
    }
    windows
}
