//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit status:\n  0  done; nothing wrong was found\n  1  something is wrong, and the message says \
                          what to do about it\n  2  the command line, a name in it or HEADWATER_LOG is wrong, or `verify` \
                          could not compare\n  130  ended by a signal before it was done\n\nStart with `headwater \
                          demo`, then `headwater help run`.";

/// Streams the changes of legacy billing databases into nested JSON documents and serves them by REST and GraphQL.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The configuration file; connectors, models and data are named in it relative to its folder.
    #[arg(long, short, global = true, default_value = "headwater.yaml", env = "HEADWATER_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How log lines look. What is logged is set by HEADWATER_LOG, for example `info,headwater_connectors=debug`.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human, env = "HEADWATER_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// How to reach a running Headwater.
#[derive(Clone, Debug, Args)]
pub(crate) struct AdminAddress {
    /// Admin address of the running Headwater; otherwise `admin.listen` of the configuration file.
    #[arg(long, env = "HEADWATER_ADMIN", value_name = "URL")]
    pub(crate) admin: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Captures, projects and serves, in one process, until told to stop.
    ///
    /// SIGTERM or Ctrl-C: the sources are left first, the projector finishes its batch, readers are served to the end,
    /// files are closed. SIGHUP: the model files are read again; a file with mistakes is refused and the others run on.
    Run(RunArguments),
    /// Captures sources into Kafka, as a process of its own.
    ///
    /// One process captures a source at a time: a second one takes over, and the first can write nothing any more.
    /// Needs `broker.kafka`. Signals as for `run`.
    Connect(ConnectArguments),
    /// Folds the changes in Kafka into documents in MongoDB, as a process of its own.
    ///
    /// Needs `broker.kafka` and `store.mongodb`. Signals as for `run`.
    Project(ProjectArguments),
    /// Serves documents from MongoDB, as a process of its own, of which there may be many.
    ///
    /// Needs `store.mongodb`. Files of models, and variables of the connectors' files, may be missing. Signals as for `run`.
    Serve(RunArguments),
    /// Shows it all on a billing database under load: starts a PostgreSQL of its own and removes it afterwards.
    ///
    /// Needs only PostgreSQL's programs (PG_BIN, PATH or /usr/lib/postgresql). Prints addresses to try while it runs.
    Demo(DemoArguments),
    /// Reads the configuration and looks whether every source is ready; each finding comes with its remedy.
    Check(CheckArguments),
    /// Shows where everything stands: sources and their lag, models and their documents.
    ///
    /// Of several processes those that answer are shown beside those that do not. Ends with 1 when one of them is not ready
    /// or does not answer; --watch goes on.
    Status(StatusArguments),
    /// Builds a new version of a model from the log, beside the one that serves, and switches when it has caught up.
    Replay(ReplayArguments),
    /// Compares the documents that are served with the source's tables, byte for byte.
    ///
    /// Reads the tables in one snapshot, computes every document anew by a second, simple evaluator, waits until the
    /// projector has passed the snapshot, and compares. Documents that changed meanwhile are looked at again on a fresh
    /// snapshot. Exit status: 0 equal, 1 there are differences, 2 could not compare.
    ///
    /// Where `api.auth` is configured, the token in the environment variable HEADWATER_API_TOKEN is sent as
    /// `Authorization: Bearer`; its role must see every document whole.
    Verify(VerifyArguments),
    /// Events that could not be processed: lists them with their cause, or tries them again.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// The read models: lists them, or prints their documents' JSON Schema, GraphQL schema or OpenAPI description.
    ///
    /// The descriptions are made from the definitions and the sources' catalogs; no Headwater needs to run.
    Models(ModelsArguments),
    /// Takes a model out of service whose file and projector have both gone.
    ///
    /// A projector retires a model itself when its file is removed and the files are read again (SIGHUP). Where it was
    /// stopped before that, the model is served on as it was, and consistency tokens wait for it: this ends both. Needs
    /// `store.mongodb`. The documents stay in their collection.
    Retire(RetireArguments),
    /// Changes the example's billing database the way its users would: inserts, updates, moves, deletes, new keys.
    #[command(hide = true)]
    Workload(WorkloadArguments),
}

