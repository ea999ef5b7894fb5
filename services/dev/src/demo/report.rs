//! What happened against what must have: once nothing moves any more, by the read models, and by `verify`.

use super::drive::Driven;
use super::plan::{End, Plan};
use crate::olist::{self, Orphans, TidiedAmount};
use crate::provider;
use cli::output::Kinds;
use cli::{Failure, output};
use order_services::verify::{Report as Verified, verify};
use orders::money::{Amount, Currency};
use runtime::nats::Nats;
use runtime::process::{StartError, jetstream};
use serde::Serialize;
use sqlx::PgPool;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use store::connect::{self, Role};
use uuid::Uuid;

/// How long the last follow-ups may take.
const QUIET: Duration = Duration::from_secs(60);
/// How often it is looked whether anything still moves.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Serialize)]
pub(super) struct Report {
    orders: u64,
    /// How many took which path.
    paths: BTreeMap<&'static str, u64>,
    expected: BTreeMap<&'static str, u64>,
    ended: BTreeMap<&'static str, u64>,
    balances: Vec<Balance>,
    events: i64,
    commands: u64,
    commands_per_second: f64,
    command_p50_ms: f64,
    command_p99_ms: f64,
    seconds: f64,
    /// Between the end of the log and the projection that is furthest behind.
    lag_events: i64,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Files>,
    #[serde(skip)]
    report: Verified,
}

/// Money or pieces, added up over all orders: what must have come of them, what did by the events, and, of money, by the
/// provider's own books.
#[derive(Serialize)]
struct Balance {
    what: String,
    must: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<i64>,
    /// Of money, which is in minor units.
    #[serde(skip)]
    currency: Option<Currency>,
}

impl Balance {
    fn row(&self) -> Vec<String> {
        let show = |n: i64| self.currency.map_or(n.to_string(), |currency| Amount(n).display(currency));
        let optional = |n: Option<i64>| n.map_or(String::new(), show);
        vec![self.what.clone(), show(self.must), optional(self.events), optional(self.provider)]
    }

    fn agrees(&self) -> bool {
        [self.events, self.provider].into_iter().flatten().all(|found| found == self.must)
    }
}

/// What the files of a sample say, against what the system has of it.
#[derive(Serialize)]
struct Files {
    rows: Vec<Row>,
    not_taken: Vec<NotTaken>,
    /// Payments of 0.00, which no provider is asked for.
    zero_payments: usize,
    /// Amounts that a spreadsheet has written, and what they are taken for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tidied: Vec<TidiedAmount>,
    /// Rows of orders that the orders file does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    orphans: Option<Orphans>,
}

#[derive(Serialize)]
struct Row {
    what: String,
    in_files: i64,
    in_system: i64,
    /// Whether both are minor units of money.
    #[serde(skip)]
    money: bool,
}

#[derive(Serialize)]
struct NotTaken {
    order: String,
    reason: &'static str,
    why: String,
}

/// Waits until nothing moves, and looks.
pub(super) async fn of(
    plan: &Plan,
    sample: Option<&olist::Sample>,
    database_url: &str,
    nats: &Nats,
    driven: &Driven,
) -> Result<Report, Failure> {
    let pool = connect::pool(database_url, Role::Read, 2)?;
    let nats = nats.process.connect("daybook demo").await.map_err(StartError::from)?;
    let (events, lag_events) = quiet(&pool).await?;
    let ids: Vec<Uuid> = plan.orders.iter().map(|o| o.id.0).collect();
    let ended = ends(&pool, &ids).await?;
    let balances = balances(&pool, plan, &ids).await?;
    let report = verify(&pool, Some(&jetstream(&nats)), Duration::from_secs(10)).await;
    let report = report.map_err(|e| Failure::Unavailable(e.to_string()))?;
    let files = match sample {
        Some(sample) => Some(files(&pool, sample, &ids).await?),
        None => None,
    };
    let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    Ok(Report {
        orders: plan.orders.len() as u64,
        paths: plan.paths.clone(),
        balances,
        expected: plan.expected.iter().map(|(end, orders)| (end.name(), *orders)).collect(),
        ended,
        events,
        commands: driven.commands,
        commands_per_second: (driven.commands as f64 / driven.elapsed.as_secs_f64()).round(),
        command_p50_ms: ms(driven.p50),
        command_p99_ms: ms(driven.p99),
        seconds: ms(driven.elapsed) / 1e3,
        lag_events,
        verified: report.agrees(),
        files,
        report,
    })
}

