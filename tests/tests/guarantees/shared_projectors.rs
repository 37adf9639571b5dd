//! Three processes share the projection of all models: rows in MongoDB, partitions given by Kafka's groups. Whoever is
//! killed, asleep while others take its partitions, or cut off from an engine, no document is wrong in the end, and none
//! ever goes backwards.
//!
//! `HEADWATER_SEED` replays the choices of a run, `HEADWATER_CHAOS_SECONDS` makes it longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_tests::{Cluster, Kafka, Process, World, get, wait_until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::distributed::{CONTACT_CARD, Fleet, PATIENCE, world};
use crate::from_environment;
use crate::shop;
use crate::traffic::Traffic;

const CHAOS_SECONDS: u64 = 20;

const NAMES: [&str; 3] = ["project-1", "project-2", "project-3"];

const PROJECT: &[&str] = &["project"];

/// Kafka gives the partitions of one that does not answer to others after this time.
const SESSION: Duration = Duration::from_secs(6);

/// The ends of the names of the groups that share them.
const STAGES: [&str; 2] = ["apply", "build"];

/// How often partitions of each stage came to a process, or went.
fn rebalances(process: &Process) -> BTreeMap<&'static str, u64> {
    let metrics = process.admin("/metrics").map_or_else(|_| String::new(), |answer| answer.body);
    let count = |stage| {
        let name = format!("headwater_log_rebalances_total{{group=\"headwater.projector.{stage}\"}} ");
        let count =
            metrics.lines().find_map(|line| line.strip_prefix(&*name)).map_or(0, |count| count.parse().unwrap());
        (stage, count)
    };
    STAGES.map(count).into()
}

fn settings(cluster: &Cluster) -> String {
    let session = format!("replication: 1, settings: {{ session.timeout.ms: '{}' }}", SESSION.as_millis());
    let settings = cluster.settings("mongodb");
    assert!(settings.contains("replication: 1"));
    settings.replace("replication: 1", &session)
}

#[test]
fn projectors_that_share_their_rows_lose_nothing() {
    let seed = from_environment("HEADWATER_SEED").unwrap_or_else(rand::random);
    println!("HEADWATER_SEED={seed}");
    let began = Instant::now();
    let reached = |what: &str| println!("{what} after {:.1?}", began.elapsed());
    let mut random = SmallRng::seed_from_u64(seed);
    let world = world();
    let mut cluster = Cluster::start();
    let mut fleet = Fleet::start(&world, &settings(&cluster), NAMES.map(|name| (name, PROJECT)));
    fleet.wait_ready(&world);
    reached("ready");

    let traffic = Traffic::start(&world, &mut fleet, seed);

    let seconds = from_environment("HEADWATER_CHAOS_SECONDS").unwrap_or(CHAOS_SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut round, mut zombies) = (0, 0);
    while round < 4 || Instant::now() < until {
        let name = NAMES[random.random_range(0..3)];
        let pause = Duration::from_millis(random.random_range(0..1_500));
        match if round < 4 { round } else { random.random_range(0..7) } {
            // A zombie: others have its partitions by the time it goes on with what it was doing.
            0 => {
                let shares = |process: &Process| rebalances(process).iter().all(|(_, count)| *count > 0);
                let process = fleet.named(name);
                wait_until("partitions of both stages", PATIENCE, || {
                    if shares(process) { Ok(()) } else { Err(process.account(&world)) }
                });
                let others = NAMES.into_iter().filter(|other| *other != name);
                let before: Vec<_> = others.map(|other| (other, rebalances(fleet.named(other)))).collect();
                fleet.named(name).running().signal(libc::SIGSTOP);
                for stage in STAGES {
                    wait_until(&format!("others to have its partitions of {stage}"), PATIENCE, || {
                        let grown =
                            before.iter().find(|(other, counts)| rebalances(fleet.named(other))[stage] > counts[stage]);
                        grown.map(|_| ()).ok_or_else(|| format!("{name} is frozen, and others had {before:?} before"))
                    });
                }
                std::thread::sleep(pause);
                fleet.named(name).running().signal(libc::SIGCONT);
                zombies += 1;
            }
            1 => {
                cluster.mongo.kill();
                std::thread::sleep(pause);
                cluster.mongo.resume();
            }
            2 => {
                cluster.kafka.kill();
                std::thread::sleep(pause);
                cluster.kafka.resume();
            }
            _ => {
                fleet.named(name).kill();
                std::thread::sleep(pause);
                fleet.named(name).start(&world);
            }
        }
        reached(&format!("trouble {round}"));
        round += 1;
        std::thread::sleep(Duration::from_millis(random.random_range(200..1_500)));
        fleet.assert_alive(&world);
    }
    let (transactions, rounds, readers) = traffic.end_writing();
    fleet.wait_ready(&world);
    reached("ready again");
    fleet.verify(&world);
    reached("verified");
    println!("{round} troubles, {zombies} of them zombies, {transactions} transactions, {rounds} rounds of contacts");
    assert!(transactions > 100 && rounds > 100, "the test did too little to mean anything");

    a_page_of_one_server_goes_on_at_the_other(&mut fleet);
    consumers_of_both_stages_are_told(&fleet);
    reached("consumers told");
    a_changed_definition_is_built_beside_the_old_one(&world, &mut fleet);
    reached("new version serves");
    a_replay_may_be_asked_of_any(&world, &mut fleet);
    reached("replayed");
    fleet.verify(&world);
    reached("verified");
    let reads = readers.end();
    assert!(reads > 100, "{reads} reads are too few");
    for process in &mut fleet.processes {
        assert!(process.running().stop().success(), "{}:\n{}", process.name, process.log_tail(&world));
    }
}

