//! Figures, each beside its limit.

use std::path::Path;

use serde::Serialize;

/// One measured figure. With `limit`, both were measured in the same run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured; a figure with parts has one of these per part, `name_part`.
    pub(crate) name: String,
    /// The measured value.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What bounds it: the same unit, measured in the same run, or a fixed demand.
    pub(crate) limit: Option<f64>,
    /// `value / limit`.
    pub(crate) ratio: Option<f64>,
    /// What the issue asks for, in words.
    pub(crate) demand: &'static str,
    /// Whether the demand is met.
    pub(crate) met: bool,
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Demand {
    /// The ratio to the limit is at least this.
    RatioAtLeast(f64, &'static str),
    /// The ratio to the limit is at most this.
    RatioAtMost(f64, &'static str),
    /// Nothing: for information.
    Report,
}

impl Figure {
    pub(crate) fn new(name: &str, value: f64, unit: &'static str, limit: Option<f64>, demand: Demand) -> Self {
        let ratio = limit.map(|limit| value / limit);
        let (met, demand) = match demand {
            Demand::RatioAtLeast(least, words) => (ratio.is_some_and(|ratio| ratio >= least), words),
            Demand::RatioAtMost(most, words) => (ratio.is_some_and(|ratio| ratio <= most), words),
            Demand::Report => (true, "reported"),
        };
        Self { name: name.to_string(), value, unit, limit, ratio, demand, met }
    }
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn print(&self) {
        println!("\n{:<32} {:>14} {:>14} {:>7}  {:<12} demand", "figure", "value", "limit", "ratio", "unit");
        for figure in &self.figures {
            let optional = |n: Option<f64>, digits: usize| n.map_or("-".to_string(), |n| format!("{n:.digits$}"));
            println!(
                "{:<32} {:>14.2} {:>14} {:>7}  {:<12} {} {}",
                figure.name,
                figure.value,
                optional(figure.limit, 2),
                optional(figure.ratio, 3),
                figure.unit,
                figure.demand,
                if figure.met { "✓" } else { "✗ not met" }
            );
        }
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let json = serde_json::to_vec_pretty(self).expect("a report has only string keys");
        std::fs::write(path, json)
    }
}

/// The middle value; the mean of the two middle ones.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The value below which `share` (0 to 1) of the sorted values are.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[at]
}
