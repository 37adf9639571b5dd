//! The paths of the OpenAPI document.

use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, Operator, ShapeField};
use serde_json::{Map, Value, json};

use super::{example, given, json_schema};
use crate::api::DOCUMENTS_BYTES_MAX;
use crate::channel::PageLimits;

/// Adds every path of one model.
pub(super) fn add_paths(paths: &mut Map<String, Value>, shape: &ModelShape, page: PageLimits) {
    let model = &shape.model;
    paths.insert(format!("/v1/{model}"), json!({ "get": list(shape, page) }));
    let query = super::query::operation(shape, list_page(shape), page);
    paths.insert(format!("/v1/{model}:query"), json!({ "post": query }));
    paths.insert(format!("/v1/{model}/schema"), json!({ "get": schema(shape) }));
    paths.insert(format!("/v1/{model}/{{id}}"), json!({ "get": point(shape) }));
    let mut names = Vec::new();
    add_arrays(paths, shape, &shape.fields, &mut names);
}

/// Adds the path of GraphQL.
pub(super) fn add_graphql(paths: &mut Map<String, Value>) {
    let request = json!({
        "type": "object",
        "properties": {
            "query": { "type": ["string", "null"] },
            "operationName": { "type": ["string", "null"] },
            "variables": { "type": ["object", "null"] },
            "extensions": { "type": ["object", "null"], "description": "`persistedQuery` names a text by its SHA-256." },
            "documentId": { "type": ["string", "null"], "description": "Names a trusted document, in place of `query`." },
        },
    });
    let request = json!({ "anyOf": [request, { "type": "array", "items": request, "minItems": 1 }] });
    let one = json!({
        "type": "object",
        "properties": { "data": { "type": ["object", "null"] }, "errors": { "type": "array" } },
    });
    let answer = json!({ "anyOf": [one, { "type": "array", "items": one }] });
    let content = json!({
        "application/graphql-response+json": { "schema": answer },
        "application/json": { "schema": answer },
        "text/event-stream": { "schema": {
            "type": "string",
            "description": "Events `next`, with a result as data, and `complete`; of a subscription one for each change.",
        } },
    });
    // A query that cannot be executed is told of in GraphQL's own form, a request that is none as a problem.
    let refused = |description: &str| {
        let problem = json!({ "schema": reference("schemas", "_problem") });
        let content = json!({
            "application/graphql-response+json": { "schema": one },
            "application/problem+json": problem,
        });
        json!({ "description": description, "content": content })
    };
    let parameters = ["query", "operationName", "variables", "extensions", "documentId"]
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
    let mut responses = json!({
        "200": { "description": "Data, errors, or both.", "content": content },
        "400": refused("Not a request, or not a query that can be executed."),
        "401": reference("responses", "Unauthenticated"),
        "403": refused("Only trusted documents are answered."),
        "404": refused("The text that is named is not known."),
        "406": refused("No form that is accepted is there, or a subscription needs a stream."),
        "429": reference("responses", "TooMany"),
        "503": reference("responses", "Unavailable"),
    });
    let mut by_get = responses.clone();
    by_get["304"] = reference("responses", "NotModified");
    by_get["405"] = refused("Something would be written.");
    responses["413"] = reference("responses", "TooLarge");
    responses["415"] = reference("responses", "UnsupportedMediaType");
    let post = json!({
        "operationId": "graphql",
        "summary": "The same documents by GraphQL",
        "requestBody": { "required": true, "content": { "application/json": { "schema": request } } },
        "responses": responses,
    });
    let get = json!({
        "operationId": "graphqlByGet",
        "summary": "The same documents by GraphQL, cacheable",
        "parameters": parameters,
        "responses": by_get,
    });
    paths.insert("/graphql".into(), json!({ "get": get, "post": post }));
}

fn point(shape: &ModelShape) -> Value {
    let model = &shape.model;
    let headers = headers(&[
        "Consistency-Token",
        "ETag",
        "Preference-Applied",
        "X-Data-As-Of",
        "X-Model-Version",
        "X-Request-Id",
    ]);
    json!({
        "operationId": format!("get_{model}"),
        "tags": [model],
        "summary": format!("One {model}, and by `Accept: text/event-stream` each of its changes"),
        "parameters": [
            id(shape),
            given::fields(&shape.fields),
            reference("parameters", "ifNoneMatch"),
            reference("parameters", "requestId"),
            reference("parameters", "consistencyToken"),
            reference("parameters", "prefer"),
            reference("parameters", "lastEventId"),
        ],
        "responses": {
            "200": {
                "description": "The document.",
                "headers": headers,
                "content": {
                    "application/json": { "schema": whole_or_some(model), "example": example::document(shape) },
                    "application/cbor": cbor(),
                    "text/event-stream": { "schema": {
                        "type": "string",
                        "description": "Events `document`, with the document as data, and `deleted`.",
                    } },
                },
            },
            "304": reference("responses", "NotModified"),
            "400": reference("responses", "BadRequest"),
            "404": reference("responses", "NotFound"),
            "401": reference("responses", "Unauthenticated"),
            "406": reference("responses", "NotAcceptable"),
            "429": reference("responses", "TooMany"),
            "503": reference("responses", "Unavailable"),
        },
    })
}

