//! The OpenAPI 3.1 document of what is served.

use headwater_schemas::model::ModelShape;
use serde_json::{Map, Value, json};

use super::{example, json_schema, operations};
use crate::access::Visibility;
use crate::api::DOCUMENTS_BYTES_MAX;
use crate::channel::{ChannelId, Channels, PageLimits};

/// The OpenAPI document of a query API that serves these models.
pub fn openapi<'s>(shapes: impl IntoIterator<Item = &'s ModelShape>) -> Value {
    document(shapes, PageLimits::default())
}

/// The OpenAPI document of what is seen of models by a channel.
pub(crate) fn openapi_of<'v>(
    seen: impl Iterator<Item = &'v Visibility>,
    channel: ChannelId,
    channels: &Channels,
) -> Value {
    let of = channels.get(channel);
    let page = of.map_or_else(PageLimits::default, |of| of.options.page);
    let mut document = document(seen.map(|seen| &seen.shape), page);
    let names: Vec<&str> = channels.all().map(|(_, of)| &*of.name).collect();
    if names.is_empty() {
        return document;
    }
    let shown = match of {
        Some(of) => format!("This is what the channel `{}` shows.", of.name),
        None => "This is what is shown to requests of no channel.".to_string(),
    };
    let others = names.iter().map(|name| format!("`?channel={name}`")).collect::<Vec<_>>().join(", ");
    let description = document["info"]["description"].as_str().unwrap_or_default();
    document["info"]["description"] = format!("{description} {shown} Other shapes are described at {others}.").into();
    if let (Some(of), Some(header)) = (of, channels.headers().first()) {
        document["info"]["x-channel"] = (*of.name).into();
        document["components"]["parameters"]["channel"] = json!({
            "name": header.as_str(),
            "in": "header",
            "description": "The channel that is described here.",
            "required": true,
            "schema": { "type": "string", "enum": [*of.name] },
        });
        let reference = json!({ "$ref": "#/components/parameters/channel" });
        let operations = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
        for operation in operations.filter_map(Value::as_object_mut).flat_map(|of| of.values_mut()) {
            match operation["parameters"].as_array_mut() {
                Some(parameters) => parameters.push(reference.clone()),
                None => operation["parameters"] = json!([reference]),
            }
        }
    }
    document
}

fn document<'s>(shapes: impl IntoIterator<Item = &'s ModelShape>, page: PageLimits) -> Value {
    let (mut paths, mut schemas, mut tags) = (Map::new(), shared_schemas(), Vec::new());
    for shape in shapes {
        tags.push(tag(shape));
        // Names of models are fit for a reference as they are.
        let mut schema = json_schema::document(shape);
        schema["examples"] = json!([example::document(shape)]);
        schemas.insert(shape.model.clone(), schema);
        let mut some = json_schema::some_of(&shape.fields);
        some["description"] = format!("What `fields` leaves of a {}.", shape.model).into();
        schemas.insert(operations::some_name(&shape.model), some);
        operations::add_paths(&mut paths, shape, page);
    }
    operations::add_graphql(&mut paths);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Read models: nested documents kept current with the databases they are made of. Exact numbers \
                            stay exact: decimals are strings. Parameters that are not described here are refused.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        // Which of them is wanted, if any, is for each installation to say.
        "security": [{}, { "token": [] }, { "key": [] }],
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
            "schemas": schemas,
            "parameters": shared_parameters(page),
            "headers": shared_headers(),
            "responses": shared_responses(),
        },
    })
}

fn tag(shape: &ModelShape) -> Value {
    let mut tag = json!({ "name": shape.model });
    if let Some(doc) = &shape.doc {
        tag["description"] = doc.as_str().into();
    }
    tag
}

fn shared_schemas() -> Map<String, Value> {
    let problem = json!({
        "description": "Why a request could not be answered (RFC 9457).",
        "type": "object",
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": { "type": "string", "description": "The kind of problem." },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "This problem, with the remedy." },
            "code": { "type": "string", "description": "For programs." },
            "requestId": { "type": "string" },
            "parameter": { "type": "string", "description": "The parameter it is about." },
            "pointer": { "type": "string", "description": "JSON pointer to the member of the body it is about." },
        },
        "required": ["type", "title", "status", "detail", "code", "requestId"],
        "examples": [{
            "type": "urn:headwater:problem:unknown_parameter",
            "title": "There is no such parameter",
            "status": 400,
            "detail": "there is no parameter `limt` here; did you mean `limit`?",
            "code": "unknown_parameter",
            "requestId": "0195a4a2-7c1e-7000-8000-000000000001",
            "parameter": "limt",
        }],
    });
    let page = json!({
        "description": "Where a list goes on.",
        "type": "object",
        "properties": {
            "next": { "type": ["string", "null"], "description": "`after` of the next page." },
            "hasMore": { "type": "boolean" },
        },
        "required": ["next", "hasMore"],
    });
    let count = json!({
        "description": "How many there are in the whole list, when asked for.",
        "type": ["object", "null"],
        "properties": {
            "kind": { "enum": ["exact", "atLeast"] },
            "value": { "type": "integer", "minimum": 0 },
        },
        "required": ["kind", "value"],
    });
    Map::from_iter([("_problem".to_string(), problem), ("_page".into(), page), ("_count".into(), count)])
}

