//! What can be wrong with files in the Olist format, by kind: what is left out is counted by these.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// A cell that must hold something is empty.
    Empty,
    NotUtf8,
    Id,
    /// Another id of the files gives the same UUID.
    SameUuid,
    Sku,
    Number,
    Time,
    Status,
    PaymentType,
    /// An amount that is none of the following, and no amount either.
    Amount,
    /// More decimals than the currency has.
    AmountInexact,
    AmountWithDecimalComma,
    AmountWithThousandsSeparators,
    AmountWithCurrency,
    AmountNegative,
    AmountTooLarge,
    OrderTwice,
    /// Two items, or two payments, of an order have the same number.
    NumberTwice,
    ItemWithoutOrder,
    PaymentWithoutOrder,
    /// The domain does not take the rows for a history.
    NoHistory,
    /// The log has the order from elsewhere.
    InLogFromElsewhere,
    /// The log has the order from rows that were others.
    InLogFromOtherRows,
    /// The log does not take it as it is.
    NotStorable,
}

impl Problem {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "a cell is empty",
            Self::NotUtf8 => "not UTF-8",
            Self::Id => "no id",
            Self::SameUuid => "two ids give the same UUID",
            Self::Sku => "no SKU",
            Self::Number => "no number",
            Self::Time => "no time",
            Self::Status => "an unknown status",
            Self::PaymentType => "no payment type",
            Self::Amount => "no amount",
            Self::AmountInexact => "an amount with more decimals than its currency has",
            Self::AmountWithDecimalComma => "an amount with a decimal comma",
            Self::AmountWithThousandsSeparators => "an amount with thousands separators",
            Self::AmountWithCurrency => "an amount with a currency",
            Self::AmountNegative => "a negative amount",
            Self::AmountTooLarge => "an amount that is too large",
            Self::OrderTwice => "an order is there twice",
            Self::NumberTwice => "a number is there twice in an order",
            Self::ItemWithoutOrder => "an item without an order",
            Self::PaymentWithoutOrder => "a payment without an order",
            Self::NoHistory => "no history",
            Self::InLogFromElsewhere => "in the log from elsewhere",
            Self::InLogFromOtherRows => "in the log from other rows",
            Self::NotStorable => "cannot be stored",
        }
    }
}