/// Behind one address each request may come to another server.
fn a_page_of_one_server_goes_on_at_the_other(fleet: &mut Fleet) {
    let mut page = |server: &str, path: &str| {
        let answer = get(&fleet.named(server).url(path)).unwrap();
        assert_eq!(answer.status, 200, "{server}: {}", answer.body);
        answer.json()
    };
    let first = page("serve-1", "/v1/contact_card?sort=phone&limit=10");
    let next = first["page"]["next"].as_str().expect("there are more than ten contacts");
    let second = page("serve-2", &format!("/v1/contact_card?sort=phone&limit=10&after={next}"));
    let (last, next) = (first["data"][9]["phone"].as_str(), second["data"][0]["phone"].as_str());
    assert!(last.is_some() && last < next, "{next:?} comes after {last:?}");
}

/// Each partition of a source, and of what is to be built, is somebody's, and nobody lags in the end.
fn consumers_of_both_stages_are_told(fleet: &Fleet) {
    wait_until("every partition to be read to its end", PATIENCE, || {
        let mut lags: BTreeMap<String, u64> = BTreeMap::new();
        for process in fleet.processes.iter().filter(|process| NAMES.contains(&process.name.as_str())) {
            let status: Value = process.admin("/status")?.json();
            for consumer in status["consumers"].as_array().ok_or("no consumers")? {
                let place = format!("{}-{}", consumer["topic"].as_str().unwrap(), consumer["partition"]);
                lags.insert(place, consumer["lag"].as_u64().unwrap());
            }
        }
        let of = |part: &str| lags.keys().filter(|place| place.contains(part)).count();
        // Tables of both sources, and three models with a topic each.
        let (tables, dirty) = (of("headwater.billing.") + of("headwater.crm."), of(".dirty."));
        let whole = tables >= 5 && tables % 4 == 0 && dirty == 12;
        if whole && lags.values().all(|lag| *lag == 0) { Ok(()) } else { Err(format!("{lags:?}")) }
    });
}

