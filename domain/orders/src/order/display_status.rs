//! The status that an order is shown with.

use super::event::Life;
use super::state::Status;

crate::words! {
    /// Where an order is in its life, or how that ended: what read models keep, what queries ask for, and what people see.
    DisplayStatus {
        Placed = "placed",
        AwaitingApproval = "awaiting_approval",
        OnHold = "on_hold",
        Confirmed = "confirmed",
        Completed = "completed",
        Cancelled = "cancelled",
        Rejected = "rejected",
        Expired = "expired",
    }
}

impl From<Life> for DisplayStatus {
    fn from(life: Life) -> Self {
        match life {
            Life::Placed => Self::Placed,
            Life::AwaitingApproval => Self::AwaitingApproval,
            Life::OnHold => Self::OnHold,
            Life::Confirmed => Self::Confirmed,
        }
    }
}

impl Status {
    /// As it is shown, where neither a hold nor an approval says more; `None` before the order is placed.
    pub fn shown(self) -> Option<DisplayStatus> {
        match self {
            Self::Unplaced => None,
            Self::Placed => Some(DisplayStatus::Placed),
            Self::Confirmed => Some(DisplayStatus::Confirmed),
            Self::Completed => Some(DisplayStatus::Completed),
            Self::Cancelled => Some(DisplayStatus::Cancelled),
            Self::Rejected => Some(DisplayStatus::Rejected),
            Self::Expired => Some(DisplayStatus::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The words of the stored event, of the state and of what is shown are the same.
    #[test]
    fn a_status_has_one_word_wherever_it_is_written() {
        for life in [Life::Placed, Life::AwaitingApproval, Life::OnHold, Life::Confirmed] {
            assert_eq!(json!(life), json!(DisplayStatus::from(life)));
        }
        use Status as S;
        for status in [S::Unplaced, S::Placed, S::Confirmed, S::Completed, S::Cancelled, S::Rejected, S::Expired] {
            assert_eq!(json!(status), json!(status.to_string()));
        }
        for status in DisplayStatus::ALL {
            assert_eq!(json!(status), json!(status.as_str()));
        }
    }
}
