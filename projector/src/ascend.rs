//! From changed rows up to the roots whose documents they may be part of.

use headwater_schemas::ValueRef;
use headwater_schemas::model::Predicate;
use headwater_store::{RowArena, RowBatch};

use crate::Error;
use crate::changes::TableChanges;
use crate::columns::{Columns, write_join_key};
use crate::keys::KeySet;
use crate::plan::{Access, Hop, Plan};

/// Where the ascent from some changed rows begins: what can be told from their images alone, without reading. It stays
/// true however much later the reading comes.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    /// Per node: keys by which the rows above its changed rows are found.
    pub(crate) ups: Vec<KeySet>,
    /// Per node: keys by which the parents of changed rows of its join table are found.
    pub(crate) overs: Vec<KeySet>,
    /// Changed roots.
    pub(crate) roots: KeySet,
}

impl Seeds {
    /// None as yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        let empty = || vec![KeySet::default(); plan.nodes.len()];
        Self { ups: empty(), overs: empty(), roots: KeySet::default() }
    }

    /// Adds those of the images before and after of changed rows.
    pub(crate) fn add(&mut self, plan: &Plan, changes: &TableChanges<'_>) {
        if changes.changes.is_empty() {
            return;
        }
        for (number, node) in plan.nodes.iter().enumerate().skip(1) {
            let edge = node.edge.as_ref().expect("only the root has no edge");
            if node.columns.table == changes.table {
                changed(changes, &node.columns, node.filter.as_ref(), &edge.hop, &mut self.ups[number]);
            }
            if let Some(bridge) = edge.through.as_ref().filter(|bridge| bridge.columns.table == changes.table) {
                changed(changes, &bridge.columns, bridge.filter.as_ref(), &bridge.hop, &mut self.overs[number]);
            }
        }
        let root = &plan.nodes[0];
        if root.columns.table == changes.table {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            for change in &changes.changes {
                let same_kinds = images(changes, change, &root.columns, &mut before, &mut after);
                if !same_kinds || differ(&before, &after) {
                    self.roots.push(change.key);
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.ups.iter().chain(&self.overs).all(KeySet::is_empty)
    }
}

/// Whether two images are written differently: the two zeros of a float are equal, and are not.
fn differ(before: &[ValueRef<'_>], after: &[ValueRef<'_>]) -> bool {
    let other = |(one, other): (&ValueRef<'_>, &ValueRef<'_>)| match (one, other) {
        (ValueRef::Float32(one), ValueRef::Float32(other)) => one.to_bits() != other.to_bits(),
        (ValueRef::Float64(one), ValueRef::Float64(other)) => one.to_bits() != other.to_bits(),
        (one, other) => one != other,
    };
    before.len() != after.len() || before.iter().zip(after).any(other)
}

/// The ascents from what a batch changed, one for each version that follows changes, of which only the keys they begin
/// with are held. `N` is how a version is named.
pub(crate) struct Ascents<'p, N> {
    /// Rows that changed.
    pub(crate) changed: u64,
    pub(crate) seeds: Vec<(N, &'p Plan, Seeds)>,
}

impl<'p, N> Ascents<'p, N> {
    pub(crate) fn new(plans: impl Iterator<Item = (N, &'p Plan)>) -> Self {
        Self { changed: 0, seeds: plans.map(|(name, plan)| (name, plan, Seeds::new(plan))).collect() }
    }

    pub(crate) fn begin(&mut self, changes: &TableChanges<'_>) {
        self.changed += changes.changes.len() as u64;
        for (_, plan, seeds) in &mut self.seeds {
            seeds.add(plan, changes);
        }
    }
}

/// Goes on from the seeds, reading the rows as they are now, and adds the roots that are reached to `dirty`.
///
/// Level by level from the deepest, each key once. What stands above the topmost changed row of a way is unchanged, so
/// that reading the rows as they are now finds the way as it was; and what is not topmost need not be found from below.
pub(crate) fn climb(plan: &Plan, batch: &dyn RowBatch, seeds: Seeds, dirty: &mut KeySet) -> Result<(), Error> {
    // Per node: keys by which its parent's rows are found.
    let Seeds { mut ups, mut overs, mut roots } = seeds;
    for number in (1..plan.nodes.len()).rev() {
        let node = &plan.nodes[number];
        let edge = node.edge.as_ref().expect("only the root has no edge");
        let mut up = std::mem::take(&mut ups[number]);
        if let Some(bridge) = &edge.through {
            let mut over = std::mem::take(&mut overs[number]);
            each_row(batch, &edge.hop.up, up, &bridge.columns, bridge.filter.as_ref(), &mut |_, cells| {
                over.push_with(|bytes| write_join_key(bytes, cells, &bridge.hop.up_slots));
            })?;
            up = over;
        }
        let hop = edge.through.as_ref().map_or(&edge.hop, |bridge| &bridge.hop);
        let parent = &plan.nodes[edge.parent];
        match (&parent.edge, &hop.up) {
            // The key of the root is at hand, there is nothing to look up.
            (None, Access::Key(_)) => {
                let count = up.settle();
                up.list(0..count).iter().for_each(|key| dirty.push(key));
            }
            (None, access) => {
                each_row(batch, access, up, &parent.columns, parent.filter.as_ref(), &mut |key, _| dirty.push(key))?;
            }
            (Some(above), access) => {
                let next = &mut ups[edge.parent];
                each_row(batch, access, up, &parent.columns, parent.filter.as_ref(), &mut |_, cells| {
                    next.push_with(|bytes| write_join_key(bytes, cells, &above.hop.up_slots));
                })?;
            }
        }
    }
    let count = roots.settle();
    roots.list(0..count).iter().for_each(|key| dirty.push(key));
    Ok(())
}

/// Join keys toward the parent, of the images before and after of rows that changed in a column the node uses, or whose
/// column is of another type now.
fn changed<'c>(
    changes: &'c TableChanges<'_>,
    columns: &Columns,
    filter: Option<&Predicate<usize>>,
    hop: &Hop,
    up: &mut KeySet,
) {
    let (mut before, mut after): (Vec<ValueRef<'c>>, Vec<ValueRef<'c>>) = (Vec::new(), Vec::new());
    for change in &changes.changes {
        let same_kinds = images(changes, change, columns, &mut before, &mut after);
        if same_kinds && !differ(&before, &after) {
            continue;
        }
        for (image, cells) in [(changes.before(change), &before), (changes.after(change), &after)] {
            let Some((schema, _)) = image else { continue };
            // What cannot be told may hide a match.
            if columns.is_torn(schema, cells)
                || filter.is_none_or(|filter| filter.matches(&mut |slot: &usize| cells[*slot]))
            {
                up.push_with(|bytes| write_join_key(bytes, cells, &hop.up_slots));
            }
        }
    }
}

/// The used cells before and after; empty where there is no row. Answers whether their columns are of the same types in
/// both, as far as there are two.
fn images<'c, 'b>(
    changes: &'c TableChanges<'b>,
    change: &'c crate::changes::Change<'b>,
    columns: &Columns,
    before: &mut Vec<ValueRef<'c>>,
    after: &mut Vec<ValueRef<'c>>,
) -> bool {
    before.clear();
    after.clear();
    let (old, new) = (changes.before(change), changes.after(change));
    for (image, cells) in [(old, &mut *before), (new, &mut *after)] {
        if let Some((schema, row)) = image {
            columns.read(schema, row, cells);
            // A node that uses no column still tells a row from none.
            if columns.width() == 0 {
                cells.push(ValueRef::Null);
            }
        }
    }
    old.zip(new).is_none_or(|((old, _), (new, _))| columns.same_kinds(old, new))
}

/// Visits the rows found by `keys` that pass the filter, a bounded number at a time.
fn each_row(
    batch: &dyn RowBatch,
    access: &Access,
    mut keys: KeySet,
    columns: &Columns,
    filter: Option<&Predicate<usize>>,
    visit: &mut dyn FnMut(&[u8], &[ValueRef<'_>]),
) -> Result<(), Error> {
    let count = keys.settle();
    let keys = keys.list(0..count);
    match access {
        Access::Key(table) => {
            let (mut arena, mut from) = (RowArena::default(), 0);
            while from < count {
                arena.clear();
                from = batch.rows_by_key(table, &keys, from, &mut arena)?;
                each_passing(&arena, columns, filter, visit);
            }
        }
        // One key may find more rows than can be held.
        Access::Index(index) => {
            batch.visit_by_join(index, &keys, &mut |arena| each_passing(arena, columns, filter, visit))?;
        }
    }
    Ok(())
}

fn each_passing(
    arena: &RowArena,
    columns: &Columns,
    filter: Option<&Predicate<usize>>,
    visit: &mut dyn FnMut(&[u8], &[ValueRef<'_>]),
) {
    let mut cells = Vec::new();
    for slot in arena.slots() {
        let Some(row) = arena.row(slot) else { continue };
        cells.clear();
        columns.read(slot.schema, row, &mut cells);
        let torn = columns.is_torn(slot.schema, &cells);
        if torn || filter.is_none_or(|filter| filter.matches(&mut |slot: &usize| cells[*slot])) {
            visit(arena.key(slot), &cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_differ_where_they_are_written_differently() {
        let float = |n: f64| vec![ValueRef::Float64(n)];
        assert!(differ(&float(0.0), &float(-0.0)), "their JSON differs");
        assert!(!differ(&float(f64::NAN), &float(f64::NAN)));
        assert!(differ(&[], &float(0.0)) && !differ(&float(1.5), &float(1.5)));
        assert!(differ(&[ValueRef::Int(1)], &[ValueRef::Int(2)]));
    }
}
