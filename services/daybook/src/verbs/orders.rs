//! `daybook orders`: the orders that are asked for, newest first.

use super::order::one_of;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::ListOrders;
use order_views::order_summary::OrderSummary;
use orders::id::Sku;
use orders::money::{Amount, Currency};
use orders::order::DisplayStatus;
use uuid::Uuid;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only this customer's orders.
    #[arg(long, value_name = "ID")]
    customer: Option<Uuid>,
    /// Only orders with this status.
    #[arg(long, value_parser = one_of(DisplayStatus::ALL, DisplayStatus::as_str))]
    status: Option<DisplayStatus>,
    /// Only orders with a line of this SKU. Cancelled and edited lines do not count.
    #[arg(long, value_parser = |sku: &str| Sku::new(sku))]
    sku: Option<Sku>,
    /// Only orders placed at this time or later: a day such as 2026-11-22 (midnight UTC) or a time such as
    /// 2026-11-22T08:39:56Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    placed_from: Option<DateTime<Utc>>,
    /// Only orders placed before this time: a day or a time, as above.
    #[arg(long, value_name = "TIME", value_parser = time)]
    placed_before: Option<DateTime<Utc>>,
    /// Only orders in this currency, such as EUR.
    #[arg(long)]
    currency: Option<Currency>,
    /// Only orders with this total or more, in minor units of the currency (1099 is 10.99 EUR). Needs --currency.
    #[arg(long, value_name = "AMOUNT", requires = "currency")]
    total_at_least: Option<i64>,
    /// Only orders with this total or less, in minor units. Needs --currency.
    #[arg(long, value_name = "AMOUNT", requires = "currency")]
    total_at_most: Option<i64>,
    /// The maximum number of orders.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

/// A time, or the beginning of a day.
fn time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let day = text.parse::<NaiveDate>().map(|day| day.and_time(NaiveTime::MIN).and_utc());
    day.or_else(|_| text.parse()).map_err(|_| "a day such as 2026-11-22, or a time such as 2026-11-22T08:39:56Z")
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let query = ListOrders {
        customer_id: args.customer,
        status: args.status,
        sku: args.sku,
        placed_from: args.placed_from,
        placed_before: args.placed_before,
        currency: args.currency,
        total_at_least: args.total_at_least,
        total_at_most: args.total_at_most,
        ..ListOrders::default()
    };
    let (mut rows, mut list) = (Vec::new(), client.list(query, args.limit)?);
    loop {
        let page = list.next().await?;
        for order in &page {
            match json {
                true => output::line(&serde_json::to_string(order)?),
                false => rows.push(row(order)),
            }
        }
        if page.is_empty() {
            break;
        }
    }
    if !json {
        output::line(&output::table(&["order", "status", "total", "", "lines", "placed"], &rows));
    }
    Ok(())
}

fn row(order: &OrderSummary) -> Vec<String> {
    let total = match order.currency.parse::<Currency>() {
        Ok(currency) => Amount(order.total).display(currency),
        Err(_) => order.total.to_string(),
    };
    vec![
        order.order_id.to_string(),
        order.status.clone(),
        total,
        order.currency.clone(),
        order.lines.to_string(),
        order.placed_at.format("%Y-%m-%d %H:%M:%S").to_string(),
    ]
}