fn a_changed_definition_is_built_beside_the_old_one(world: &World, fleet: &mut Fleet) {
    let changed = CONTACT_CARD.replace("n: n }", "n: n, display: { concat: [id, phone] } }");
    assert_ne!(changed, CONTACT_CARD);
    world.write_model("contact_card", &changed);
    for process in fleet.processes.iter_mut().filter(|process| !process.name.starts_with("connect")) {
        process.running().signal(libc::SIGHUP);
    }
    let server = fleet.named("serve-1").url("/v1/contact_card/1");
    wait_until("the new version", PATIENCE, || {
        let answer = get(&server)?;
        assert_eq!(answer.status, 200, "a reader saw the switch: {}", answer.body);
        if answer.json()["display"] == "1+49 1" { Ok(()) } else { Err(answer.body) }
    });
}

/// Any of the processes begins a rebuild, also one that does not lead, or while nobody does.
fn a_replay_may_be_asked_of_any(world: &World, fleet: &mut Fleet) {
    for name in &NAMES[..2] {
        let admin = fleet.named(name).admin_url("");
        let replay = |from: &str| {
            let output = world.cli(&["replay", "--model", "invoice", "--from", from, "--json", "--admin", &admin]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            (output.status.success(), text)
        };
        let (succeeded, text) = replay("3");
        assert!(!succeeded && text.contains("`earliest`"), "{text}");
        let (succeeded, text) = replay("earliest");
        assert!(succeeded && text.contains("\"done\":true"), "{text}");
    }
}

/// A retry puts documents in line and says no more than that: one that fails again is a new letter. Records are not
/// read a second time, and stay listed.
#[test]
fn a_retry_tells_what_is_queued_and_what_is_not_tried() {
    let world = shop::world_with_a_bad_tag();
    let cluster = Cluster::start();
    let mut process = Process::new(&world, "all", &["run"], &cluster.settings("mongodb"));
    process.start(&world);
    process.wait_ready(&world, PATIENCE);
    let admin = process.admin_url("");
    let said = |command: &str| {
        let output = world.cli(&["dead-letters", command, "--json", "--admin", &admin]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let last_offset = || said("list").last().and_then(|letter| letter["offset"].as_u64());
    let retry = || said("retry").pop().expect("one answer");
    let wait_calm = || {
        wait_until("everything to be read", PATIENCE, || match process.admin("/status")?.json() {
            status if status["projector"]["lag_events"] == 0 => Ok(()),
            status => Err(status.to_string()),
        });
    };

    let before = wait_until("a dead letter", PATIENCE, || last_offset().ok_or_else(|| process.account(&world)));
    let outcome = retry();
    assert!(outcome["queued"].as_u64() >= Some(1) && outcome["queued"] == outcome["retried"], "{outcome}");
    assert_eq!((&outcome["resolved"], &outcome["failed"]), (&json!(0), &json!(0)), "{outcome}");
    wait_until("a new letter", PATIENCE, || match last_offset() {
        Some(offset) if offset > before => Ok(()),
        last => Err(format!("{last:?}\n{}", process.account(&world))),
    });

    world.postgres.psql("update tags set label = '7' where id = 3");
    let document = process.url("/v1/tag/3");
    wait_until("the mended document", PATIENCE, || {
        let answer = get(&document)?;
        if answer.status == 200 && answer.json()["number"] == 7 { Ok(()) } else { Err(answer.body) }
    });
    retry();
    wait_calm();
    assert_eq!(said("list"), Vec::<Value>::new());

    // What somebody else wrote into a topic of ours.
    let mut tool = Kafka::program("org.apache.kafka.tools.ProducerPerformance");
    tool.args(["--topic", "headwater.billing.public.tags", "--throughput", "-1", "--num-records", "1"]);
    tool.args(["--record-size", "10", "--bootstrap-server", &cluster.kafka.bootstrap()]);
    let output = tool.args(["--command-property", "acks=all"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let letter = wait_until("its letter", PATIENCE, || said("list").pop().ok_or_else(|| process.account(&world)));
    assert_eq!(letter["letter"]["stage"], "decode", "{letter}");
    let outcome = retry();
    let expected = json!({
        "retried": 0, "resolved": 0, "failed": 0, "queued": 0, "skipped": 1, "skipped_records": 1,
    });
    assert_eq!(outcome, expected);
    assert_eq!(said("list"), [letter]);
    assert!(process.running().stop().success());
}
