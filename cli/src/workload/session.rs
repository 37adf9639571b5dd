//! A connection that prepares each statement once.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

/// One connection of the workload.
pub(super) struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self { client, statements: HashMap::new() }
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.client.batch_execute("BEGIN").await
    }

    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        self.client.batch_execute("COMMIT").await
    }

    /// Leaves a transaction that failed.
    pub(super) async fn roll_back(&mut self) {
        // If even that fails the connection is gone, and the next statement says so.
        self.client.batch_execute("ROLLBACK").await.ok();
    }

    /// Runs a statement; answers with the number of rows it changed.
    pub(super) async fn execute(&mut self, sql: &'static str, parameters: Parameters<'_>) -> Result<u64, Error> {
        let statement = self.prepare(sql).await?;
        self.client.execute(&statement, parameters).await
    }

    /// Runs a query that gives at most one row.
    pub(super) async fn find(&mut self, sql: &'static str, parameters: Parameters<'_>) -> Result<Option<Row>, Error> {
        let statement = self.prepare(sql).await?;
        self.client.query_opt(&statement, parameters).await
    }

    async fn prepare(&mut self, sql: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}
