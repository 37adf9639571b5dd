//! The JSON Schema of the YAML a read model is written in, for editors. What it cannot say (that a path leads somewhere,
//! that a source is configured) [`super::parse`] says.

use serde_json::{Map, Value, json};

use super::Operator;
use super::definition::DEAD_LETTERS_PERCENT;
use super::parse::{aggregate_words, cast_words};

/// The schema, draft 2020-12; published as `schemas/json/read-model.schema.json`.
pub fn json_schema() -> Value {
    let mut model = object(json!({
        "model": {
            "description": "Name, and the path under which the model is served.",
            "type": "string",
            "pattern": "^[a-z][a-z0-9_]*$",
            "not": { "enum": super::parse::RESERVED },
        },
        "version": { "description": "Number shown to readers.", "type": "integer", "minimum": 1, "default": 1 },
        "root": reference("root"),
        "indexes": {
            "description": "Paths readers may filter and sort by.",
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
            "uniqueItems": true,
        },
        "dead_letters_percent_max": {
            "description": "A new version does not take over from the one that serves where more than so many of a hundred of \
                            its documents are missing because they cannot be built, unless it is a single one. 100 lets every \
                            version take over. A change of it begins no new version.",
            "type": "integer",
            "minimum": 0,
            "maximum": 100,
            "default": DEAD_LETTERS_PERCENT,
        },
    }));
    model.append(&mut node_members());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:headwater:read-model",
        "title": "Headwater read model",
        "description": "A nested document type, made of the rows of legacy tables.",
        "type": "object",
        "properties": model,
        "required": ["model", "root"],
        "anyOf": node_is_not_empty(),
        "additionalProperties": false,
        "$defs": {
            "name": {
                "description": "Name of a member of the document.",
                "type": "string",
                "pattern": "^(?!__)[A-Za-z_][A-Za-z0-9_]*$",
            },
            "column": { "description": "Name of a column, as the source spells it.", "type": "string", "minLength": 1 },
            "table": {
                "description": "`source.table`, in the source's default schema, or `source.schema.table`.",
                "type": "string",
                "pattern": "^[^.]+\\.[^.]+(\\.[^.]+)?$",
            },
            "doc": { "description": "For people: shown in OpenAPI and GraphQL.", "type": "string", "minLength": 1 },
            "root": root(),
            "field": field(true),
            "expression": field(false),
            "relation": relation(),
            "through": through(),
            "joins": {
                "description": "Pairs `column there: column here` that must be equal. Null matches nothing.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": reference("column"),
            },
            "compute": compute(),
            "predicate": predicate(),
            "comparison": comparison(),
            "literal": { "type": ["string", "number", "boolean", "null"] },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn object_schema(properties: Map<String, Value>, required: &[&str], description: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn one_or_more(item: Value) -> Value {
    json!({ "anyOf": [item.clone(), { "type": "array", "items": item, "minItems": 1, "uniqueItems": true }] })
}

fn node_members() -> Map<String, Value> {
    let named = |name: &str, description: &str| {
        json!({
            "description": description,
            "type": "object",
            "propertyNames": reference("name"),
            "additionalProperties": reference(name),
        })
    };
    object(json!({
        "doc": reference("doc"),
        "fields": {
            "description": "Fields from the level's own row: columns, or `name: column`, or `name: expression`.",
            "anyOf": [
                { "type": "array", "items": { "allOf": [reference("column"), reference("name")] }, "uniqueItems": true },
                named("field", "Names and where their values come from."),
            ],
        },
        "nest": named("relation", "Nested levels, by name."),
        "compute": named("compute", "Fields computed over nested levels, by name."),
    }))
}

fn node_is_not_empty() -> Value {
    json!([{ "required": ["fields"] }, { "required": ["nest"] }, { "required": ["compute"] }])
}

fn root() -> Value {
    let members = json!({
        "table": reference("table"),
        "key": one_or_more(reference("column")),
        "where": reference("predicate"),
    });
    object_schema(object(members), &["table", "key"], "The table whose rows give the documents their identity.")
}

fn field(with_doc: bool) -> Value {
    let parts = json!({ "type": "array", "items": reference("expression"), "minItems": 1 });
    let mut members = object(json!({
        "column": reference("column"),
        "constant": reference("literal"),
        "concat": parts,
        "separator": { "description": "Stands between two parts of `concat`.", "type": "string" },
        "coalesce": parts,
        "cast": {
            "description": "The value in another type.",
            "enum": cast_words().collect::<Vec<_>>(),
        },
    }));
    if with_doc {
        members.insert("doc".into(), reference("doc"));
    }
    let mut mapping = object_schema(members, &[], "Where a value comes from.");
    mapping["oneOf"] = ["column", "constant", "concat", "coalesce"].map(|form| json!({ "required": [form] })).into();
    mapping["dependentRequired"] = json!({ "separator": ["concat"] });
    json!({ "anyOf": [reference("column"), mapping] })
}

fn relation() -> Value {
    let mut members = object(json!({
        "many": reference("table"),
        "one": reference("table"),
        "on": reference("joins"),
        "through": reference("through"),
        "where": reference("predicate"),
        "order": {
            "description": "Columns of the nested table; `-` before a column puts the largest first. Null is less than every value.",
            "anyOf": one_or_more(reference("column"))["anyOf"],
        },
        "limit": { "description": "Keep only this many.", "type": "integer", "minimum": 1 },
    }));
    members.append(&mut node_members());
    let mut relation =
        object_schema(members, &["on"], "An edge to nested rows: an array of `many` or an object of `one`.");
    relation["oneOf"] = json!([{ "required": ["many"] }, { "required": ["one"], "not": { "required": ["limit"] } }]);
    relation["anyOf"] = node_is_not_empty();
    relation
}

fn through() -> Value {
    let members = json!({ "table": reference("table"), "on": reference("joins"), "where": reference("predicate") });
    object_schema(object(members), &["table", "on"], "The join table of an M:N relation.")
}

fn compute() -> Value {
    let path = json!({ "description": "Path to a relation or a field in it.", "type": "string", "minLength": 1 });
    let mut members: Map<String, Value> = aggregate_words().map(|word| (word.to_string(), path.clone())).collect();
    members.insert("where".into(), reference("predicate"));
    members.insert("doc".into(), reference("doc"));
    let mut compute = object_schema(members, &[], "A value computed over nested rows.");
    compute["oneOf"] = aggregate_words().map(|word| json!({ "required": [word] })).collect();
    compute
}

fn predicate() -> Value {
    let several = json!({ "type": "array", "items": reference("predicate"), "minItems": 1 });
    json!({
        "description": "All of its members hold: `name: value`, `name: { operator: value }`, `and`, `or`, `not`. As in SQL, neither a comparison with null nor its `not` holds.",
        "type": "object",
        "properties": { "and": several, "or": several, "not": reference("predicate") },
        "additionalProperties": reference("comparison"),
    })
}

fn comparison() -> Value {
    let operand = |operator: Operator| match operator {
        Operator::In | Operator::Nin => json!({ "type": "array", "items": reference("literal") }),
        Operator::Exists => json!({ "type": "boolean" }),
        Operator::StartsWith | Operator::Contains => json!({ "type": "string" }),
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
            json!({ "type": ["string", "number", "boolean"] })
        }
        Operator::Eq | Operator::Ne => reference("literal"),
    };
    let operators: Map<String, Value> =
        Operator::ALL.iter().map(|(word, operator)| (word.to_string(), operand(*operator))).collect();
    let mut mapping = object_schema(operators, &[], "All of these hold.");
    mapping["minProperties"] = json!(1);
    json!({ "anyOf": [reference("literal"), mapping] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Content, Yaml};

    const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/json/read-model.schema.json");

    fn as_json(yaml: &Yaml) -> Value {
        match &yaml.content {
            Content::Scalar { text, plain: true } if text.is_empty() => Value::Null,
            Content::Scalar { text, plain: true } => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
            Content::Scalar { text, .. } => json!(text),
            Content::Sequence(items) => items.iter().map(as_json).collect(),
            Content::Mapping(members) => {
                Value::Object(members.iter().map(|member| (member.key.clone(), as_json(&member.value))).collect())
            }
        }
    }

    fn valid(yaml: &str) -> bool {
        let (tree, _) = crate::yaml::parse(yaml).expect("YAML");
        let validator = jsonschema::draft202012::new(&json_schema()).expect("a schema");
        validator.is_valid(&as_json(&tree))
    }

    /// `HEADWATER_UPDATE_SCHEMAS=1 cargo test -p headwater-schemas published` writes the file anew.
    #[test]
    fn the_published_schema_is_this_one() {
        let current = serde_json::to_string_pretty(&json_schema()).expect("JSON") + "\n";
        if std::env::var_os("HEADWATER_UPDATE_SCHEMAS").is_some() {
            std::fs::write(PUBLISHED, &current).expect("the folder is there");
        }
        let published = std::fs::read_to_string(PUBLISHED).expect("published");
        assert!(published == current, "run this test with HEADWATER_UPDATE_SCHEMAS=1 and commit schemas/json");
        jsonschema::draft202012::meta::validate(&json_schema()).expect("a valid schema of the draft");
    }

    #[test]
    fn example_models_are_valid_and_parsed() {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut seen = 0;
        for folder in ["tests/models", "../examples/billing/models"] {
            for entry in std::fs::read_dir(format!("{root}/{folder}")).expect("models") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    continue;
                }
                let yaml = std::fs::read_to_string(&path).expect("a file");
                assert!(valid(&yaml), "{}", path.display());
                if let Err(wrong) = crate::model::parse(&path.display().to_string(), &yaml, &Default::default()) {
                    panic!("{}", wrong[0]);
                }
                seen += 1;
            }
        }
        assert!(seen >= 2);
    }

    #[test]
    fn what_an_editor_can_see_is_refused() {
        let good = "model: a\nroot: { table: s.t, key: id }\nfields: [id]\n";
        assert!(valid(good));
        for bad in [
            "versoin: 2",
            "version: 0",
            "nest: { b: { many: s.u, fields: [id] } }",
            "nest: { b: { many: s.u, one: s.v, on: { a: b }, fields: [id] } }",
            "nest: { b: { one: s.v, on: { a: b }, limit: 2, fields: [id] } }",
            "nest: { b: { many: s.u, on: {}, fields: [id] } }",
            "nest: { b: { many: u, on: { a: b }, fields: [id] } }",
            "nest: { b: { many: s.u, on: { a: b } } }",
            "nest: { b: { many: s.u, on: { a: b }, fields: { c: { column: d, cast: money } } } }",
            "nest: { b: { many: s.u, on: { a: b }, fields: { c: { column: d, separator: x } } } }",
            "nest: { b: { many: s.u, on: { a: b }, where: { c: { gtt: 1 } }, fields: [d] } }",
            "compute: { c: { sum: a.b, max: a.b } }",
            "compute: { 1c: { sum: a.b } }",
        ] {
            assert!(!valid(&format!("{good}{bad}\n")), "{bad}");
            let parsed = crate::model::parse("m.yaml", &format!("{good}{bad}\n"), &Default::default());
            assert!(parsed.is_err(), "{bad}");
        }
    }
}
