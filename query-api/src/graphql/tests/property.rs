//! For random shapes, documents and selections, copying ranges gives what walking a tree of values gives.

use headwater_schemas::ColumnType;
use headwater_schemas::model::ShapeField;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape};
use headwater_store::VersionId;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::fixture::{nested, scalar};
use crate::access::Visibility;
use crate::graphql::plan::Wanted;
use crate::graphql::prepare::Prepared;
use crate::graphql::write::Writer;
use crate::graphql::{GraphQl, GraphQlLimits};

fn fields() -> impl Strategy<Value = Vec<ShapeField>> {
    let kinds = prop_oneof![
        Just(ColumnType::Text),
        Just(ColumnType::Int64),
        Just(ColumnType::Decimal),
        Just(ColumnType::Float64),
        Just(ColumnType::Bool),
        Just(ColumnType::Json),
    ];
    let leaf = kinds.prop_map(|kind| scalar("", kind));
    let field = leaf.prop_recursive(3, 24, 5, |inner| {
        let cardinality = prop_oneof![Just(Cardinality::One), Just(Cardinality::Many)];
        (cardinality, prop::collection::vec(inner, 1..5))
            .prop_map(|(cardinality, fields)| nested("", cardinality, named(fields)))
    });
    prop::collection::vec(field, 1..6).prop_map(named)
}

/// Names by place, of different lengths, one the beginning of another.
fn named(mut fields: Vec<ShapeField>) -> Vec<ShapeField> {
    for (at, field) in fields.iter_mut().enumerate() {
        field.name = "m".repeat(at + 1);
    }
    fields
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::vec((any::<String>(), inner), 0..3)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn document(fields: &[ShapeField]) -> BoxedStrategy<Json> {
    let members: Vec<BoxedStrategy<(String, Json)>> = fields
        .iter()
        .map(|field| {
            let name = field.name.clone();
            let value: BoxedStrategy<Json> = match &field.kind {
                FieldType::Nested { cardinality: Cardinality::One, fields } => {
                    prop_oneof![1 => Just(Json::Null), 3 => document(fields)].boxed()
                }
                FieldType::Nested { fields, .. } => {
                    prop::collection::vec(document(fields), 0..4).prop_map(Json::from).boxed()
                }
                FieldType::Scalar(ColumnType::Json) => any_json().boxed(),
                FieldType::Scalar(ColumnType::Float64) => {
                    prop_oneof![(-1000i32..1000).prop_map(|n| json!(f64::from(n) / 8.0)), Just(json!("NaN"))].boxed()
                }
                FieldType::Scalar(ColumnType::Int64) => any::<i64>().prop_map(Json::from).boxed(),
                FieldType::Scalar(ColumnType::Bool) => any::<bool>().prop_map(Json::from).boxed(),
                FieldType::Scalar(_) => prop_oneof![Just(Json::Null), ".*".prop_map(Json::from)].boxed(),
            };
            value.prop_map(move |value| (name.clone(), value)).boxed()
        })
        .collect();
    members.prop_map(|members| Json::Object(members.into_iter().collect())).boxed()
}

/// A selection: members in any order, some twice under aliases, nested ones with their own.
#[derive(Clone, Debug)]
struct Chosen {
    member: usize,
    first: Option<usize>,
    below: Vec<Chosen>,
}

fn selection(fields: &[ShapeField]) -> BoxedStrategy<Vec<Chosen>> {
    let fields = fields.to_vec();
    prop::collection::vec(any::<prop::sample::Index>(), 1..7)
        .prop_flat_map(move |picks| {
            let chosen: Vec<BoxedStrategy<Chosen>> = picks
                .into_iter()
                .map(|pick| {
                    let member = pick.index(fields.len());
                    match &fields[member].kind {
                        FieldType::Scalar(_) => Just(Chosen { member, first: None, below: Vec::new() }).boxed(),
                        FieldType::Nested { cardinality, fields } => {
                            let many = *cardinality == Cardinality::Many;
                            let first = if many { prop::option::of(0usize..4).boxed() } else { Just(None).boxed() };
                            (first, selection(fields))
                                .prop_map(move |(first, below)| Chosen { member, first, below })
                                .boxed()
                        }
                    }
                })
                .collect();
            chosen
        })
        .boxed()
}

fn text(fields: &[ShapeField], chosen: &[Chosen], out: &mut String) {
    out.push('{');
    for (at, one) in chosen.iter().enumerate() {
        let field = &fields[one.member];
        out.push_str(&format!(" k{at}: {}", field.name));
        if let Some(first) = one.first {
            out.push_str(&format!("(first: {first})"));
        }
        if let FieldType::Nested { fields, .. } = &field.kind {
            text(fields, &one.below, out);
        }
    }
    out.push_str(" }");
}

fn naive(fields: &[ShapeField], chosen: &[Chosen], document: &Json) -> Json {
    let mut out = Map::new();
    for (at, one) in chosen.iter().enumerate() {
        let field = &fields[one.member];
        let value = &document[&field.name];
        let value = match &field.kind {
            FieldType::Scalar(ColumnType::Float64) if value.is_string() => Json::Null,
            FieldType::Scalar(_) => value.clone(),
            FieldType::Nested { .. } if value.is_null() => Json::Null,
            FieldType::Nested { fields, .. } => match value {
                Json::Array(items) => {
                    let items = items.iter().take(one.first.unwrap_or(usize::MAX));
                    items.map(|item| naive(fields, &one.below, item)).collect()
                }
                one_object => naive(fields, &one.below, one_object),
            },
        };
        out.insert(format!("k{at}"), value);
    }
    Json::Object(out)
}

fn shape(fields: Vec<ShapeField>) -> ModelShape {
    ModelShape {
        model: "thing".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Int64],
        fields,
        indexes: Vec::new(),
    }
}

