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
    /// The form a client likes best; `None`: neither.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<(u16, Self)> = None;
        let mut asked = false;
        for given in headers.get_all(ACCEPT) {
            for range in given.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
                if kind.is_empty() {
                    continue;
                }
                asked = true;
                let media = match kind.as_str() {
                    "application/graphql-response+json" | "application/*" | "*/*" => Self::Response,
                    "application/json" => Self::Json,
                    _ => continue,
                };
                let quality = weight(parts.map(str::as_bytes));
                // Of equals the newer form, and of several ranges that mean the same the one that likes it more.
                let is_better = best.is_none_or(|(than, of)| {
                    quality > than || (quality == than && of == Self::Json && media == Self::Response && kind != "*/*")
                });
                if quality > 0 && is_better {
                    best = Some((quality, media));
                }
            }
        }
        if asked { best.map(|(_, media)| media) } else { Some(Self::Response) }
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
            ("application/json;q=0, text/html", None),
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
