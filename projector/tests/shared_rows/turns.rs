//! A model that has much to build, and another that has little.

use headwater_store::VersionId;

use crate::engine::{Engine, Kind};
use crate::items::at;
use crate::place::{Place, model};
use crate::worker::Step;

/// Items that there are from the beginning: what a new version has to build.
const ITEMS: i64 = 300;

#[test]
fn a_long_backlog_of_one_model_holds_up_no_other() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let built = |model: &str| {
        let state = documents.state.lock();
        let ids: Vec<VersionId> = state.versions(model).iter().map(|it| it.id).collect();
        ids.iter().map(|id| state.contents(*id).0.len()).sum::<usize>()
    };
    place.bring(&(0..ITEMS).collect::<Vec<_>>());
    place.tell(at(1, ITEMS.unsigned_abs()), true);
    let mut worker = place.worker(rows, documents.clone(), vec![model("small")]);
    place.drain(&mut worker);
    assert_eq!(built("small"), ITEMS as usize);

    let builds = |step| matches!(step, Step::Read | Step::Write);
    worker.share.declare(vec![model("small"), model("large")]).unwrap();
    place.work(&mut worker, |step| !builds(step));
    assert_eq!(place.built(&worker, "large"), (0, ITEMS as u64), "all of it was taken, and waits");
    // A change comes while the other's roots are being built.
    place.chunk(&mut worker);
    let before = built("large");
    assert!(0 < before && before < 10, "{before}");
    place.bring(&[ITEMS]);
    place.work(&mut worker, |step| !builds(step));
    (0..2).for_each(|_| place.chunk(&mut worker));
    assert_eq!(built("small"), ITEMS as usize + 1, "of the other there are {} by now", built("large"));
    assert!(built("large") < 20, "{}", built("large"));
    place.work(&mut worker, |step| step == Step::Commit);
    let (next, end) = place.built(&worker, "small");
    assert_eq!((next, place.built(&worker, "large").0), (end, 0), "what is built is committed, and nothing else");

    // Whoever comes last has a turn, too.
    worker.share.declare(["small", "large", "late"].map(model).into()).unwrap();
    place.work(&mut worker, |step| !builds(step));
    (0..2).for_each(|_| place.chunk(&mut worker));
    assert!(built("late") > 0 && built("large") < 40, "{} {}", built("late"), built("large"));

    place.drain(&mut worker);
    assert_eq!((built("large"), built("late")), (ITEMS as usize + 1, ITEMS as usize + 1));
    let (next, end) = place.built(&worker, "large");
    assert_eq!(next, end);
}
