//! Laws: however events come to a projection, in whatever batches, again, or cut off by a crash at any moment, by whichever
//! process, and whatever is rebuilt beside it, its rows are the fold of the log up to its checkpoint.

use crate::harness::{System, cut_off, order_of};
use engine::Batch;
use engine::ReadModel as _;
use engine::apply::Applier;
use engine::codec;
use engine::rebuild::Rebuild;
use order_views::Orders;
use order_views::{Delivered, Projection, ReadModel};
use orders::Command;
use orders::id::OrderId;
use orders::order::{self, CancelReason, HoldReason, PlaceOrder};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use sqlx::{AssertSqlSafe, PgPool, query_scalar};
use std::collections::HashMap;
use store::checkpoint::{self, AdvanceError, Checkpoint};
use store::connect::{self, Role};
use store::lease::{self, Lease};
use store::{Mark, Position};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// What can become of a projection.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// The next events are taken in.
    Take(usize),
    /// Some that were taken in come again, and then the next ones.
    TakeAgain(usize, usize),
    /// The process ends while it takes in the next events: after so many turns of its task.
    Crash(usize, usize),
    /// Another process takes over; the one before does not know yet.
    TakeOver(usize),
    /// A replay takes in the next events, and writes its rows.
    Rebuild(usize),
    /// The replay's process ends, with events that it has taken in and not written.
    CrashRebuild(usize),
    /// The replay comes to where the live rows are, and its rows are live from then on.
    Switch,
}

fn act() -> impl Strategy<Value = Act> {
    let some = || 1..30usize;
    prop_oneof![
        3 => some().prop_map(Act::Take),
        2 => (some(), some()).prop_map(|(again, new)| Act::TakeAgain(again, new)),
        3 => (some(), 0..40usize).prop_map(|(events, turns)| Act::Crash(events, turns)),
        2 => some().prop_map(Act::TakeOver),
        3 => some().prop_map(Act::Rebuild),
        1 => some().prop_map(Act::CrashRebuild),
        2 => Just(Act::Switch),
    ]
}

/// A log, and what its folds are.
struct World {
    system: System,
    superuser: PgPool,
    events: Vec<Delivered>,
    end: Mark,
    /// The rows of each projection, at each position.
    folds: HashMap<Projection, Vec<Vec<String>>>,
}

/// The rows that are served, without what is no fold: their generation, and by when a follow-up is due.
async fn rows(superuser: &PgPool, projection: Projection) -> Vec<String> {
    let name = projection.name();
    let of_live = match projection {
        Projection::ReadModel(_) => {
            format!(
                "WHERE generation = (SELECT generation FROM daybook.checkpoints WHERE projection = '{name}' AND live)"
            )
        }
        Projection::FollowUps | Projection::Timers => String::new(),
    };
    let rows =
        format!("SELECT (to_jsonb(t) - 'generation' - 'due_at')::text FROM daybook.{name} t {of_live} ORDER BY 1");
    query_scalar(AssertSqlSafe(rows)).fetch_all(superuser).await.unwrap()
}

impl World {
    fn batch(&self, events: &[Delivered]) -> Batch<Orders> {
        Batch { events: events.to_vec(), proof: self.end }
    }

