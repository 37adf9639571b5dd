//! For random models, roles and masks nothing hidden is in any answer: what is shown is what a naive masker over values
//! shows, by REST and by GraphQL alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_query_api::{
    AccessOptions, ApiKeyOptions, ApiOptions, AuthOptions, BindingRule, Mask, MaskRule, ModelRule, start,
};
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, Value as Scalar, key};
use headwater_store::{DocumentWrite, VersionId, VersionState};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::fixture::engine::{self, Engine};
use crate::fixture::{any_port, record, request, set_version};

/// A random model: names by place, so that paths are `a`, `b.a` and so on; and what is masked of it for whom.
#[derive(Clone, Debug)]
struct Case {
    fields: Vec<ShapeField>,
    masks: Vec<(String, Mask, Vec<String>)>,
    /// Documents, with the owner of each.
    documents: Vec<(i64, Value)>,
}

pub(crate) fn field() -> impl Strategy<Value = ShapeField> {
    let scalar = prop_oneof![Just(ColumnType::Text), Just(ColumnType::Int64), Just(ColumnType::Bool)];
    let leaf = scalar.prop_map(|kind| ShapeField {
        name: String::new(),
        doc: None,
        required: false,
        kind: FieldType::Scalar(kind),
    });
    leaf.prop_recursive(3, 12, 3, |inner| {
        let cardinality = prop_oneof![Just(Cardinality::One), Just(Cardinality::Many)];
        (cardinality, prop::collection::vec(inner, 1..4)).prop_map(|(cardinality, fields)| ShapeField {
            name: String::new(),
            doc: None,
            required: false,
            kind: FieldType::Nested { cardinality, fields: named(fields) },
        })
    })
}

pub(crate) fn named(mut fields: Vec<ShapeField>) -> Vec<ShapeField> {
    for (at, field) in fields.iter_mut().enumerate() {
        field.name = ["alpha", "beta", "gamma", "delta", "epsilon"][at].into();
    }
    fields
}

pub(crate) fn paths(fields: &[ShapeField], before: &str, out: &mut Vec<String>) {
    for field in fields {
        let path = if before.is_empty() { field.name.clone() } else { format!("{before}.{}", field.name) };
        if let FieldType::Nested { fields, .. } = &field.kind {
            paths(fields, &path, out);
        }
        out.push(path);
    }
}

pub(crate) fn document(fields: &[ShapeField]) -> BoxedStrategy<Value> {
    let members: Vec<BoxedStrategy<(String, Value)>> = fields
        .iter()
        .map(|field| {
            let name = field.name.clone();
            let value: BoxedStrategy<Value> = match &field.kind {
                FieldType::Nested { cardinality: Cardinality::One, fields } => {
                    prop_oneof![1 => Just(Value::Null), 4 => document(fields)].boxed()
                }
                FieldType::Nested { fields, .. } => {
                    prop::collection::vec(document(fields), 0..3).prop_map(Value::from).boxed()
                }
                // Every value can be told by itself, wherever it turns up.
                FieldType::Scalar(ColumnType::Int64) => (1_000_000_000i64..9_000_000_000).prop_map(Value::from).boxed(),
                FieldType::Scalar(ColumnType::Bool) => any::<bool>().prop_map(Value::from).boxed(),
                FieldType::Scalar(_) => prop_oneof![
                    1 => Just(Value::Null),
                    4 => "secret-[a-z]{12}[\"\\\\{},\\[\\]é]{0,3}".prop_map(Value::from),
                ]
                .boxed(),
            };
            value.prop_map(move |value| (name.clone(), value)).boxed()
        })
        .collect();
    members.prop_map(|members| Value::Object(members.into_iter().collect())).boxed()
}

