//! Every type: the same value from snapshot and stream, and the right one.

use headwater_broker::EventLog;
use headwater_connectors::postgres::check;
use headwater_schemas::{ArrayValue, ColumnType, Interval, Op, Value};
use headwater_test_servers::Postgres;

use crate::harness::Harness;

fn ints(dimensions: &[u32], cells: &[Option<i64>]) -> Value {
    let cells = cells.iter().map(|cell| cell.map_or(Value::Null, Value::Int)).collect();
    Value::Array(ArrayValue { dimensions: dimensions.to_vec(), cells })
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn array(cells: &[Value]) -> Value {
    Value::Array(ArrayValue { dimensions: vec![cells.len() as u32], cells: cells.to_vec() })
}

/// Type, literal, kind, value.
fn cases() -> Vec<(&'static str, &'static str, ColumnType, Value)> {
    use ColumnType as C;
    let decimal = |text: &str| Value::Decimal(text.into());
    let array_of = |kind| C::Array(Box::new(kind));
    let interval = |months, days, micros| Value::Interval(Interval { months, days, micros });
    vec![
        ("bool", "'t'", C::Bool, Value::Bool(true)),
        ("int2", "'-32768'", C::Int32, Value::Int(-32768)),
        ("int4", "'2147483647'", C::Int32, Value::Int(2_147_483_647)),
        ("int8", "'-9223372036854775808'", C::Int64, Value::Int(i64::MIN)),
        ("numeric(12,2)", "'19.90'", C::Decimal, decimal("19.90")),
        (
            "numeric",
            "'12345678901234567890.123456789012345678'",
            C::Decimal,
            decimal("12345678901234567890.123456789012345678"),
        ),
        ("numeric", "'NaN'", C::Decimal, decimal("NaN")),
        ("numeric", "'-Infinity'", C::Decimal, decimal("-Infinity")),
        ("float4", "'1.1'", C::Float32, Value::Float32(1.1)),
        ("float8", "'0.1'", C::Float64, Value::Float64(0.1)),
        ("float8", "'-Infinity'", C::Float64, Value::Float64(f64::NEG_INFINITY)),
        (
            "text",
            "E'tab\\t newline\\n back\\\\slash ümläut 😀 \\\\N'",
            C::Text,
            text("tab\t newline\n back\\slash ümläut 😀 \\N"),
        ),
        ("text", "''", C::Text, text("")),
        ("varchar(10)", "'abc'", C::Text, text("abc")),
        ("char(4)", "'ab'", C::Text, text("ab")),
        ("char(4)", "''", C::Text, text("")),
        ("code", "'ab'", C::Text, text("ab")),
        ("inner_code", "'ab'", C::Text, text("ab")),
        ("varchar(4)", "'ab  '", C::Text, text("ab  ")),
        ("bytea", "'\\x00ff10'", C::Bytes, Value::Bytes(vec![0, 255, 16])),
        ("bytea", "''", C::Bytes, Value::Bytes(vec![])),
        ("date", "'2026-02-28'", C::Date, Value::Date(20512)),
        ("date", "'0044-03-15 BC'", C::Date, Value::Date(-735_160)),
        ("date", "'infinity'", C::Date, Value::Date(i32::MAX)),
        ("time", "'23:59:59.999999'", C::Time, Value::Time(86_399_999_999)),
        ("time", "'24:00'", C::Time, Value::Time(86_400_000_000)),
        ("timetz", "'10:00:00+05:30'", C::TimeTz, Value::TimeTz(36_000_000_000, 19_800)),
        ("timestamp", "'1970-01-01 00:00:01.5'", C::Timestamp, Value::Timestamp(1_500_000)),
        ("timestamp", "'-infinity'", C::Timestamp, Value::Timestamp(i64::MIN)),
        ("timestamptz", "'1970-01-01 02:00:00+02'", C::TimestampTz, Value::TimestampTz(0)),
        ("timestamptz", "'infinity'", C::TimestampTz, Value::TimestampTz(i64::MAX)),
        ("interval", "'1 year 2 mons 3 days 04:05:06.5'", C::Interval, interval(14, 3, 14_706_500_000)),
        ("interval", "'-1 mon +3 days -00:00:01'", C::Interval, interval(-1, 3, -1_000_000)),
        (
            "uuid",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            C::Uuid,
            Value::Uuid([
                0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11,
            ]),
        ),
        ("json", "'{\"b\": 1,  \"a\":[1,2]}'", C::Json, Value::Json("{\"b\": 1,  \"a\":[1,2]}".into())),
        ("jsonb", "'{\"b\": 1, \"a\": 2}'", C::Json, Value::Json("{\"a\": 2, \"b\": 1}".into())),
        ("mood", "'so so'", C::Enum, Value::Enum("so so".into())),
        ("positive", "'7'", C::Int32, Value::Int(7)),
        ("int4[]", "'{1,NULL,3}'", array_of(C::Int32), ints(&[3], &[Some(1), None, Some(3)])),
        ("int4[]", "'{{1,2},{3,4}}'", array_of(C::Int32), ints(&[2, 2], &[Some(1), Some(2), Some(3), Some(4)])),
        ("int4[]", "'{}'", array_of(C::Int32), ints(&[], &[])),
        (
            "text[]",
            "ARRAY['a,b', 'q\"', '', 'NULL', 'back\\slash', 'line' || chr(10)]",
            array_of(C::Text),
            array(&[text("a,b"), text("q\""), text(""), text("NULL"), text("back\\slash"), text("line\n")]),
        ),
        (
            "mood[]",
            "'{sad,\"so so\"}'",
            array_of(C::Enum),
            array(&[Value::Enum("sad".into()), Value::Enum("so so".into())]),
        ),
        ("numeric[]", "'{1.50}'", array_of(C::Decimal), array(&[decimal("1.50")])),
        ("positives", "'{1,2}'", array_of(C::Int32), ints(&[2], &[Some(1), Some(2)])),
        ("inet", "'192.168.0.1/24'", C::Other, text("192.168.0.1/24")),
        ("int4range", "'[1,5)'", C::Other, text("[1,5)")),
        ("pair", "'(1,\"a b\")'", C::Other, text("(1,\"a b\")")),
        ("box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", C::Other, text("{(1,1),(0,0);(2,2),(1,1)}")),
        ("bit(3)", "'101'", C::Other, text("101")),
        ("money", "'12.50'", C::Other, text("$12.50")),
        ("xml", "'<a>1</a>'", C::Other, text("<a>1</a>")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_the_same_from_snapshot_and_stream() {
    let cases = cases();
    let mut sql = String::from(
        "CREATE TYPE mood AS ENUM ('sad', 'so so'); CREATE DOMAIN positive AS int CHECK (value > 0);
         CREATE DOMAIN code AS char(4); CREATE DOMAIN inner_code AS code;
         CREATE DOMAIN positives AS int[]; CREATE TYPE pair AS (a int, b text);
         CREATE TABLE v (id int PRIMARY KEY, doubled int GENERATED ALWAYS AS (id * 2) STORED",
    );
    for (at, case) in cases.iter().enumerate() {
        sql.push_str(&format!(", c{at} {}", case.0));
    }
    let insert = |id: u32| {
        let literals: Vec<String> = cases.iter().map(|case| format!("{}::{}", case.1, case.0)).collect();
        format!("INSERT INTO v VALUES ({id}, DEFAULT, {})", literals.join(", "))
    };
    sql.push_str(&format!("); {}; INSERT INTO v (id) VALUES (2)", insert(1)));
    let harness = Harness::streaming(&sql, &["v"]).await;
    harness.server.psql(&insert(3));
    harness.server.psql("INSERT INTO v (id) VALUES (4)");
    harness.caught_up().await;
    assert_eq!(harness.dead_letters().await, []);
    let events = harness.all_events("v").await;
    assert_eq!(events.iter().filter(|event| event.op == Op::Schema).count(), 1, "one schema for both");
    let of =
        |id: i64| events.iter().find(|event| event.op != Op::Schema && event.after("id") == Value::Int(id)).unwrap();
    let (read, nulls_read, streamed, nulls_streamed) = (of(1), of(2), of(3), of(4));
    assert_eq!((read.op, streamed.op), (Op::Read, Op::Create));
    assert_eq!(read.schema, streamed.schema);
    assert!(read.schema.column_index("doubled").is_none());
    for (at, (name, literal, kind, value)) in cases.iter().enumerate() {
        let column = format!("c{at}");
        let described = &read.schema.columns[read.schema.column_index(&column).unwrap()];
        assert_eq!(described.kind, *kind, "{name}");
        assert_eq!(read.after(&column), *value, "snapshot of {name} {literal}");
        assert_eq!(streamed.after(&column), *value, "stream of {name} {literal}");
        assert_eq!((nulls_read.after(&column), nulls_streamed.after(&column)), (Value::Null, Value::Null));
    }
    let wide = &read.schema.columns[read.schema.column_index("c4").unwrap()];
    assert_eq!(wide.source_type, "numeric(12,2)");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_represented_is_a_dead_letter_and_blocks_nothing() {
    let harness = Harness::streaming(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp); INSERT INTO t VALUES (1, '294276-12-31'), (2, now())",
        &["t"],
    )
    .await;
    harness.server.psql("BEGIN; INSERT INTO t VALUES (3, '294276-12-31'); INSERT INTO t VALUES (4, now()); COMMIT");
    harness.caught_up().await;
    let events = harness.events("t").await;
    let ids: Vec<_> = events.iter().map(|event| event.after("id")).collect();
    assert_eq!(ids, [1, 2, 3, 4].map(Value::Int), "all else of the rows is known");
    let lost: Vec<_> = events.iter().map(|event| &event.lost[..]).collect();
    assert_eq!(lost, [&[1][..], &[], &[1], &[]]);
    let letters = harness.dead_letters().await;
    assert_eq!(letters.len(), 2);
    for letter in letters {
        assert_eq!(letter.table.as_deref(), Some("shop.public.t"));
        assert!(letter.cause.contains("column `at` (timestamp without time zone)"), "{}", letter.cause);
        assert!(!letter.cause.contains("294276"), "causes hold no values");
    }
    assert_eq!(harness.status().dead_letters_total, 2);
    assert!(harness.log.topics().await.unwrap().iter().any(|(name, _)| &**name == "hw.__dead_letters"));
}

/// Where the database does not know the encoding of its texts, some may not be UTF-8.
#[tokio::test(flavor = "multi_thread")]
async fn texts_of_no_known_encoding_are_taken_as_they_are() {
    let server = Postgres::start();
    let create = "CREATE DATABASE old ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    server.psql_in("postgres", create);
    server.psql_in(
        "old",
        "CREATE TABLE t (id int PRIMARY KEY, body text, n int); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
         INSERT INTO t VALUES (1, E'gr\\xc3\\xbcn', 1), (2, E'gr\\xfcn', 2), (3, repeat(E'\\xfc', 10000), 3)",
    );
    let mut harness = Harness::new(server, &["t"]);
    harness.config.postgres.database = "old".into();
    harness.start();
    harness.until_streaming().await;
    harness.server.psql_in("old", "INSERT INTO t VALUES (4, E'gr\\xfcn', 4)");
    // What was not sent with a new key is fetched.
    harness.server.psql_in("old", "UPDATE t SET id = 5 WHERE id = 3");
    harness.caught_up().await;
    let rows: Vec<_> =
        harness.folded("t").await.into_values().map(|row| (row["body"].clone(), row["n"].clone())).collect();
    let green = Value::Text("grün".into());
    let lost = |n| (Value::Missing, Value::Int(n));
    assert_eq!(rows, [(green, Value::Int(1)), lost(2), lost(4), lost(3)]);
    assert_eq!(harness.dead_letters().await.len(), 4);
    let findings = check(&harness.config, &[]).await;
    assert!(findings.iter().any(|finding| finding.problem.contains("server_encoding is SQL_ASCII")), "{findings:#?}");
}

/// A value that cannot be represented is in the image before of whatever mends it.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_represented_can_be_mended_deleted_and_given_another_key() {
    let harness = Harness::streaming(
        "CREATE TABLE f (id int PRIMARY KEY, at timestamp); ALTER TABLE f REPLICA IDENTITY FULL;
         CREATE TABLE d (id int PRIMARY KEY, at timestamp);
         INSERT INTO f SELECT n, '2026-01-01' FROM generate_series(1, 3) n;
         INSERT INTO d VALUES (1, '2026-01-01'), (2, '2026-01-01')",
        &["f", "d"],
    )
    .await;
    harness.server.psql("UPDATE f SET at = '294276-12-31'");
    harness.server.psql("UPDATE f SET at = '2026-02-02' WHERE id = 1");
    harness.server.psql("DELETE FROM f WHERE id = 2; UPDATE f SET id = 4, at = '2026-02-02' WHERE id = 3");
    harness.server.psql("UPDATE d SET id = 3, at = '294276-12-31' WHERE id = 1");
    harness.caught_up().await;
    assert_eq!(harness.dead_letters().await.len(), 4);
    let rows = async |table: &str| -> Vec<(Value, Value)> {
        harness.folded(table).await.into_values().map(|row| (row["id"].clone(), row["at"].clone())).collect()
    };
    let at = |year: &str| Value::Timestamp(headwater_schemas::temporal::parse_timestamp(year).unwrap());
    let mended = at("2026-02-02 00:00:00");
    assert_eq!(rows("f").await, [(Value::Int(1), mended.clone()), (Value::Int(4), mended)]);
    let mended = harness.events("f").await;
    let mended = mended.iter().rev().find(|event| event.after.is_some() && event.after("id") == Value::Int(1)).unwrap();
    assert!(mended.before_is_key_only);
    let left = (Value::Int(2), at("2026-01-01 00:00:00"));
    assert_eq!(rows("d").await, [left, (Value::Int(3), Value::Missing)], "its old key is nobody's");
}

/// What changed together with a value that cannot be represented is not sent again by what mends that.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_beside_a_value_that_cannot_be_represented_is_known_when_it_is_mended() {
    let harness = Harness::streaming(
        "CREATE TABLE notes (id int PRIMARY KEY, at timestamp, body text, seen timestamp[]);
         ALTER TABLE notes ALTER body SET STORAGE EXTERNAL; ALTER TABLE notes ALTER seen SET STORAGE EXTERNAL;
         INSERT INTO notes VALUES (1, now(), repeat('old', 5000), array_fill('2026-01-01'::timestamp, '{5000}'));",
        &["notes"],
    )
    .await;
    let lasting = "array_fill('294276-12-31'::timestamp, '{5000}')";
    harness.server.psql("UPDATE notes SET at = '294276-12-31', body = repeat('new', 5000)");
    harness.server.psql(&format!("INSERT INTO notes VALUES (2, '294276-12-31', repeat('new', 5000), {lasting})"));
    harness.server.psql("UPDATE notes SET at = '2026-02-02'");
    harness.caught_up().await;
    let events = harness.events("notes").await;
    let mended = |id| events.iter().rfind(|event| event.after("id") == Value::Int(id)).unwrap();
    assert_eq!((mended(1).after("body"), mended(2).after("body")), (Value::Missing, Value::Missing), "not sent");
    let rows: Vec<_> = harness.folded("notes").await.into_values().collect();
    for row in &rows {
        assert_eq!(row["body"], Value::Text("new".repeat(5000)));
        assert_ne!(row["at"], Value::Missing);
    }
    assert_ne!(rows[0]["seen"], Value::Missing);
    assert_eq!(rows[1]["seen"], Value::Missing, "lost, and nobody mended it");
    assert_eq!(harness.dead_letters().await.len(), 2);
}

/// A row whose new key cannot be represented is nowhere: also not under its old key.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_gets_a_key_that_cannot_be_represented_is_gone() {
    let harness = Harness::streaming(
        "CREATE TABLE days (at timestamp PRIMARY KEY, n int, note text); ALTER TABLE days ALTER note SET STORAGE EXTERNAL;
         INSERT INTO days SELECT '2026-01-01'::timestamp + n * interval '1 day', n, repeat('x', 5000) FROM generate_series(1, 2) n",
        &["days"],
    )
    .await;
    harness.server.psql("UPDATE days SET at = '294276-12-31' WHERE n = 1");
    harness.caught_up().await;
    let left: Vec<_> = harness.folded("days").await.into_values().map(|row| row["n"].clone()).collect();
    assert_eq!(left, [Value::Int(2)]);
    assert_eq!(harness.dead_letters().await.len(), 1);
    // With a key that can be, it is there again, also what is not sent because it did not change.
    harness.server.psql("UPDATE days SET at = '2026-01-05' WHERE n = 1");
    harness.caught_up().await;
    let rows: Vec<_> = harness.folded("days").await.into_values().collect();
    let told: Vec<_> = rows.iter().map(|row| (&row["n"], &row["note"])).collect();
    let note = Value::Text("x".repeat(5000));
    assert_eq!(told, [(&Value::Int(2), &note), (&Value::Int(1), &note)]);
    assert_eq!(harness.dead_letters().await.len(), 1);
}