    /// Orders that go different ways, folded one event after the other.
    async fn new() -> Self {
        let mut system = System::start().await;
        let tell = async |system: &mut System, id: OrderId, command: order::Command| {
            system.execute(Command::Order { id, command }).await.unwrap();
            system.settle().await;
        };
        system.receive("mug", 4).await;
        let shipped = system.place(order_of(&[("mug", 1, 1), ("mug", 1, 2)])).await;
        system.settle().await;
        system.ship(shipped).await;
        system.place(order_of(&[("mug", 9, 1)])).await;
        system.settle().await;
        let approved =
            PlaceOrder { backorder: true, approval_within_seconds: Some(3600), ..order_of(&[("mug", 3, 1)]) };
        let approved = system.place(approved).await;
        tell(&mut system, approved, order::Command::PlaceHold { reason: HoldReason::Fraud }).await;
        tell(&mut system, approved, order::Command::GrantApproval { approval: 1 }).await;
        system.receive("mug", 5).await;
        tell(&mut system, approved, order::Command::ReleaseHold { reason: HoldReason::Fraud }).await;
        let cancelled = system.place(order_of(&[("mug", 1, 1)])).await;
        let cancel = Command::CancelOrder { id: cancelled, reason: CancelReason::CustomerRequest };
        system.settle().await;
        system.execute(cancel).await.unwrap();
        system.settle().await;
        system.assert_verified().await;

        let superuser = system.superuser().await;
        let records = system.parts.log.read_all(0, 10_000).await.unwrap();
        let events = records.into_iter().map(|record| codec::deliver::<Orders>(record).unwrap()).collect();
        let end = system.parts.log.end().await.unwrap();
        let mut world = Self { system, superuser, events, end, folds: HashMap::new() };
        for projection in Projection::all() {
            let live = rows(&world.superuser, projection).await;
            let mut run = Run::begin(&world, projection).await;
            let mut folds = vec![rows(&world.superuser, projection).await];
            for _ in 0..world.events.len() {
                run.take(1).await;
                folds.push(rows(&world.superuser, projection).await);
            }
            // `verify` has folded them a second time, in its own way. What became of acts is no fold.
            if let Projection::ReadModel(_) = projection {
                assert!(folds.last() == Some(&live) && !live.is_empty(), "{}", projection.name());
            }
            world.folds.insert(projection, folds);
        }
        world
    }
}

/// A projection, from the beginning of the log on.
struct Run<'a> {
    world: &'a World,
    projection: Projection,
    applier: Applier<Orders>,
    lease: Lease,
    at: Checkpoint,
    rebuild: Option<Rebuild<ReadModel>>,
    /// How many processes have replayed it.
    replays: i64,
}

impl<'a> Run<'a> {
    async fn begin(world: &'a World, projection: Projection) -> Self {
        let name = projection.name();
        let begin = format!(
            "TRUNCATE daybook.{name}; DELETE FROM daybook.leases; DELETE FROM daybook.parked_events;
             DELETE FROM daybook.checkpoints WHERE projection = '{name}' AND NOT live;
             UPDATE daybook.checkpoints SET position = 0, fence = 0 WHERE projection = '{name}'"
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&world.superuser).await.unwrap();
        let (lease, at) = taken(world, projection).await;
        Self { world, projection, applier: Applier::new(projection), lease, at, rebuild: None, replays: 0 }
    }

