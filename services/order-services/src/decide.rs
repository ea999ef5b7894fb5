//! How commands of the order domain are decided: which streams each loads, and what it appends to them.

use crate::ExecuteError;
use order_views::{CATEGORIES, Orders, Stored, encode, stream};
use orders::id::StockId;
use orders::order::{self, Order};
use orders::payment::Payment;
use orders::shipment::{self, Shipment};
use orders::stock::{self, Stock};
use orders::{Aggregate, Command, Event, Rejection};
use runtime::executor::{self, Decide, Session};
use runtime::wire::{Code, ErrorBody, Fault};
use serde_json::json;
use store::{NewEvent, StreamId};
use uuid::Uuid;

/// The actor of the import of orders in the Olist format.
pub const IMPORT_ACTOR: &str = "olist";

/// Decides the commands of the order domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderDecider {}

impl Decide for OrderDecider {
    type Domain = Orders;
    type Command = Command;
    type Rejection = Rejection;
    type State = State;

    const SNAPSHOT_VERSION: i64 = match i64::from_str_radix(env!("DAYBOOK_SNAPSHOT_VERSION"), 10) {
        Ok(number) => number,
        Err(_) => panic!("the build script gives a number"),
    };
    const RESERVED_ACTORS: &'static [&'static str] = &[IMPORT_ACTOR];

    fn encode(event: &Event) -> NewEvent {
        encode(event)
    }

    /// Streams are loaded in the order of their ids, and an order before its shipments.
    async fn decide(command: &Command, session: &mut Session<'_, Self>) -> Result<(), ExecuteError> {
        match command {
            Command::Order { id, command } => {
                session.correlate(id.0);
                load::<Order>(session, id.0).await?;
                let decided = state::<Order>(session, 0).decide(*id, command);
                append::<Order>(session, 0, id.0, decided.map_err(rejected)?);
            }
            Command::CancelOrder { id, reason } => {
                change(session, *id, order::Change::Cancel { reason: *reason }).await?;
            }
            Command::CancelLines { id, lines, reason } => {
                change(session, *id, order::Change::CancelLines { lines: lines.clone(), reason: *reason }).await?;
            }
            Command::ConfirmEdit { id, edit } => {
                change(session, *id, order::Change::ConfirmEdit { edit: *edit }).await?;
            }
            Command::ChangeAddress { id, address_id } => {
                change(session, *id, order::Change::ChangeAddress { address_id: *address_id }).await?;
            }
            Command::Payment { id, command } => {
                load::<Payment>(session, id.0).await?;
                let payment = state::<Payment>(session, 0);
                let (order_id, decided) = (payment.order_id(), payment.decide(*id, command));
                session.correlate(order_id.map_or(id.0, |order| order.0));
                append::<Payment>(session, 0, id.0, decided.map_err(rejected)?);
            }
            Command::Stock(command) => {
                let ids: Vec<Uuid> = command.skus().iter().map(|sku| StockId::from(sku).0).collect();
                session.correlate(command.order_id().map(|id| id.0).or(ids.first().copied()).unwrap_or_default());
                let mut in_order: Vec<usize> = (0..ids.len()).collect();
                in_order.sort_unstable_by_key(|n| ids[*n]);
                for n in &in_order {
                    load::<Stock>(session, ids[*n]).await?;
                }
                session.renumber(&in_order);
                let stocks: Vec<&Stock> = (0..ids.len()).map(|index| state(session, index)).collect();
                let decided = stock::decide(command, &stocks).map_err(rejected)?;
                debug_assert_eq!(decided.len(), ids.len(), "each stream has its events");
                for (index, (id, events)) in ids.into_iter().zip(decided).enumerate() {
                    append::<Stock>(session, index, id, events);
                }
            }
            Command::Shipment { id, command } => {
                load::<Shipment>(session, id.0).await?;
                let shipment = state::<Shipment>(session, 0);
                let (order_id, decided) = (shipment.order_id(), shipment.decide(*id, command));
                session.correlate(order_id.map_or(id.0, |order| order.0));
                append::<Shipment>(session, 0, id.0, decided.map_err(rejected)?);
            }
        }
        Ok(())
    }

    fn refusal(rejection: &Rejection, message: String) -> ErrorBody {
        let faults = match rejection {
            Rejection::Order(order::Rejection::Invalid { faults })
            | Rejection::Stock(stock::Rejection::Invalid { faults })
            | Rejection::Shipment(shipment::Rejection::Invalid { faults }) => faults,
            Rejection::Order(_) | Rejection::Payment(_) | Rejection::Stock(_) | Rejection::Shipment(_) => {
                let (detail, retry) = (Some(json!(rejection)), rejection.is_passing());
                return ErrorBody { detail, retry, ..ErrorBody::new(Code::Rejected, message) };
            }
        };
        let fields = faults.iter().map(|fault| Fault::new(&fault.field, &fault.expected)).collect();
        ErrorBody { fields, ..ErrorBody::new(Code::Invalid, format!("{message}: see fields")) }
    }
}

