use headwater_schemas::codec::debezium::{EventReader, EventWriter, SourceInfo, from_json, key_from_json, schema_of};
use headwater_schemas::{EventHeader, EventRef, Op, RowRef, SourcePosition, TableSchema, key};
use proptest::prelude::*;

use super::{check, values};

#[derive(Clone, Debug)]
struct Case {
    schema: TableSchema,
    header: EventHeader,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    partitions: Option<u32>,
    key: Vec<u8>,
}

impl Case {
    fn encode(&self) -> Vec<u8> {
        let (before, after) = (self.before.as_deref().map(RowRef), self.after.as_deref().map(RowRef));
        let mut bytes = Vec::new();
        EventRef { header: self.header, before, after, partitions: self.partitions }.encode(&mut bytes);
        bytes
    }
}

fn header() -> impl Strategy<Value = EventHeader> {
    let op = prop::sample::select(vec![Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Schema]);
    let position = (any::<u32>(), any::<u64>(), any::<u32>());
    (op, position, any::<u64>(), any::<i64>(), any::<bool>()).prop_map(
        |(op, (epoch, commit, ordinal), transaction, committed_at_micros, last_in_transaction)| EventHeader {
            op,
            position: SourcePosition { epoch, commit, ordinal },
            transaction,
            committed_at_micros,
            last_in_transaction,
            before_is_key_only: false,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    (values::schema(), header(), any::<bool>(), any::<bool>(), any::<Option<u32>>()).prop_flat_map(
        |(schema, mut header, key_only, no_row, partitions)| {
            let partitions = partitions.filter(|_| header.op == Op::Truncate);
            let (before, after) = match header.op {
                Op::Create | Op::Read => (false, true),
                Op::Update => (!no_row, true),
                Op::Delete => (!no_row, false),
                Op::Truncate | Op::Schema => (false, false),
            };
            header.before_is_key_only = before && key_only;
            let image = |there: bool, key_only| match there {
                true => values::cells(&schema, key_only).prop_map(|cells| Some(values::row(&cells))).boxed(),
                false => Just(None).boxed(),
            };
            // Mostly the key is that of the row; a delete without a row has it all the same.
            let foreign_key = prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..9));
            let after =
                (image(after, false), any::<u8>()).prop_map(|(row, lost)| row.map(|row| values::lose(&row, lost)));
            (image(before, header.before_is_key_only), after, foreign_key).prop_map(
                move |(before, after, foreign_key)| {
                    let row = after.as_ref().or(before.as_ref());
                    let own_key = || {
                        let mut bytes = Vec::new();
                        if let Some(row) = row {
                            schema.key_columns().iter().for_each(|at| key::write(&mut bytes, RowRef(row).cell(*at)));
                        }
                        bytes
                    };
                    let key = foreign_key.unwrap_or_else(own_key);
                    Case { schema: schema.clone(), header, before, after, partitions, key }
                },
            )
        },
    )
}

#[test]
fn binary_events_round_trip() {
    check("binary_events_round_trip", 500, case(), |case| {
        let bytes = case.encode();
        let event = EventRef::decode(&bytes).unwrap();
        prop_assert_eq!(event.header, case.header);
        prop_assert_eq!(event.before.map(|row| row.0.to_vec()), case.before);
        prop_assert_eq!(event.after.map(|row| row.0.to_vec()), case.after);
        prop_assert_eq!(event.partitions, case.partitions);
        let mut again = Vec::new();
        event.encode(&mut again);
        prop_assert_eq!(again, bytes);
        Ok(())
    });
}