/// Waits until every projection is at the end of the log and no follow-up is due; says where that is, and the lag.
async fn quiet(pool: &PgPool) -> Result<(i64, i64), Failure> {
    let begun = Instant::now();
    loop {
        let now = sqlx::query!(
            r#"SELECT (SELECT coalesce(max(position), 0) FROM daybook.events) AS "head!",
                      (SELECT min(position) FROM daybook.checkpoints WHERE live) AS "slowest!",
                      (SELECT count(*) FROM daybook.follow_ups WHERE state = 'due') AS "due!""#
        )
        .fetch_one(pool)
        .await?;
        if now.head == now.slowest && now.due == 0 || begun.elapsed() > QUIET {
            return Ok((now.head, now.head - now.slowest));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How the orders ended, by the read model.
async fn ends(pool: &PgPool, ids: &[Uuid]) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT status, coalesce(reason, '') AS "reason!", count(*) AS "orders!" FROM daybook.order_summary
           WHERE order_id = ANY($1)
             AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary' AND live)
           GROUP BY 1, 2"#,
        ids
    );
    let mut ended = BTreeMap::new();
    for row in rows.fetch_all(pool).await? {
        let end = match (row.status.as_str(), row.reason.as_str()) {
            ("completed", _) => End::Completed.name(),
            ("rejected", _) => End::Declined.name(),
            ("cancelled", "out_of_stock") => End::OutOfStock.name(),
            ("cancelled", "approval_denied") => End::Denied.name(),
            ("cancelled", _) => End::Cancelled.name(),
            _ => "not_ended",
        };
        *ended.entry(end).or_default() += row.orders as u64;
    }
    Ok(ended)
}

async fn balances(pool: &PgPool, plan: &Plan, ids: &[Uuid]) -> Result<Vec<Balance>, Failure> {
    let in_events = sqlx::query!(
        r#"SELECT payload->>'currency' AS "currency!",
                  sum(CASE event_type WHEN 'PaymentCaptured' THEN 1 ELSE -1 END * (payload->>'amount')::bigint)::bigint
                      AS "kept!"
           FROM daybook.events
           WHERE correlation_id = ANY($1) AND event_type IN ('PaymentCaptured', 'PaymentRefunded')
           GROUP BY 1"#,
        ids
    );
    let in_events: BTreeMap<String, i64> =
        in_events.fetch_all(pool).await?.into_iter().map(|row| (row.currency, row.kept)).collect();
    let moved = provider::moved(pool, ids).await?;
    let mut by_provider: BTreeMap<String, i64> = BTreeMap::new();
    for moved in &moved {
        *by_provider.entry(moved.currency.clone()).or_default() += moved.captured - moved.refunded;
    }
    let must: BTreeMap<String, i64> = plan.kept.iter().map(|(c, kept)| (c.to_string(), *kept)).collect();
    let currencies: BTreeSet<&String> = must.keys().chain(in_events.keys()).chain(by_provider.keys()).collect();
    let of = |all: &BTreeMap<String, i64>, currency: &String| all.get(currency).copied().unwrap_or(0);
    let money = |currency: &String| Balance {
        what: format!("{currency} taken and not given back"),
        must: of(&must, currency),
        events: Some(of(&in_events, currency)),
        provider: Some(of(&by_provider, currency)),
        currency: currency.parse().ok(),
    };
    let mut balances: Vec<Balance> = currencies.into_iter().map(money).collect();

    let ended_early = sqlx::query_scalar!(
        r#"SELECT order_id FROM daybook.order_summary WHERE order_id = ANY($1) AND status <> 'completed'
           AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary' AND live)"#,
        ids
    );
    let ended_early: BTreeSet<Uuid> = ended_early.fetch_all(pool).await?.into_iter().collect();
    let held = moved.iter().filter(|moved| ended_early.contains(&moved.order_id)).map(|moved| moved.held).sum();
    balances.push(Balance {
        what: "money held of orders that ended early".into(),
        must: 0,
        events: None,
        provider: Some(held),
        currency: None,
    });

    // What had to wait is reserved by whoever made room for it, under another correlation id.
    let pieces = sqlx::query!(
        r#"SELECT event_type, sum((line->>'quantity')::bigint)::bigint AS "pieces!"
           FROM daybook.events, json_array_elements(payload->'lines') AS line
           WHERE (payload->>'order_id')::uuid = ANY($1)
             AND event_type IN ('StockReserved', 'StockCommitted', 'StockReleased', 'StockExpired', 'StockRestocked')
           GROUP BY 1"#,
        ids
    );
    let pieces: BTreeMap<String, i64> =
        pieces.fetch_all(pool).await?.into_iter().map(|row| (row.event_type, row.pieces)).collect();
    let pieces = |event_type: &str| pieces.get(event_type).copied().unwrap_or(0);
    let ended = pieces("StockCommitted") + pieces("StockReleased") + pieces("StockExpired");
    let rows = [
        ("pieces shipped", plan.shipped, pieces("StockCommitted")),
        ("pieces that came back", plan.returned, pieces("StockRestocked")),
        ("pieces still reserved", 0, pieces("StockReserved") - ended),
    ];
    balances.extend(rows.map(|(what, must, events)| Balance {
        what: what.into(),
        must: must as i64,
        events: Some(events),
        provider: None,
        currency: None,
    }));
    Ok(balances)
}

async fn files(pool: &PgPool, sample: &olist::Sample, ids: &[Uuid]) -> Result<Files, Failure> {
    let table = sample.expected();
    let system = sqlx::query!(
        r#"SELECT count(*) AS "orders!", coalesce(sum(lines), 0)::bigint AS "lines!",
                  coalesce(sum(total), 0)::bigint AS "total!", coalesce(sum(delivered), 0)::bigint AS "delivered!"
           FROM daybook.order_summary
           WHERE order_id = ANY($1)
             AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary' AND live)"#,
        ids
    );
    let system = system.fetch_one(pool).await?;
    let captured = sqlx::query!(
        r#"SELECT p->>'kind' AS "kind!", sum((p->>'captured')::bigint)::bigint AS "captured!"
           FROM daybook.order_summary, jsonb_array_elements(payments) AS p
           WHERE order_id = ANY($1)
             AND generation = (SELECT generation FROM daybook.checkpoints WHERE projection = 'order_summary' AND live)
           GROUP BY 1"#,
        ids
    );
    let captured: BTreeMap<String, i64> =
        captured.fetch_all(pool).await?.into_iter().map(|row| (row.kind, row.captured)).collect();
    let taken = &table.taken;
    let row = |what: &str, in_files: i64, in_system: i64, money| Row { what: what.into(), in_files, in_system, money };
    let mut rows = vec![
        row("orders", taken.orders as i64, system.orders, false),
        row("lines", taken.lines as i64, system.lines, false),
        row("lines delivered", taken.lines as i64, system.delivered, false),
        row("items and freight", taken.items.0 + taken.freight.0, system.total, true),
    ];
    let mut kinds: Vec<&String> = taken.paid.keys().chain(captured.keys()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let (in_files, in_system) = (taken.paid.get(kind).map_or(0, |a| a.0), captured.get(kind).copied());
        rows.push(row(&format!("captured by {kind}"), in_files, in_system.unwrap_or(0), true));
    }
    let not_taken = sample.not_taken.iter().map(|n| NotTaken {
        order: n.olist_id.clone(),
        reason: n.why.kind(),
        why: n.why.to_string(),
    });
    let (zero_payments, tidied) = (sample.zero_payments.len(), sample.tidied.clone());
    let orphans = Some(sample.orphans).filter(|orphans| *orphans != Orphans::default());
    Ok(Files { rows, not_taken: not_taken.collect(), zero_payments, tidied, orphans })
}

impl Report {
    /// Prints it; it is a failure if anything is not as it must be.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        match json {
            true => output::line(&serde_json::to_string(self)?),
            false => self.print_text(),
        }
        let mut wrong = Vec::new();
        if self.expected != self.ended {
            wrong.push("orders did not end as they must");
        }
        if !self.balances.iter().all(Balance::agrees) {
            wrong.push("money or pieces do not add up");
        }
        if self.lag_events != 0 {
            wrong.push("a projection did not come to the end of the log");
        }
        if !self.verified {
            if json {
                output::say(&self.report.to_string());
            }
            wrong.push("verify found differences");
        }
        if self.files.iter().flat_map(|f| &f.rows).any(|row| row.in_files != row.in_system) {
            wrong.push("the system does not have what the files say");
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::Differs(wrong.join("; "))) }
    }

    fn print_text(&self) {
        let paths: Vec<Vec<String>> =
            self.paths.iter().map(|(path, orders)| vec![(*path).to_owned(), orders.to_string()]).collect();
        output::line(&format!("{}\n", output::table(&["orders that go this way", "orders"], &paths)));
        let count = |of: &BTreeMap<&str, u64>, name: &str| of.get(name).copied().unwrap_or(0).to_string();
        let names =
            End::ALL.map(End::name).into_iter().chain(self.ended.contains_key("not_ended").then_some("not_ended"));
        let row = |name: &str| vec![name.to_owned(), count(&self.expected, name), count(&self.ended, name)];
        let mut rows: Vec<Vec<String>> = names.map(row).collect();
        let total = |of: &BTreeMap<&str, u64>| of.values().sum::<u64>().to_string();
        rows.push(vec!["all".into(), total(&self.expected), total(&self.ended)]);
        output::line(&output::table(&["orders that end", "must", "did"], &rows));
        output::line("");
        output::section(&["over all orders", "must", "events", "provider"], self.balances.iter().map(Balance::row));
        if let Some(files) = &self.files {
            files.print_text();
        }
        output::line(&format!(
            "{} events; {} commands in {:.1} s ({} a second), answered in {} ms (median), {} ms (p99)",
            self.events,
            self.commands,
            self.seconds,
            self.commands_per_second,
            self.command_p50_ms,
            self.command_p99_ms
        ));
        output::line(&format!("\n{}", self.report));
    }
}

