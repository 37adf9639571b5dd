//! Up to where a table was truncated.
//!
//! A truncation stands in each partition of the table's topic, and takes effect once all of them have brought it. Where a
//! table is read again, the rows that were met stand before it: of those a partition that is behind has yet to bring its
//! share, and readers would miss them until then.

use std::collections::BTreeMap;

use headwater_schemas::{EventRef, Op, SourcePosition};

/// A truncation, as one partition brings it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truncation {
    position: SourcePosition,
    partition: u32,
    /// It stands in those below; `None`: its writer did not say.
    partitions: Option<u32>,
}

impl Truncation {
    /// The truncation that an event of this partition is, if it is one.
    pub(crate) fn of(event: &EventRef<'_>, partition: u32) -> Option<Self> {
        let EventRef { header, partitions, .. } = *event;
        (header.op == Op::Truncate).then_some(Self { position: header.position, partition, partitions })
    }
}

/// The truncations of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truncations {
    /// The last that took effect: rows below it are gone, whenever they arrive.
    effective: Option<SourcePosition>,
    /// The last that a partition brought, while others have yet to bring it.
    brought: BTreeMap<u32, SourcePosition>,
}

impl Truncations {
    /// Where the table was truncated last.
    pub(crate) fn effective(&self) -> Option<SourcePosition> {
        self.effective
    }

    /// Where the events of a partition say that it was, whether or not the others have come so far.
    pub(crate) fn within(&self, partition: u32) -> Option<SourcePosition> {
        self.brought.get(&partition).copied().max(self.effective)
    }

    /// A truncation takes effect.
    pub(crate) fn take_effect(&mut self, at: SourcePosition) {
        self.effective = self.effective.max(Some(at));
        self.brought.retain(|_, brought| *brought > at);
    }

    /// Takes in what partitions brought, and answers below where no row may be left by now. Also where that took effect
    /// before: removing the rows may have been broken off.
    pub(crate) fn bring(&mut self, truncations: &[Truncation]) -> Option<SourcePosition> {
        let mut newest = None;
        for truncation in truncations {
            let at = truncation.position;
            if Some(at) > self.effective {
                let brought = self.brought.entry(truncation.partition).or_insert(at);
                *brought = at.max(*brought);
                if !self.is_brought_by_all(truncation) {
                    continue;
                }
                self.take_effect(at);
            }
            newest = newest.max(Some(at));
        }
        newest
    }

    /// Whether each partition in which a truncation stands has brought it, or a later one.
    fn is_brought_by_all(&self, truncation: &Truncation) -> bool {
        let all = truncation.partitions.filter(|all| truncation.partition < *all);
        // Where its writer did not say, or cannot be right, there is nothing to wait for.
        let Some(all) = all else { return true };
        let brought = self.brought.range(..all).filter(|(_, at)| **at >= truncation.position);
        brought.count() == all as usize
    }

    /// Appends them to a note; nothing where there are none.
    pub(crate) fn write(&self, note: &mut Vec<u8>) {
        if *self == Self::default() {
            return;
        }
        note.extend_from_slice(&self.effective.unwrap_or_default().to_bytes());
        for (partition, at) in &self.brought {
            note.extend_from_slice(&partition.to_be_bytes());
            note.extend_from_slice(&at.to_bytes());
        }
    }

    /// The inverse of [`Self::write`], from the end of a note.
    pub(crate) fn read(note: &[u8]) -> Option<Self> {
        if note.is_empty() {
            return Some(Self::default());
        }
        let (effective, mut rest) = note.split_at_checked(SourcePosition::LEN)?;
        let effective = SourcePosition::from_bytes(effective)?;
        let mut brought = BTreeMap::new();
        while !rest.is_empty() {
            let (partition, behind) = rest.split_first_chunk::<4>()?;
            let (at, behind) = behind.split_at_checked(SourcePosition::LEN)?;
            brought.insert(u32::from_be_bytes(*partition), SourcePosition::from_bytes(at)?);
            rest = behind;
        }
        // Before any event, where no table is truncated.
        let effective = Some(effective).filter(|at| *at > SourcePosition::default());
        Some(Self { effective, brought })
    }
}