    fn pool(&self) -> &'a PgPool {
        &self.world.system.parts.project
    }

    /// Up to `limit` events after a position.
    fn after(&self, position: Position, limit: usize) -> Batch<Orders> {
        let events = &self.world.events[position as usize..];
        self.world.batch(&events[..limit.min(events.len())])
    }

    /// As the projector does it: who finds that the checkpoint is not what it was looks where that is.
    async fn take(&mut self, limit: usize) {
        self.take_from(0, limit).await;
    }

    async fn take_from(&mut self, again: usize, limit: usize) {
        loop {
            let from = (self.at.position - again as i64).max(0);
            let events = self.after(from, limit + (self.at.position - from) as usize);
            match self.applier.apply(self.pool(), self.at, self.lease.fence, &events).await {
                Ok(at) => return self.at = at,
                Err(AdvanceError::Fenced(_)) => {
                    self.applier.forget();
                    let (name, version) = (self.projection.name(), self.projection.version());
                    self.at = checkpoint::acquire(self.pool(), name, version, &self.lease).await.unwrap();
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Another process has the lease; what the one before has in memory is not known to it.
    async fn taken_over(&mut self) -> (Applier<Orders>, Lease, Checkpoint) {
        let (lease, at) = taken(self.world, self.projection).await;
        let applier = std::mem::replace(&mut self.applier, Applier::new(self.projection));
        (applier, std::mem::replace(&mut self.lease, lease), std::mem::replace(&mut self.at, at))
    }

    async fn rebuild(&mut self, model: ReadModel, limit: usize, is_written: bool) {
        if self.rebuild.is_none() {
            self.replays += 1;
            self.rebuild = Some(Rebuild::begin(self.pool(), model, self.replays).await.unwrap());
        }
        let Some(rebuild) = &mut self.rebuild else { return };
        // It comes to where the live rows are, and no further.
        let from = rebuild.position();
        let events =
            &self.world.events[from as usize..(self.at.position as usize).min((from as usize).saturating_add(limit))];
        if let Some(last) = events.last() {
            let batch = self.world.batch(events);
            rebuild.apply(&self.world.system.parts.project, &batch, last.record().position).await.unwrap();
        }
        if is_written {
            rebuild.write(&self.world.system.parts.project).await.unwrap();
        }
    }

    async fn act(&mut self, act: Act) {
        match (act, self.projection) {
            (Act::Take(limit), _) => self.take(limit).await,
            (Act::TakeAgain(again, limit), _) => self.take_from(again, limit).await,
            (Act::Crash(limit, turns), _) => {
                let events = self.after(self.at.position, limit);
                // Its connection dies with it. (One that is left in the middle of a BEGIN must not be used again: sqlx does
                // not know that a transaction is open.)
                let dying = connect::pool(&self.world.system.urls.database_url, Role::Project, 1).unwrap();
                drop(dying.acquire().await.unwrap());
                // Whether it was written, nobody has heard.
                _ = cut_off(self.applier.apply(&dying, self.at, self.lease.fence, &events), turns).await;
                dying.close().await;
                self.taken_over().await;
            }
            (Act::TakeOver(limit), _) => {
                let (mut applier, lease, at) = self.taken_over().await;
                let events = self.after(at.position, limit);
                if !events.events.is_empty() {
                    let stale = applier.apply(self.pool(), at, lease.fence, &events).await;
                    assert!(matches!(stale, Err(AdvanceError::Fenced(_))), "{stale:?}");
                }
            }
            (Act::Rebuild(limit), Projection::ReadModel(model)) => self.rebuild(model, limit, true).await,
            (Act::CrashRebuild(limit), Projection::ReadModel(model)) => {
                self.rebuild(model, limit, false).await;
                self.rebuild = None;
            }
            (Act::Switch, Projection::ReadModel(model)) => {
                self.rebuild(model, usize::MAX, false).await;
                let Some(mut rebuild) = self.rebuild.take() else { return };
                let mut held = self.pool().begin().await.unwrap();
                let live = checkpoint::lock_live(&mut held, model.name()).await.unwrap();
                assert_eq!(rebuild.position(), live.position);
                rebuild.switch(&mut held).await.unwrap();
                held.commit().await.unwrap();
            }
            (Act::Rebuild(_) | Act::CrashRebuild(_) | Act::Switch, Projection::FollowUps | Projection::Timers) => {}
        }
    }

    /// The rows are those of the checkpoint, whatever the process believes.
    async fn assert_folded(&self) {
        let (name, superuser) = (self.projection.name(), &self.world.superuser);
        let position = "SELECT position FROM daybook.checkpoints WHERE projection = $1 AND live";
        let position: Position = query_scalar(position).bind(name).fetch_one(superuser).await.unwrap();
        assert_eq!(rows(superuser, self.projection).await, self.world.folds[&self.projection][position as usize]);
    }
}

/// The lease and the checkpoint of a process that has just begun.
async fn taken(world: &World, projection: Projection) -> (Lease, Checkpoint) {
    let (pool, name) = (&world.system.parts.project, projection.name());
    let expire = "UPDATE daybook.leases SET expires_at = '-infinity' WHERE name = $1";
    sqlx::query(expire).bind(name).execute(&world.superuser).await.unwrap();
    let lease = lease::acquire(pool, name, Uuid::now_v7()).await.unwrap().unwrap();
    let at = checkpoint::acquire(pool, name, projection.version(), &lease).await.unwrap();
    (lease, at)
}

/// How many runs there are: `PROPTEST_CASES`, if that is set.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

/// Invariants 13 (each event has its effect once), 14 (per stream in version order, whatever is redelivered), 16 (after any
/// crash the rows are the fold of the log, byte for byte), 17 (those that are rebuilt, too) and 18 (they move with the
/// checkpoint: they are the fold up to just there, at every moment).
#[test]
fn rows_are_the_fold_of_the_log_whatever_becomes_of_events_processes_and_replays() {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let acts = (select(Projection::all().collect::<Vec<_>>()), prop::collection::vec(act(), 1..16));
    let mut runner = TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
    let proved = runner.run(&acts, |(projection, acts)| {
        runtime.block_on(async {
            let mut run = Run::begin(&world, projection).await;
            for act in acts {
                run.act(act).await;
                run.assert_folded().await;
            }
            while run.at.position < world.events.len() as Position {
                run.take(usize::MAX / 2).await;
            }
            run.assert_folded().await;
        });
        Ok(())
    });
    if let Err(e) = proved {
        panic!("{e}");
    }
}