fn list(shape: &ModelShape, sizes: PageLimits) -> Value {
    let model = &shape.model;
    let mut parameters = vec![
        given::fields(&shape.fields),
        reference("parameters", "limit"),
        reference("parameters", "after"),
        reference("parameters", "count"),
        reference("parameters", "requestId"),
        reference("parameters", "consistencyToken"),
        reference("parameters", "prefer"),
        json!({
            "name": "ids",
            "in": "query",
            "description": format!(
                "These documents, in this order, null where there is none; {} MiB of them together, at most. Stands \
                 alone, but for `fields`.",
                DOCUMENTS_BYTES_MAX >> 20
            ),
            "schema": { "type": "array", "items": { "type": "string" }, "maxItems": sizes.max },
            "style": "form",
            "explode": false,
        }),
    ];
    let sorts: Vec<String> = shape
        .indexes
        .iter()
        .filter(|index| !index.many)
        .flat_map(|index| [index.name.clone(), format!("-{}", index.name)])
        .collect();
    if !sorts.is_empty() {
        parameters.push(json!({
            "name": "sort",
            "in": "query",
            "description": "The order; with `-` the greatest first. Null is least. Equal ones are in the order of their ids.",
            "schema": { "enum": sorts },
        }));
    }
    parameters.extend(shape.indexes.iter().flat_map(filters));
    parameters.push(reference("parameters", "lastEventId"));
    let mut page = list_page(shape);
    page["content"]["text/event-stream"] = json!({ "schema": {
        "type": "string",
        "description": "Events `page` or `reset` with the list, and `change` with what is to be removed and put.",
    } });
    json!({
        "operationId": format!("list_{model}"),
        "tags": [model],
        "summary": format!("A page of {model} documents, and by `Accept: text/event-stream` what changes on it"),
        "parameters": parameters,
        "responses": {
            "200": page,
            "400": reference("responses", "BadRequest"),
            "401": reference("responses", "Unauthenticated"),
            "406": reference("responses", "NotAcceptable"),
            "413": reference("responses", "TooLarge"),
            "429": reference("responses", "TooMany"),
            "503": reference("responses", "Unavailable"),
        },
    })
}

/// A page of documents.
fn list_page(shape: &ModelShape) -> Value {
    let item = json!({ "anyOf": [
        reference("schemas", &shape.model),
        reference("schemas", &some_name(&shape.model)),
        { "type": "null" },
    ] });
    let example = json!({
        "data": [example::document(shape)],
        "page": { "next": null, "hasMore": false },
        "count": null,
    });
    let mut page = page("The page.", item, example);
    for name in ["X-Count", "X-Count-Kind", "X-Next-Cursor"] {
        page["headers"][name] = reference("headers", name);
    }
    page["content"]["application/x-ndjson"] = json!({ "schema": {
        "type": "string",
        "description": "A document a line; where the list goes on, and its count, are in headers.",
    } });
    page
}

/// Every filter of one index.
fn filters(index: &IndexShape) -> Vec<Value> {
    let any = if index.many { " of any element" } else { "" };
    let filter = |(word, operator): (&str, Operator)| {
        let name = &index.name;
        let list = matches!(operator, Operator::In | Operator::Nin);
        let schema = match operator {
            Operator::Exists => json!({ "type": "boolean" }),
            _ if list => {
                json!({ "type": "array", "items": given::compared(&index.kind, name), "minItems": 1, "maxItems": 100 })
            }
            _ => given::compared(&index.kind, name),
        };
        let description = match operator {
            Operator::Eq => format!("`{name}`{any} is this."),
            Operator::Ne if index.many => format!("There are elements, and `{name}` of none is this."),
            Operator::Ne => format!("`{name}` is not null and not this."),
            Operator::In => format!("`{name}`{any} is one of these; `\\,` is a comma within one."),
            Operator::Nin if index.many => format!("There are elements, and `{name}` of none is one of these."),
            Operator::Nin => format!("`{name}` is not null and none of these."),
            Operator::Gt => format!("`{name}`{any} is greater."),
            Operator::Gte => format!("`{name}`{any} is greater or equal."),
            Operator::Lt => format!("`{name}`{any} is less, and not null."),
            Operator::Lte => format!("`{name}`{any} is less or equal, and not null."),
            Operator::Exists => format!("`{name}`{any} is not null, or with `false` is null."),
            Operator::StartsWith => format!("`{name}`{any} starts with this."),
            Operator::Contains => format!("`{name}`{any} contains this; only beside a condition that leaves few."),
        };
        let mut filter = json!({
            "name": format!("filter[{name}][{word}]"),
            "in": "query",
            "description": description,
            "schema": schema,
        });
        if list {
            filter["style"] = "form".into();
            filter["explode"] = false.into();
        }
        filter
    };
    given::operators(&index.kind).map(filter).collect()
}

