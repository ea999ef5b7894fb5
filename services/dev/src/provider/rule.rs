//! How the simulated provider behaves, by the beginning of a payment's token.

/// A payment whose token begins so is declined.
pub const DECLINE: &str = "tok_decline";
/// Of one whose token begins so, the first answer to each call is lost.
pub const TIMEOUT_AFTER: &str = "tok_timeout_after";

/// Holds for every call about the payment, but a lookup. What it says of a first call, it says of each idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Approve,
    Decline,
    DeclineCapture,
    /// Does what it is asked, and does not answer the first call.
    TimeoutAfter,
    /// Neither does it nor answers, on the first call.
    TimeoutBefore,
    /// Does what it is asked, and answers the first call when the caller has given up.
    Late,
    /// Answers every call twice.
    Twice,
}

/// A token that begins with the word follows the rule; the first one that fits counts, so a longer word stands before
/// its beginning.
const RULES: [(&str, Rule); 7] = [
    ("tok_decline_capture", Rule::DeclineCapture),
    (DECLINE, Rule::Decline),
    (TIMEOUT_AFTER, Rule::TimeoutAfter),
    ("tok_timeout_before", Rule::TimeoutBefore),
    ("tok_late", Rule::Late),
    ("tok_twice", Rule::Twice),
    ("tok_approve", Rule::Approve),
];

impl Rule {
    /// Any other token is approved.
    pub(super) fn of_token(token: &str) -> Self {
        RULES.iter().find(|(word, _)| token.starts_with(word)).map_or(Self::Approve, |(_, rule)| *rule)
    }

    /// The word that it is kept as in the books.
    pub(super) fn word(self) -> &'static str {
        RULES.iter().find(|(_, rule)| *rule == self).map_or("tok_approve", |(word, _)| word)
    }

    pub(super) fn of_word(word: &str) -> Self {
        Self::of_token(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_by_its_beginning_and_the_rule_comes_back_from_its_word() {
        for (word, rule) in RULES {
            assert_eq!(Rule::of_token(&format!("{word}_card")), rule, "{word}");
            assert_eq!(Rule::of_word(rule.word()), rule, "{word}");
        }
        assert_eq!(Rule::of_token("tok_card_1"), Rule::Approve);
    }
}
