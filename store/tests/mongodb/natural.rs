//! What other tools see of a document.

use headwater_schemas::ColumnType as C;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use headwater_store::{DocumentReader, DocumentStore, DocumentWrite, VersionState};
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, doc, spec::BinarySubtype};

use crate::common::{VERSION, documents, fresh, int, raw, record, wait};

fn field(name: &str, kind: FieldType) -> ShapeField {
    ShapeField { name: name.into(), doc: None, required: false, kind }
}

fn shape() -> ModelShape {
    let scalar = |name, kind| field(name, FieldType::Scalar(kind));
    let lines = vec![scalar("amount", C::Decimal), scalar("text", C::Text)];
    let fields = vec![
        scalar("id", C::Int64),
        scalar("small", C::Int32),
        scalar("big", C::Int64),
        scalar("huge", C::UInt64),
        scalar("total", C::Decimal),
        scalar("exact", C::Decimal),
        scalar("ratio", C::Float64),
        scalar("nan", C::Float64),
        scalar("paid", C::Bool),
        scalar("day", C::Date),
        scalar("at", C::TimestampTz),
        scalar("never", C::Timestamp),
        scalar("raw", C::Bytes),
        scalar("extra", C::Json),
        scalar("odd", C::Json),
        scalar("tags", C::Array(Box::new(C::Int64))),
        scalar("gone", C::Text),
        field("lines", FieldType::Nested { cardinality: Cardinality::Many, fields: lines.clone() }),
        field("first", FieldType::Nested { cardinality: Cardinality::One, fields: lines }),
    ];
    ModelShape { model: "customer".into(), version: 1, doc: None, key: vec![C::Int64], fields, indexes: vec![] }
}

const BODY: &str = r#"{"id":1,"small":-5,"big":"9007199254740993","huge":"18446744073709551615","total":"19.90",
"exact":"1.2345678901234567890123456789012345678","ratio":0.5,"nan":"NaN","paid":true,"day":"2026-01-02",
"at":"2026-01-02T03:04:05.678901Z","never":"infinity","raw":"AP8=","extra":{"a":[1,2.5,{"b":"\u00e9\n"}],"n":123456789012345678901},
"odd":{"$set":1},"tags":[[1,2],["9007199254740993",4]],"gone":null,
"lines":[{"amount":"1.10","text":"a"},{"amount":null,"text":"\ud83d\ude00"}],"first":{"amount":"2","text":""},"_id":7}"#;

#[tokio::test]
async fn a_typed_document_reads_as_what_it_means() {
    let options = fresh();
    let store = documents(&options).unwrap();
    let mut batch = store.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, Some(shape()))).unwrap();
    let (one, two, three) = (int(1), int(2), int(3));
    let write = |id, body: &'static str| DocumentWrite { id, body: Some(body.as_bytes()), entries: &[], stamp: None };
    let deep = "[".repeat(120) + &"]".repeat(120);
    let deep = format!("{{\"extra\":{deep}}}");
    batch.put_documents(VERSION, 5, &[write(&one, BODY), write(&two, "[1]")]).unwrap();
    batch
        .put_documents(
            VERSION,
            5,
            &[DocumentWrite { id: &three, body: Some(deep.as_bytes()), entries: &[], stamp: None }],
        )
        .unwrap();
    batch.flush().unwrap();

    let stored: Vec<Document> = wait({
        let collection = raw(&options).collection::<Document>("customer_v7");
        async move {
            let mut cursor = collection.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
            let mut found = Vec::new();
            while cursor.advance().await.unwrap() {
                found.push(cursor.deserialize_current().unwrap());
            }
            found
        }
    });
    let decimal = |text: &str| text.parse::<Decimal128>().unwrap();
    let binary = |bytes: &[u8]| Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
    let mut natural = stored[0].clone();
    assert_eq!(natural.remove("_id"), Some(Bson::String(int(1).iter().map(|byte| char::from(*byte)).collect())));
    let hw = natural.remove("_hw").unwrap();
    assert_eq!(hw.as_document().unwrap().get("json"), Some(&Bson::Binary(binary(BODY.as_bytes()))));
    let nan = natural.remove("nan").unwrap();
    assert!(nan.as_f64().unwrap().is_nan());
    let expected = doc! {
        "id": 1_i64,
        "small": -5_i32,
        "big": 9_007_199_254_740_993_i64,
        "huge": decimal("18446744073709551615"),
        "total": decimal("19.90"),
        "exact": "1.2345678901234567890123456789012345678",
        "ratio": 0.5,
        "paid": true,
        "day": DateTime::from_millis(1_767_312_000_000),
        "at": DateTime::from_millis(1_767_323_045_678),
        "never": "infinity",
        "raw": binary(&[0, 255]),
        "extra": { "a": [1_i64, 2.5, { "b": "é\n" }], "n": decimal("123456789012345678901") },
        "odd": "{\"$set\":1}",
        "tags": [[1_i64, 2_i64], [9_007_199_254_740_993_i64, 4_i64]],
        "gone": null,
        "lines": [{ "amount": decimal("1.10"), "text": "a" }, { "amount": null, "text": "😀" }],
        "first": { "amount": decimal("2"), "text": "" },
    };
    assert_eq!(natural, expected);
    // No object: only what is ours.
    assert_eq!(stored[1].keys().collect::<Vec<_>>(), ["_id", "_hw"]);
    // Deeper than the server takes.
    assert!(stored[2].get_str("extra").unwrap().starts_with("[[["));
    let read = store.reader().get(VERSION, &one).await.unwrap().unwrap();
    assert_eq!(&read.body[..], BODY.as_bytes());
}

#[tokio::test]
async fn a_document_that_fits_only_without_its_bson_is_refused() {
    use headwater_store::{Error, ErrorKind};

    let store = documents(&fresh()).unwrap();
    let mut batch = store.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, Some(shape()))).unwrap();
    let body = format!("{{\"gone\":\"{}\"}}", "x".repeat(9 << 20));
    let id = int(1);
    let refused = batch.put_documents(
        VERSION,
        0,
        &[DocumentWrite { id: &id, body: Some(body.as_bytes()), entries: &[], stamp: None }],
    );
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::DocumentTooLarge { bytes, .. } if bytes > 18 << 20), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Poison);
    // The largest that fit are written: several of them in one batch, and again.
    for letter in ["a", "b"] {
        let body = format!("{{\"gone\":\"{}\"}}", letter.repeat((8 << 20) - (20 << 10)));
        let ids: Vec<_> = (0..5).map(int).collect();
        let writes: Vec<_> =
            ids.iter().map(|id| DocumentWrite { id, body: Some(body.as_bytes()), entries: &[], stamp: None }).collect();
        batch.put_documents(VERSION, 0, &writes).unwrap();
        batch.flush().unwrap();
        let read = store.reader().get(VERSION, &int(4)).await.unwrap().unwrap();
        assert_eq!(&read.body[..], body.as_bytes());
        batch = store.begin().unwrap();
    }
}
