//! The form of an answer, as the GraphQL-over-HTTP specification has it.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};

use crate::http::weight;
use crate::problem::Problem;

/// A form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/graphql-response+json`: the status tells whether the request was answered.
    Response,
    /// `application/json`, for older clients: a request that could be read is answered with 200, whatever is wrong
    /// with it, because anything between may have put its own meaning to another status.
    Json,
}

impl Media {
    /// The form a client likes best; `None`: neither. Of several ranges that mean a form the most specific one says how much
    /// it is liked (RFC 9110, 12.5.1).
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        // Of either form how specific the most specific range is that means it, and what that says.
        let [mut response, mut json] = [(0u8, 0u16); 2];
        let mut asked = false;
        for given in headers.get_all(ACCEPT) {
            for range in given.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
                if kind.is_empty() {
                    continue;
                }
                asked = true;
                let quality = weight(parts.map(str::as_bytes));
                match kind.as_str() {
                    "application/graphql-response+json" => response = response.max((3, quality)),
                    "application/json" => json = json.max((3, quality)),
                    "application/*" => {
                        [&mut response, &mut json].into_iter().for_each(|of| *of = (*of).max((2, quality)))
                    }
                    "*/*" => [&mut response, &mut json].into_iter().for_each(|of| *of = (*of).max((1, quality))),
                    _ => {}
                }
            }
        }
        match (response, json) {
            _ if !asked => Some(Self::Response),
            ((_, 0), (_, 0)) => None,
            ((_, 0), _) => Some(Self::Json),
            // What is not asked for by its name is the newer form; and of equals, unless that is only anything at all.
            ((precision, quality), (3, of_json)) if of_json > quality || (of_json == quality && precision == 1) => {
                Some(Self::Json)
            }
            _ => Some(Self::Response),
        }
    }

    /// Value of `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Response => "application/graphql-response+json",
            Self::Json => "application/json",
        })
    }

    /// Status of an answer that would be answered with this one.
    pub(super) fn status(self, status: u16) -> u16 {
        match self {
            Self::Json if status < 500 => 200,
            _ => status,
        }
    }
}

/// The answer to a client that takes none of the forms there are.
pub(super) fn not_acceptable() -> Problem {
    let title = "There is no such form of this";
    let detail = "accept application/graphql-response+json, application/json or text/event-stream";
    Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", title, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_is_liked_best_is_found() {
        for (accept, wanted) in [
            ("", Some(Media::Response)),
            ("*/*", Some(Media::Response)),
            ("application/json", Some(Media::Json)),
            ("application/json; charset=utf-8", Some(Media::Json)),
            ("application/json, */*", Some(Media::Json)),
            ("application/graphql-response+json, application/json", Some(Media::Response)),
            ("application/json, application/graphql-response+json", Some(Media::Response)),
            ("application/graphql-response+json;q=0.5, application/json", Some(Media::Json)),
            ("application/json, application/*", Some(Media::Response)),
            ("application/json;q=0, text/html", None),
            ("application/json;q=0, */*", Some(Media::Response)),
            ("application/graphql-response+json;q=0, */*", Some(Media::Json)),
            ("*/*, application/graphql-response+json;q=0", Some(Media::Json)),
            ("application/*;q=0, */*", None),
            ("application/graphql-response+json;q=0.5, */*", Some(Media::Response)),
            ("text/html", None),
            ("text/event-stream", None),
            ("application/json;q=x", None),
            ("APPLICATION/JSON", Some(Media::Json)),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Media::of(&headers), wanted, "{accept}");
        }
        assert_eq!(Media::of(&HeaderMap::new()), Some(Media::Response));
    }
}