#[test]
fn json_events_come_back_byte_for_byte() {
    let source = SourceInfo { version: "1".into(), connector: "postgresql".into(), database: "e\"rp".into() };
    check("json_events_come_back_byte_for_byte", 1500, case(), |case| {
        let bytes = case.encode();
        let mut json = Vec::new();
        let mut writer = EventWriter::new(case.schema.clone(), &source);
        writer.write(&EventRef::decode(&bytes).unwrap(), &case.key, &mut json).unwrap();
        serde_json::from_slice::<serde_json::Value>(&json).expect("every JSON reader can read it");
        prop_assert_eq!(schema_of(&json).unwrap(), case.schema.fingerprint());
        let back = from_json(&json, Some(&case.schema)).unwrap();
        prop_assert_eq!(&back.bytes, &bytes, "{}", String::from_utf8_lossy(&json));
        prop_assert_eq!(&back.key, &case.key);
        prop_assert_eq!(back.event().header, case.header);
        let (mut key, mut event) = (b"of the event before".to_vec(), b"before".to_vec());
        EventReader::new(case.schema.clone()).read(&json, &mut key, &mut event).unwrap();
        prop_assert_eq!(&event[..6], b"before");
        prop_assert_eq!((&key, &event[6..]), (&case.key, &bytes[..]), "{}", String::from_utf8_lossy(&json));
        let unaided = from_json(&json, None);
        if case.header.op == Op::Schema {
            prop_assert_eq!(unaided.unwrap(), back);
        } else {
            prop_assert!(unaided.is_err());
        }
        Ok(())
    });
}

/// The fast way reads nothing that the exact way refuses, and nothing otherwise: bytes are changed at random.
#[test]
fn changed_json_is_read_alike_or_refused_alike() {
    let source = SourceInfo { version: "1".into(), connector: "postgresql".into(), database: "erp".into() };
    let changes = prop::collection::vec(
        (any::<prop::sample::Index>(), prop::sample::select(b"0127-.e\"\\{}[],:xn ".to_vec())),
        1..3,
    );
    check("changed_json", 3000, (case(), changes, any::<bool>()), |(case, changes, cut)| {
        let mut json = Vec::new();
        let mut writer = EventWriter::new(case.schema.clone(), &source);
        writer.write(&EventRef::decode(&case.encode()).unwrap(), &case.key, &mut json).unwrap();
        for (at, byte) in changes {
            let at = at.index(json.len());
            if cut {
                json.remove(at);
            } else {
                json[at] = byte;
            }
        }
        let exact = from_json(&json, Some(&case.schema));
        let (mut key, mut event) = (Vec::new(), Vec::new());
        let fast = EventReader::new(case.schema).read(&json, &mut key, &mut event);
        match (exact, fast) {
            (Ok(exact), Ok(())) => prop_assert_eq!((exact.key, exact.bytes), (key, event)),
            (Err(_), Err(_)) => prop_assert!(event.is_empty()),
            (exact, fast) => prop_assert!(false, "{exact:?} {fast:?} {}", String::from_utf8_lossy(&json)),
        }
        Ok(())
    });
}

#[test]
fn json_keys_name_the_key_columns_in_key_order() {
    let source = SourceInfo { version: "1".into(), connector: "postgresql".into(), database: "erp".into() };
    check("json_keys", 300, values::schema().prop_flat_map(|schema| (values::cells(&schema, true), Just(schema))), {
        |(cells, schema)| {
            let row = values::row(&cells);
            let mut json = Vec::new();
            let header = EventHeader {
                op: Op::Create,
                position: SourcePosition { epoch: 1, commit: 2, ordinal: 3 },
                transaction: 4,
                committed_at_micros: 5,
                last_in_transaction: true,
                before_is_key_only: false,
            };
            let event = EventRef { header, before: None, after: Some(RowRef(&row)), partitions: None };
            let written = EventWriter::new(schema.clone(), &source).write(&event, &[], &mut json).unwrap();
            if schema.key_columns().is_empty() {
                prop_assert_eq!(written, None);
                return Ok(());
            }
            let json = &json[written.unwrap()];
            let read: serde_json::Value = serde_json::from_slice(json).unwrap();
            let names: Vec<&str> = read.as_object().unwrap().keys().map(String::as_str).collect();
            let wanted: Vec<&str> = schema.key_columns().iter().map(|at| &*schema.columns[*at].name).collect();
            prop_assert_eq!(names, wanted);
            let mut bytes = Vec::new();
            schema.key_columns().iter().for_each(|at| key::write(&mut bytes, RowRef(&row).cell(*at)));
            prop_assert_eq!(key_from_json(json, &schema).unwrap(), bytes);
            Ok(())
        }
    });
}