fn cases() -> impl Strategy<Value = Case> {
    prop::collection::vec(field(), 2..5).prop_map(named).prop_flat_map(|fields| {
        let mut all = Vec::new();
        paths(&fields, "", &mut all);
        let one = (
            prop::sample::select(all),
            prop_oneof![3 => Just(Mask::Hidden), 1 => Just(Mask::Partial), 1 => Just(Mask::Hash)],
            prop::sample::subsequence(vec!["a".to_string(), "b".to_string()], 0..2),
        );
        let documents = prop::collection::vec((0i64..3, document(&fields)), 3..6);
        (Just(fields), prop::collection::vec(one, 1..5), documents).prop_map(|(fields, masks, documents)| Case {
            fields,
            masks,
            documents,
        })
    })
}

/// The naive masker. `Err`: the value has a hash, which it does not know.
pub(crate) fn masked(fields: &[ShapeField], masks: &[(String, Mask)], before: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| masked(fields, masks, before, item)).collect(),
        Value::Object(members) => {
            let mut out = Map::new();
            for field in fields {
                let path = if before.is_empty() { field.name.clone() } else { format!("{before}.{}", field.name) };
                let mask = masks.iter().filter(|(of, _)| *of == path).map(|(_, mask)| *mask).max();
                let value = &members[&field.name];
                let shown = match (&field.kind, mask) {
                    (_, Some(Mask::Hidden)) | (FieldType::Nested { .. }, Some(_)) => continue,
                    (FieldType::Nested { fields, .. }, None) if visible(fields, masks, &path) => {
                        masked(fields, masks, &path, value)
                    }
                    (FieldType::Nested { .. }, None) => continue,
                    (FieldType::Scalar(_), None) => value.clone(),
                    (FieldType::Scalar(_), Some(_)) if value.is_null() => Value::Null,
                    (FieldType::Scalar(_), Some(Mask::Hash)) => json!("#"),
                    (FieldType::Scalar(_), Some(Mask::Partial)) => {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                        let letters: Vec<char> = text.chars().collect();
                        let shown = if letters.len() >= 8 { &letters[letters.len() - 4..] } else { &[] };
                        json!("****".chars().chain(shown.iter().copied()).collect::<String>())
                    }
                };
                out.insert(field.name.clone(), shown);
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// Whether anything of an object is shown.
fn visible(fields: &[ShapeField], masks: &[(String, Mask)], before: &str) -> bool {
    fields.iter().any(|field| {
        let path = format!("{before}.{}", field.name);
        let mask = masks.iter().filter(|(of, _)| *of == path).map(|(_, mask)| *mask).max();
        match (&field.kind, mask) {
            (_, Some(Mask::Hidden)) | (FieldType::Nested { .. }, Some(_)) => false,
            (FieldType::Nested { fields, .. }, None) => visible(fields, masks, &path),
            (FieldType::Scalar(_), _) => true,
        }
    })
}

/// Hashes of an answer as the naive masker writes them.
pub(crate) fn without_hashes(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) => json!("#"),
        Value::Array(items) => items.into_iter().map(without_hashes).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, without_hashes(value))).collect(),
        other => other,
    }
}

/// All that GraphQL can be asked of these members.
fn selection(fields: &[ShapeField], masks: &[(String, Mask)], before: &str) -> String {
    let mut out = String::from("{");
    for field in fields {
        let path = if before.is_empty() { field.name.clone() } else { format!("{before}.{}", field.name) };
        let mask = masks.iter().filter(|(of, _)| *of == path).map(|(_, mask)| *mask).max();
        match (&field.kind, mask) {
            (_, Some(Mask::Hidden)) | (FieldType::Nested { .. }, Some(_)) => {}
            (FieldType::Nested { fields, .. }, None) if visible(fields, masks, &path) => {
                out += &format!(" {}{}", field.name, selection(fields, masks, &path));
            }
            (FieldType::Nested { .. }, None) => {}
            (FieldType::Scalar(_), _) => out += &format!(" {}", field.name),
        }
    }
    out + " }"
}

