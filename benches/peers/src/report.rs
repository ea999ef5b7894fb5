//! What is printed: a table of one line, or a JSON object with the same and more.

use crate::{Args, Run, Workload};
use hdrhistogram::Histogram;
use serde::Serialize;

#[derive(Serialize)]
pub struct Report {
    library: &'static str,
    version: &'static str,
    workload: Workload,
    clients: u32,
    pool: u32,
    streams: u32,
    seconds: u64,
    runs: usize,
    /// The median of the runs. Events, where they are read.
    ops_per_second: f64,
    each_run: Vec<f64>,
    /// Of all runs together. None of reading.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    /// In all runs, each followed by another try.
    conflicts: u64,
    /// Events that were recorded although their decision had not seen the event before. Warm-up included.
    lost_updates: u64,
}

impl Report {
    pub fn new(library: &'static str, args: &Args, pool: u32, runs: &[Run], lost_updates: u64) -> Self {
        let latencies: Histogram<u64> = runs.iter().map(|run| run.latencies.clone()).sum();
        let quantile = |q| (!latencies.is_empty()).then(|| latencies.value_at_quantile(q) as f64 / 1_000.0);
        let each_run: Vec<f64> = runs.iter().map(|run| (run.per_second * 10.0).round() / 10.0).collect();
        Self {
            library,
            version: locked_version(library),
            workload: args.workload,
            clients: if args.workload == Workload::Read { 1 } else { args.clients },
            pool,
            streams: args.streams,
            seconds: args.seconds,
            runs: runs.len(),
            ops_per_second: median(each_run.clone()),
            each_run,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            conflicts: runs.iter().map(|run| run.conflicts).sum(),
            lost_updates,
        }
    }

    pub fn table(&self) -> String {
        let ms = |quantile: Option<f64>| quantile.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let columns = [
            ("library", self.library.to_owned()),
            ("version", self.version.to_owned()),
            ("workload", format!("{:?}", self.workload).to_lowercase()),
            ("clients", self.clients.to_string()),
            ("pool", self.pool.to_string()),
            ("ops/s", self.ops_per_second.to_string()),
            ("p50 ms", ms(self.p50_ms)),
            ("p99 ms", ms(self.p99_ms)),
            ("p99.9 ms", ms(self.p999_ms)),
            ("conflicts", self.conflicts.to_string()),
            ("lost updates", self.lost_updates.to_string()),
            ("runs", self.runs.to_string()),
        ];
        let (mut headings, mut cells) = (String::new(), String::new());
        for (heading, cell) in columns {
            let width = heading.len().max(cell.len()) + 2;
            headings += &format!("{heading:<width$}");
            cells += &format!("{cell:<width$}");
        }
        format!("{}\n{}", headings.trim_end(), cells.trim_end())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

/// As Cargo.lock has it, so that it is what was built.
fn locked_version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let version = lock.split("[[package]]").find_map(|entry| {
        let mut lines = entry.trim_start().lines();
        let is_it = lines.next()? == format!("name = \"{package}\"");
        lines.next()?.strip_prefix("version = \"")?.strip_suffix('"').filter(|_| is_it)
    });
    version.unwrap_or("unknown")
}