fn shared_parameters(page: PageLimits) -> Value {
    json!({
        "limit": {
            "name": "limit",
            "in": "query",
            "description": format!(
                "Items of the page, at most. A page can have fewer although there are more: among others it ends \
                 before its documents have more than {} MiB together.",
                DOCUMENTS_BYTES_MAX >> 20
            ),
            "schema": { "type": "integer", "minimum": 1, "maximum": page.max, "default": page.default },
        },
        "after": {
            "name": "after",
            "in": "query",
            "description": "`page.next` of the page before. Good for the same query only.",
            "schema": { "type": "string" },
        },
        "count": {
            "name": "count",
            "in": "query",
            "description": "Whether to count the whole list. `exact` is refused over 10,000; `estimated` ends at 1,000.",
            "schema": { "enum": ["none", "estimated", "exact"], "default": "none" },
        },
        "ifNoneMatch": {
            "name": "If-None-Match",
            "in": "header",
            "description": "The ETag of what you have: 304 when it is still right.",
            "schema": { "type": "string" },
        },
        "consistencyToken": {
            "name": "Consistency-Token",
            "in": "header",
            "description": "A token that an answer had: this one is at least as new, or 503. Also `source=position` with \
                            a position of the source's log, for whoever just wrote there.",
            "schema": { "type": "string" },
        },
        "prefer": {
            "name": "Prefer",
            "in": "header",
            "description": "`wait=2`: wait up to so many seconds until the answer is as new as `Consistency-Token` asks.",
            "schema": { "type": "string" },
        },
        "requestId": {
            "name": "X-Request-Id",
            "in": "header",
            "description": "Names the request in logs: up to 128 of the characters `A-Z a-z 0-9 _ . : / + = @ -`. One is made \
                            up when there is none, or it has others.",
            "schema": { "type": "string" },
        },
        "lastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The last event a live stream's client has; sent by browsers themselves.",
            "schema": { "type": "string" },
        },
    })
}

fn shared_headers() -> Value {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "ETag": text("Names the state of the answer."),
        "X-Data-As-Of": {
            "description": "Every change of the source databases up to here is in the answer.",
            "schema": { "type": "string", "format": "date-time" },
        },
        "Consistency-Token": text("What the answer reflects; for the header of the same name of another request."),
        "Preference-Applied": text("`wait=…` where the answer was waited for."),
        "X-Next-Cursor": text("`after` of the next page, where the body has no place for it."),
        "X-Count": { "description": "The count asked for, where the body has no place for it.", "schema": { "type": "integer" } },
        "X-Count-Kind": text("Whether that is `exact` or `atLeast`."),
        "X-Model-Version": text("Version of the model, as its author numbers it."),
        "X-Request-Id": text("Names the request."),
        "Link": text("`rel=\"next\"`: the next page."),
        "Retry-After": { "description": "Seconds to wait.", "schema": { "type": "integer" } },
    })
}

fn shared_responses() -> Value {
    let problem = |description: &str| {
        json!({
            "description": description,
            "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/_problem" } } },
        })
    };
    let mut too_many =
        problem("Too many requests, `Retry-After` says when to come back; or too many live streams at the same time.");
    too_many["headers"]["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
    let mut unavailable =
        problem("The model is being built, the store cannot be read, or what is asked for is not projected yet.");
    unavailable["headers"]["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
    json!({
        "NotAcceptable": problem("None of the forms there are is asked for."),
        "BadRequest": problem("A parameter is unknown or cannot be accepted."),
        "Unauthenticated": problem("It is not known who asks, or what was sent to show it is not valid."),
        "NotFound": problem("There is no such document."),
        "TooLarge": problem("The body is too large, or the documents that are named are together."),
        "UnsupportedMediaType": problem("The body is of a kind that is not understood here."),
        "TooMany": too_many,
        "Unavailable": unavailable,
        "NotModified": {
            "description": "What you have is still right.",
            "headers": { "ETag": { "$ref": "#/components/headers/ETag" } },
        },
    })
}
