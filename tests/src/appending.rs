//! A process that appends, for the stories that stop or kill one. Its clients hold and give back pieces of two SKUs, over
//! and over, until its stdin ends. Each line that it prints is a command that was acknowledged: its id and position.

use order_services::{Envelope, ExecuteError, Executor};
use order_views::CATEGORIES;
use orders::id::{OrderId, Sku};
use orders::order::StockLine;
use orders::{Command, stock};
use runtime::executor::Outcome;
use std::time::Duration;
use store::connect::{self, Role};
use store::{Appender, Loader, Log};
use uuid::Uuid;

const CLIENTS: usize = 6;
/// How long to wait before a command that was not answered is sent again.
const AGAIN: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let log = Log::new(connect::pool(&url, Role::Read, 4)?, CATEGORIES);
    let appender = Appender::start(&url)?;
    let executor = Executor::new(log, Loader::start(&url, 0, appender.history())?, appender);
    let piece = |line, sku| StockLine { line, sku, quantity: 1 };
    let lines = vec![piece(1, Sku::new("left")?), piece(2, Sku::new("right")?)];
    for _ in 0..CLIENTS {
        tokio::spawn(client(executor.clone(), lines.clone()));
    }
    // Whoever started it has gone, then.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    std::process::exit(0)
}

async fn client(executor: Executor, lines: Vec<StockLine>) {
    loop {
        let order_id = OrderId(Uuid::now_v7());
        let reserve = stock::Command::Reserve { order_id, lines: lines.clone(), hold_seconds: 60, edit: None };
        let release = stock::Command::Release { order_id, lines: lines.clone() };
        for command in [reserve, release] {
            let command_id = Uuid::now_v7();
            let Outcome { position, .. } = executed(&executor, command_id, Command::Stock(command)).await;
            println!("{command_id} {position}");
        }
    }
}

/// Sends it until it is answered.
async fn executed(executor: &Executor, command_id: Uuid, command: Command) -> Outcome {
    let (actor, occurred_at) = ("test".into(), chrono::Utc::now());
    let (correlation_id, causation_id, traceparent) = (None, None, None);
    let envelope = Envelope { command_id, command, actor, correlation_id, causation_id, occurred_at, traceparent };
    loop {
        match executor.execute(&envelope).await {
            Ok(outcome) => return outcome,
            Err(ExecuteError::Unavailable(_)) => tokio::time::sleep(AGAIN).await,
            Err(e) => {
                eprintln!("{command_id}: {e}");
                std::process::exit(1);
            }
        }
    }
}
