//! Several processes on one log: this program again, told by a line on its stdin on which database to
//! begin: a URL may hold a password, and others see the arguments.

use super::measure::{self, Run};
use super::{Args, load};
use clap::ValueEnum;
use cli::{Failure, output};
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// What a process tells the one that started it.
#[derive(Serialize, Deserialize)]
struct Told {
    operations: u64,
    /// How often each latency, in microseconds, was measured.
    latencies: Vec<(u64, u64)>,
}

/// Is one of several processes.
pub(super) async fn join(args: &Args) -> Result<(), Failure> {
    output::line("ready");
    let mut url = String::new();
    std::io::stdin().read_line(&mut url)?;
    let run = load::one_process(args, url.trim_end()).await?;
    let latencies = run.latencies.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
    output::line(&serde_json::to_string(&Told { operations: run.operations, latencies })?);
    Ok(())
}

/// Has several processes measure at once; also tells the least share that one of them had.
pub(super) async fn run(args: &Args, url: &str) -> Result<(Run, Option<f64>), Failure> {
    let mut peers = Vec::new();
    for _ in 0..args.processes {
        let mut peer = start(args)?;
        let stdout = peer.stdout.take().ok_or_else(|| Failure::Other("a process has no stdout".into()))?;
        let mut lines = BufReader::new(stdout).lines();
        lines.next_line().await?;
        peers.push((peer, lines));
    }
    for (peer, _) in &mut peers {
        if let Some(stdin) = &mut peer.stdin {
            stdin.write_all(format!("{url}\n").as_bytes()).await?;
        }
    }
    let (mut total, mut least, mut latencies) = (0, u64::MAX, measure::histogram()?);
    for (mut peer, mut lines) in peers {
        let line = lines.next_line().await?.ok_or_else(|| Failure::Other("a process told nothing".into()))?;
        let told: Told = serde_json::from_str(&line)?;
        told.latencies.iter().for_each(|(value, count)| latencies.saturating_record_n(*value, *count));
        total += told.operations;
        least = least.min(told.operations);
        peer.wait().await?;
    }
    let run = Run { operations: total, elapsed: args.window().measured, latencies };
    Ok((run, Some(least as f64 / total.max(1) as f64)))
}

fn start(args: &Args) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let workload = args.workload.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    command.args(["bench", &workload, "--join"]);
    command.args(["--clients", &args.clients.to_string()]);
    command.args([
        "--seconds",
        &args.seconds.as_secs_f64().to_string(),
        "--warmup",
        &args.warmup.as_secs_f64().to_string(),
    ]);
    if let Some(size) = args.size {
        command.args(["--size", &size.to_string()]);
    }
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}
