//! PostgreSQL's types in the words all sources share.

use std::collections::HashMap;

use headwater_schemas::ColumnType;

use super::connect::{Sql, number, text};
use crate::Error;

/// `char(n)`, whose values are filled up with blanks.
pub(crate) const BPCHAR: u32 = 1042;

/// Types by oid, looked up once. A type keeps its oid for life; what the oid of a dropped type meant is not needed.
#[derive(Debug, Default)]
pub(crate) struct Types {
    known: HashMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    kind: ColumnType,
    is_padded: bool,
}

/// The types that every server has under the same oid (`pg_type.dat`).
fn built_in(oid: u32) -> Option<ColumnType> {
    Some(match oid {
        16 => ColumnType::Bool,
        17 => ColumnType::Bytes,
        20 | 26 => ColumnType::Int64,
        21 | 23 => ColumnType::Int32,
        25 | BPCHAR | 1043 | 18 | 19 => ColumnType::Text,
        114 | 3802 => ColumnType::Json,
        700 => ColumnType::Float32,
        701 => ColumnType::Float64,
        1082 => ColumnType::Date,
        1083 => ColumnType::Time,
        1114 => ColumnType::Timestamp,
        1184 => ColumnType::TimestampTz,
        1186 => ColumnType::Interval,
        1266 => ColumnType::TimeTz,
        1700 => ColumnType::Decimal,
        2950 => ColumnType::Uuid,
        _ => return None,
    })
}

struct CatalogType {
    class: String,
    category: String,
    element: u32,
    base: u32,
    delimiter: String,
}

impl Types {
    /// The kind of a type; `Other` for one that was not [`Self::learn`]ed.
    pub(crate) fn kind(&self, oid: u32) -> ColumnType {
        let learned = || self.known.get(&oid).map(|known| known.kind.clone());
        built_in(oid).or_else(learned).unwrap_or(ColumnType::Other)
    }

    /// Whether values of a type are filled up with blanks to a length. To the database these mean nothing: `'open'` is what
    /// it finds `'open      '` by, and what joins it.
    pub(crate) fn is_padded(&self, oid: u32) -> bool {
        oid == BPCHAR || self.known.get(&oid).is_some_and(|known| known.is_padded)
    }

    /// Asks the catalog for the types among `oids` that are not known yet.
    pub(crate) async fn learn(&mut self, sql: &Sql, mut oids: Vec<u32>) -> Result<(), Error> {
        oids.retain(|oid| built_in(*oid).is_none() && !self.known.contains_key(oid));
        let mut unknown = oids;
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        let list = unknown.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let query = format!(
            "WITH RECURSIVE wanted AS (
                 SELECT oid, typtype, typcategory, typelem, typbasetype, typdelim FROM pg_type WHERE oid IN ({list})
                 UNION
                 SELECT t.oid, t.typtype, t.typcategory, t.typelem, t.typbasetype, t.typdelim
                 FROM wanted w JOIN pg_type t
                   ON (w.typtype = 'd' AND t.oid = w.typbasetype) OR (w.typcategory = 'A' AND t.oid = w.typelem))
             SELECT * FROM wanted"
        );
        let mut catalog = HashMap::new();
        for row in sql.rows("look up types", &query).await? {
            let found = CatalogType {
                class: text(&row, "typtype")?.into(),
                category: text(&row, "typcategory")?.into(),
                element: number(&row, "typelem")?,
                base: number(&row, "typbasetype")?,
                delimiter: text(&row, "typdelim")?.into(),
            };
            catalog.insert(number::<u32>(&row, "oid")?, found);
        }
        for oid in unknown {
            let (kind, is_padded) = (resolve(oid, &catalog, 0), base(oid, &catalog) == BPCHAR);
            self.known.insert(oid, Known { kind, is_padded });
        }
        Ok(())
    }
}

/// The catalog has no cycles; the limit only makes that harmless to be wrong about.
const DEPTH_MAX: u8 = 16;

/// What a domain is over in the end; of any other type the type itself.
fn base(oid: u32, catalog: &HashMap<u32, CatalogType>) -> u32 {
    let domain = |oid: &u32| catalog.get(oid).filter(|found| found.class == "d").map(|found| found.base);
    std::iter::successors(Some(oid), domain).take(usize::from(DEPTH_MAX)).last().unwrap_or(oid)
}

fn resolve(oid: u32, catalog: &HashMap<u32, CatalogType>, depth: u8) -> ColumnType {
    if let Some(kind) = built_in(oid) {
        return kind;
    }
    match catalog.get(&oid) {
        _ if depth > DEPTH_MAX => ColumnType::Other,
        Some(found) if found.class == "e" => ColumnType::Enum,
        Some(found) if found.class == "d" => resolve(found.base, catalog, depth + 1),
        Some(found) if found.category == "A" && found.element != 0 => {
            let comma = catalog.get(&found.element).is_none_or(|element| element.delimiter == ",");
            match resolve(found.element, catalog, depth + 1) {
                // An array over a domain over an array has braces we could not tell apart.
                ColumnType::Array(_) => ColumnType::Other,
                element if comma => ColumnType::Array(Box::new(element)),
                _ => ColumnType::Other,
            }
        }
        _ => ColumnType::Other,
    }
}
