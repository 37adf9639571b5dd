//! The JSON Schema of connector files, for editors.

use serde_json::{Map, Value, json};

/// The schema, draft 2020-12; published as `schemas/json/connector.schema.json`.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:headwater:connector",
        "title": "Headwater connector",
        "description": "One source database and how to read it. Unquoted values may hold ${NAME} and ${NAME:-default}.",
        "type": "object",
        "additionalProperties": false,
        "required": ["source", "postgres"],
        "properties": {
            "source": {
                "description": "Name of the source; part of topic names and of the default names of publication and slot.",
                "type": "string",
                "pattern": "^[a-z][a-z0-9_]{0,39}$",
            },
            "postgres": postgres(),
        },
    })
}

fn object(description: &str, required: &[&str], properties: Value) -> Value {
    let mut schema = json!({ "description": description, "type": "object", "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["properties"] = properties;
    schema
}

fn text(description: &str) -> Value {
    json!({ "description": description, "type": "string", "minLength": 1 })
}

/// A number or boolean, or an environment variable that holds one.
fn or_variable(schema: Value) -> Value {
    let mut described = Map::new();
    let mut plain = schema;
    if let Some(description) = plain.as_object_mut().and_then(|members| members.remove("description")) {
        described.insert("description".into(), description);
    }
    if let Some(default) = plain.as_object_mut().and_then(|members| members.remove("default")) {
        described.insert("default".into(), default);
    }
    described.insert("anyOf".into(), json!([plain, { "type": "string", "pattern": "\\$\\{.+\\}" }]));
    Value::Object(described)
}

fn postgres() -> Value {
    object(
        "A PostgreSQL database, version 14 or later with wal_level = logical, reached directly and not through a pooler.",
        &["host", "database", "user"],
        json!({
            "host": text("Host name, IP address, or folder of a Unix socket."),
            "port": or_variable(json!({ "description": "Port.", "type": "integer", "minimum": 1, "maximum": 65535, "default": 5432 })),
            "database": text("Name of the database."),
            "user": text("User with the REPLICATION attribute and the right to read the tables."),
            "password": { "description": "The user's password; write ${NAME} and keep it out of the file.", "type": "string" },
            "tls": tls(),
            "tables": {
                "description": "Tables to capture, `schema.table` or `table` (then in `public`). Empty: every table of the publication, which then must exist.",
                "type": "array",
                "items": { "type": "string", "pattern": "^[^.]+(\\.[^.]+)?$" },
                "uniqueItems": true,
                "default": [],
            },
            "publication": { "description": "Publication to read; by default headwater_ and the source's name.", "type": "string", "pattern": "^[^,\" ]+$" },
            "create_publication": or_variable(json!({
                "description": "Create the publication if it is missing, and add configured tables that it lacks. Needs ownership of the tables.",
                "type": "boolean",
                "default": true,
            })),
            "slot": { "description": "Replication slot; by default headwater_ and the source's name.", "type": "string", "pattern": "^[a-z0-9_]{1,63}$" },
            "on_lost_slot": {
                "description": "When the slot was dropped, invalidated or moved on: stop and explain, or make a new one and read all tables again; rows that are gone since are then removed.",
                "enum": ["stop", "resnapshot"],
                "default": "stop",
            },
            "snapshot": object("The initial reading of the tables.", &[], json!({
                "workers": or_variable(json!({ "description": "Connections that read in parallel.", "type": "integer", "minimum": 1, "maximum": 32, "default": 2 })),
                "rows_per_chunk": or_variable(json!({
                    "description": "Rows per chunk: after a crash, chunks that were durable are not read again.",
                    "type": "integer",
                    "minimum": 100,
                    "default": 50000,
                })),
            })),
            "retained_wal_warn_bytes": or_variable(json!({
                "description": "Warn when the server keeps more than this many bytes of log for us.",
                "type": "integer",
                "minimum": 0,
                "default": 10_737_418_240u64,
            })),
        }),
    )
}

fn tls() -> Value {
    object(
        "Encryption of the connection, as libpq has it.",
        &[],
        json!({
            "mode": {
                "description": "How much of it.",
                "enum": ["disable", "prefer", "require", "verify-ca", "verify-full"],
                "default": "prefer",
            },
            "ca": text("File (PEM) with the certificates of the authorities to trust; needed by verify-ca and verify-full; with it, require verifies as verify-ca does."),
            "cert": text("File (PEM) with our certificate, where the server wants one."),
            "key": text("File (PEM) with the key of our certificate."),
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnectorConfig;

    const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/json/connector.schema.json");

    /// `HEADWATER_UPDATE_SCHEMAS=1 cargo test -p headwater-connectors` writes the published file anew.
    #[test]
    fn the_published_schema_is_this_one() {
        let now = serde_json::to_string_pretty(&json_schema()).expect("JSON") + "\n";
        if std::env::var_os("HEADWATER_UPDATE_SCHEMAS").is_some() {
            std::fs::write(PUBLISHED, &now).expect("the folder is writable");
        }
        assert_eq!(std::fs::read_to_string(PUBLISHED).expect("published"), now);
    }

    /// Every key of the schema is one that the configuration knows, and its defaults are the schema's.
    #[test]
    fn the_schema_knows_what_the_configuration_knows() {
        let minimal = json!({ "source": "s", "postgres": { "host": "h", "database": "d", "user": "u" } });
        let config: ConnectorConfig = serde_json::from_value(minimal).expect("minimal");
        let written = serde_json::to_value(&config).expect("JSON");
        let schema = json_schema();
        fn same(schema: &Value, written: &Value, path: &str) {
            let properties = schema["properties"].as_object().expect("an object");
            let members = written.as_object().expect("an object");
            let mut named: Vec<_> = properties.keys().collect();
            let mut known: Vec<_> = members.keys().collect();
            named.sort();
            known.sort();
            assert_eq!(named, known, "{path}");
            for (name, property) in properties {
                if property.get("properties").is_some() {
                    same(property, &members[name], &format!("{path}.{name}"));
                } else if let Some(default) = property.get("default") {
                    assert_eq!(*default, members[name], "{path}.{name}");
                }
            }
        }
        same(&schema, &written, "");
        assert!(!written.to_string().contains("hunter2"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let wrong = json!({ "source": "s", "postgres": { "host": "h", "database": "d", "user": "u", "hots": 1 } });
        let refused = serde_json::from_value::<ConnectorConfig>(wrong).expect_err("refused");
        assert!(refused.to_string().contains("hots"));
    }
}
