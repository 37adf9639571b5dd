//! What is tried again before it is refused.
//!
//! `error` is an operation's last word by `graphql-transport-ws`: clients come back by themselves when a connection breaks
//! off, and not when an operation is refused. So a subscription that comes back with many others, or before its old place
//! is known to be free, is not refused at once when there is no room for it. That lasts for some time behind the
//! connection's first message; whoever asks later hears at once that it is too much.

use std::time::{Duration, Instant};

use apollo_compiler::response::JsonValue;

use crate::graphql::Refused;

/// Longest time between two tries, in seconds, unless the refusal names a longer one. It grows by one with each.
const WAIT_SECONDS_MAX: u64 = 5;

/// How often one operation may be tried.
pub(super) struct Patience {
    /// `None`: once.
    until: Option<Instant>,
    tries: u64,
}

impl Patience {
    /// For the operation of a message: until then where it is a subscription, and none for what is answered once.
    pub(super) fn of(payload: &JsonValue, until: Instant) -> Self {
        // What was not let in is not parsed. A text that is only named may be one.
        let text = payload.get("query").and_then(JsonValue::as_str);
        Self { until: text.is_none_or(may_subscribe).then_some(until), tries: 0 }
    }

    /// How long to wait before it is tried again; `None`: the refusal is to be told.
    pub(super) fn wait(&mut self, refused: &Refused) -> Option<Duration> {
        let (until, asked) = (self.until?, refused.retry_after()?);
        self.tries += 1;
        let wait = asked.max(Duration::from_secs(self.tries.min(WAIT_SECONDS_MAX)));
        (Instant::now() + wait <= until).then_some(wait)
    }
}

/// Whether a definition of a text may be a subscription: where one can begin stands the word.
fn may_subscribe(text: &str) -> bool {
    text.split('}').any(|mut rest| {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | '\u{feff}'));
            match rest.strip_prefix('#') {
                Some(comment) => rest = comment.split_once(['\n', '\r']).map_or("", |(_, behind)| behind),
                None => return rest.starts_with("subscription"),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::problem::Problem;

    fn patience(payload: serde_json::Value, seconds: u64) -> Patience {
        let payload = JsonValue::from_bytes(payload.to_string().into()).expect("JSON");
        Patience::of(&payload, Instant::now() + Duration::from_secs(seconds))
    }

    #[test]
    fn subscriptions_are_told_from_what_is_answered_once() {
        for (text, wanted) in [
            ("subscription { x }", true),
            ("\u{feff} # {\n,subscription S($id: ID!) { x }", true),
            ("fragment F on X { y }subscription { ...F }", true),
            ("{ x { y } }", false),
            ("query subscription { subscription { x } }", false),
            ("# subscription", false),
            ("", false),
        ] {
            assert_eq!(may_subscribe(text), wanted, "{text}");
        }
        assert!(patience(json!({"documentId": "x"}), 9).until.is_some());
        assert!(patience(json!({"query": "{ x }"}), 9).until.is_none());
    }

    #[test]
    fn what_passes_is_waited_for_and_nothing_else_is() {
        let refused = |seconds| Refused::from(Problem::too_many("too many", seconds));
        let mut one = patience(json!({"query": "subscription { x }"}), 60);
        let waits: Vec<u64> = (0..7).filter_map(|_| one.wait(&refused(2))).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [2, 2, 3, 4, 5, 5, 5]);
        assert_eq!(one.wait(&refused(3600)), None, "the time does not suffice");
        assert_eq!(one.wait(&Refused::new("graphql_invalid", 400, "wrong")), None);
        assert_eq!(patience(json!({"query": "{ x }"}), 60).wait(&refused(1)), None);
    }
}