impl Files {
    fn print_text(&self) {
        let real = "BRL".parse();
        let show = |row: &Row, n: i64| match (&real, row.money) {
            (Ok(real), true) => Amount(n).display(*real),
            _ => n.to_string(),
        };
        let rows = self.rows.iter().map(|r| vec![r.what.clone(), show(r, r.in_files), show(r, r.in_system)]);
        output::section(&["of the sample", "files", "system"], rows);
        let not_taken =
            Kinds::of(self.not_taken.iter().map(|n| (n.reason, vec![n.order.clone(), n.reason.into(), n.why.clone()])));
        not_taken.print("not taken", "orders", &["not taken", "reason", "why"]);
        let real = |amount: Amount| real.as_ref().map_or_else(|_| amount.0.to_string(), |real| amount.display(*real));
        let tidied = Kinds::of(self.tidied.iter().map(|t| {
            let place = format!("{}, line {}", t.file, t.line);
            (t.column, vec![t.order.clone(), place, t.found.clone(), real(t.amount)])
        }));
        tidied.print("tidied", "amounts", &["order", "tidied", "written", "taken for"]);
        if not_taken.are_cut() || tidied.are_cut() {
            output::line("these are examples: --json has all of them\n");
        }
        if self.zero_payments > 0 {
            output::line(&format!("left out: {} payments of 0.00\n", self.zero_payments));
        }
        if let Some(Orphans { items, payments }) = self.orphans {
            let of = "of orders that the orders file does not have";
            output::line(&format!("left out: {items} items and {payments} payments {of}\n"));
        }
    }
}
