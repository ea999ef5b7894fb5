//! `loans migrate | serve | list | replay | verify`, on the servers that `DATABASE_URL` and `NATS_URL` name.

use engine::schema::ENGINE;
use loans::{LOANS, Loans, ReadModel, books_out, connect, migrate, start};
use runtime::process::{Process, jetstream};
use runtime::replay::{Mode, replay};
use runtime::verify::verify;
use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loans: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let url = |name: &str| env::var(name).map_err(|_| format!("set {name} to the URL of the server"));
    let database_url = url("DATABASE_URL")?;
    let verb = env::args().nth(1).unwrap_or_default();
    if verb == "migrate" {
        return Ok(migrate(&database_url).await?);
    }
    // Each connect of this program checks that the database has these, too.
    [&ENGINE, &LOANS].into_iter().for_each(|part| store::schema::rely_on(part));
    let context = connect(&database_url, &url("NATS_URL")?).await?;
    match verb.as_str() {
        "serve" => {
            let mut process = Process::start(&context);
            process.relay(&context).await?;
            start(&context, &mut process).await?;
            eprintln!("ready");
            tokio::select! {
                ended = tokio::signal::ctrl_c() => ended?,
                () = process.failed() => {}
            }
            process.stop().await;
        }
        "list" => {
            for book in books_out::list(&context.read).await? {
                println!("{} is lent to {} until {}", book.book_id, book.reader, book.due_at);
            }
        }
        "replay" => {
            let replayed = replay(&context.log, &context.project, ReadModel::BooksOut, Mode::Switch, |_, _| {}).await?;
            println!("{} events: {} rows differed", replayed.events, replayed.compared.map_or(0, |c| c.differences()));
        }
        "verify" => {
            let report = verify::<Loans>(&context.read, &jetstream(&context.client), Duration::from_secs(10)).await?;
            print!("{report}");
            if !report.agrees() {
                return Err("what is stored is not what the log says".into());
            }
        }
        _ => return Err("usage: loans migrate | serve | list | replay | verify".into()),
    }
    Ok(())
}