impl Command {
    /// Whether it is a role, that runs until it is told to stop.
    pub(crate) fn is_role(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Connect(_) | Self::Project(_) | Self::Serve(_))
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArguments {
    /// Also serves `/bench/static`, a constant answer of a document's size: the limit that reads are measured against.
    #[arg(long, hide = true)]
    pub(crate) bench_route: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectArguments {
    /// Only this source; may be given several times. Otherwise all that are configured.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProjectArguments {
    /// Only this model; may be given several times. Otherwise all that are configured.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Vec<String>,
    /// Tells this projector apart from others: the consumer group in Kafka, and whose versions these are in the store.
    /// Otherwise `projector`, or the models' names in alphabetical order where some are given.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArguments {
    /// Uses this database instead of starting one. It must be empty and have wal_level=logical; it is not cleaned up.
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Puts Kafka in the place of the log inside this process: `host:port` of a broker without topics of ours.
    #[arg(long, env = "HEADWATER_DEMO_KAFKA", value_name = "SERVER")]
    pub(crate) kafka: Option<String>,
    /// Puts MongoDB in the place of the document store inside this process: the connection string of a replica set
    /// without a database `headwater`.
    #[arg(long, env = "HEADWATER_DEMO_MONGODB", value_name = "URI", hide_env_values = true)]
    pub(crate) mongodb: Option<String>,
    /// Changed rows per second.
    #[arg(long, default_value_t = 200, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) rate: u32,
    /// Ends by itself after this time, with a summary; otherwise Ctrl-C ends it.
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Port of the query API; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Port of the admin listener; 0 takes a free one.
    #[arg(long, default_value_t = 9090)]
    pub(crate) admin_port: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArguments {
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArguments {
    /// Admin address of a running Headwater; several, separated by commas or given one by one, where its roles are
    /// processes of their own. Otherwise `admin.listen` of the configuration file.
    #[arg(long, env = "HEADWATER_ADMIN", value_name = "URL", value_delimiter = ',')]
    pub(crate) admin: Vec<String>,
    /// Keeps showing, once a second, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// JSON instead of tables; with `--watch` one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArguments {
    #[command(flatten)]
    pub(crate) address: AdminAddress,
    /// The model to build anew.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Where to read from: `earliest`, an offset for all topics of the model (`1200`), offsets by topic
    /// (`headwater.billing.public.cust=1200,…`), or a time (`2026-11-23T08:00:00Z`).
    #[arg(long, default_value = "earliest", value_name = "PLACE")]
    pub(crate) from: String,
    /// Shows no progress; prints one JSON object at the end.
    #[arg(long)]
    pub(crate) json: bool,
    /// Shows no progress and prints nothing on success.
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Returns as soon as the replay has begun.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) address: AdminAddress,
    /// Base address of the query API to compare with; otherwise `api.listen` of the configuration file.
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// Only this model; otherwise all.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Compares only about this many documents of each model, spread evenly; otherwise every one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample: Option<u64>,
    /// Waits this long for the projector to pass the snapshot, in seconds.
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub(crate) wait: u64,
    /// One JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Lists the 10,000 newest, newest last.
    List {
        #[command(flatten)]
        address: AdminAddress,
        /// JSON, one letter a line, with the event itself where that has at most 8 KiB.
        #[arg(long)]
        json: bool,
    },
    /// Tries them again, after their cause was mended.
    ///
    /// Ends with 1 when one failed as before. Projectors that share their rows only put documents in line to be built:
    /// one that fails again is listed as a new letter.
    Retry {
        #[command(flatten)]
        address: AdminAddress,
        /// Only the letter at this offset; otherwise all.
        #[arg(long, value_name = "N")]
        offset: Option<u64>,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ModelsArguments {
    #[command(flatten)]
    pub(crate) address: AdminAddress,
    /// Only this model.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) print: PrintWhat,
}

#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct PrintWhat {
    /// Prints the JSON Schema of the documents.
    #[arg(long)]
    pub(crate) json_schema: bool,
    /// Prints the GraphQL schema (SDL).
    #[arg(long)]
    pub(crate) graphql: bool,
    /// Prints the OpenAPI description.
    #[arg(long)]
    pub(crate) openapi: bool,
    /// Lists as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RetireArguments {
    /// The model; no file may declare it any more.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkloadArguments {
    /// The database: `postgresql://user:password@host:port/billing`.
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: String,
    /// Changed rows per second; 0: as many as go.
    #[arg(long, default_value_t = 200, value_name = "ROWS")]
    pub(crate) rate: u32,
    /// Ends after this time.
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Connections that write at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) connections: u16,
    /// Fixes the choice of changes; otherwise random, and printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// First creates the example's tables and rows.
    #[arg(long)]
    pub(crate) create: bool,
    /// Prints nothing but errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    /// Help is read more often than any page: a change of it is looked at as a whole.
    #[test]
    fn the_help_is_as_reviewed() {
        let mut root = Arguments::command().term_width(100);
        root.build();
        let mut help = root.render_long_help().to_string();
        let names: Vec<String> = root.get_subcommands().map(|command| command.get_name().to_string()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            let command = root.find_subcommand_mut(name).unwrap();
            help.push_str(&format!(
                "\n===== headwater {name}\n\n{}",
                command.clone().term_width(100).render_long_help()
            ));
        }
        // The version and the caller's environment are not part of it.
        let lines = help.lines().filter(|line| !line.trim_start().starts_with("[env:")).map(str::trim_end);
        let help = lines.collect::<Vec<_>>().join("\n") + "\n";
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/help.golden.txt");
        if std::env::var_os("HEADWATER_UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &help).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), help, "HEADWATER_UPDATE_GOLDEN=1 accepts it");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
