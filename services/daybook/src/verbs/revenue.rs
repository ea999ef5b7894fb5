//! `daybook revenue`: what was captured and given back, by day or month.

use chrono::NaiveDate;
use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::{RevenueByDay, RevenueByMonth};
use order_views::revenue::Revenue;
use orders::money::{Amount, Currency};
use runtime::client::Pages;
use runtime::queries::List;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The period of a row, in UTC.
    #[arg(long, default_value = "day")]
    by: Period,
    /// The first day to count, such as 2026-11-22.
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,
    /// The last day to count.
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,
    /// Only this currency, such as EUR.
    #[arg(long)]
    currency: Option<Currency>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Period {
    Day,
    Month,
}

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let Args { by, from, to, currency } = args;
    match by {
        Period::Day => {
            let query = RevenueByDay { from, to, currency, ..RevenueByDay::default() };
            print(client.list(query, u64::MAX)?, "day", json).await
        }
        Period::Month => {
            let query = RevenueByMonth { from, to, currency, ..RevenueByMonth::default() };
            print(client.list(query, u64::MAX)?, "month", json).await
        }
    }
}

async fn print<Q: List<Found = Revenue>>(mut list: Pages<'_, Q>, heading: &str, json: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    loop {
        let page = list.next().await?;
        for revenue in &page {
            match json {
                true => output::line(&serde_json::to_string(revenue)?),
                false => rows.push(row(revenue)),
            }
        }
        if page.is_empty() {
            break;
        }
    }
    if !json {
        let headings = [heading, "paid by", "captured", "captures", "refunded", "refunds", ""];
        output::line(&output::table(&headings, &rows));
    }
    Ok(())
}

fn row(revenue: &Revenue) -> Vec<String> {
    let money = |amount: i64| match revenue.currency.parse::<Currency>() {
        Ok(currency) => Amount(amount).display(currency),
        Err(_) => amount.to_string(),
    };
    vec![
        revenue.period.clone(),
        revenue.kind.clone(),
        money(revenue.captured),
        revenue.captures.to_string(),
        money(revenue.refunded),
        revenue.refunds.to_string(),
        revenue.currency.clone(),
    ]
}
