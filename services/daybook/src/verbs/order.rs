//! `daybook order …`: every command about one order, a verb each, and how it stands.

use super::{diff, history};
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cli::config::Servers;
use cli::{Failure, output, target};
use order_services::queries::GetOrder;
use order_services::time_travel::{At, state_at};
use order_services::verbs::{
    ApproveReturn, Cancel, CancelLines, ChangeAddress, ConfirmEdit, DenyApproval, DiscardEdit, GrantApproval, Place,
    PlaceHold, ProposeEdit, ReceiveReturn, ReleaseHold, RequestApproval, RequestReturn,
};
use order_views::CATEGORIES;
use order_views::order_summary::OrderSummary;
use orders::id::{AddressId, LineNo, OrderId, ReceiptId};
use orders::money::{Amount, Currency};
use orders::order::{
    self, CancelReason, HoldReason, MAX_APPROVAL_SECONDS, Order, PlaceOrder, ReceivedLine, ReturnLine, ReturnReason,
};
use runtime::commands::Verb as CommandVerb;
use runtime::wire;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::io::Read;
use store::connect::{self, Role};
use store::{Log, Position, Version};
use uuid::Uuid;

const SECONDS_AN_HOUR: u32 = 60 * 60;
const MAX_APPROVAL_HOURS: i64 = (MAX_APPROVAL_SECONDS / SECONDS_AN_HOUR) as i64;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Place an order from a JSON file. docs/wire.md describes the fields.
    Place {
        /// The JSON file with the order; - for standard input.
        #[arg(long)]
        file: String,
        /// The id of the new order. By default, a new UUID.
        #[arg(long)]
        id: Option<Uuid>,
    },
    /// Show an order: the present state, or a former one.
    Show {
        /// The order's id.
        id: Uuid,
        /// Wait until the read model has reached this position, such as that of a command's reply.
        #[arg(long, conflicts_with_all = ["version", "as_of"])]
        at_least: Option<Position>,
        /// Show the order at this version of its stream.
        #[arg(long, conflicts_with = "as_of", value_parser = clap::value_parser!(i64).range(1..))]
        version: Option<Version>,
        /// Show the order at this time, such as 2026-11-22T08:39:56Z.
        #[arg(long, value_name = "TIME")]
        as_of: Option<DateTime<Utc>>,
    },
    /// List the events of an order, oldest first: when, what and by whom.
    History {
        /// The order's id.
        id: Uuid,
        /// Only events after this position of the log.
        #[arg(long, default_value_t = 0)]
        after: Position,
        /// The maximum number of events, 500 at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=500))]
        limit: u64,
    },
    /// Compare two states of an order, field by field.
    Diff {
        /// The order's id.
        id: Uuid,
        /// The earlier state: a version of the order's stream, or a time such as 2026-11-22T08:39:56Z.
        #[arg(long, value_name = "VERSION|TIME", value_parser = diff::moment)]
        from: At,
        /// The later state: a version or a time. By default, the newest version.
        #[arg(long, value_name = "VERSION|TIME", value_parser = diff::moment)]
        to: Option<At>,
    },
    /// Cancel an order. This is refused once a shipment of it is dispatched.
    Cancel {
        /// The order's id.
        id: OrderId,
        /// The reason: customer_request, seller_request or fraud.
        #[arg(long, default_value = "customer_request", value_parser = word::<CancelReason>)]
        reason: CancelReason,
    },
    /// Cancel lines of an order. This is refused once a shipment of it is dispatched.
    CancelLines {
        /// The order's id.
        id: OrderId,
        /// The line numbers, such as 1,3.
        #[arg(long, required = true, value_delimiter = ',')]
        lines: Vec<LineNo>,
        /// The reason: customer_request, seller_request or fraud.
        #[arg(long, default_value = "customer_request", value_parser = word::<CancelReason>)]
        reason: CancelReason,
    },
    /// Change the address of an order. This is refused once a shipment of it is dispatched.
    ChangeAddress {
        /// The order's id.
        id: OrderId,
        /// The id of the new address. Daybook stores no addresses.
        address: AddressId,
    },
    /// Put an order on hold: it is not confirmed, and its shipments are not dispatched.
    Hold {
        /// The order's id.
        id: OrderId,
        /// The reason: fraud, address, payment, stock or manual.
        #[arg(long, value_parser = word::<HoldReason>)]
        reason: HoldReason,
    },
    /// Release a hold.
    Release {
        /// The order's id.
        id: OrderId,
        /// The reason of the hold: fraud, address, payment, stock or manual.
        #[arg(long, value_parser = word::<HoldReason>)]
        reason: HoldReason,
    },
    /// Require an approval before the order is confirmed. Without one in time, the order is cancelled.
    RequestApproval {
        /// The order's id.
        id: OrderId,
        /// The time for the approval, in hours; 120 (five days) at most.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_APPROVAL_HOURS))]
        within_hours: u32,
    },
    /// Grant an approval.
    Approve {
        /// The order's id.
        id: OrderId,
        /// The number of the approval. `daybook waiting` shows it.
        #[arg(long, default_value_t = 1)]
        approval: u32,
    },
    /// Deny an approval. The order is cancelled.
    Deny {
        /// The order's id.
        id: OrderId,
        /// The number of the approval. `daybook waiting` shows it.
        #[arg(long, default_value_t = 1)]
        approval: u32,
    },
    /// Propose an edit of a confirmed order from a JSON file. docs/wire.md describes the fields.
    Edit {
        /// The order's id.
        id: OrderId,
        /// The JSON file with the edit; - for standard input.
        #[arg(long)]
        file: String,
    },
    /// Confirm an edit once its payments are authorised and its stock is reserved.
    ConfirmEdit {
        /// The order's id.
        id: OrderId,
        /// The number of the edit. `daybook waiting` shows it.
        edit: u32,
    },
    /// Discard an edit. The order stays as it is.
    DiscardEdit {
        /// The order's id.
        id: OrderId,
        /// The number of the edit. `daybook waiting` shows it.
        edit: u32,
    },
    /// Request the return of delivered pieces.
    RequestReturn {
        /// The order's id.
        id: OrderId,
        /// A line and the number of its pieces, such as 1:2. Repeat the option for several lines.
        #[arg(long = "line", value_name = "LINE:QUANTITY", required = true, value_parser = return_line)]
        lines: Vec<ReturnLine>,
        /// The reason: unwanted, damaged, wrong_item or not_as_described.
        #[arg(long, value_parser = word::<ReturnReason>)]
        reason: ReturnReason,
    },
    /// Approve a return.
    ApproveReturn {
        /// The order's id.
        id: OrderId,
        /// The number of the return. `daybook waiting` shows it.
        return_no: u32,
    },
    /// Record the arrival of returned pieces. All of them are refunded, and usable ones go back to stock.
    ReceiveReturn {
        /// The order's id.
        id: OrderId,
        /// The number of the return. `daybook waiting` shows it.
        return_no: u32,
        /// Your id of the parcel that the pieces came in. Each parcel is recorded once. By default, a new UUID.
        #[arg(long, value_name = "UUID")]
        parcel: Option<Uuid>,
        /// A line, the number of its pieces, and how many of them are usable, such as 1:2:1. Repeat the option for
        /// several lines.
        #[arg(long = "line", value_name = "LINE:QUANTITY:USABLE", required = true, value_parser = received_line)]
        lines: Vec<ReceivedLine>,
    },
}

