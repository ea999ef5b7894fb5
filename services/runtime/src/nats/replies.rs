//! The door that every answer goes through. A reply is published with the rights of who answers, on whatever subject the
//! request names. So answers go to inboxes only: never to events, nor to the API of JetStream.

use super::settings::SettingsError;
use crate::alarm::Alarm;
use async_nats::Message;
use std::sync::Arc;

/// What the inboxes of NATS clients begin with, if they are not told otherwise. Nobody but them uses subjects whose first part
/// begins so: so it stands for `_INBOX_…` as well, as a user's own prefix is written.
pub(super) const INBOX: &str = "_INBOX";
/// Longer subjects than any inbox are not needed.
const LONGEST: usize = 255;

/// Which subjects an answer may be sent to.
#[derive(Debug, Clone)]
pub struct Replies {
    prefixes: Arc<[String]>,
    refused: Arc<Alarm>,
}

impl Default for Replies {
    fn default() -> Self {
        Self { prefixes: [INBOX.to_owned()].into(), refused: Arc::default() }
    }
}

impl Replies {
    /// Answers go to subjects below one of these prefixes.
    ///
    /// # Errors
    /// When there is none, or one could reach what is not an inbox.
    pub fn to(prefixes: Vec<String>) -> Result<Self, SettingsError> {
        if prefixes.is_empty() {
            return Err(SettingsError::NoReplyPrefix);
        }
        prefixes.iter().try_for_each(|prefix| check_prefix("NATS_REPLY_PREFIXES", prefix))?;
        Ok(Self { prefixes: prefixes.into(), ..Self::default() })
    }

    /// Whether `subject` is an inbox: `<prefix>.…`; if the prefix is `_INBOX`, also `_INBOX_….…`.
    pub fn allow(&self, subject: &str) -> bool {
        let is_below = |prefix: &String| {
            let rest = subject.strip_prefix(&**prefix);
            rest.is_some_and(|rest| rest.starts_with('.') || (prefix == INBOX && rest.starts_with('_')))
        };
        subject.len() <= LONGEST
            && subject.split('.').count() > 1
            && subject.split('.').all(is_token)
            && self.prefixes.iter().any(is_below)
    }

    /// Whether the request may be carried out: it can be answered. If not, that is logged, now and then.
    pub(crate) fn admit(&self, request: &Message) -> bool {
        let reply = request.reply.as_deref();
        if reply.is_some_and(|reply| self.allow(reply)) {
            return true;
        }
        if let Some(times) = self.refused.rings() {
            let (subject, reply) = (request.subject.as_str(), reply.unwrap_or("none"));
            tracing::warn!(
                subject,
                ?reply,
                times,
                "a request was not carried out: its reply subject is no inbox that is answered (NATS_REPLY_PREFIXES)"
            );
        }
        false
    }
}

/// A part of a subject that stands for itself alone.
fn is_token(token: &str) -> bool {
    !token.is_empty() && token != "*" && token != ">" && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An inbox prefix must not lead to Daybook's subjects, nor to those of NATS itself.
pub(super) fn check_prefix(setting: &'static str, prefix: &str) -> Result<(), SettingsError> {
    let first = prefix.split('.').next().unwrap_or_default();
    if prefix.split('.').all(is_token) && !first.starts_with('$') && first != "daybook" {
        return Ok(());
    }
    Err(SettingsError::Prefix { setting, prefix: prefix.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inboxes_are_answered() {
        let replies = Replies::default();
        for inbox in ["_INBOX.aB3", "_INBOX.aB3.1", "_INBOX_client.x.y", "_INBOX_client.shop.x.y"] {
            assert!(replies.allow(inbox), "{inbox}");
        }
        let long = format!("_INBOX.{}", "x".repeat(LONGEST));
        for other in [
            "",
            "_INBOX",
            "_INBOX_client",
            "_INBOXES.x",
            "_inbox.x",
            "daybook.evt.v1.order.x.Y",
            "$JS.API.STREAM.DELETE.DAYBOOK",
            "x._INBOX.y",
            "_INBOX.",
            "_INBOX..x",
            "_INBOX.>",
            "_INBOX.*.x",
            "_INBOX.a b",
            "_INBOX.a\tb",
            "_INBOX.ë",
            &long,
        ] {
            assert!(!replies.allow(other), "{other}");
        }
    }

    #[test]
    fn what_is_configured_is_all_that_is_answered() {
        let replies = Replies::to(vec!["_INBOX_client".into(), "replies.shop".into()]).unwrap();
        assert!(replies.allow("_INBOX_client.a.b") && replies.allow("replies.shop.a"));
        assert!(!replies.allow("_INBOX.a.b") && !replies.allow("replies.other.a"));
        // What begins in the same way is another's: it may be anything.
        for other in ["replies.shop_x.a", "_INBOX_client_x.a", "_INBOX_clients.a", "replies.shop"] {
            assert!(!replies.allow(other), "{other}");
        }
        let replies = Replies::to(vec!["_INBOX".into(), "_R_".into()]).unwrap();
        assert!(replies.allow("_INBOX.a") && replies.allow("_INBOX_client.a") && replies.allow("_R_.a.b"));
        assert!(!replies.allow("_R__x.a"));
        for bad in ["", "daybook", "daybook.evt.v1", "$JS.API", "_INBOX.", "_INBOX.>", "*", "a b"] {
            assert!(Replies::to(vec![bad.into()]).is_err(), "{bad}");
        }
        assert!(Replies::to(vec![]).is_err());
    }
}
