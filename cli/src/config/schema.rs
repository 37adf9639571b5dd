//! The JSON Schema of `headwater.yaml`, by which editors complete and check it.

use serde_json::{Value, json};

use super::api_schema::api_json_schema;

/// JSON Schema (2020-12) of `headwater.yaml`; published as `schemas/json/headwater.schema.json`.
pub fn settings_json_schema() -> Value {
    let files =
        |description: &str| json!({ "type": "array", "items": { "type": "string" }, "description": description });
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
            "broker": broker(),
            "store": store(),
            "projector": object("How rows are folded into documents.", json!({
                "batch_bytes_max": {
                    "$ref": "#/$defs/size", "default": "16MiB",
                    "description": "Bytes of events taken into one micro-batch, at most: 64KiB to 256MiB."
                }
            })),
            "api": api_json_schema(),
            "admin": admin()
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

fn admin() -> Value {
    object(
        "Where operators and probes connect: health, metrics, control. Keep it private: it has no authentication.",
        json!({
            "listen": { "$ref": "#/$defs/address", "default": "127.0.0.1:9090" },
            "hosts": {
                "type": "array", "items": { "type": "string" }, "default": [],
                "description": "Names by which it may be asked (ops.example.com), beside addresses and names that nobody else can own."
            }
        }),
    )
}

fn object(description: &str, properties: Value) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": false, "properties": properties })
}

fn size_max(description: &str) -> Value {
    json!({ "$ref": "#/$defs/size", "default": "64GiB", "description": description })
}

fn partitions(default: u32) -> Value {
    json!({
        "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 1024 }, { "$ref": "#/$defs/variable" }],
        "default": default,
        "description": "Partitions over which the keys of a table are spread; a topic that exists must have as many, or more. \
                        With another number than before, all tables are read again."
    })
}

fn retention(description: &str) -> Value {
    object(
        description,
        json!({
            "age": { "$ref": "#/$defs/duration", "description": "Events older than this may go; at least 1s." },
            "size": {
                "$ref": "#/$defs/size",
                "description": "The oldest events of a partition may go while it is larger than this; at least 1MiB."
            }
        }),
    )
}

fn broker() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let embedded = json!({
        "size_max": size_max("Largest size of the log's file. Address space, not disk."),
        "partitions": partitions(1),
        "retention": retention("What the log may forget; without limits everything is kept.")
    });
    let security = json!({
        "tls": { "type": "boolean", "default": false, "description": "Whether the connection is encrypted." },
        "ca": text("Certificates of authorities that are trusted (PEM file); those of the system otherwise."),
        "certificate": text("Our own certificate (PEM file), where brokers ask for one."),
        "key": text("The key of our certificate (PEM file)."),
        "mechanism": {
            "enum": ["plain", "scram-sha-256", "scram-sha-512"],
            "description": "How the password is told; plain with TLS only."
        },
        "user": text("User name."),
        "password": text("Password; use ${NAME}.")
    });
    let mut kafka = object(
        "Apache Kafka, or what speaks its protocol, in place of the log inside this process.",
        json!({
            "servers": {
                "type": "array", "minItems": 1, "items": { "type": "string" },
                "description": "host:port of some brokers; the others are found through them."
            },
            "partitions": partitions(6),
            "replication": {
                "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 32 }, { "$ref": "#/$defs/variable" }],
                "default": 3,
                "description": "Copies of each partition of new topics. All but one must have a record before it counts as \
                                durable (min.insync.replicas): with 3, nothing is lost with one broker; with 2, what one \
                                broker alone had may be."
            },
            "create_topics": {
                "type": "boolean", "default": true,
                "description": "Whether topics that are missing are created; otherwise each is an error that says how."
            },
            "retention": retention("What topics of change events may forget, where Headwater creates them."),
            "security": object("Who we are, and how the connection is protected.", security),
            "topic_settings": {
                "type": "object", "additionalProperties": { "type": "string" },
                "description": "Further settings of topics that Headwater creates, by Kafka's names (segment.bytes); they win over ours."
            },
            "tombstones": {
                "type": "boolean", "default": false,
                "description": "Whether a delete is followed by a tombstone. Set it where the topics of tables are compacted: deleted rows go from them then."
            },
            "settings": {
                "type": "object", "additionalProperties": { "type": "string" },
                "description": "Any setting of librdkafka by its own name; it wins over ours."
            }
        }),
    );
    kafka["required"] = json!(["servers"]);
    object("The log of changes.", json!({ "embedded": object("A log inside this process.", embedded), "kafka": kafka }))
}

fn store() -> Value {
    let engine = |description: &str| json!({ "enum": ["embedded", "mongodb"], "description": description });
    let mut mongodb = object(
        "MongoDB, a replica set or a sharded cluster.",
        json!({
            "uri": { "type": "string", "description": "Connection string; use ${NAME}, it holds a password." },
            "database": { "type": "string", "default": "headwater", "description": "Name of the database." }
        }),
    );
    mongodb["required"] = json!(["uri"]);
    let embedded = json!({ "size_max": size_max("Largest size of the store's file. Address space, not disk.") });
    object(
        "Rows and documents.",
        json!({
            "rows": engine("Where the latest image of every row is kept; embedded unless set. In MongoDB, with Kafka as broker, any number of projectors share them."),
            "documents": engine("Where documents are kept; in MongoDB where `mongodb` stands, unless set."),
            "embedded": object("A store inside this process.", embedded),
            "mongodb": mongodb
        }),
    )
}
