//! The log refuses the topic of a version.

use std::time::{Duration, Instant};

use headwater_store::{VersionId, VersionState};

use crate::engine::{Engine, Kind};
use crate::items::at;
use crate::place::{Place, model};

/// Others are followed meanwhile, whoever leads, and it is one topic that somebody is asked to make.
#[test]
fn a_version_waits_for_its_topic_and_holds_up_nothing() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let other = || documents.state.lock().versions("other").iter().map(|it| (it.id.0, it.state)).collect::<Vec<_>>();
    let frontier = || documents.state.lock().frontiers["shop"].position;
    place.log.refuse(Some("dirty.other"));
    place.bring(&[0]);
    place.tell(at(1, 1), true);
    let mut workers = Vec::new();
    for id in 1..4 {
        // Each takes the lead over from the one before.
        let mut worker = place.worker(rows.clone(), documents.clone(), vec![model("other"), model("item")]);
        place.drain(&mut worker);
        place.bring(&[id]);
        place.tell(at(1, id.unsigned_abs() + 1), true);
        place.drain(&mut worker);
        assert_eq!(frontier(), at(1, id.unsigned_abs() + 1));
        let active = documents.state.lock().active("item")[0].id;
        assert_eq!(documents.state.lock().contents(active).0.len() as i64, id + 1);
        assert_eq!(other(), [(1, VersionState::Building)]);
        workers.push(worker);
    }
    place.log.refuse(None);
    let began = Instant::now();
    while other() != [(1, VersionState::Active)] {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", other());
        std::thread::sleep(Duration::from_millis(50));
        place.drain(workers.last_mut().unwrap());
    }
    assert_eq!(documents.state.lock().contents(VersionId(1)).0.len(), 4);
}
