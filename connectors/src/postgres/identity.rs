//! What identifies the rows of a table in the change stream.
//!
//! Changes of a partition are sent under the name of its partitioned table, with the columns that the table's replica
//! identity says. But they are logged by the partition's own, which `ALTER TABLE … REPLICA IDENTITY` of the table leaves as
//! it is: the columns of the key may be null then, or there may be no old row where the key changed.

use super::catalog::{CatalogPartition, CatalogTable, UniqueIndex, quote};
use crate::Refusal;

/// So many commands are told as a remedy.
const COMMANDS_MAX: usize = 3;

impl CatalogTable {
    /// The columns that identify rows in the change stream: the index of the replica identity, else the primary key,
    /// else (when the whole row is the identity) the first unique index without nulls. The stream sends all of them, and
    /// all partitions log them.
    pub(crate) fn key(&self) -> Result<&[String], Refusal> {
        let chosen = match self.identity.as_str() {
            "d" | "i" => logged(&self.identity, &self.indexes),
            "f" => logged("d", &self.indexes).or_else(|| self.usable()),
            _ => {
                return Err(Refusal {
                    problem: format!(
                        "table {} has REPLICA IDENTITY NOTHING: updates and deletes name no row",
                        self.name()
                    ),
                    remedy: format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT", self.quoted()),
                });
            }
        };
        let key = &chosen.ok_or_else(|| self.without_key())?.columns;
        if let Some(column) = key.iter().find(|name| !self.sends(name)) {
            return Err(self.with_generated_key(column));
        }
        let whole = self.identity == "f";
        let strays = |part: &&CatalogPartition| !names_rows(key, whole, &part.identity, &part.indexes);
        let others: Vec<&CatalogPartition> = self.partitions.iter().filter(strays).collect();
        if others.is_empty() { Ok(key) } else { Err(self.with_other_partitions(key, &others)) }
    }

    /// Of which tables the server refuses updates and deletes once they are published: of this one, or of its partitions.
    /// Each by its name as SQL, and with a command that mends it.
    pub(crate) fn without_identity(&self) -> Vec<(String, String)> {
        let mut parts: Vec<(String, &str, &[UniqueIndex])> = match self.kind.as_str() {
            "p" => self.partitions.iter().map(|part| (part.quoted.clone(), &*part.identity, &*part.indexes)).collect(),
            _ => vec![(self.quoted(), &self.identity, &self.indexes)],
        };
        parts.retain(|(_, identity, indexes)| *identity != "f" && logged(identity, indexes).is_none());
        let mended = |(name, _, indexes): (String, &str, &[UniqueIndex])| {
            let command = match logged("d", indexes) {
                Some(_) => format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT"),
                None => format!(
                    "ALTER TABLE {name} ADD PRIMARY KEY (…), or, so that the application goes on at once, ALTER TABLE {name} \
                     REPLICA IDENTITY FULL"
                ),
            };
            (name, command)
        };
        parts.into_iter().map(mended).collect()
    }

    fn sends(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }

    /// An index that could be the replica identity.
    fn usable(&self) -> Option<&UniqueIndex> {
        self.indexes.iter().find(|index| index.not_null && index.columns.iter().all(|name| self.sends(name)))
    }

    fn without_key(&self) -> Refusal {
        let remedy = self.use_index().unwrap_or_else(|| format!("ALTER TABLE {} ADD PRIMARY KEY (…)", self.quoted()));
        Refusal { problem: format!("table {} has no key that identifies its rows", self.name()), remedy }
    }

    fn with_generated_key(&self, column: &str) -> Refusal {
        let remedy = self.use_index().unwrap_or_else(|| {
            format!(
                "add a unique index over columns that are neither generated nor null, and ALTER TABLE {} REPLICA IDENTITY \
                 USING INDEX …",
                self.quoted()
            )
        });
        let problem = format!(
            "column `{column}` of the key of {} is generated, and the change stream leaves generated columns out",
            self.name()
        );
        Refusal { problem, remedy }
    }

    fn use_index(&self) -> Option<String> {
        let index = self.usable()?;
        let parts = if self.kind == "p" { ", and so each of its partitions by its own index" } else { "" };
        Some(format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}{parts}", self.quoted(), quote(&index.name)))
    }