fn add_arrays(paths: &mut Map<String, Value>, shape: &ModelShape, fields: &[ShapeField], names: &mut Vec<String>) {
    for field in fields {
        let FieldType::Nested { cardinality, fields } = &field.kind else { continue };
        names.push(field.name.clone());
        match cardinality {
            // An array inside an array has no path of its own.
            Cardinality::Many => {
                let path = names.join(".");
                paths.insert(
                    format!("/v1/{}/{{id}}/{path}", shape.model),
                    json!({ "get": array(shape, &path, fields) }),
                );
            }
            Cardinality::One => add_arrays(paths, shape, fields, names),
        }
        names.pop();
    }
}

fn array(shape: &ModelShape, path: &str, fields: &[ShapeField]) -> Value {
    let model = &shape.model;
    let elements = json!({ "anyOf": [json_schema::object(fields), json_schema::some_of(fields)] });
    let example = json!({
        "data": [example::object(fields)],
        "page": { "next": null, "hasMore": false },
        "count": { "kind": "exact", "value": 1 },
    });
    json!({
        "operationId": format!("page_{model}_{}", path.replace('.', "_")),
        "tags": [model],
        "summary": format!("A page of the {path} of one {model}"),
        "parameters": [
            id(shape),
            given::fields(fields),
            reference("parameters", "limit"),
            reference("parameters", "after"),
            reference("parameters", "ifNoneMatch"),
            reference("parameters", "requestId"),
            reference("parameters", "consistencyToken"),
            reference("parameters", "prefer"),
        ],
        "responses": {
            "200": page("The page.", elements, example),
            "304": reference("responses", "NotModified"),
            "400": reference("responses", "BadRequest"),
            "404": reference("responses", "NotFound"),
            "401": reference("responses", "Unauthenticated"),
            "406": reference("responses", "NotAcceptable"),
            "429": reference("responses", "TooMany"),
            "503": reference("responses", "Unavailable"),
        },
    })
}

fn schema(shape: &ModelShape) -> Value {
    let model = &shape.model;
    json!({
        "operationId": format!("schema_{model}"),
        "tags": [model],
        "summary": format!("JSON Schema of {model} documents"),
        "responses": {
            "200": {
                "description": "A JSON Schema of draft 2020-12.",
                "content": { "application/schema+json": { "schema": { "type": "object" } } },
            },
            "401": reference("responses", "Unauthenticated"),
            "429": reference("responses", "TooMany"),
            "503": reference("responses", "Unavailable"),
        },
    })
}

fn page(description: &str, item: Value, example: Value) -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "data": { "type": "array", "items": item },
            "page": reference("schemas", "_page"),
            "count": reference("schemas", "_count"),
        },
        "required": ["data", "page", "count"],
    });
    json!({
        "description": description,
        "headers": headers(&[
            "Consistency-Token",
            "Link",
            "Preference-Applied",
            "X-Data-As-Of",
            "X-Model-Version",
            "X-Request-Id",
        ]),
        "content": {
            "application/json": { "schema": schema, "example": example },
            "application/cbor": cbor(),
        },
    })
}

/// The same values in CBOR.
fn cbor() -> Value {
    json!({ "schema": { "description": "The same values in CBOR; decimals are texts there too." } })
}

fn id(shape: &ModelShape) -> Value {
    let several = if shape.key.len() > 1 { " Its parts are joined by `~`." } else { "" };
    json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": format!("The document's id.{several} `~` and `%` within a part are `%7E` and `%25`, before URL escaping."),
        "schema": { "type": "string" },
        "example": example::id(shape),
    })
}

/// The schema's name of a document of which only some fields were asked for.
pub(super) fn some_name(model: &str) -> String {
    format!("_some_{model}")
}

/// A whole document, or what `fields` left of it.
fn whole_or_some(model: &str) -> Value {
    json!({ "anyOf": [reference("schemas", model), reference("schemas", &some_name(model))] })
}

fn headers(names: &[&str]) -> Value {
    Value::Object(names.iter().map(|name| (name.to_string(), reference("headers", name))).collect())
}

pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}
