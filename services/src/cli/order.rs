//! `daybook order place|show|cancel`: commands and a query about one order.

use super::{Failure, output, target};
use crate::codec;
use crate::command_api::{Cancel, Place};
use crate::config::Servers;
use crate::time_travel::{At, state_at};
use crate::wire::{self, ErrorBody};
use chrono::{DateTime, Utc};
use domain::id::OrderId;
use domain::money::{Amount, Currency};
use domain::order::{CancelReason, Order, PlaceOrder};
use projections::order_summary::OrderSummary;
use serde_json::json;
use std::io::Read;
use store::connect::{self, Role};
use store::{Log, Position, Version};
use uuid::Uuid;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Place an order, given as JSON (see docs/wire.md).
    Place {
        /// The file with the order; - for standard input.
        #[arg(long)]
        file: String,
        /// The id of the new order; made up if not given.
        #[arg(long)]
        id: Option<Uuid>,
    },
    /// Show an order: as it stands, or as it was.
    Show {
        /// The order's id.
        id: Uuid,
        /// Wait for the read model to come to this position, that of a command's reply.
        #[arg(long, conflicts_with_all = ["version", "as_of"])]
        at_least: Option<Position>,
        /// Show what its events came to, up to this version of its stream.
        #[arg(long, conflicts_with = "as_of", value_parser = clap::value_parser!(i64).range(1..))]
        version: Option<Version>,
        /// Show what its events came to by this time, such as 2026-11-22T08:39:56Z.
        #[arg(long, value_name = "TIME")]
        as_of: Option<DateTime<Utc>>,
    },
    /// Cancel an order; refused once anything of it is dispatched.
    Cancel {
        /// The order's id.
        id: Uuid,
    },
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    match verb {
        Verb::Place { file, id } => {
            let order: PlaceOrder = wire::parse(read(&file)?.as_bytes()).map_err(|e| no_order(&file, &e))?;
            let order_id = OrderId(id.unwrap_or_else(Uuid::now_v7));
            let client = target::client(servers).await?;
            let reply = client.command(Place { order_id, order }, target::PATIENCE).await?;
            output::reply("order_id", &order_id.to_string(), &reply, json)?;
        }
        Verb::Show { id, version: Some(version), .. } => show_at(id, At::Version(version), servers, json).await?,
        Verb::Show { id, as_of: Some(time), .. } => show_at(id, At::Time(time), servers, json).await?,
        Verb::Show { id, at_least, .. } => {
            let client = target::client(servers).await?;
            let found = client.query::<OrderSummary>("order_summary.get", json!({ "order_id": id }), at_least).await?;
            match json {
                true => output::line(&serde_json::to_string(&found)?),
                false => print_order(&found.data),
            }
        }
        Verb::Cancel { id } => {
            let order_id = OrderId(id);
            let client = target::client(servers).await?;
            let reply =
                client.command(Cancel { order_id, reason: CancelReason::CustomerRequest }, target::PATIENCE).await?;
            output::reply("order_id", &order_id.to_string(), &reply, json)?;
        }
    }
    Ok(())
}

async fn show_at(id: Uuid, at: At, servers: &Servers, json: bool) -> Result<(), Failure> {
    let urls = target::urls(servers)?;
    let log = Log::new(connect::pool(&urls.database_url, Role::Read, 1)?, codec::CATEGORIES);
    let found = state_at::<Order>(&log, id, at).await?;
    output::line(&match json {
        true => serde_json::to_string(&found)?,
        false => serde_json::to_string_pretty(&found)?,
    });
    Ok(())
}

fn no_order(file: &str, error: &ErrorBody) -> Failure {
    let faults: Vec<String> = error.fields.iter().map(|f| format!("{}: {}", f.field, f.expected)).collect();
    Failure::Usage(format!("{file} holds no order: {}; docs/wire.md shows one", faults.join("; ")))
}

fn read(file: &str) -> Result<String, Failure> {
    let text = match file {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        file => std::fs::read_to_string(file),
    };
    text.map_err(|e| Failure::Usage(format!("{file} cannot be read: {e}")))
}

fn print_order(order: &OrderSummary) {
    let money = |amount: i64| match order.currency.parse::<Currency>() {
        Ok(currency) => format!("{} {currency}", Amount(amount).display(currency)),
        Err(_) => format!("{amount} {}", order.currency),
    };
    let reason = order.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let mut lines = vec![
        format!("order       {}", order.order_id),
        format!("status      {}{reason}", order.status),
        format!("customer    {}", order.customer_id),
        format!("total       {}", money(order.total)),
        format!("authorised  {}", money(order.authorised)),
        format!("captured    {}", money(order.captured)),
        format!("delivered   {} of {} lines", order.delivered, order.lines),
        format!("placed      {}", order.placed_at),
        format!("changed     {}, version {}", order.changed_at, order.version),
    ];
    lines.extend(
        order.payments.iter().map(|p| {
            format!("payment     {} {} {}, captured {}", p.kind, money(p.amount), p.status, money(p.captured))
        }),
    );
    output::line(&lines.join("\n"));
}