    fn with_other_partitions(&self, key: &[String], others: &[&CatalogPartition]) -> Refusal {
        let whole = self.identity == "f";
        let lacking = if whole { "the whole old row".into() } else { format!("the key ({})", key.join(", ")) };
        let mut problem = format!(
            "changes of partition {} of {} are logged by its own REPLICA IDENTITY, without {lacking}",
            others[0].quoted,
            self.name()
        );
        if others.len() > 1 {
            problem.push_str(&format!("; so are those of {} more", others.len() - 1));
        }
        problem.push_str("; this is looked at again when the connector starts");
        let suit_default = |part: &&CatalogPartition| names_rows(key, false, &part.identity, &part.indexes);
        if whole && logged("d", &self.indexes).is_some() && others.iter().all(suit_default) {
            return Refusal { problem, remedy: format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT", self.quoted()) };
        }
        let mut commands: Vec<String> = others.iter().take(COMMANDS_MAX).map(|part| part.command(key, whole)).collect();
        if others.len() > COMMANDS_MAX {
            commands.push("and so on".into());
        }
        Refusal { problem, remedy: commands.join("; ") }
    }

    /// Makes the key agree with the columns that a relation message marks as its identity. The catalog may be ahead of
    /// the message, the message never is; but only the catalog knows the order of the columns.
    pub(crate) fn trust_identity(&mut self, mut flagged: Vec<String>) {
        if self.identity == "f" {
            // Every column is marked. What the catalog has counts as long as its columns are announced.
            let columns = &self.columns;
            self.indexes.retain(|index| index.columns.iter().all(|name| columns.iter().any(|c| c.name == *name)));
            return;
        }
        let same = |index: &UniqueIndex| {
            let mut columns = index.columns.clone();
            columns.sort_unstable();
            let mut marked = flagged.clone();
            marked.sort_unstable();
            columns == marked
        };
        // Others may have the same columns in another order.
        let named = |index: &UniqueIndex| match self.identity.as_str() {
            "d" => index.primary,
            "i" => index.identity,
            _ => false,
        };
        let chosen = self.indexes.iter().position(|index| named(index) && same(index));
        if let Some(at) = chosen.or_else(|| self.indexes.iter().position(same)) {
            let chosen = self.indexes.swap_remove(at);
            flagged = chosen.columns;
        }
        let name = String::new();
        let key = UniqueIndex { name, primary: true, identity: true, not_null: true, columns: flagged };
        self.indexes = if key.columns.is_empty() { Vec::new() } else { vec![key] };
    }
}

impl CatalogPartition {
    /// Makes the changes of the partition name rows by `key`.
    fn command(&self, key: &[String], whole: bool) -> String {
        let has_key = |index: &&UniqueIndex| key.iter().all(|name| index.columns.contains(name));
        let identity = match self.indexes.iter().filter(|index| index.not_null).find(has_key) {
            _ if whole => "FULL".into(),
            Some(index) if index.primary => "DEFAULT".into(),
            Some(index) => format!("USING INDEX {}", quote(&index.name)),
            None => "USING INDEX …".into(),
        };
        format!("ALTER TABLE {} REPLICA IDENTITY {identity}", self.quoted)
    }
}

/// The index whose columns are logged of a row that changes; `None` where nothing is, or the whole row.
fn logged<'i>(identity: &str, indexes: &'i [UniqueIndex]) -> Option<&'i UniqueIndex> {
    match identity {
        "d" => indexes.iter().find(|index| index.primary),
        "i" => indexes.iter().find(|index| index.identity),
        _ => None,
    }
}

/// Whether the changes of a partition, which has this identity and these indexes, name rows by the `key` of its partitioned
/// table. Where that sends old rows as `whole`, they must be.
pub(crate) fn names_rows(key: &[String], whole: bool, identity: &str, indexes: &[UniqueIndex]) -> bool {
    let has_key = |index: &UniqueIndex| key.iter().all(|name| index.columns.contains(name));
    identity == "f" || (!whole && logged(identity, indexes).is_some_and(has_key))
}

#[cfg(test)]
mod tests {
    use super::super::catalog::CatalogColumn;
    use super::*;

    fn index(columns: &[&str], primary: bool, identity: bool) -> UniqueIndex {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        UniqueIndex { name: String::new(), primary, identity, not_null: true, columns }
    }

    /// A table over columns `a`, `b` and `c` as a message announces it, which marks these columns.
    fn announced(identity: &str, indexes: Vec<UniqueIndex>, marked: &[&str]) -> Vec<String> {
        let column = |name: &str| CatalogColumn { name: name.into(), type_oid: 23, source_type: "integer".into() };
        let columns = ["a", "b", "c"].map(column).into();
        let mut table = CatalogTable::announced("public".into(), "t".into(), identity.into(), columns, indexes);
        table.trust_identity(marked.iter().map(|name| (*name).to_owned()).collect());
        table.key().expect("a key").to_vec()
    }

    #[test]
    fn the_index_that_the_identity_names_tells_the_order_of_the_key() {
        let (other, primary) = (index(&["b", "a"], false, true), index(&["a", "b"], true, false));
        let marked = ["a", "b"];
        assert_eq!(announced("d", vec![other.clone(), primary.clone()], &marked), ["a", "b"]);
        assert_eq!(announced("i", vec![primary.clone(), other.clone()], &marked), ["b", "a"]);
        // The catalog is ahead of the message: its primary key is over other columns by now.
        let ahead = index(&["c"], true, false);
        assert_eq!(announced("d", vec![ahead, other], &marked), ["b", "a"]);
    }
}
