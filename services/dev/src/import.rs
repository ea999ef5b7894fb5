//! `daybook import olist DIR`: the orders of the public Olist data set, recorded as history.

use crate::olist::Amounts;
use crate::olist::import::{ImportError, Items, Report, Rows, Table, TableError, import, table};
use cli::config::Servers;
use cli::output::{EXAMPLES, Kinds};
use cli::{Failure, output, target};
use order_views::CATEGORIES;
use orders::money::Amount;
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use store::connect::{self, Role};
use store::{Appender, Log};

#[derive(clap::Args)]
pub struct Args {
    /// The folder.
    dir: PathBuf,
    /// Do not record orders with an inexact amount, such as 299.40999999999997. By default, an amount within a
    /// thousandth of a minor unit of a whole number of units is taken as that number, and listed as tidied.
    #[arg(long)]
    exact: bool,
    /// Write all findings to this file, one JSON object per line. The screen shows ten examples of each kind.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Imports, and prints what came of it.
///
/// # Errors
/// When the folder or a server cannot be used, or something is left out.
pub async fn run(args: &Args, servers: &Servers, json: bool) -> Result<(), Failure> {
    // Before anything is recorded, for it could not be told afterwards.
    let file = args.report.as_deref().map(|path| File::create(path).map_err(|e| (path, e))).transpose();
    let file = file.map_err(|(path, e)| Failure::Usage(format!("{} cannot be written: {e}", path.display())))?;
    let url = target::database_url(servers)?;
    let log = Log::new(connect::checked_pool(&url, Role::Read, 1).await?, CATEGORIES);
    log.identity().await?;
    let appender = Appender::start_tolerating(&url, servers.clock_tolerance())?;
    let bar = output::bar(0, "orders");
    let amounts = if args.exact { Amounts::Exact } else { Amounts::Tidied };
    let imported = import(&log, &appender, &args.dir, amounts, |done, all| {
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
    if let Some(file) = file {
        report.write(BufWriter::new(file))?;
    }
    let table = table(&log).await.map_err(|e| match e {
        TableError::Log(e) => e.into(),
        TableError::Decode(e) => Failure::Refused(e.to_string()),
    })?;
    match json {
        true => output::line(&as_json(&report, &table)?.to_string()),
        false => print(&report, &table, args.report.is_some()),
    }
    match report.left_out.len() {
        0 => Ok(()),
        n => Err(Failure::Differs(format!("{n} things are left out"))),
    }
}

fn as_json(report: &Report, table: &Table) -> Result<Value, Failure> {
    let orders = table.orders.iter().map(|((s, m), n)| json!({ "status": s, "month": m, "orders": n }));
    let revenue = table.revenue.iter().map(|((m, t), a)| json!({ "month": m, "payment_type": t, "revenue": a }));
    let sellers = table.sellers.iter().map(|(s, i)| json!({ "seller": s, "items": i.items, "price": i.price }));
    let mut all = serde_json::to_value(report)?;
    all["table"] = json!({
        "orders": orders.collect::<Vec<_>>(),
        "revenue": revenue.collect::<Vec<_>>(),
        "sellers": sellers.collect::<Vec<_>>(),
    });
    Ok(all)
}

fn print(report: &Report, table: &Table, is_written: bool) {
    let rows = |(what, r): (&str, &Rows)| {
        let counts = [r.in_file, r.recorded, r.found, r.left_out].map(|n| n.to_string());
        [vec![what.to_owned()], counts.to_vec()].concat()
    };
    let files = [("orders", &report.orders), ("items", &report.items), ("payments", &report.payments)];
    output::section(&["of the files", "rows", "recorded", "recorded before", "left out"], files.into_iter().map(rows));
    output::line(&format!("{} events recorded\n", report.events));
    print_told(report, is_written);
    output::section(
        &["not taken from", "columns"],
        report.not_taken.iter().map(|n| vec![n.file.clone(), n.columns.join(", ")]),
    );
    output::section(
        &["status", "month", "orders"],
        table.orders.iter().map(|((status, month), n)| vec![status.clone(), month.clone(), n.to_string()]),
    );
    output::section(
        &["month", "payment type", "revenue"],
        table.revenue.iter().map(|((month, kind), amount)| vec![month.clone(), kind.clone(), reais(*amount)]),
    );
    output::section(&["seller", "items", "price"], sellers(table).into_iter());
}

/// What concerns single orders: how many by kind, and some of each.
fn print_told(report: &Report, is_written: bool) {
    let left_out = Kinds::of(
        report
            .left_out
            .iter()
            .map(|l| (l.kind.as_str(), vec![l.what.as_str().into(), l.order.clone(), l.why.clone(), l.remedy.into()])),
    );
    left_out.print("left out", "things", &["left out", "order", "why", "what to do"]);
    let tidied = Kinds::of(report.tidied.iter().map(|t| {
        let place = format!("{}, line {}", t.file, t.line);
        (t.column, vec![t.order.clone(), place, t.found.clone(), reais(t.amount)])
    }));
    tidied.print("tidied", "amounts", &["order", "tidied", "written", "taken for"]);
    let derived = Kinds::of(
        report.derived.iter().map(|d| (d.of.as_str(), vec![d.of.as_str().into(), d.name.clone(), d.id.to_string()])),
    );
    derived.print("id derived from the files' own", "ids", &["of", "files' own", "derived"]);
    let untidy = Kinds::of(report.untidy.iter().flat_map(|(kind, orders)| {
        orders.iter().map(|order| (kind.as_str(), vec![kind.as_str().into(), order.clone()]))
    }));
    untidy.print("untidy, recorded as it is", "orders", &["untidy", "order"]);
    let notes = Kinds::of(report.notes.iter().map(|n| (n.kind.as_str(), vec![n.order.clone(), n.note.clone()])));
    notes.print("what events do not show", "orders", &["order", "what its events do not show"]);
    let all = [&left_out, &tidied, &derived, &untidy, &notes];
    match all.into_iter().any(Kinds::are_cut) {
        true if is_written => output::line("the report has all of them\n"),
        true => output::line("these are examples: import again with --report FILE, and the file has all of them\n"),
        false => {}
    }
}

/// The sellers, or those who sold most if they are many, and the others in sum.
fn sellers(table: &Table) -> Vec<Vec<String>> {
    let row = |name: &str, items: Items| vec![name.to_owned(), items.items.to_string(), reais(items.price)];
    let mut all: Vec<_> = table.sellers.iter().collect();
    if all.len() <= EXAMPLES {
        return all.into_iter().map(|(seller, items)| row(seller, *items)).collect();
    }
    all.sort_by_key(|(_, items)| std::cmp::Reverse(items.price));
    let (most, others) = all.split_at(EXAMPLES);
    let rest = Items {
        items: others.iter().map(|(_, i)| i.items).sum(),
        price: Amount(others.iter().map(|(_, i)| i.price.0).sum()),
    };
    let rest = row(&format!("{} others", others.len()), rest);
    most.iter().map(|(seller, items)| row(seller, **items)).chain([rest]).collect()
}

fn reais(amount: Amount) -> String {
    match "BRL".parse() {
        Ok(currency) => amount.display(currency),
        Err(_) => amount.0.to_string(),
    }
}
