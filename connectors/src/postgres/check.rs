//! Whether a database is ready to be captured, and what to do where it is not.

use std::collections::BTreeSet;

use headwater_schemas::{TableId, nearest};
use serde::Serialize;

use super::capture::check_slot_kind;
use super::catalog::{self, CatalogTable, Server, quote};
use super::connect::{Sql, number, text};
use super::publication::{self, Publication};
use super::refusals;
use super::setup;
use super::slot::{self, Slot};
use super::types::Types;
use crate::{ConnectorConfig, Error, Refusal};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `server`, `user`, `slot headwater_billing`, `table public.invoices`.
    pub subject: String,
    /// What was found.
    pub problem: String,
    /// What to do about it; empty when nothing.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, at a cost.
    Warning,
    /// Capture, or a read model, will not work.
    Error,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, subject: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let (problem, remedy) = (problem.into(), remedy.into());
        self.0.push(Finding { severity, subject: subject.into(), problem, remedy });
    }

    fn ok(&mut self, subject: &str, problem: impl Into<String>) {
        self.add(Severity::Ok, subject, problem, "");
    }

    fn refused(&mut self, subject: &str, refusal: Refusal) {
        self.add(Severity::Error, subject, refusal.problem, refusal.remedy);
    }

    fn error(&mut self, subject: &str, error: &Error) {
        match error {
            Error::NotReady { problem, remedy } | Error::Unsafe { problem, remedy } => {
                self.add(Severity::Error, subject, problem.as_str(), remedy.as_str());
            }
            Error::Connect { place, hint, source } => {
                let mut said = source.to_string();
                if let Some(cause) = source.source().map(ToString::to_string).filter(|cause| !said.contains(cause)) {
                    said = format!("{said}: {cause}");
                }
                self.add(Severity::Error, subject, format!("cannot connect to {place}: {said}"), hint.as_str());
            }
            Error::Config { path, .. } | Error::File { path, .. } => {
                self.add(Severity::Error, subject, error.to_string(), format!("mend `{path}`"));
            }
            other => {
                self.add(Severity::Error, subject, other.chain(), "look into the database's own log, and try again");
            }
        }
    }
}

/// Looks at everything that capture needs, and at the columns that read models want of each table. Changes nothing.
/// Always answers: what cannot be looked at is a finding too.
pub async fn check(config: &ConnectorConfig, wanted: &[(TableId, Vec<String>)]) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Err(error) = look(config, wanted, &mut findings).await {
        findings.error("connection", &error);
    }
    findings.0
}

async fn look(
    config: &ConnectorConfig,
    wanted: &[(TableId, Vec<String>)],
    findings: &mut Findings,
) -> Result<(), Error> {
    config.validate()?;
    let postgres = &config.postgres;
    let sql = Sql::connect(postgres).await?;
    findings
        .ok("connection", format!("{}:{}/{} as {}", postgres.host, postgres.port, postgres.database, postgres.user));
    let server = catalog::server(&sql).await?;
    match setup::check_server(&server) {
        Ok(()) => {
            let (major, minor) = (server.version / 10_000, server.version % 10_000);
            findings.ok("server", format!("PostgreSQL {major}.{minor}, wal_level logical"));
        }
        Err(error) => findings.error("server", &error),
    }
    look_at_encoding(&server, findings);
    let may_create = look_at_user(config, &sql, findings).await?;
    let slot = look_at_slot(config, &sql, findings).await?;
    look_at_room(&sql, slot.as_ref(), findings).await?;
    look_at_tables(config, wanted, &sql, &server, may_create, findings).await
}

fn look_at_encoding(server: &Server, findings: &mut Findings) {
    let encoding = &server.encoding;
    let (problem, find) = match encoding.as_str() {
        // Every letter of theirs is one of Unicode.
        "UTF8" | "LATIN1" => return,
        "SQL_ASCII" => (
            "texts that are not UTF-8 are lost, each with a dead letter, and rows with such a key are left out",
            "convert the database to UTF8 by dump and restore",
        ),
        _ => (
            "the server fails at the first text that has no equivalent in UTF-8 (SQLSTATE 22P05), and capture of all tables \
             stands there until it is corrected and the log is past it",
            "look for such texts in psql: SET client_encoding TO 'UTF8', then COPY each table TO STDOUT; it fails at the first",
        ),
    };
    findings.add(Severity::Warning, "server", format!("server_encoding is {encoding}: {problem}"), find);
}

