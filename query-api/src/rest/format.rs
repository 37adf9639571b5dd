//! In which form documents are sent: what `Accept` asks for of what there is.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};

use crate::channel;
use crate::http::weight;
use crate::problem::Problem;
use crate::projection::{Torn, write_cbor};
use crate::serving::Model;

/// A form of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// As they are stored.
    Json,
    /// The same values in fewer bytes (RFC 8949).
    Cbor,
    /// A document a line; what else a list tells is in headers.
    Lines,
}

impl Format {
    /// Number of forms.
    const COUNT: usize = 3;
    /// What there is of one document, the usual first.
    pub(super) const OF_DOCUMENT: &[Self] = &[Self::Json, Self::Cbor];
    /// What there is of several.
    pub(super) const OF_LIST: &[Self] = &[Self::Json, Self::Cbor, Self::Lines];

    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// Value of `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// Tells validators of this form from those of others; `None`: of JSON.
    pub(super) fn etag_shape(self, shape: Option<u64>) -> Option<u64> {
        match self {
            Self::Json => shape,
            Self::Cbor => Some(shape.unwrap_or_default() ^ 0x43_424f_5221),
            Self::Lines => Some(shape.unwrap_or_default() ^ 0x4c_494e_4553),
        }
    }

    /// What is usual in a channel.
    pub(super) fn usual(model: &Model) -> Self {
        match model.visibility.format {
            channel::Format::Json => Self::Json,
            channel::Format::Cbor => Self::Cbor,
        }
    }

    /// The form of `offered` that the client likes best; without a word the `usual` one. Of several ranges that mean a form
    /// the most specific one says how much it is liked (RFC 9110, 12.5.1).
    pub(super) fn chosen(headers: &HeaderMap, offered: &[Self], usual: Self) -> Result<Self, Problem> {
        let mut asked = false;
        // Of each form how specific the most specific range is that means it, and what that says.
        let mut liked = [(0u8, 0u16); Self::COUNT];
        for range in headers.get_all(ACCEPT).iter().flat_map(|given| given.as_bytes().split(|byte| *byte == b',')) {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            if kind.is_empty() {
                continue;
            }
            asked = true;
            let weight = weight(parts);
            for format in offered {
                let precision = match kind {
                    b"*/*" => 1,
                    b"application/*" => 2,
                    kind if kind.eq_ignore_ascii_case(format.name().as_bytes()) => 3,
                    // Registered by nobody, and written by many.
                    b"application/ndjson" | b"application/jsonl" if *format == Self::Lines => 3,
                    _ => continue,
                };
                let of_format = &mut liked[*format as usize];
                *of_format = (*of_format).max((precision, weight));
            }
        }
        // What is not asked for by its name is as usual, unless that is what is not wanted.
        let rank = |format: &Self| {
            let (precision, weight) = liked[*format as usize];
            (weight > 0).then_some((precision == 3 || *format == usual, weight, precision))
        };
        // Of equals the first: the usual, or what is offered first.
        let ranked = offered.iter().filter_map(|format| Some((rank(format)?, *format)));
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        match best {
            Some((_, format)) => Ok(format),
            None if !asked => Ok(usual),
            None => {
                let names: Vec<&str> = offered.iter().map(|format| format.name()).collect();
                let title = "This is not there in the form that is asked for";
                let detail = format!("`Accept` must allow one of {}", names.join(", "));
                Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", title, detail))
            }
        }
    }

    /// A body that was made as JSON, in this form.
    pub(super) fn of_json(self, json: Vec<u8>) -> Result<Vec<u8>, Torn> {
        match self {
            Self::Json | Self::Lines => Ok(json),
            Self::Cbor => {
                let mut out = Vec::with_capacity(json.len());
                write_cbor(&mut out, &json)?;
                Ok(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_asked_for_is_chosen() {
        use Format::{Cbor, Json, Lines};
        for (given, of_document, of_list) in [
            ("", Some(Json), Some(Json)),
            ("*/*", Some(Json), Some(Json)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(Json), Some(Json)),
            ("application/*", Some(Json), Some(Json)),
            ("application/json", Some(Json), Some(Json)),
            ("Application/CBOR", Some(Cbor), Some(Cbor)),
            ("application/cbor;q=0.5, application/json;q=0.4", Some(Cbor), Some(Cbor)),
            ("application/cbor;q=0.4, */*;q=0.5", Some(Json), Some(Json)),
            ("application/cbor, */*", Some(Cbor), Some(Cbor)),
            ("application/json;q=0, application/cbor", Some(Cbor), Some(Cbor)),
            ("application/json;q=x, application/cbor;q=0.1", Some(Cbor), Some(Cbor)),
            ("application/x-ndjson", None, Some(Lines)),
            ("application/ndjson, application/json;q=0.1", Some(Json), Some(Lines)),
            ("text/html", None, None),
            ("application/json;q=0", None, None),
            ("application/json;q=0, */*", Some(Cbor), Some(Cbor)),
            ("*/*, application/json;q=0", Some(Cbor), Some(Cbor)),
            ("application/json;q=0, application/*;q=0.5, */*", Some(Cbor), Some(Cbor)),
            ("application/*;q=0, */*", None, None),
            ("application/*;q=0, application/json;q=0.1, */*", Some(Json), Some(Json)),
            ("application/json;q=0.1, */*", Some(Json), Some(Json)),
            ("application/json;q=0.1, application/cbor;q=0.2, */*", Some(Cbor), Some(Cbor)),
            ("application/json;q=0, application/cbor;q=0, */*", None, Some(Lines)),
            ("application/jsonp", None, None),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(given))]);
            assert_eq!(Format::chosen(&headers, Format::OF_DOCUMENT, Json).ok(), of_document, "{given}");
            assert_eq!(Format::chosen(&headers, Format::OF_LIST, Json).ok(), of_list, "{given}");
        }
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
        let problem = Format::chosen(&headers, Format::OF_LIST, Format::Json).expect_err("there is none");
        assert!(problem.detail.contains("application/json, application/cbor, application/x-ndjson"));
    }
}
