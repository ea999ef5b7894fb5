//! `daybook revenue`: what was captured and given back, by day or month.

use super::{Failure, output, target};
use crate::config::Servers;
use chrono::NaiveDate;
use domain::money::{Amount, Currency};
use projections::revenue::Revenue;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Add up by day or by month, in UTC.
    #[arg(long, default_value = "day")]
    by: Period,
    /// The first day, such as 2026-11-22.
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,
    /// The last day.
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,
    /// Only money of this currency, such as EUR.
    #[arg(long)]
    currency: Option<Currency>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Period {
    Day,
    Month,
}

/// As many rows as a reply may have.
const PAGE: usize = 500;

pub(super) async fn run(args: Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    let client = target::client(servers).await?;
    let (verb, heading) = match args.by {
        Period::Day => ("revenue.by_day", "day"),
        Period::Month => ("revenue.by_month", "month"),
    };
    let (mut rows, mut after) = (Vec::new(), Value::Null);
    loop {
        let Args { from, to, currency, .. } = args;
        let data = json!({ "from": from, "to": to, "currency": currency, "after": after, "limit": PAGE });
        let page = client.query::<Vec<Revenue>>(verb, data, None).await?.data;
        for revenue in &page {
            match json {
                true => output::line(&serde_json::to_string(revenue)?),
                false => rows.push(row(revenue)),
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => {
                after = json!({ "period": last.period, "currency": last.currency, "kind": last.kind });
            }
            _ => break,
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
