//! `projection_throughput`, `memory`, `replay_throughput`: from the server's log, and from ours, to readable documents.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::capture::{Loaded, ROUNDS};
use crate::load;
use crate::pipeline::{Capture, Projection};
use crate::report::{Demand, Figure, median};

/// Watches this process's anonymous memory, which leaves mapped files out.
struct MemoryWatch {
    stop: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl MemoryWatch {
    fn start() -> Self {
        let (stop, peak_kib) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, peak_kib) = (stop.clone(), peak_kib.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
                    let kib = |name: &str| -> u64 {
                        let line = status.lines().find_map(|line| line.strip_prefix(name));
                        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
                    };
                    peak_kib.fetch_max(kib("RssAnon:") + kib("RssShmem:"), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { stop, peak_kib, thread }
    }

    /// Peak in MiB.
    fn finish(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch does not panic");
        self.peak_kib.load(Ordering::Relaxed) as f64 / 1024.0
    }
}

/// From the server's log to documents that can be read. Everything runs in this process, as in `headwater run`.
pub(crate) async fn measure(loaded: &Loaded) -> Vec<Figure> {
    let (mut ours, mut limits, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(loaded.reference());
        let folder = loaded.rewind();
        let memory = MemoryWatch::start();
        let begin = Instant::now();
        let capture = Capture::start(&loaded.postgres, &load::TABLES, folder.path());
        let projection = Projection::start(&capture.log, folder.path(), load::MODEL);
        projection.reached(loaded.end()).await;
        ours.push(loaded.rows() as f64 / begin.elapsed().as_secs_f64());
        peaks.push(memory.finish());
        assert_eq!(projection.documents().await, loaded.customers(), "every customer has a document");
        projection.stop().await;
        capture.stop().await;
        println!(
            "  projection {:.0} rows/s, reference {:.0}, peak {:.0} MiB",
            ours[ours.len() - 1],
            limits[limits.len() - 1],
            peaks[peaks.len() - 1]
        );
    }
    vec![
        Figure::new(
            "projection_throughput",
            median(&mut ours),
            "rows/s",
            Some(median(&mut limits)),
            Demand::RatioAtLeast(0.4, "ratio ≥ 0.4"),
        ),
        Figure::new("memory", median(&mut peaks), "MiB", Some(400.0), Demand::RatioAtMost(1.0, "≤ 400 MiB")),
    ]
}

/// From our log to documents, into an empty store, beside the limit of capture.
pub(crate) async fn measure_replay(loaded: &Loaded) -> Vec<Figure> {
    let folder = loaded.rewind();
    let capture = Capture::start(&loaded.postgres, &load::TABLES, folder.path());
    capture.reached(loaded.end()).await;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        limits.push(loaded.reference());
        let begin = Instant::now();
        let projection = Projection::start(&capture.log, &folder.path().join(format!("replay-{round}")), load::MODEL);
        projection.reached(loaded.end()).await;
        ours.push(loaded.rows() as f64 / begin.elapsed().as_secs_f64());
        assert_eq!(projection.documents().await, loaded.customers(), "every customer has a document");
        projection.stop().await;
        println!("  replay {:.0} rows/s, reference {:.0}", ours[ours.len() - 1], limits[limits.len() - 1]);
    }
    capture.stop().await;
    vec![Figure::new(
        "replay_throughput",
        median(&mut ours),
        "rows/s",
        Some(median(&mut limits)),
        Demand::RatioAtLeast(0.6, "ratio ≥ 0.6"),
    )]
}
