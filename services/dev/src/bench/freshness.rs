//! How long it takes until what was acknowledged is seen: orders are placed through the command API at a steady rate,
//! with every service running and all that follows from them being done, and the position of each acknowledgement is
//! waited for in the order summary.

use super::measure::{self, Run};
use super::place::Place;
use super::{Args, Pair};
use crate::demo::plan::{currency, sku};
use cli::Failure;
use futures_util::{StreamExt, TryStreamExt, stream};
use order_services::policy::Timeouts;
use order_services::verbs;
use orders::id::{AddressId, CustomerId, OrderId, SellerId, Sku};
use orders::money::Amount;
use orders::order::{PaymentMethod, PlaceLine, PlaceOrder, PlacePayment, Rounding, SellerShipping};
use rand::RngExt;
use runtime::client::{Client, ClientError};
use runtime::process::Urls;
use runtime::process::connect_nats;
use sqlx::{Connection, PgConnection};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Position;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

/// How many SKUs are ordered, one an order; what is in stock of each is never sold out.
const SKUS: u32 = 1000;
const STOCK: u32 = 1_000_000_000;
/// How many orders tell how many commands an order is.
const SAMPLE: u64 = 200;
/// How often it is looked how far the order summary is. What is measured is too long by half of it, and by the query.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// When the position of an answer came, the lowest first.
type Answered = std::cmp::Reverse<(Position, Instant)>;

pub(super) async fn measure(args: &Args, place: &Place) -> Result<(&'static str, Vec<Pair>), Failure> {
    let urls = Urls { database_url: place.database_url.clone(), nats_url: place.nats_url.clone() };
    let process = crate::process::start(&urls, Timeouts::default()).await?;
    let measured = runs(args, &urls).await;
    process.stop().await;
    Ok(("the commands that were asked for", measured?))
}

async fn runs(args: &Args, urls: &Urls) -> Result<Vec<Pair>, Failure> {
    let mut shop = Shop {
        client: Client::new(connect_nats(&urls.nats_url, "daybook bench").await?, "bench"),
        database: PgConnection::connect(&urls.database_url).await?,
    };
    let receipts = stream::iter(0..SKUS).map(|n| shop.client.command(receive(n), PATIENCE));
    receipts.buffer_unordered(64).try_for_each(async |_| Ok(())).await?;
    let before = shop.head().await?;
    stream::iter(0..SAMPLE)
        .map(|_| shop.client.command(order(), PATIENCE))
        .buffer_unordered(64)
        .try_for_each(async |_| Ok(()))
        .await?;
    shop.settle().await?;
    let head = shop.head().await?;
    let commands_an_order = shop.commands(before, head).await? as f64 / SAMPLE as f64;
    let interval = Duration::from_secs_f64(commands_an_order / f64::from(args.rate));
    let mut pairs = Vec::new();
    for _ in 0..args.runs {
        let run = shop.run(args, interval).await?;
        shop.settle().await?;
        let asked = f64::from(args.rate) * run.elapsed.as_secs_f64();
        let bound = Run { operations: asked as u64, elapsed: run.elapsed, latencies: measure::histogram()? };
        pairs.push(Pair { run, bound, least_share: None });
    }
    Ok(pairs)
}

struct Shop {
    client: Client,
    /// A superuser's.
    database: PgConnection,
}

impl Shop {
    async fn head(&mut self) -> Result<Position, Failure> {
        let head = "SELECT coalesce(max(position), 0) FROM daybook.events";
        Ok(sqlx::query_scalar(head).fetch_one(&mut self.database).await?)
    }

    /// How many commands were recorded from one head to the other.
    async fn commands(&mut self, after: Position, to: Position) -> Result<u64, Failure> {
        let commands = "SELECT count(DISTINCT command_id) FROM daybook.events WHERE position > $1 AND position <= $2";
        let commands: i64 = sqlx::query_scalar(commands).bind(after).bind(to).fetch_one(&mut self.database).await?;
        Ok(commands as u64)
    }

    async fn summarised(&mut self) -> Result<Position, Failure> {
        let position = "SELECT position FROM daybook.checkpoints WHERE projection = 'order_summary' AND live";
        Ok(sqlx::query_scalar(position).fetch_one(&mut self.database).await?)
    }

