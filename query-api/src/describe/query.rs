//! The query of a list as a body, described.

use headwater_schemas::model::{IndexShape, ModelShape, Operator};
use serde_json::{Map, Value, json};

use super::operations::reference;
use super::{example, given};
use crate::channel::PageLimits;

/// The operation that takes a query as its body. `page`: how it is answered; `sizes`: of pages.
pub(super) fn operation(shape: &ModelShape, page: Value, sizes: PageLimits) -> Value {
    let model = &shape.model;
    json!({
        "operationId": format!("query_{model}"),
        "tags": [model],
        "summary": format!("A page of {model} documents, asked for by a body"),
        "description": format!(
            "The same as `GET /v1/{model}` with the query as JSON, for what is too long or too private for a URL. The \
             method `QUERY` on `/v1/{model}` takes the same body; it is safe and can be repeated, and OpenAPI 3.1 has \
             no word for it. `/v1/me/{model}:query` asks the same of what is the caller's own. To go on, send the same \
             body with `after`."
        ),
        "parameters": [
            reference("parameters", "requestId"),
            reference("parameters", "consistencyToken"),
            reference("parameters", "prefer"),
        ],
        "requestBody": { "required": true, "content": { "application/json": { "schema": body(shape, sizes) } } },
        "responses": {
            "200": page,
            "400": reference("responses", "BadRequest"),
            "401": reference("responses", "Unauthenticated"),
            "406": reference("responses", "NotAcceptable"),
            "413": reference("responses", "TooLarge"),
            "415": reference("responses", "UnsupportedMediaType"),
            "429": reference("responses", "TooMany"),
            "503": reference("responses", "Unavailable"),
        },
    })
}

fn body(shape: &ModelShape, sizes: PageLimits) -> Value {
    let filters: Map<String, Value> = shape.indexes.iter().map(|index| (index.name.clone(), filter(index))).collect();
    let by = |index: &IndexShape| [index.name.clone(), format!("-{}", index.name)];
    let sorts: Vec<String> = shape.indexes.iter().filter(|index| !index.many).flat_map(by).collect();
    let mut properties = json!({
        "filter": {
            "type": "object",
            "description": "Conditions by declared index and operator; all must hold.",
            "properties": filters,
            "additionalProperties": false,
        },
        "fields": given::fields(&shape.fields)["schema"],
        "limit": { "type": "integer", "minimum": 1, "maximum": sizes.max, "default": sizes.default },
        "after": { "type": "string", "description": "`page.next` of the page before." },
        "count": { "enum": ["none", "estimated", "exact"], "default": "none" },
        "ids": {
            "type": "array", "items": { "type": ["string", "number"] }, "maxItems": sizes.max,
            "description": "These documents, in this order, null where there is none. Stands alone, but for `fields`.",
        },
    });
    if !sorts.is_empty() {
        properties["sort"] = json!({ "enum": sorts });
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// The conditions there can be on one index.
fn filter(index: &IndexShape) -> Value {
    let value =
        || json!({ "type": ["string", "number", "boolean"], "examples": [example::text(&index.kind, &index.name)] });
    let condition = |(word, operator): (&str, Operator)| {
        let schema = match operator {
            Operator::Exists => json!({ "type": "boolean" }),
            Operator::In | Operator::Nin => {
                json!({ "type": "array", "items": value(), "minItems": 1, "maxItems": 100 })
            }
            _ => value(),
        };
        (word.to_string(), schema)
    };
    let properties: Map<String, Value> = given::operators(&index.kind).map(condition).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}