/// Runs the byte executor alone.
fn executed(fields: &[ShapeField], chosen: &[Chosen], body: &[u8]) -> Result<Vec<u8>, String> {
    let limits = GraphQlLimits { aliases_max: 10_000, fields_max: 10_000, tokens_max: 100_000, ..Default::default() };
    let graphql = GraphQl::new(&[Visibility::everything(VersionId(1), shape(fields.to_vec()))], limits)
        .map_err(|e| e.to_string())?;
    let mut query = "{ thing(id: 1) ".to_owned();
    text(fields, chosen, &mut query);
    query.push('}');
    let prepared = Prepared::new(&graphql.schema, &limits, &query, None).map_err(|problems| format!("{problems:?}"))?;
    let (plan, _) =
        prepared.plan(&graphql.catalog, &limits, &Default::default()).map_err(|problem| problem.message.to_string())?;
    let firsts: Vec<Option<usize>> =
        plan.firsts.iter().map(|first| first.value.to_i32().and_then(|first| usize::try_from(first).ok())).collect();
    let Wanted::Point(_, object) = &plan.roots[0].kind else { return Err("no point".into()) };
    let mut writer = Writer::new(&firsts, 0, usize::MAX);
    writer.document(object, body).map_err(|torn| format!("{torn:?}"))?;
    Ok(writer.out)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn ranges_are_what_values_are(
        (fields, document, chosen) in fields().prop_flat_map(|fields| {
            let (document, chosen) = (document(&fields), selection(&fields));
            (Just(fields), document, chosen)
        }),
        cut in any::<prop::sample::Index>(),
        flip in any::<u8>(),
    ) {
        let body = serde_json::to_vec(&document).expect("JSON");
        let out = executed(&fields, &chosen, &body).map_err(TestCaseError::fail)?;
        let expected = serde_json::to_string(&naive(&fields, &chosen, &document)).expect("JSON");
        prop_assert_eq!(String::from_utf8_lossy(&out), expected);

        // Torn or damaged bytes are an error or another value, never a panic.
        let at = cut.index(body.len());
        let _ = executed(&fields, &chosen, &body[..at]);
        let mut damaged = body;
        damaged[at] = flip;
        let _ = executed(&fields, &chosen, &damaged);
    }
}