/// Every value that tells itself.
fn values(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| values(item, out)),
        Value::Object(members) => members.values().for_each(|value| values(value, out)),
        Value::String(text) => out.push(text.chars().take(19).collect()),
        Value::Number(number) => out.push(number.to_string()),
        _ => {}
    }
}

fn check(case: &Case) {
    let index = |name: &str, kind: ColumnType, many| IndexShape { name: name.into(), kind, many };
    // The owner is a member that no caller but the operator sees, and the first scalar can be sorted by.
    let mut fields = case.fields.clone();
    let owner = FieldType::Scalar(ColumnType::Int64);
    fields.push(ShapeField { name: "owner".into(), doc: None, required: true, kind: owner });
    let mut indexes = vec![index("owner", ColumnType::Int64, false)];
    let first = case.fields.iter().find_map(|field| match &field.kind {
        FieldType::Scalar(kind) => Some((field.name.clone(), kind.clone())),
        FieldType::Nested { .. } => None,
    });
    indexes.extend(first.iter().map(|(name, kind)| index(name, kind.clone(), false)));
    let shape = ModelShape {
        model: "thing".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Int64],
        fields: fields.clone(),
        indexes,
    };
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let opened = engine::open(engine::OF_THIS_PROGRAM, folder.path(), &runtime);
    set_version(&opened.store, &record(1, shape, VersionState::Active));
    let mut batch = opened.store.begin().unwrap();
    let mut stored = Vec::new();
    for (id, (owner, document)) in case.documents.iter().enumerate() {
        let mut document = document.clone();
        document["owner"] = json!(owner);
        let mut entries = vec![(0u16, key::of(Scalar::Int(*owner).scalar().unwrap()))];
        if let Some((name, kind)) = &first {
            let value = match &document[name] {
                Value::Null => Scalar::Null,
                Value::String(text) => Scalar::parse(text, kind).unwrap(),
                other => Scalar::parse(&other.to_string(), kind).unwrap(),
            };
            entries.push((1, key::of(value.scalar().unwrap())));
        }
        let entries: Vec<(u16, &[u8])> = entries.iter().map(|(index, key)| (*index, key.as_slice())).collect();
        let key = key::of(Scalar::Int(id as i64).scalar().unwrap());
        let body = document.to_string();
        let write = DocumentWrite { id: &key, body: Some(body.as_bytes()), entries: &entries, stamp: None };
        batch.put_documents(VersionId(1), 1, &[write]).unwrap();
        stored.push((id as i64, *owner, document));
    }
    batch.commit().unwrap();

    let callers: Vec<(&str, Vec<&str>, i64)> =
        vec![("none", vec![], 0), ("a", vec!["a"], 1), ("b", vec!["b"], 2), ("both", vec!["a", "b"], 0)];
    let keys = callers.iter().map(|(name, roles, owner)| ApiKeyOptions {
        name: name.to_string(),
        sha256: Sha256::digest(name).into(),
        roles: roles.iter().map(|role| role.to_string()).collect(),
        claims: json!({"owner": owner}).as_object().unwrap().clone(),
    });
    let mut masks: Vec<MaskRule> = case
        .masks
        .iter()
        .map(|(path, mask, except)| MaskRule { fields: vec![path.clone()], mask: *mask, except: except.clone() })
        .collect();
    masks.push(MaskRule { fields: vec!["owner".into()], mask: Mask::Hidden, except: vec![] });
    let owner = BindingRule { claim: "owner".into(), field: Some("owner".into()), except: vec![] };
    let rule = ModelRule { roles: None, owner: Some(owner), tenant: None, masks };
    let auth = AuthOptions { anonymous: false, issuers: vec![], api_keys: keys.collect() };
    let rules = BTreeMap::from([("thing".to_string(), rule)]);
    let access = AccessOptions { auth: Some(auth), rules, ..AccessOptions::default() };
    let options = ApiOptions { access, ..ApiOptions::new(b"secret".to_vec()) };
    let stop = CancellationToken::new();
    let registry = Arc::new(Mutex::new(Registry::default()));
    let api = runtime.block_on(start(options, any_port(), opened.reader(&runtime), registry, stop.clone())).unwrap();

    for (name, roles, own) in &callers {
        let masks: Vec<(String, Mask)> = case
            .masks
            .iter()
            .filter(|(_, _, except)| !except.iter().any(|role| roles.contains(&role.as_str())))
            .map(|(path, mask, _)| (path.clone(), *mask))
            .chain([("owner".to_string(), Mask::Hidden)])
            .collect();
        let get = |path: &str| request(&format!("http://{}{path}", api.address), "GET", &[("x-api-key", *name)], None);
        let shows_any = fields.iter().any(|field| masked(&fields, &masks, "", &stored[0].2).get(&field.name).is_some());
        let wanted: Vec<(i64, Value)> = stored
            .iter()
            .filter(|(_, owner, _)| owner == own)
            .map(|(id, _, document)| (*id, masked(&fields, &masks, "", document)))
            .collect();
        let mut answers = vec![get("/openapi.json"), get("/v1/thing/schema"), get("/graphql/schema")];
        let mut shown = Vec::new();
        wanted.iter().for_each(|(_, document)| values(document, &mut shown));

        for (id, owner, _) in &stored {
            let answer = get(&format!("/v1/thing/{id}"));
            if owner == own && shows_any {
                let document = &wanted.iter().find(|(of, _)| of == id).unwrap().1;
                assert_eq!(without_hashes(answer.json()), *document, "{name} {id}");
            } else {
                assert_eq!(answer.status, 404, "{name} {id}: {}", answer.body);
            }
            answers.push(answer);
        }
        let list = get("/v1/thing?limit=100&count=exact");
        if shows_any {
            let all: Value = wanted.iter().map(|(_, document)| document.clone()).collect();
            assert_eq!(without_hashes(list.json()["data"].clone()), all, "{name}");
            let text = selection(&fields, &masks, "");
            let query = format!("{{ things(first: 6) {{ nodes {text} edges {{ cursor }} }} }}");
            let headers = [("x-api-key", *name), ("content-type", "application/json")];
            let body = json!({ "query": query }).to_string();
            let answer = request(&format!("http://{}/graphql", api.address), "POST", &headers, Some(&body));
            assert_eq!(
                without_hashes(answer.json()["data"]["things"]["nodes"].clone()),
                all,
                "{name}: {query}: {}",
                answer.body
            );
            answers.push(answer);
        } else {
            assert_eq!(list.status, 404);
        }
        answers.push(list);
        // Every path, by every way to ask for it.
        let mut all = Vec::new();
        paths(&fields, "", &mut all);
        for path in &all {
            for form in ["fields={}", "sort={}", "filter[{}][exists]=true", "filter[{}][gte]=1"] {
                answers.push(get(&format!("/v1/thing?{}", form.replace("{}", path))));
            }
            answers.push(get(&format!("/v1/thing/0/{path}")));
        }
        let mut secret = Vec::new();
        stored.iter().for_each(|(_, _, document)| values(document, &mut secret));
        secret.retain(|value| value.len() > 8 && !shown.contains(value));
        for answer in &answers {
            for value in &secret {
                assert!(!answer.body.contains(value.as_str()), "{name} is told {value}: {}", answer.body);
                assert!(!answer.headers.values().any(|header| header.contains(value.as_str())), "{name}: {value}");
            }
        }
    }
    stop.cancel();
    runtime.block_on(api.join).unwrap();
}

/// So many cases, or fewer where every step goes to a server and back.
pub(crate) fn so_many(cases: u32) -> u32 {
    if engine::OF_THIS_PROGRAM == Engine::Embedded { cases } else { cases / 8 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: so_many(40), max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn nothing_hidden_is_in_any_answer(case in cases()) {
        check(&case);
    }
}