/// Looks at the user's rights; answers whether it may create publications.
async fn look_at_user(config: &ConnectorConfig, sql: &Sql, findings: &mut Findings) -> Result<bool, Error> {
    let rows = sql
        .rows(
            "look at the user",
            "SELECT rolsuper OR rolreplication AS replication,
                    has_database_privilege(current_database(), 'CREATE') AS may_create
             FROM pg_roles WHERE rolname = current_user",
        )
        .await?;
    let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
    let user = quote(&config.postgres.user);
    if text(row, "replication")? == "t" {
        findings.ok("user", "may replicate");
    } else {
        let problem = "the user lacks the REPLICATION attribute";
        findings.add(Severity::Error, "user", problem, format!("ALTER ROLE {user} REPLICATION"));
    }
    let name = config.postgres.publication_name(&config.source);
    let may_create = text(row, "may_create")? == "t";
    if config.postgres.publishes() && !may_create {
        findings.add(
            Severity::Warning,
            "user",
            "the user may not create publications in this database",
            format!(
                "GRANT CREATE ON DATABASE {} TO {user}, or create publication `{name}` yourself",
                quote(&config.postgres.database)
            ),
        );
    }
    Ok(may_create)
}

async fn look_at_slot(config: &ConnectorConfig, sql: &Sql, findings: &mut Findings) -> Result<Option<Slot>, Error> {
    let name = config.postgres.slot_name(&config.source);
    let subject = format!("slot {name}");
    let Some(slot) = slot::find(sql, &name).await? else {
        findings.ok(&subject, "does not exist yet; it is made at the first start");
        return Ok(None);
    };
    if slot.is_lost() {
        findings.add(
            Severity::Error,
            &subject,
            "the server has invalidated it: changes were lost",
            "set `on_lost_slot: resnapshot` to make a new one and read all tables again; raise max_slot_wal_keep_size",
        );
    } else if let Err(error) = check_slot_kind(&name, &slot, &config.postgres.database) {
        let in_use = slot.active_pid.is_some() && slot.plugin.as_deref() == Some("pgoutput");
        match error {
            // Most likely it is this very connector that runs.
            Error::NotReady { problem, .. } if in_use => {
                findings.add(Severity::Ok, &subject, problem, "");
            }
            error => findings.error(&subject, &error),
        }
    } else {
        let at = slot.confirmed_flush.map_or_else(|| "nowhere".into(), |at| at.to_string());
        findings.ok(&subject, format!("exists, at {at}"));
    }
    Ok(Some(slot))
}

