//! What a request asks, from its body or its URL.

use std::borrow::Cow;

use apollo_compiler::response::serde_json_bytes::ByteString;
use apollo_compiler::response::{JsonMap, JsonValue};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap};

use crate::graphql::GivenText;
use crate::problem::Problem;

/// What a request asks.
pub(super) enum Given {
    One(Asked),
    /// Several, answered in order.
    Batch(Vec<Asked>),
}

/// One operation that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(super) text: GivenText,
    pub(super) operation_name: Option<ByteString>,
    pub(super) variables: JsonMap,
}

impl Asked {
    /// From `{"query": …, "operationName": …, "variables": …, "extensions": …}`, or with `documentId` for `query`.
    pub(crate) fn from_json(value: JsonValue) -> Result<Self, Problem> {
        let JsonValue::Object(mut members) = value else {
            return Err(bad("the body must be an object with `query`, and perhaps `variables` and `operationName`"));
        };
        let sha256 = persisted(members.remove("extensions"))?;
        let text =
            GivenText { query: text(&mut members, "query")?, document_id: text(&mut members, "documentId")?, sha256 };
        let operation_name = self::text(&mut members, "operationName")?.filter(|name| !name.as_str().is_empty());
        Self { text, operation_name, variables: variables(members.remove("variables"))? }.complete()
    }

    fn complete(self) -> Result<Self, Problem> {
        let GivenText { query, document_id, sha256 } = &self.text;
        if query.is_none() && document_id.is_none() && sha256.is_none() {
            return Err(bad("`query` is missing; to look around, open /graphiql on the admin port"));
        }
        Ok(self)
    }
}

/// Refuses a body that is no JSON. A form of another site cannot send this kind, so no page makes a browser ask in its
/// user's name.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let title = "The body must be JSON";
    let detail = "send `{\"query\": …}` with `Content-Type: application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail))
}

/// What a body asks: an object, or an array of up to `batch_max`. Texts in it stay where they are.
pub(super) fn from_body(body: Bytes, batch_max: usize) -> Result<Given, Problem> {
    let body = JsonValue::from_bytes(body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    let JsonValue::Array(batch) = body else { return Asked::from_json(body).map(Given::One) };
    if batch.is_empty() {
        return Err(bad("the array of requests is empty"));
    }
    if batch.len() > batch_max {
        let detail = match batch_max {
            0 => "several requests at once are not answered here; send one at a time".to_string(),
            max => format!("{} requests at once, over the limit of {max}; send fewer", batch.len()),
        };
        return Err(Problem { code: "batch_too_large", ..bad(detail) });
    }
    batch.into_iter().map(Asked::from_json).collect::<Result<Vec<_>, _>>().map(Given::Batch)
}

/// What a query string asks.
pub(super) fn from_query(query: &str) -> Result<Asked, Problem> {
    let mut asked = Asked::default();
    let json = |name: &str, text: &str| match text {
        "" => Ok(None),
        text => text.parse::<JsonValue>().map(Some).map_err(|error| bad(format!("`{name}` is not JSON: {error}"))),
    };
    let owned = |value: Cow<'_, str>| Some(ByteString::from(value.into_owned()));
    for parameter in crate::rest::parameters(query)? {
        match &*parameter.name {
            "query" => asked.text.query = owned(parameter.value),
            "documentId" => asked.text.document_id = owned(parameter.value),
            "operationName" if parameter.value.is_empty() => {}
            "operationName" => asked.operation_name = owned(parameter.value),
            "variables" => asked.variables = variables(json("variables", &parameter.value)?)?,
            "extensions" => asked.text.sha256 = persisted(json("extensions", &parameter.value)?)?,
            name => {
                let detail = format!(
                    "there is no parameter `{name}` here, but `query`, `operationName`, `variables`, `extensions` and \
                     `documentId`"
                );
                return Err(Problem::unknown_parameter(name, detail));
            }
        }
    }
    asked.complete()
}

/// The hash of `{"persistedQuery": {"version": 1, "sha256Hash": …}}`. Other extensions are not for us.
fn persisted(extensions: Option<JsonValue>) -> Result<Option<ByteString>, Problem> {
    let mut extensions = match extensions {
        None | Some(JsonValue::Null) => return Ok(None),
        Some(JsonValue::Object(extensions)) => extensions,
        Some(_) => return Err(bad("`extensions` must be an object")),
    };
    let mut persisted = match extensions.remove("persistedQuery") {
        None | Some(JsonValue::Null) => return Ok(None),
        Some(JsonValue::Object(persisted)) => persisted,
        Some(_) => return Err(bad("`extensions.persistedQuery` must be an object")),
    };
    if persisted.get("version").is_some_and(|version| version.as_u64() != Some(1)) {
        return Err(bad("`extensions.persistedQuery.version` must be 1"));
    }
    match persisted.remove("sha256Hash") {
        Some(JsonValue::String(hash)) => Ok(Some(hash)),
        _ => Err(bad("`extensions.persistedQuery.sha256Hash` must be a text")),
    }
}

fn text(members: &mut JsonMap, name: &str) -> Result<Option<ByteString>, Problem> {
    match members.remove(name) {
        None | Some(JsonValue::Null) => Ok(None),
        Some(JsonValue::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad(format!("`{name}` must be a text"))),
    }
}

fn variables(given: Option<JsonValue>) -> Result<JsonMap, Problem> {
    match given {
        None | Some(JsonValue::Null) => Ok(JsonMap::new()),
        Some(JsonValue::Object(variables)) => Ok(variables),
        Some(_) => Err(bad("`variables` must be an object")),
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    let title = "This is not a GraphQL request";
    Problem::new(StatusCode::BAD_REQUEST, "graphql_request", title, detail)
}
