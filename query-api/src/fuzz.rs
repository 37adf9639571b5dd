//! What is made of bytes that anybody may send, one function for each kind: they must not panic, whatever comes, and what
//! they accept must be what it seems. `fuzz/` runs them for as long as wanted, the tests below for a second each, or as long as they are told.

use std::sync::LazyLock;

use apollo_compiler::response::JsonMap;
use apollo_compiler::response::serde_json_bytes::ByteString;
use headwater_schemas::ColumnType;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_store::VersionId;

use crate::access::Visibility;
use crate::channel::CHANNEL_DEFAULT;
use crate::graphql::{GraphQl, GraphQlLimits, GraphQlRequest};
use crate::metrics::ApiMetrics;
use crate::projection::Selection;
use crate::query::CursorKey;
use crate::rest;
use crate::serving::Model;

struct World {
    model: Model,
    graphql: GraphQl,
    cursors: CursorKey,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let visibility = Visibility::everything(VersionId(1), shape());
    World {
        graphql: GraphQl::new(std::slice::from_ref(&visibility), GraphQlLimits::default()).expect("a schema"),
        model: Model::new(visibility, CHANNEL_DEFAULT, &ApiMetrics::default()),
        cursors: CursorKey::new(b"secret"),
    }
});

fn shape() -> ModelShape {
    let value =
        |name: &str, kind| ShapeField { name: name.into(), doc: None, required: false, kind: FieldType::Scalar(kind) };
    let nested = |name: &str, cardinality, fields| ShapeField {
        name: name.into(),
        doc: None,
        required: false,
        kind: FieldType::Nested { cardinality, fields },
    };
    let lines = vec![value("text", ColumnType::Text), value("quantity", ColumnType::Int32)];
    let invoices = vec![
        value("id", ColumnType::Int64),
        value("total", ColumnType::Decimal),
        nested("lines", Cardinality::Many, lines),
    ];
    let index = |name: &str, kind, many| IndexShape { name: name.into(), kind, many };
    ModelShape {
        model: "customer".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Int64],
        fields: vec![
            value("id", ColumnType::Int64),
            value("name", ColumnType::Text),
            value("rating", ColumnType::Float64),
            nested("address", Cardinality::One, vec![value("city", ColumnType::Text)]),
            nested("invoices", Cardinality::Many, invoices),
        ],
        indexes: vec![
            index("name", ColumnType::Text, false),
            index("rating", ColumnType::Float64, false),
            index("invoices.total", ColumnType::Decimal, true),
        ],
    }
}

/// The query string of a list.
pub fn filter(data: &[u8]) {
    let _ = rest::followed_list(&String::from_utf8_lossy(data), &WORLD.model);
}

/// A cursor; and what it is made of.
pub fn cursor(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(WORLD.cursors.open(&[1; 16], &text).is_none(), "nobody can make a cursor");
    let sealed = WORLD.cursors.seal(&[1; 16], data);
    let opened = WORLD.cursors.open(&[1; 16], &sealed);
    assert!(
        opened.as_deref() == Some(data) || sealed.len() > CursorKey::TEXT_LEN_MAX,
        "what was sealed is what is opened"
    );
}

/// A selection of fields, and behind a zero byte a stored document.
pub fn projection(data: &[u8]) {
    let (fields, document) = split(data);
    let Ok(selection) = Selection::new(&String::from_utf8_lossy(fields), &WORLD.model.visibility.shape.fields) else {
        return;
    };
    let mut out = Vec::new();
    if selection.write(&mut out, document).is_ok() && is_json(document) {
        assert!(is_json(&out), "JSON was made of JSON: {}", String::from_utf8_lossy(&out));
    }
}

/// The text of a GraphQL request, and behind a zero byte a stored document.
pub fn graphql(data: &[u8]) {
    let (text, document) = split(data);
    let query = ByteString::from(String::from_utf8_lossy(text).into_owned());
    let request = GraphQlRequest { query, operation_name: None, variables: JsonMap::new() };
    let Ok(operation) = WORLD.graphql.operation(&request) else { return };
    for out in operation.written(document).into_iter().filter(|_| is_json(document)) {
        assert!(is_json(&out), "JSON was made of JSON: {}", String::from_utf8_lossy(&out));
    }
}

fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let middle = data.iter().position(|byte| *byte == 0);
    middle.map_or((data, &[]), |middle| (&data[..middle], &data[middle + 1..]))
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok()
}