/// A word of the wire format.
pub(super) fn word<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(json!(word)).map_err(|e| e.to_string())
}

/// One of the words of an enum. The help lists them.
pub(super) fn one_of<T>(all: &'static [T], as_str: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let found =
        move |word: String| all.iter().copied().find(|one| as_str(*one) == word).ok_or("one of the words above");
    PossibleValuesParser::new(all.iter().map(|one| as_str(*one))).try_map(found)
}

fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|n| n.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn return_line(text: &str) -> Result<ReturnLine, &'static str> {
    let [line, quantity] = numbers(text).ok_or("a line and a quantity, such as 1:2")?;
    Ok(ReturnLine { line, quantity })
}

fn received_line(text: &str) -> Result<ReceivedLine, &'static str> {
    let [line, quantity, usable] = numbers(text).ok_or("a line, a quantity and how many are usable, such as 1:2:1")?;
    Ok(ReceivedLine { line, quantity, usable })
}

pub(super) async fn run(verb: Verb, servers: &Servers, json: bool) -> Result<(), Failure> {
    let ask = Ask { servers, json };
    match verb {
        Verb::Place { file, id } => {
            let order: PlaceOrder = parsed(&file, "order")?;
            let order_id = OrderId(id.unwrap_or_else(Uuid::now_v7));
            ask.about(order_id, Place { order_id, order }).await
        }
        Verb::Show { id, version: Some(version), .. } => show_at(id, At::Version(version), servers, json).await,
        Verb::Show { id, as_of: Some(time), .. } => show_at(id, At::Time(time), servers, json).await,
        Verb::Show { id, at_least, .. } => {
            let client = target::client(servers).await?;
            let found = client.get(GetOrder { order_id: id }, at_least).await?;
            match json {
                true => output::line(&serde_json::to_string(&found)?),
                false => print_order(&found.data),
            }
            Ok(())
        }
        Verb::History { id, after, limit } => history::run(id, after, limit, servers, json).await,
        Verb::Diff { id, from, to } => diff::run(id, from, to, servers, json).await,
        Verb::Cancel { id, reason } => ask.about(id, Cancel { order_id: id, reason }).await,
        Verb::CancelLines { id, lines, reason } => ask.about(id, CancelLines { order_id: id, lines, reason }).await,
        Verb::ChangeAddress { id, address } => ask.about(id, ChangeAddress { order_id: id, address_id: address }).await,
        Verb::Hold { id, reason } => ask.about(id, PlaceHold { order_id: id, reason }).await,
        Verb::Release { id, reason } => ask.about(id, ReleaseHold { order_id: id, reason }).await,
        Verb::RequestApproval { id, within_hours } => {
            ask.about(id, RequestApproval { order_id: id, within_seconds: within_hours * SECONDS_AN_HOUR }).await
        }
        Verb::Approve { id, approval } => ask.about(id, GrantApproval { order_id: id, approval }).await,
        Verb::Deny { id, approval } => ask.about(id, DenyApproval { order_id: id, approval }).await,
        Verb::Edit { id, file } => {
            let edit: order::ProposeEdit = parsed(&file, "edit")?;
            ask.about(id, ProposeEdit { order_id: id, edit }).await
        }
        Verb::ConfirmEdit { id, edit } => ask.about(id, ConfirmEdit { order_id: id, edit }).await,
        Verb::DiscardEdit { id, edit } => ask.about(id, DiscardEdit { order_id: id, edit }).await,
        Verb::RequestReturn { id, lines, reason } => ask.about(id, RequestReturn { order_id: id, lines, reason }).await,
        Verb::ApproveReturn { id, return_no } => ask.about(id, ApproveReturn { order_id: id, return_no }).await,
        Verb::ReceiveReturn { id, return_no, parcel, lines } => {
            let receipt_id = ReceiptId(parcel.unwrap_or_else(Uuid::now_v7));
            ask.about(id, ReceiveReturn { order_id: id, return_no, receipt_id, lines }).await
        }
    }
}

