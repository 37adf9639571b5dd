//! What one sees while the demo runs.

use std::collections::VecDeque;
use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::output::{say, write};
use crate::report::{items, phase_words};
use crate::table::{bytes, count, span};
use crate::workload::SPOTLIGHT_CUSTOMER;

/// Measurements that the freshness is taken from.
const FRESHNESS_KEPT: usize = 200;
/// How often a line is printed where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The live view.
pub(super) struct View {
    start: Instant,
    terminal: bool,
    drawn: usize,
    line_at: Option<Instant>,
    rows: VecDeque<(Instant, u64)>,
    freshness: VecDeque<Duration>,
    document: Option<Value>,
    database: String,
}

/// Measurements from which on there is a 99th percentile to speak of.
const PERCENTILE_FROM: usize = 100;

/// Times from commit to readable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    median: Duration,
    /// The 99th percentile, or the slowest of few.
    slow: Duration,
    measurements: usize,
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slow = match self.measurements {
            n if n >= PERCENTILE_FROM => format!("{} p99", span(self.slow)),
            n => format!("{} slowest of {n}", span(self.slow)),
        };
        write!(f, "{} median, {slow}, from commit to HTTP answer", span(self.median))
    }
}

impl View {
    pub(super) fn new(database: String) -> Self {
        Self {
            start: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            drawn: 0,
            line_at: None,
            rows: VecDeque::new(),
            freshness: VecDeque::new(),
            document: None,
            database,
        }
    }

    /// A change was readable so long after its commit.
    pub(super) fn measured(&mut self, freshness: Duration) {
        if self.freshness.len() == FRESHNESS_KEPT {
            self.freshness.pop_front();
        }
        self.freshness.push_back(freshness);
    }

    /// The document of the watched customer is now this.
    pub(super) fn document(&mut self, document: Option<Value>) {
        self.document = document;
    }

    pub(super) fn freshness(&self) -> Option<Freshness> {
        let mut sorted: Vec<Duration> = self.freshness.iter().copied().collect();
        sorted.sort_unstable();
        let at = |share: f64| {
            sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().checked_sub(1)?)).copied()
        };
        Some(Freshness { median: at(0.5)?, slow: at(0.99)?, measurements: sorted.len() })
    }

    /// Draws the state of things in place of the last drawing, or prints a line now and then.
    pub(super) fn draw(&mut self, status: &Value, rows: u64) {
        let now = Instant::now();
        self.rows.push_back((now, rows));
        while self.rows.front().is_some_and(|(at, _)| now.duration_since(*at) > Duration::from_secs(5)) {
            self.rows.pop_front();
        }
        if self.terminal {
            let lines = self.lines(status, rows);
            let mut out = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
            for line in &lines {
                out.push_str(&format!("\x1b[2K{line}\n"));
            }
            self.drawn = lines.len();
            write(format_args!("{out}"));
        } else if self.line_at.is_none_or(|at| now.duration_since(at) >= LINE_EVERY) {
            self.line_at = Some(now);
            say!("{}", self.line(status, rows));
        }
    }

    fn rows_per_second(&self) -> f64 {
        match (self.rows.front(), self.rows.back()) {
            (Some((from, before)), Some((to, now))) if to > from => {
                (now - before) as f64 / to.duration_since(*from).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn lines(&self, status: &Value, rows: u64) -> Vec<String> {
        let bold = |text: &str| format!("\x1b[1m{text}\x1b[0m");
        let label = |text: &str| format!("  \x1b[2m{text:<11}\x1b[0m");
        let seconds = self.start.elapsed().as_secs();
        let mut lines = vec![
            format!("{}  running {}:{:02}, Ctrl-C ends it", bold("headwater demo"), seconds / 60, seconds % 60),
            String::new(),
            format!("{}{}", label("database"), self.database),
            format!("{}{:.0} rows/s changed, {} so far", label("workload"), self.rows_per_second(), count(rows)),
        ];
        for source in items(status, "sources") {
            lines.push(format!(
                "{}{}, {} events in the log, {} not captured yet",
                label("captured"),
                phase_words(&source["phase"]),
                source["events_total"].as_u64().map_or("?".into(), count),
                source["lag_bytes"].as_u64().map_or("?".into(), bytes),
            ));
        }
        let models: Vec<String> = items(status, "models")
            .filter(|model| model["state"] != "retired")
            .map(|model| {
                let documents = model["documents"].as_u64().map_or("?".into(), count);
                let building = if model["state"] == "building" { " (building)" } else { "" };
                format!("{documents} {}{building}", model["model"].as_str().unwrap_or("?"))
            })
            .collect();
        lines.push(format!("{}{}", label("documents"), models.join(", ")));
        let fresh = self.freshness().map_or("…".to_string(), |freshness| freshness.to_string());
        lines.push(format!("{}{fresh}", label("freshness")));
        lines.push(String::new());
        lines.extend(self.customer_lines(&bold));
        lines
    }

    /// Always as many lines, so that what was drawn before is drawn over.
    fn customer_lines(&self, bold: &dyn Fn(&str) -> String) -> Vec<String> {
        const INVOICES: usize = 5;
        let Some(document) = &self.document else {
            let mut lines = vec![format!("  customer {SPOTLIGHT_CUSTOMER} …")];
            lines.resize(1 + INVOICES, String::new());
            return lines;
        };
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut lines = vec![format!(
            "  customer {SPOTLIGHT_CUSTOMER}  {}  unpaid {}  {} invoices",
            bold(&text(&document["name"])),
            bold(&text(&document["unpaid_total"])),
            text(&document["invoice_count"]),
        )];
        for invoice in document["invoices"].as_array().into_iter().flatten().take(INVOICES) {
            let status = text(&invoice["status"]);
            let colour = match status.as_str() {
                "paid" => "32",
                "overdue" => "31",
                _ => "33",
            };
            lines.push(format!(
                "    {:<12} {}  {:>10}  \x1b[{colour}m{status:<8}\x1b[0m paid {}",
                text(&invoice["number"]),
                text(&invoice["issued_on"]),
                text(&invoice["total"]),
                text(&invoice["paid"]),
            ));
        }
        lines.resize(1 + INVOICES, String::new());
        lines
    }

    fn line(&self, status: &Value, rows: u64) -> String {
        let phases: Vec<String> = items(status, "sources").map(|source| phase_words(&source["phase"])).collect();
        let documents: u64 = items(status, "models").filter_map(|model| model["documents"].as_u64()).sum();
        let fresh = self.freshness().map_or("?".into(), |freshness| span(freshness.median));
        let unpaid = self.document.as_ref().map_or("?".to_string(), |document| document["unpaid_total"].to_string());
        format!(
            "{:>4} s  {}, {} rows changed, {} documents, freshness {fresh}, customer {SPOTLIGHT_CUSTOMER} unpaid {}",
            self.start.elapsed().as_secs(),
            phases.join(" "),
            count(rows),
            count(documents),
            unpaid.trim_matches('"'),
        )
    }
}
