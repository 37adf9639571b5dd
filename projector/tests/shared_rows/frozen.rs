//! A model that stops fitting its table while its first version is being built.

use headwater_schemas::model::{ParseContext, parse};
use headwater_store::VersionState;

use crate::engine::{Engine, Kind};
use crate::items::at;
use crate::place::Place;
use crate::worker::Step;

/// Nobody builds what waits of it, so that everything is passed that was to be built: it must not serve for that.
#[test]
fn what_does_not_fit_any_more_does_not_begin_to_serve() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let states = || documents.state.lock().versions("item").iter().map(|it| (it.id.0, it.state)).collect::<Vec<_>>();
    let yaml = "model: item\nroot: { table: shop.items, key: id }\nfields: { note: note }\n";
    let noted = parse("model.yaml", yaml, &ParseContext::default()).unwrap();
    place.bring(&[0, 1, 2]);
    place.tell(at(1, 3), true);
    let mut worker = place.worker(rows, documents.clone(), vec![noted]);
    place.work(&mut worker, |step| !matches!(step, Step::Read | Step::Write));
    assert_eq!(place.built(&worker, "item"), (0, 3), "all of it waits to be built");
    place.bring_without_note(3);
    place.drain(&mut worker);
    assert_eq!(place.built(&worker, "item").0, 3, "what waited is passed");
    assert_eq!(states(), [(1, VersionState::Building)]);
}
