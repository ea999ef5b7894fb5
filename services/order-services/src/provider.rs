//! The contract of the payment provider: its verbs, and its answers as an event can hold them.

use orders::payment::Outcome;
use orders::reaction::Operation;

/// The verbs, each the end of a subject.
pub const VERBS: [&str; 5] = ["authorise", "capture", "void", "refund", "lookup"];

/// The verb that an operation is asked with.
pub fn verb(operation: &Operation) -> &'static str {
    match operation {
        Operation::Authorise { .. } => "authorise",
        Operation::Capture { .. } => "capture",
        Operation::Void => "void",
        Operation::Refund { .. } => "refund",
        Operation::Lookup { .. } => "lookup",
    }
}

/// The longest text of the provider's that goes into an event, in characters.
const MAX_TEXT: usize = 200;

/// The provider's answer as an event can hold it: its texts are somebody else's, of any length and with anything in them.
pub fn bounded(outcome: Outcome) -> Outcome {
    let text = |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    match outcome {
        Outcome::Approved { reference } => Outcome::Approved { reference: text(reference) },
        Outcome::Declined { reason } => Outcome::Declined { reason: text(reason) },
    }
}
