//! `daybook import olist DIR`: the orders of the public Olist data set, recorded as history.

use crate::olist::import::{ImportError, Report, Rows, Table, TableError, import, table};
use cli::config::Servers;
use cli::{Failure, output, target};
use order_views::CATEGORIES;
use orders::money::Amount;
use serde_json::{Value, json};
use std::path::Path;
use store::connect::{self, Role};
use store::{Appender, Log};

/// Imports, and prints what came of it.
///
/// # Errors
/// When the folder or a server cannot be used, or something is left out.
pub async fn run(dir: &Path, servers: &Servers, json: bool) -> Result<(), Failure> {
    let url = target::database_url(servers)?;
    let log = Log::new(connect::checked_pool(&url, Role::Read, 1).await?, CATEGORIES);
    log.identity().await?;
    let appender = Appender::start_tolerating(&url, servers.clock_tolerance())?;
    let bar = output::bar(0, "orders");
    let imported = import(&log, &appender, dir, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    let imported = imported.await;
    bar.finish_and_clear();
    let report = imported.map_err(|e| match e {
        ImportError::Files(e) => Failure::Usage(format!("{e}; nothing is imported: mend it, and import again")),
        ImportError::Log(e) => e.into(),
        ImportError::Unavailable(e) => {
            Failure::Unavailable(format!("{e}; import again: it goes on from where it has come"))
        }
    })?;
    let table = table(&log).await.map_err(|e| match e {
        TableError::Log(e) => e.into(),
        TableError::Decode(e) => Failure::Refused(e.to_string()),
    })?;
    match json {
        true => output::line(&as_json(&report, &table)?.to_string()),
        false => print(&report, &table),
    }
    match report.left_out.len() {
        0 => Ok(()),
        n => Err(Failure::Differs(format!("{n} things are left out"))),
    }
}

fn as_json(report: &Report, table: &Table) -> Result<Value, Failure> {
    let orders = table.orders.iter().map(|((s, m), n)| json!({ "status": s, "month": m, "orders": n }));
    let revenue = table.revenue.iter().map(|((m, t), a)| json!({ "month": m, "payment_type": t, "revenue": a }));
    let sellers =
        table.sellers.iter().map(|(s, i)| json!({ "seller": s.0.simple(), "items": i.items, "price": i.price }));
    let mut all = serde_json::to_value(report)?;
    all["table"] = json!({
        "orders": orders.collect::<Vec<_>>(),
        "revenue": revenue.collect::<Vec<_>>(),
        "sellers": sellers.collect::<Vec<_>>(),
    });
    Ok(all)
}

fn print(report: &Report, table: &Table) {
    let rows = |(what, r): (&str, &Rows)| {
        let counts = [r.in_file, r.recorded, r.found, r.left_out].map(|n| n.to_string());
        [vec![what.to_owned()], counts.to_vec()].concat()
    };
    let files = [("orders", &report.orders), ("items", &report.items), ("payments", &report.payments)];
    section(&["of the files", "rows", "recorded", "recorded before", "left out"], files.into_iter().map(rows));
    output::line(&format!("{} events recorded\n", report.events));
    let left_out = report.left_out.iter();
    section(
        &["left out", "order", "why", "what to do"],
        left_out.map(|l| vec![l.what.as_str().into(), l.order.clone(), l.why.clone(), l.remedy.into()]),
    );
    section(
        &["untidy, recorded as it is", "orders"],
        report.untidy.iter().map(|(what, n)| vec![what.as_str().into(), n.to_string()]),
    );
    section(
        &["order", "what its events do not show"],
        report.notes.iter().map(|n| vec![n.order.clone(), n.note.clone()]),
    );
    section(
        &["not taken from", "columns"],
        report.not_taken.iter().map(|n| vec![n.file.clone(), n.columns.join(", ")]),
    );
    section(
        &["status", "month", "orders"],
        table.orders.iter().map(|((status, month), n)| vec![status.clone(), month.clone(), n.to_string()]),
    );
    section(
        &["month", "payment type", "revenue"],
        table.revenue.iter().map(|((month, kind), amount)| vec![month.clone(), kind.clone(), reais(*amount)]),
    );
    section(
        &["seller", "items", "price"],
        table.sellers.iter().map(|(id, i)| vec![id.0.simple().to_string(), i.items.to_string(), reais(i.price)]),
    );
}

/// A table and an empty line; nothing, if it has no rows.
fn section(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        output::line(&format!("{}\n", output::table(headings, &rows)));
    }
}

fn reais(amount: Amount) -> String {
    match "BRL".parse() {
        Ok(currency) => amount.display(currency),
        Err(_) => amount.0.to_string(),
    }
}
