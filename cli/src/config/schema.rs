//! The JSON Schema of `headwater.yaml`, by which editors complete and check it.

use serde_json::{Value, json};

/// JSON Schema (2020-12) of `headwater.yaml`; published as `schemas/json/headwater.schema.json`.
pub fn settings_json_schema() -> Value {
    let object = |description: &str, properties: Value| json!({ "type": "object", "description": description, "additionalProperties": false, "properties": properties });
    let files =
        |description: &str| json!({ "type": "array", "items": { "type": "string" }, "description": description });
    let size_max =
        |description: &str| json!({ "$ref": "#/$defs/size", "default": "64GiB", "description": description });
    let listen = |description: &str, default: &str| {
        let listen = json!({ "$ref": "#/$defs/address", "default": default });
        object(description, json!({ "listen": listen }))
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headwater.yaml",
        "description": "What a Headwater is told. Unquoted values may hold ${NAME} and ${NAME:-default}.",
        "type": "object",
        "additionalProperties": false,
        "required": ["connectors", "models"],
        "properties": {
            "prefix": {
                "type": "string", "pattern": "^[A-Za-z0-9_-]+$", "default": "headwater",
                "description": "First part of the names of all topics."
            },
            "data": {
                "type": "string", "default": ".headwater",
                "description": "Folder of the embedded broker and store, relative to this file."
            },
            "connectors": files("One file per source; `*` in the file name stands for any characters. Relative to this file."),
            "models": files("One file per read model, likewise."),
            "broker": object("The log of changes.", json!({
                "embedded": object("A log inside this process.", json!({
                    "size_max": size_max("Largest size of the log's file. Address space, not disk."),
                    "partitions": {
                        "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 1024 }, { "$ref": "#/$defs/variable" }],
                        "default": 1,
                        "description": "Partitions of new topics. A topic that exists keeps its number."
                    },
                    "retention": object("What the log may forget; without limits everything is kept.", json!({
                        "age": { "$ref": "#/$defs/duration", "description": "Events older than this may go." },
                        "size": {
                            "$ref": "#/$defs/size",
                            "description": "The oldest events of a partition may go while it is larger than this."
                        }
                    }))
                }))
            })),
            "store": object("Rows and documents.", json!({
                "embedded": object("A store inside this process.", json!({
                    "size_max": size_max("Largest size of the store's file. Address space, not disk.")
                }))
            })),
            "projector": object("How rows are folded into documents.", json!({
                "batch_bytes_max": {
                    "$ref": "#/$defs/size", "default": "16MiB",
                    "description": "Bytes of events taken into one micro-batch, at most: 64KiB to 256MiB."
                }
            })),
            "api": listen("Where readers connect: REST, GraphQL, live.", "127.0.0.1:8080"),
            "admin": listen(
                "Where operators and probes connect: health, metrics, control. Keep it private: it has no authentication.",
                "127.0.0.1:9090"
            )
        },
        "$defs": {
            "variable": { "type": "string", "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:?-.*)?\\}" },
            "size": {
                "anyOf": [
                    { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$" },
                    { "type": "integer", "minimum": 0 },
                    { "$ref": "#/$defs/variable" }
                ],
                "examples": ["512MiB", "64GiB"]
            },
            "duration": {
                "anyOf": [
                    { "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" },
                    { "$ref": "#/$defs/variable" }
                ],
                "examples": ["30s", "12h", "7d"]
            },
            "address": {
                "anyOf": [
                    { "type": "string", "pattern": "^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]{1,5}$" },
                    { "$ref": "#/$defs/variable" }
                ],
                "examples": ["127.0.0.1:8080", "0.0.0.0:8080"]
            }
        }
    })
}
