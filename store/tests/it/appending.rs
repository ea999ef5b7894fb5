//! A process that appends, for the tests that stop or kill one. Its clients withdraw from two accounts and give it back,
//! over and over, until its stdin ends. Each line that it prints is a command that was acknowledged: its id and position.

use crate::bank::{Answer, Bank, Command, Unavailable};
use crate::harness::id;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command as Process;
use uuid::Uuid;

const CLIENTS: usize = 6;
/// How long to wait before a command that was not answered is sent again.
const AGAIN: Duration = Duration::from_millis(10);

pub(crate) const LEFT: u128 = 1;
pub(crate) const RIGHT: u128 = 2;

/// The process, to be started on the database of `url`: this test program again, with the one test below.
pub(crate) fn command(url: &str) -> Process {
    let mut command = Process::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "appending::process", "--nocapture"]).env("APPEND_TO", url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "no test, but a process that others start"]
async fn process() {
    let Ok(url) = std::env::var("APPEND_TO") else { return };
    // Ends what the test runner has begun to print.
    println!();
    let bank = Bank::start(&url, 0);
    for _ in 0..CLIENTS {
        tokio::spawn(client(bank.clone()));
    }
    // Whoever started it has gone, then.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await.unwrap().unwrap();
    std::process::exit(0)
}

async fn client(bank: Bank) {
    loop {
        let (accounts, purchase) = (vec![id(LEFT), id(RIGHT)], Uuid::now_v7());
        let withdraw = Command::Withdraw { accounts: accounts.clone(), amount: 1, purchase };
        let refund = Command::Refund { accounts, purchase };
        for command in [withdraw, refund] {
            let command_id = Uuid::now_v7();
            // Sent until it is answered.
            let answer = loop {
                match bank.execute(command_id, &command).await {
                    Ok(answer) => break answer,
                    Err(Unavailable) => tokio::time::sleep(AGAIN).await,
                }
            };
            let Answer::Recorded { position, .. } = answer else {
                eprintln!("{command_id}: {answer:?}");
                std::process::exit(1);
            };
            println!("{command_id} {position}");
        }
    }
}
