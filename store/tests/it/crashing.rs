//! Processes that append are killed or stopped, and Postgres is, in the middle of it. Afterwards the log is audited:
//! every command that was acknowledged is in it once (invariant 1), every other one once and whole, or not at all
//! (invariants 3 and 5), and it is dense (4 and 8).

use crate::appending::{self, LEFT, RIGHT};
use crate::audit;
use crate::bank::{Bank, deposit};
use crate::harness::{database, id, log, run, start_postgres};
use daybook_store::{Chain, Mark, Position, RecordedEvent};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{PgPool, query_scalar};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

type Acknowledged = HashMap<Uuid, Position>;

/// A process that appends: `appending.rs`.
struct Appending {
    child: Child,
    /// How many commands it was acknowledged.
    count: watch::Receiver<usize>,
    acknowledged: JoinHandle<Acknowledged>,
}

impl Appending {
    fn start(url: &str) -> Self {
        let mut child = appending::command(url).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (counted, count) = watch::channel(0);
        let acknowledged = tokio::spawn(async move {
            let mut acknowledged = Acknowledged::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                // The test runner prints as well, and the last line of one that was killed may be half a line.
                let Some((Ok(id), Ok(position))) = line.split_once(' ').map(|(id, at)| (id.parse(), at.parse())) else {
                    continue;
                };
                assert_eq!(acknowledged.insert(id, position), None, "it was acknowledged twice");
                counted.send_replace(acknowledged.len());
            }
            acknowledged
        });
        Self { child, count, acknowledged }
    }

    /// Returns once it was acknowledged so many commands more. That it comes no further is a failure.
    async fn gets_on(&mut self, commands: usize) {
        let until = *self.count.borrow() + commands;
        let got_there =
            tokio::time::timeout(Duration::from_secs(60), self.count.wait_for(|count| *count >= until)).await;
        got_there.unwrap_or_else(|_| panic!("a minute, and it does not get on")).expect("it runs");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it, and returns what it was acknowledged until then.
    async fn kill(mut self) -> Acknowledged {
        self.child.kill().await.unwrap();
        self.acknowledged.await.unwrap()
    }
}

/// Money to withdraw and to give back.
async fn fill(url: &str) {
    let bank = Bank::start(url, 0);
    for account in [LEFT, RIGHT] {
        let (command_id, command) = deposit(id(account), 1_000_000);
        bank.execute(command_id, &command).await.unwrap();
    }
}

/// What the log has of each command: those of the processes under test write one event to each of two streams.
async fn audit(url: &str, acknowledged: &Acknowledged) {
    let events = log(url).read_all(0, 1_000_000).await.unwrap();
    assert!((1..).zip(&events).all(|(n, event)| event.position == n), "it has a gap");
    let mut commands: HashMap<Uuid, Vec<&RecordedEvent>> = HashMap::new();
    for event in &events[2..] {
        commands.entry(event.metadata.command_id).or_default().push(event);
    }
    for (id, events) in &commands {
        let [first, second] = events[..] else { panic!("{id} has {} events", events.len()) };
        assert_eq!(first.position + 1, second.position, "{id}");
        assert_ne!(first.stream, second.stream, "{id}");
        assert_eq!(first.event_type, second.event_type, "{id}");
    }
    assert!(!acknowledged.is_empty());
    for (id, position) in acknowledged {
        let events = commands.get(id).unwrap_or_else(|| panic!("{id} was acknowledged, and is not in the log"));
        assert_eq!(events[1].position, *position, "{id}");
    }
    let mut chain = Chain::after(Mark::GENESIS);
    let completes = events.iter().map(|event| chain.advance(event).unwrap());
    assert_eq!(completes.last(), Some(true), "the last group is whole");
    // And by other eyes.
    audit::assert_sound(url).await;
}

/// How often each thing is done to them: `ROUNDS`, if that is set.
fn rounds() -> usize {
    std::env::var("ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

#[tokio::test]
async fn a_process_that_is_killed_loses_nothing_acknowledged_and_leaves_no_half() {
    let url = database().await;
    fill(&url).await;
    let mut survivor = Appending::start(&url);
    let mut acknowledged = Acknowledged::new();
    for _ in 0..rounds() {
        let mut victim = Appending::start(&url);
        victim.gets_on(rand::random_range(1..50)).await;
        acknowledged.extend(victim.kill().await);
        survivor.gets_on(10).await;
    }
    acknowledged.extend(survivor.kill().await);
    audit(&url, &acknowledged).await;
}

/// The fault: a process is stopped, at a moment of chance, until it was the one that had locked the log. Then Postgres ends
/// its transaction; and when it goes on, it has changed nothing.
#[tokio::test]
async fn a_process_that_is_stopped_holds_nobody_up_and_changes_nothing_afterwards() {
    let url = database().await;
    fill(&url).await;
    let superuser = PgPool::connect(&url).await.unwrap();
    // A login of its own, to tell its connections from the other one's.
    let login = format!("stopped_{}", Uuid::now_v7().simple());
    let role = format!("CREATE ROLE {login} LOGIN; GRANT daybook_append, daybook_project, daybook_read TO {login}");
    run(&url, &role).await;
    let mut stopped = Appending::start(&url.replacen("://postgres@", &format!("://{login}@"), 1));
    let mut other = Appending::start(&url);
    other.gets_on(10).await;
    let mut locked = 0;
    for stops in 0.. {
        assert!(stops < 1000, "it was never stopped while it had locked the log");
        stopped.gets_on(rand::random_range(1..8)).await;
        stopped.signal(Signal::STOP);
        // Whatever it has sent to Postgres comes to its end, also if that has to wait.
        let state = "SELECT coalesce(max(state), 'gone') FROM pg_stat_activity
                     WHERE usename = $1 AND application_name = 'daybook_append'";
        let state = async || query_scalar::<_, String>(state).bind(&login).fetch_one(&superuser).await.unwrap();
        while state().await == "active" {
            tokio::task::yield_now().await;
        }
        locked += usize::from(state().await == "idle in transaction");
        other.gets_on(10).await;
        stopped.signal(Signal::CONT);
        if locked == rounds().min(20) {
            break;
        }
    }
    stopped.gets_on(10).await;
    let mut acknowledged = stopped.kill().await;
    acknowledged.extend(other.kill().await);
    audit(&url, &acknowledged).await;
}

#[tokio::test]
async fn processes_go_on_when_postgres_was_killed_and_have_lost_nothing_acknowledged() {
    let (mut postgres, url) = start_postgres().await;
    fill(&url).await;
    let mut processes = [Appending::start(&url), Appending::start(&url)];
    for _ in 0..rounds() {
        for process in &mut processes {
            process.gets_on(rand::random_range(5..50)).await;
        }
        postgres.kill9().await;
        postgres.restart().await.unwrap();
    }
    let mut acknowledged = Acknowledged::new();
    for mut process in processes {
        process.gets_on(10).await;
        acknowledged.extend(process.kill().await);
    }
    audit(&url, &acknowledged).await;
}
