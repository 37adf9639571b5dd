//! The change event in Debezium's JSON envelope, for logs that others read too. One block is our own, `x`, which
//! Debezium's consumers ignore and which makes the way back exact:
//!
//! ```json
//! {"op":"u","before":null,"after":{"id":7,"amount":"19.90","note":"__debezium_unavailable_value"},
//!  "ts_ms":1767225600000,
//!  "source":{"version":"1","connector":"postgresql","name":"billing","db":"erp","schema":"public","table":"invoices",
//!            "ts_ms":1767225600000,"ts_us":1767225600000000,"snapshot":"false","sequence":"[\"53195829\",\"3\"]",
//!            "txId":571,"lsn":53195829},
//!  "transaction":{"id":"571:53195829","total_order":3,"data_collection_order":3},
//!  "x":{"v":2,"epoch":4,"pos":"00000000032BB435/00000003","tx_last":false,"key":{"id":7},"missing":["note"],
//!       "schema":"9f86d081884c7d65"}}
//! ```
//!
//! * `x.pos` is commit position and ordinal; with `x.epoch` it is the source's total order.
//! * `source.sequence` is commit position and ordinal, as decimal numbers: it rises within a transaction, too, where `lsn`
//!   does not.
//! * `x.missing` names the columns the source did not send. In `after` those that can be stored out of line have Debezium's
//!   placeholder, which our reader takes for nothing, and others are absent. `x.v` is 2 where there is a placeholder, so
//!   that a version that does not know it refuses the event, and else 1. In `before` every absent column is a missing one,
//!   and `x.key_only` says that there are only those of the key.
//! * `x.lost` names the columns whose value cannot be represented; they are absent from `after`, and are not what they
//!   were before.
//! * `x.partitions` is the number of partitions that a truncation stands in.
//! * `x.key_bytes` (base64) stands only where the record's key is not made of the schema's key columns.
//! * `x.schema` is the [fingerprint](SchemaFingerprint) of the columns the event was written with. A schema event
//!   (`op` `s`) has them whole in `x.columns`.
//! * A changed key travels as a delete and a create, so nothing like an old key is needed. `data_collection_order` rises
//!   but has gaps.
//!
//! JSON does not tell a decimal from a text: the schema does, and what it cannot tell is refused when written.

mod read;
mod scan;
mod write;

pub use read::{OwnedEvent, from_json, key_from_json, schema_of};
pub use scan::EventReader;
pub use write::{EventWriter, SourceInfo};

#[cfg(doc)]
use crate::SchemaFingerprint;
use crate::{ColumnType, TableSchema, write_json_string};

/// What stands in `after` for a value that the source did not send, as JSON of the column's type; as Debezium has it, but that
/// arrays of numbers have it, too, as a text. `None` where a value is never stored out of line, so that the source always
/// sends it.
const fn unavailable(kind: &ColumnType) -> Option<&'static str> {
    use ColumnType as C;
    match kind {
        C::Text | C::Json | C::Decimal | C::Other => Some("\"__debezium_unavailable_value\""),
        // The same in base64.
        C::Bytes => Some("\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\""),
        C::Array(_) => Some("[\"__debezium_unavailable_value\"]"),
        _ => None,
    }
}

/// How a member of each column begins: `"name":`.
fn members(schema: &TableSchema) -> Vec<Vec<u8>> {
    let member = |column: &crate::Column| {
        let mut member = Vec::new();
        write_json_string(&mut member, &column.name);
        member.push(b':');
        member
    };
    schema.columns.iter().map(member).collect()
}