/// Beginnings from which inputs are bred: what is right, or nearly.
pub const SEEDS: [&str; 12] = [
    "filter[name][eq]=x&filter[rating][gte]=1.5&sort=-rating&limit=3&fields=id,invoices.total",
    "filter[invoices.total][in]=1,2\\,3&filter[name][contains]=%C3%A9&filter[name][startsWith]=a",
    "ids=1,2,3&fields=address.city",
    "AgABAgMEBQYHCAkKCwwNDg8QERITFBUW",
    "id,name,invoices.lines.text,address.city\0{\"id\":1,\"name\":\"a\\\"}\",\"rating\":1e5,\"address\":null,\"invoices\":\
     [{\"id\":1,\"total\":\"1.5\",\"lines\":[{\"text\":\"{[\",\"quantity\":2}]}]}",
    "address.city,rating\0{\"id\":1,\"name\":null,\"rating\":\"NaN\",\"address\":{\"city\":\"x\"},\"invoices\":[]}",
    "{ customer(id: 1) { id name rating address { city } invoices(first: 2) { total lines { text } } } }\0{\"id\":1,\
     \"name\":\"x\",\"rating\":\"NaN\",\"address\":{\"city\":\"y\"},\"invoices\":[{\"id\":2,\"total\":\"3\",\"lines\":[]}]}",
    "query Q($x: ID! = 3) { a: customer(id: $x) { ...F __typename } } fragment F on Customer { invoices { id lines { \
     quantity } } id }",
    "{ customers(where: {name: {gte: \"x\", contains: \"y\"}}, orderBy: name_DESC, first: 3) { nodes { id } edges { cursor \
     node { name } } pageInfo { endCursor hasNextPage } totalCount } }",
    "subscription { customerChanged(id: 7) { name @include(if: true) } }",
    "{ __schema { types { name fields { name } } } }",
    "mutation { x } query { __typename }",
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// One input bred from others: bytes changed, taken out, put in, or two inputs joined.
    fn bred(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
        let words: [&[u8]; 12] =
            [b"[", b"]", b"{", b"}", b"\"", b"\\", b"%", b",", b"\0", b"null", b"999999999999999999999", b"\xff\xfe"];
        let mut input = corpus[random.random_range(0..corpus.len())].clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..=input.len());
            match random.random_range(0..5) {
                0 if at < input.len() => input[at] = random.random(),
                1 if at < input.len() => {
                    let end = random.random_range(at..=input.len().min(at + 12));
                    input.drain(at..end);
                }
                2 => {
                    let other = &corpus[random.random_range(0..corpus.len())];
                    let from = random.random_range(0..=other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                3 if at < input.len() => {
                    let part = input[at..input.len().min(at + 30)].to_vec();
                    input.splice(at..at, part);
                }
                _ => {
                    let word = words[random.random_range(0..words.len())];
                    input.splice(at..at, word.iter().copied());
                }
            }
        }
        input.truncate(4096);
        input
    }

    /// Runs a target for `HEADWATER_FUZZ_SECONDS`, or for one second; `HEADWATER_SEED` chooses the inputs.
    fn fuzz(name: &str, target: fn(&[u8])) {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let seed = number("HEADWATER_SEED").unwrap_or_else(rand::random);
        let time = Duration::from_secs(number("HEADWATER_FUZZ_SECONDS").unwrap_or(1));
        println!("{name}: HEADWATER_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
        corpus.iter().for_each(|input| target(input));
        let (begin, mut count) = (Instant::now(), 0);
        while begin.elapsed() < time {
            let input = bred(&mut random, &corpus);
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("the input is {:?}", String::from_utf8_lossy(&input));
            }
            count += 1;
            if corpus.len() < 500 && random.random_bool(0.05) {
                corpus.push(input);
            }
        }
        println!("{name}: {count} inputs");
    }

    #[test]
    fn no_query_string_makes_a_panic() {
        fuzz("filter", filter);
    }

    #[test]
    fn no_cursor_is_made_by_others() {
        fuzz("cursor", cursor);
    }

    #[test]
    fn json_stays_json_whatever_is_selected() {
        fuzz("projection", projection);
    }

    #[test]
    fn json_stays_json_whatever_graphql_asks() {
        fuzz("graphql", graphql);
    }
}
