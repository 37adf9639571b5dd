//! The rows are lost, and the documents are not.

use crate::engine::{Engine, Kind};
use crate::items::at;
use crate::place::{Place, model};

/// What serves lacks every change since: no frontier promises one until the next version serves.
#[test]
fn no_frontier_goes_beyond_what_serves_without_rows() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let frontier = || documents.state.lock().frontiers["shop"].position;
    let serving = || documents.state.lock().active("item").iter().map(|record| record.id.0).collect::<Vec<_>>();
    let mut worker = place.worker(rows, documents.clone(), vec![model("item")]);
    place.bring(&[0, 1]);
    place.tell(at(1, 2), true);
    place.drain(&mut worker);
    assert_eq!((serving(), frontier()), (vec![1], at(1, 2)));
    drop(worker);

    let Engine::Here { rows, _folder, .. } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let mut worker = place.worker(rows, documents.clone(), vec![model("item")]);
    place.bring(&[2]);
    place.tell(at(1, 3), false);
    place.drain(&mut worker);
    assert_eq!((serving(), frontier()), (vec![1], at(1, 2)));
    place.tell(at(1, 4), true);
    place.drain(&mut worker);
    assert_eq!((serving(), frontier()), (vec![2], at(1, 4)));
    let version = documents.state.lock().active("item")[0].id;
    assert_eq!(documents.state.lock().contents(version).0.len(), 3);
}

/// Nobody builds a successor of it.
#[test]
fn what_serves_without_rows_is_retired_with_its_model() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let mut worker = place.worker(rows, documents.clone(), vec![model("item")]);
    place.bring(&[0]);
    place.tell(at(1, 1), true);
    place.drain(&mut worker);
    assert_eq!(documents.state.lock().active("item").len(), 1);
    drop(worker);
    let Engine::Here { rows, _folder, .. } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let mut worker = place.worker(rows, documents.clone(), Vec::new());
    place.drain(&mut worker);
    assert!(documents.state.lock().active("item").is_empty());
}