/// Decides a change of an order over its shipments too.
async fn change(
    session: &mut Session<'_, OrderDecider>,
    id: orders::id::OrderId,
    change: order::Change,
) -> Result<(), ExecuteError> {
    session.correlate(id.0);
    load::<Order>(session, id.0).await?;
    let mut ids = state::<Order>(session, 0).shipment_ids(id);
    ids.sort_unstable();
    for shipment_id in &ids {
        load::<Shipment>(session, shipment_id.0).await?;
    }
    let shipments: Vec<_> = (1..).zip(&ids).map(|(index, id)| (*id, state::<Shipment>(session, index))).collect();
    let changed = state::<Order>(session, 0).change(id, &shipments, &change).map_err(rejected)?;
    debug_assert_eq!(changed.shipments.len(), ids.len(), "each shipment has its events");
    append::<Order>(session, 0, id.0, changed.order);
    for (index, (id, events)) in (1..).zip(ids.into_iter().zip(changed.shipments)) {
        append::<Shipment>(session, index, id.0, events);
    }
    Ok(())
}

fn rejected(rejection: impl Into<Rejection>) -> ExecuteError {
    ExecuteError::Rejected(rejection.into())
}

async fn load<A: Stored>(session: &mut Session<'_, OrderDecider>, id: Uuid) -> Result<(), ExecuteError> {
    session.load(stream::<A>(id)).await?;
    Ok(())
}

fn state<'a, A: InState>(session: &'a Session<'_, OrderDecider>, index: usize) -> &'a A {
    A::of(session.state(index))
}

fn append<A: Aggregate>(session: &mut Session<'_, OrderDecider>, index: usize, id: Uuid, events: Vec<A::Event>) {
    session.append(index, events.into_iter().map(|event| A::event(id, event)));
}

/// An aggregate, as one of the states.
trait InState: Stored {
    /// The state of a stream of the aggregate's category.
    fn of(state: &State) -> &Self;
}

/// Declares the states of the aggregates, each with how it is kept. An event of an aggregate without a state does not compile,
/// nor does a category without one.
macro_rules! states {
    ($($aggregate:ident in $kept:ty,)+) => {
        /// The state of any aggregate of the domain.
        #[derive(Debug, Clone)]
        pub enum State { $($aggregate($kept)),+ }

        const _: () = assert!([$(stringify!($aggregate)),+].len() == CATEGORIES.len(), "each category has its state");

        impl executor::State for State {
            type Event = Event;

            fn new(stream: StreamId) -> Self {
                match stream.category {
                    $($aggregate::STORED_IN => Self::$aggregate(Default::default()),)+
                    other => unreachable!("only streams of the domain are loaded, not {other:?}"),
                }
            }

            fn evolve(&mut self, event: &Event) {
                match event {
                    $(Event::$aggregate(_, event) => match self {
                        Self::$aggregate(state) => state.evolve(event),
                        state => debug_assert!(false, "a stream holds events of its category alone: {state:?}"),
                    },)+
                }
            }

            fn to_json(&self) -> Result<String, serde_json::Error> {
                match self { $(Self::$aggregate(state) => serde_json::to_string(state)),+ }
            }

            fn from_json(stream: StreamId, json: &str) -> Result<Self, serde_json::Error> {
                match stream.category {
                    $($aggregate::STORED_IN => serde_json::from_str(json).map(Self::$aggregate),)+
                    other => unreachable!("only streams of the domain are loaded, not {other:?}"),
                }
            }
        }

        $(impl InState for $aggregate {
            fn of(state: &State) -> &Self {
                match state {
                    State::$aggregate(state) => state,
                    other => unreachable!("a stream's state is that of its category: {other:?}"),
                }
            }
        })+
    };
}

states! {
    // By far the largest.
    Order in Box<Order>,
    Payment in Payment,
    Stock in Stock,
    Shipment in Shipment,
}