    /// Waits until all that follows has been done.
    async fn settle(&mut self) -> Result<(), Failure> {
        let settled = "SELECT NOT EXISTS (SELECT FROM daybook.follow_ups WHERE state = 'due')
                          AND (SELECT min(position) FROM daybook.checkpoints WHERE live)
                              = (SELECT max(position) FROM daybook.events)";
        while !sqlx::query_scalar::<_, bool>(settled).fetch_one(&mut self.database).await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Places an order every `interval`, and looks when each is seen.
    async fn run(&mut self, args: &Args, interval: Duration) -> Result<Run, Failure> {
        let (answers, mut answered) = mpsc::unbounded_channel();
        let window = args.window();
        let begin = Instant::now() + window.warmup;
        let end = begin + window.measured;
        let placing = tokio::spawn(place_until(end, interval, args.clients, self.client.clone(), answers));
        let (mut waiting, mut latencies) = (BinaryHeap::<Answered>::new(), measure::histogram()?);
        let (mut first, mut last) = (None, None);
        loop {
            let (seen, now) = (self.summarised().await?, Instant::now());
            if first.is_none() && now >= begin {
                first = Some((self.head().await?, Instant::now()));
            }
            if last.is_none() && now >= end {
                last = Some((self.head().await?, Instant::now()));
            }
            let is_over = loop {
                match answered.try_recv() {
                    Ok(answer) => waiting.push(std::cmp::Reverse(answer)),
                    Err(e) => break e == mpsc::error::TryRecvError::Disconnected,
                }
            };
            while let Some(std::cmp::Reverse((position, at))) = waiting.peek().copied()
                && position <= seen
            {
                waiting.pop();
                if (begin..end).contains(&at) {
                    latencies.saturating_record(now.saturating_duration_since(at).as_micros() as u64);
                }
            }
            if is_over && waiting.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        placing.await.map_err(|e| Failure::Other(format!("the shop has ended: {e}")))??;
        let (Some((before, from)), Some((after, to))) = (first, last) else {
            return Err(Failure::Other("nothing was placed: give it more --seconds".into()));
        };
        Ok(Run { operations: self.commands(before, after).await?, elapsed: to - from, latencies })
    }
}

/// Places orders, no more than `clients` at once, and passes on when each was answered.
async fn place_until(
    end: Instant,
    interval: Duration,
    clients: u16,
    client: Client,
    answers: mpsc::UnboundedSender<(Position, Instant)>,
) -> Result<(), Failure> {
    let free = Arc::new(Semaphore::new(clients.into()));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut placing: JoinSet<Result<(), ClientError>> = JoinSet::new();
    while Instant::now() < end {
        ticks.tick().await;
        let permit = free.clone().acquire_owned().await.map_err(|e| Failure::Other(e.to_string()))?;
        let (client, answers) = (client.clone(), answers.clone());
        placing.spawn(async move {
            let reply = client.command(order(), PATIENCE).await?;
            _ = answers.send((reply.position, Instant::now()));
            drop(permit);
            Ok(())
        });
        while let Some(placed) = placing.try_join_next() {
            placed.map_err(|e| Failure::Other(e.to_string()))??;
        }
    }
    while let Some(placed) = placing.join_next().await {
        placed.map_err(|e| Failure::Other(e.to_string()))??;
    }
    Ok(())
}

fn nth(n: u32) -> Sku {
    sku(&format!("bench-{n}"))
}

fn receive(n: u32) -> verbs::Receive {
    verbs::Receive { sku: nth(n), quantity: STOCK }
}

/// An order of one line, which is paid and confirmed.
fn order() -> verbs::Place {
    let seller_id = SellerId(Uuid::from_u128(1));
    let line = PlaceLine {
        sku: nth(rand::rng().random_range(0..SKUS)),
        seller_id,
        quantity: 1,
        unit_price: Amount(1000),
        discount: Amount::ZERO,
        tax: Amount::ZERO,
    };
    let order = PlaceOrder {
        customer_id: CustomerId(Uuid::now_v7()),
        currency: currency("EUR"),
        shipping_address_id: AddressId(Uuid::now_v7()),
        billing_address_id: None,
        lines: vec![line],
        shipping: vec![SellerShipping { seller_id, amount: Amount(250) }],
        payments: vec![PlacePayment {
            method: PaymentMethod { kind: "credit_card".into(), token: "tok_approve_card".into() },
            amount: Amount(1250),
        }],
        rounding: Rounding::default(),
        backorder: false,
        approval_within_seconds: None,
    };
    verbs::Place { order_id: OrderId(Uuid::now_v7()), order }
}
