//! What identifies the rows of a table in the change stream.

use super::catalog::{CatalogTable, UniqueIndex, quote};
use crate::Refusal;

impl CatalogTable {
    /// The columns that identify rows in the change stream: the index of the replica identity, else the primary key,
    /// else (when the whole row is the identity) the first unique index without nulls. The stream sends all of them.
    pub(crate) fn key(&self) -> Result<&[String], Refusal> {
        let primary = self.indexes.iter().find(|index| index.primary);
        let chosen = match self.identity.as_str() {
            "i" => self.indexes.iter().find(|index| index.identity),
            "f" => primary.or_else(|| self.usable()),
            "d" => primary,
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
        let index = chosen.ok_or_else(|| self.without_key())?;
        match index.columns.iter().find(|name| !self.sends(name)) {
            Some(column) => Err(self.with_generated_key(column)),
            None => Ok(&index.columns),
        }
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
        Some(format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}", self.quoted(), quote(&index.name)))
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
        if let Some(at) = self.indexes.iter().position(same) {
            let chosen = self.indexes.swap_remove(at);
            flagged = chosen.columns;
        }
        let name = String::new();
        let key = UniqueIndex { name, primary: true, identity: true, not_null: true, columns: flagged };
        self.indexes = if key.columns.is_empty() { Vec::new() } else { vec![key] };
    }
}
