//! Figures, each beside its limit in one run: `make bench`, or `make bench FIGURE=name` for one of them.

mod capture;
mod distributed;
mod freshness;
mod graphql;
mod growth;
mod kafka;
mod legacy;
mod listeners;
mod load;
mod mongodb;
mod pipeline;
mod projection;
mod reads;
mod report;

use std::path::PathBuf;

use clap::Parser;

use crate::load::Scale;
use crate::report::Report;

const FIGURES: [&str; 19] = [
    "capture_throughput",
    "projection_throughput",
    "replay_throughput",
    "memory",
    "freshness",
    "growth",
    "rest_point_read",
    "rest_point_read_uncached",
    "rest_point_read_authenticated",
    "rest_list_20",
    "versus_legacy",
    "overload",
    "graphql_point_read",
    "graphql_vs_dynamic",
    "live_listeners",
    "kafka_append",
    "mongodb_documents",
    "distributed_projection",
    "distributed_freshness",
];

/// Measures Headwater's figures, each beside its limit.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only this figure.
    #[arg(long, value_parser = FIGURES)]
    figure: Option<String>,
    /// Share of the full work; figures are defined for 1.0.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where the report is written.
    #[arg(long, default_value = "target/bench/report.json")]
    report: PathBuf,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| arguments.figure.as_deref().is_none_or(|figure| figure == name);
    let scale = Scale(arguments.scale);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    let from_the_log = ["capture_throughput", "projection_throughput", "memory", "replay_throughput"];
    if from_the_log.into_iter().any(wanted) {
        println!("capture and projection: loading {} rows", scale.rows().in_all());
        report.figures.extend(runtime.block_on(async {
            let loaded = capture::Loaded::new(scale).await;
            let mut figures = Vec::new();
            if wanted("capture_throughput") {
                figures.extend(capture::measure(&loaded).await);
            }
            if wanted("projection_throughput") || wanted("memory") {
                figures.extend(projection::measure(&loaded).await);
            }
            if wanted("replay_throughput") {
                figures.extend(projection::measure_replay(&loaded).await);
            }
            figures
        }));
    }
    if wanted("freshness") {
        println!("freshness");
        report.figures.extend(runtime.block_on(freshness::measure()));
    }
    if wanted("growth") {
        report.figures.extend(growth::measure(arguments.scale));
    }
    if wanted("rest_point_read") || wanted("graphql_point_read") {
        println!("reads: starting the server");
        report.figures.extend(reads::measure(wanted("rest_point_read"), wanted("graphql_point_read")));
    }
    if wanted("rest_point_read_uncached") {
        println!("reads of the store: starting the server");
        report.figures.extend(reads::measure_uncached());
    }
    if wanted("rest_point_read_authenticated") {
        println!("reads with authentication: starting the server");
        report.figures.extend(reads::measure_authenticated());
    }
    if wanted("rest_list_20") {
        println!("lists: starting the server");
        report.figures.extend(reads::measure_lists());
    }
    if wanted("versus_legacy") {
        println!("reads beside the source's database: starting the server");
        report.figures.extend(legacy::measure(&runtime));
    }
    if wanted("overload") {
        println!("overload: starting the server");
        report.figures.extend(reads::measure_overload());
    }
    if wanted("graphql_vs_dynamic") {
        println!("graphql beside async-graphql's dynamic executor");
        report.figures.extend(runtime.block_on(graphql::measure()));
    }
    if wanted("live_listeners") {
        println!("live listeners: starting the server");
        report.figures.extend(runtime.block_on(listeners::measure(scale)));
    }
    if wanted("kafka_append") {
        println!("events into Kafka");
        report.figures.extend(runtime.block_on(kafka::measure(arguments.scale)));
    }
    if wanted("mongodb_documents") {
        println!("documents in MongoDB");
        report.figures.extend(runtime.block_on(mongodb::measure(arguments.scale)));
    }
    if wanted("distributed_projection") {
        println!("projection over Kafka and MongoDB");
        report.figures.extend(runtime.block_on(distributed::measure_projection(arguments.scale)));
    }
    if wanted("distributed_freshness") {
        println!("freshness over Kafka and MongoDB");
        report.figures.extend(runtime.block_on(distributed::measure_freshness()));
    }
    report.print();
    report.write(&arguments.report)
}