async fn look_at_room(sql: &Sql, slot: Option<&Slot>, findings: &mut Findings) -> Result<(), Error> {
    let rows = sql
        .rows(
            "look at the server's limits",
            "SELECT current_setting('max_replication_slots')::int AS slots, current_setting('max_wal_senders')::int AS senders,
                    (SELECT count(*) FROM pg_replication_slots) AS slots_used,
                    (SELECT count(*) FROM pg_stat_replication) AS senders_used,
                    (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_megabytes,
                    (SELECT setting::bigint FROM pg_settings WHERE name = 'max_wal_size') AS wal_megabytes",
        )
        .await?;
    let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
    // While the slot is read our sessions are among those in use, most likely.
    let senders_needed = if slot.is_some_and(|slot| slot.active_pid.is_some()) { 0 } else { 2 };
    for (setting, limit, used, needed) in [
        ("max_replication_slots", "slots", "slots_used", u32::from(slot.is_none())),
        ("max_wal_senders", "senders", "senders_used", senders_needed),
    ] {
        let (limit, used): (u32, u32) = (number(row, limit)?, number(row, used)?);
        if used + needed > limit {
            findings.add(
                Severity::Error,
                "server",
                format!("{used} of {limit} {setting} are in use"),
                format!("ALTER SYSTEM SET {setting} = {}, then restart PostgreSQL", limit.max(used + needed) + 8),
            );
        } else {
            findings.ok("server", format!("{used} of {limit} {setting} are in use"));
        }
    }
    let (keep, wal): (i64, i64) = (number(row, "keep_megabytes")?, number(row, "wal_megabytes")?);
    let problem = if keep < 0 {
        "max_slot_wal_keep_size is unlimited: while capture is down, log may fill the database's disk, and then the database \
         stops"
            .to_owned()
    } else if keep < wal {
        format!(
            "max_slot_wal_keep_size is {keep} MB, less than the {wal} MB of max_wal_size that may be written between two \
             checkpoints: the disk is safe, but capture that is down or behind for that long loses its slot, and reads all \
             tables again"
        )
    } else {
        return Ok(());
    };
    findings.add(
        Severity::Warning,
        "server",
        problem,
        "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB', or what the disk can spare; SELECT pg_reload_conf()",
    );
    Ok(())
}

async fn look_at_tables(
    config: &ConnectorConfig,
    wanted: &[(TableId, Vec<String>)],
    sql: &Sql,
    server: &Server,
    may_create: bool,
    findings: &mut Findings,
) -> Result<(), Error> {
    let name = config.postgres.publication_name(&config.source);
    let subject = format!("publication {name}");
    let publication = publication::find(sql, server, &name).await?;
    let is_to_be_made = publication.is_none() && config.postgres.publishes();
    match &publication {
        // It depends on the tables whether we can.
        None if is_to_be_made => {}
        None => findings.error(&subject, &publication::missing(&name)),
        Some(publication) if !publication.left_out.is_empty() => findings.add(
            Severity::Error,
            &subject,
            format!("leaves out {}", publication.left_out.join(", ")),
            format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')", quote(&name)),
        ),
        Some(publication) => findings.ok(&subject, format!("exists, with {} tables", publication.tables.len())),
    }
    let mut names: Vec<(String, String)> = if config.postgres.tables.is_empty() {
        publication.iter().flat_map(|publication| publication.tables.keys().cloned()).collect()
    } else {
        config.postgres.table_names().map(|(schema, table)| (schema.to_owned(), table.to_owned())).collect()
    };
    names.sort();
    names.dedup();
    let mut types = Types::default();
    let published = publication.iter().flat_map(|publication| publication.tables.keys());
    let both: BTreeSet<(&str, &str)> =
        names.iter().chain(published).map(|(schema, table)| (schema.as_str(), table.as_str())).collect();
    let mut tables = catalog::tables(sql, &mut types, &catalog::named(both)).await?;
    if let Some(publication) = &publication {
        look_at_identities(&tables, publication, findings);
    }
    tables.retain(|table| names.iter().any(|(schema, name)| *schema == *table.schema && *name == *table.table));
    let mut looked_at = tables.clone();
    if is_to_be_made {
        // Whose they are is told of the publication, and not of each.
        looked_at.iter_mut().for_each(|table| table.owned = true);
    }
    let (fit, refused) = refusals::sift(config, looked_at, publication.as_ref());
    if is_to_be_made {
        let others: Vec<String> = fit
            .iter()
            .filter(|table| tables.iter().any(|found| found.oid == table.oid && !found.owned))
            .map(CatalogTable::name)
            .collect();
        look_at_making(config, &name, &fit, &others, may_create, findings);
    }
    for (schema, table) in &names {
        let name = format!("{schema}.{table}");
        if let Some(table) = fit.iter().find(|table| table.name() == name) {
            look_at_table(config, table, publication.as_ref(), findings);
            continue;
        }
        let refusal = match refused.get(&name) {
            Some(refusal) => refusal.clone(),
            None => refusals::missing_table(sql, schema, table).await?,
        };
        findings.refused(&format!("table {name}"), refusal);
    }
    for (table, columns) in wanted.iter().filter(|(table, _)| *table.source == *config.source) {
        let subject = format!("table {}.{}", table.schema, table.table);
        match tables.iter().find(|found| *found.schema == *table.schema && *found.table == *table.table) {
            None => findings.add(
                Severity::Error,
                &subject,
                "a read model uses it, but the connector does not capture it",
                match config.postgres.tables.is_empty() {
                    true => format!(
                        "ALTER PUBLICATION {} ADD TABLE {}.{}",
                        quote(&name),
                        quote(&table.schema),
                        quote(&table.table)
                    ),
                    false => format!("add `{}.{}` to `postgres.tables`", table.schema, table.table),
                },
            ),
            Some(found) => look_at_columns(&subject, found, columns, findings),
        }
    }
    Ok(())
}

/// Tells of tables that the application cannot write to since they are published, whoever captures them.
fn look_at_identities(tables: &[CatalogTable], publication: &Publication, findings: &mut Findings) {
    let refuses = ["update", "delete"].into_iter().filter(|kind| !publication.left_out.contains(kind));
    let refuses: Vec<String> = refuses.map(str::to_uppercase).collect();
    if refuses.is_empty() {
        return;
    }
    let is_published =
        |table: &&CatalogTable| publication.tables.contains_key(&(table.schema.clone(), table.table.clone()));
    for table in tables.iter().filter(is_published) {
        let without = table.without_identity();
        let Some((name, remedy)) = without.first() else { continue };
        let others = match without.len() - 1 {
            0 => String::new(),
            others => format!(", as have {others} other partitions"),
        };
        findings.add(
            Severity::Error,
            &format!("table {}", table.name()),
            format!(
                "{name} is published and has no replica identity{others}: the server refuses the application's own {}",
                refuses.join(" and ")
            ),
            remedy.as_str(),
        );
    }
}

/// Whether the publication can be made for the tables that are `fit`, some of which belong to `others`.
fn look_at_making(
    config: &ConnectorConfig,
    name: &str,
    fit: &[CatalogTable],
    others: &[String],
    may_create: bool,
    findings: &mut Findings,
) {
    let subject = format!("publication {name}");
    let user = &config.postgres.user;
    if fit.is_empty() {
        let problem = "does not exist, and none of the tables can be published";
        return findings.add(Severity::Error, &subject, problem, "do what is said of each of them, then check again");
    }
    let problem = match (may_create, others) {
        (true, []) => return findings.ok(&subject, "does not exist yet; it is made at the first start"),
        (false, []) => format!("does not exist, and user `{user}` may not create it"),
        (_, others) => format!(
            "does not exist, and user `{user}` may not publish {}, since it does not own them",
            others.join(", ")
        ),
    };
    let remedy = format!("as a superuser: {}", publication::create_command(name, fit));
    findings.add(Severity::Error, &subject, problem, remedy);
}

fn look_at_table(
    config: &ConnectorConfig,
    table: &CatalogTable,
    publication: Option<&Publication>,
    findings: &mut Findings,
) {
    let subject = format!("table {}", table.name());
    let key = table.key().unwrap_or_default().join(", ");
    match table.identity.as_str() {
        "f" => findings.add(
            Severity::Warning,
            &subject,
            format!(
                "key ({key}); REPLICA IDENTITY FULL writes every old row into the log, which costs the database space and \
                 time and gives us nothing we do not keep ourselves"
            ),
            format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT", table.quoted()),
        ),
        "i" => findings.ok(&subject, format!("key ({key}) by the index of its REPLICA IDENTITY")),
        _ => findings.ok(&subject, format!("key ({key})")),
    }
    if let Some(publication) = publication {
        look_at_entry(config, table, publication, &subject, findings);
    }
}

fn look_at_entry(
    config: &ConnectorConfig,
    table: &CatalogTable,
    publication: &Publication,
    subject: &str,
    findings: &mut Findings,
) {
    let name = config.postgres.publication_name(&config.source);
    let Some(published) = publication.place_of(table) else {
        if !config.postgres.publishes() || !publication.can_take(table) {
            findings.refused(subject, refusals::not_published(&name, publication, table));
        }
        return;
    };
    if let Err(refusal) = refusals::narrow(&mut table.clone(), published, &name) {
        findings.refused(subject, refusal);
    }
    if published.row_filter.is_some() {
        findings.add(
            Severity::Warning,
            subject,
            "the publication filters its rows: a row that begins to match arrives as new, one that ceases to is deleted",
            "",
        );
    }
}

fn look_at_columns(subject: &str, table: &CatalogTable, columns: &[String], findings: &mut Findings) {
    for column in columns {
        if table.columns.iter().any(|found| found.name == *column) {
            continue;
        }
        let remedy = match nearest(column, table.columns.iter().map(|found| found.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let all: Vec<&str> = table.columns.iter().map(|found| found.name.as_str()).collect();
                format!("it has: {}", all.join(", "))
            }
        };
        findings.add(Severity::Error, subject, format!("has no column `{column}`, which a read model uses"), remedy);
    }
}