/// Who is asked, and how the answer is shown.
struct Ask<'a> {
    servers: &'a Servers,
    json: bool,
}

impl Ask<'_> {
    async fn about<V: CommandVerb + Sync>(&self, id: OrderId, data: V) -> Result<(), Failure> {
        let client = target::client(self.servers).await?;
        let reply = client.command(data, target::PATIENCE).await?;
        output::reply("order_id", &id.to_string(), &reply, self.json)
    }
}

async fn show_at(id: Uuid, at: At, servers: &Servers, json: bool) -> Result<(), Failure> {
    let database_url = target::database_url(servers)?;
    let log = Log::new(connect::checked_pool(&database_url, Role::Read, 1).await?, CATEGORIES);
    let found = state_at::<Order>(&log, id, at).await?;
    output::line(&match json {
        true => serde_json::to_string(&found)?,
        false => serde_json::to_string_pretty(&found)?,
    });
    Ok(())
}

/// What a file holds, as JSON.
fn parsed<T: DeserializeOwned>(file: &str, what: &str) -> Result<T, Failure> {
    wire::parse(read(file)?.as_bytes()).map_err(|e| {
        let faults: Vec<String> = e.fields.iter().map(|f| format!("{}: {}", f.field, f.expected)).collect();
        Failure::Usage(format!("{file} holds no {what}: {}; docs/wire.md shows one", faults.join("; ")))
    })
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
