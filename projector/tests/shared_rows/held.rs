//! A new version of which no document can be built.

use headwater_schemas::model::definition::ReadModel;
use headwater_store::VersionState;

use crate::engine::{Engine, Kind};
use crate::items::at;
use crate::models::spoil;
use crate::place::{Place, model};

/// The one before serves on, and both follow all changes, whoever leads, until somebody wants it as it is.
#[test]
fn what_lacks_its_documents_is_held_whoever_leads() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let states = || documents.state.lock().versions("item").iter().map(|it| (it.id.0, it.state)).collect::<Vec<_>>();
    let mut spoilt = model("item");
    spoil(&mut spoilt);
    place.bring(&[0, 1]);
    place.tell(at(1, 2), true);
    let mut worker = place.worker(rows.clone(), documents.clone(), vec![model("item")]);
    place.drain(&mut worker);
    assert_eq!(states(), [(1, VersionState::Active)]);
    worker.share.declare(vec![spoilt.clone()]).unwrap();
    place.drain(&mut worker);
    let held = [(1, VersionState::Active), (2, VersionState::Building)];
    let mut workers = vec![worker];
    for id in 2..5 {
        let worker = workers.last_mut().unwrap();
        place.bring(&[id]);
        place.tell(at(1, id.unsigned_abs() + 1), true);
        place.drain(worker);
        assert_eq!(states(), held);
        worker.share.weigh_again().unwrap();
        assert!(worker.share.work().unwrap(), "who leads and is asked weighs it again");
        place.drain(worker);
        assert_eq!(states(), held);
        let active = documents.state.lock().active("item")[0].id;
        assert_eq!(documents.state.lock().contents(active).0.len() as i64, id + 1);
        assert_eq!(documents.state.lock().frontiers["shop"].position, at(1, id.unsigned_abs() + 1));
        // Each takes the lead over from the one before.
        workers.push(place.worker(rows.clone(), documents.clone(), vec![spoilt.clone()]));
    }
    let worker = workers.last_mut().unwrap();
    place.drain(worker);
    assert_eq!(states(), held);
    worker.share.declare(vec![ReadModel { dead_letters_percent_max: Some(100), ..spoilt }]).unwrap();
    place.drain(worker);
    let active = documents.state.lock().active("item")[0].id;
    assert_eq!((active.0, documents.state.lock().contents(active).0.len()), (2, 0));
}
