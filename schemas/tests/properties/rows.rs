use headwater_schemas::{RowRef, Value, ValueRef};
use proptest::prelude::*;

use super::{check, values};

fn cells() -> impl Strategy<Value = Vec<Value>> {
    let cell = || prop_oneof![5 => values::any_value(), 1 => Just(Value::Missing)];
    prop::collection::vec(cell(), 0..8)
}

#[test]
fn cells_are_read_as_they_were_written() {
    check("cells_are_read_as_they_were_written", 1000, cells(), |cells| {
        let bytes = values::row(&cells);
        let row = RowRef(&bytes);
        prop_assert!(row.is_well_formed(cells.len()));
        prop_assert!(!row.is_well_formed(cells.len() + 1));
        prop_assert_eq!(row.has_missing(), cells.contains(&Value::Missing));
        // NaN is not equal to itself, bytes are.
        let read: Vec<Value> = row.cells().map(ValueRef::to_value).collect();
        prop_assert_eq!(values::row(&read), &bytes[..]);
        for at in 0..cells.len() {
            prop_assert_eq!(values::row(&[row.cell(at).to_value()]), values::row(&cells[at..=at]));
        }
        prop_assert_eq!(row.cell(cells.len()), ValueRef::Missing);
        prop_assert_eq!(row.raw_cells().collect::<Vec<_>>().concat(), &bytes[..]);
        Ok(())
    });
}

#[test]
fn missing_cells_are_filled_from_the_older_image() {
    let rows = (1usize..8).prop_flat_map(|len| {
        let cell = || prop_oneof![2 => values::any_value(), 1 => Just(Value::Missing)];
        (prop::collection::vec(cell(), len), prop::collection::vec(cell(), len), 0..len, any::<u8>(), any::<u8>())
    });
    check("missing_cells_are_filled", 1000, rows, |(new, old, shift, new_lost, old_lost)| {
        // The older image has its columns in another order, and lacks one.
        let old_column = |at: usize| if at == shift { None } else { Some((at + shift) % old.len()) };
        let new_row = values::lose(&values::row(&new), new_lost);
        let old_row = values::lose(&values::row(&old), old_lost);
        let mut filled = Vec::new();
        RowRef(&new_row).fill_missing(RowRef(&old_row), old_column, &mut filled);
        // A lost cell is not filled, and fills as it is.
        let lost: Vec<usize> = RowRef(&new_row).lost().collect();
        let known: Vec<&[u8]> = RowRef(&old_row).raw_cells().collect();
        for (at, cell) in RowRef(&filled).raw_cells().enumerate() {
            let unsent = new[at] == Value::Missing && !lost.contains(&at);
            match old_column(at).filter(|_| unsent) {
                Some(from) => prop_assert_eq!(cell, known[from]),
                None => prop_assert_eq!(cell, RowRef(&new_row).raw_cells().nth(at).unwrap()),
            }
        }
        Ok(())
    });
}
