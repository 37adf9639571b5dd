//! Every role a process of its own, over a real Kafka and a real MongoDB: whatever is killed, stopped or cut off, nothing
//! is lost, nothing is applied twice, and no document's stamp ever goes backwards.
//!
//! `HEADWATER_SEED` replays the choices of a run, `HEADWATER_CHAOS_SECONDS` makes it longer (600 is the long form).

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_tests::{Cluster, Kafka, Process, World, get, get_with, python, succeeded, wait_until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::from_environment;
use crate::shop::{self, Workload};
use crate::traffic::Traffic;

const CHAOS_SECONDS: u64 = 120;
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const CONTACT_CARD: &str = "
model: contact_card
version: 1
root: { table: crm.contacts, key: id }
fields: { id: id, phone: phone, n: n }
indexes: [phone, n]
";

/// The shop, and a second source with a model of its own.
pub(crate) fn world() -> World {
    let world = shop::world();
    world.postgres.psql("create database crm");
    world.postgres.psql_in(
        "crm",
        "create table contacts (id int primary key, phone text, n bigint not null default 0);
         insert into contacts select n, '+49 ' || n from generate_series(1, 200) n",
    );
    world.write_source("crm", "crm", &["contacts"]);
    world.write_model("contact_card", CONTACT_CARD);
    world
}

/// The processes: two connectors, three projectors, two servers.
pub(crate) struct Fleet {
    pub(crate) processes: Vec<Process>,
}

/// Three projectors, each with a model of its own.
const PROJECTORS: [(&str, &[&str]); 3] = [
    ("project-account", &["project", "--model", "customer_account"]),
    ("project-invoice", &["project", "--model", "invoice"]),
    ("project-contact", &["project", "--model", "contact_card"]),
];

impl Fleet {
    pub(crate) fn start(world: &World, settings: &str, projectors: [(&str, &[&str]); 3]) -> Self {
        let others: [(&str, &[&str]); 4] = [
            ("connect-billing", &["connect", "--source", "billing"]),
            ("connect-crm", &["connect", "--source", "crm"]),
            ("serve-1", &["serve"]),
            ("serve-2", &["serve"]),
        ];
        let roles = others.into_iter().chain(projectors);
        let mut processes: Vec<Process> =
            roles.map(|(name, arguments)| Process::new(world, name, arguments, settings)).collect();
        processes.iter_mut().for_each(|process| process.start(world));
        Self { processes }
    }

    pub(crate) fn wait_ready(&mut self, world: &World) {
        self.processes.iter_mut().for_each(|process| process.wait_ready(world, PATIENCE));
    }

    pub(crate) fn named(&mut self, name: &str) -> &mut Process {
        self.processes.iter_mut().find(|process| process.name == name).expect("it is one of the roles")
    }

    /// Nothing ended by itself.
    pub(crate) fn assert_alive(&mut self, world: &World) {
        for process in &mut self.processes {
            if let Some(status) = process.running().ended() {
                panic!("{} ended by itself with {status}:\n{}", process.name, process.log_tail(world));
            }
        }
    }

    pub(crate) fn verify(&mut self, world: &World) {
        let server = self.named("serve-1");
        let (api, admin) = (server.url(""), server.admin_url(""));
        let arguments = ["verify", "--api", &api, "--admin", &admin, "--wait", "240"];
        let found = world.cli(&arguments);
        if found.status.success() {
            return;
        }
        // What helps to find out why.
        let told: Vec<String> = self.processes.iter().map(|process| process.account(world)).collect();
        std::thread::sleep(Duration::from_secs(10));
        let later = world.cli(&arguments);
        let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
        let (first, second) = (said(&found), said(&later));
        let complaint = String::from_utf8_lossy(&found.stderr).into_owned();
        panic!("verify: {first}{complaint}\nten seconds later: {second}\n{}", told.join("\n"));
    }
}

/// Kills, restarts, freezes and doubles what runs, for a while; then everything must be as the sources say.
fn chaos(seconds: u64) {
    let seed = from_environment("HEADWATER_SEED").unwrap_or_else(rand::random);
    println!("HEADWATER_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let world = world();
    let mut cluster = Cluster::start();
    let settings = cluster.settings("embedded");
    let mut fleet = Fleet::start(&world, &settings, PROJECTORS);
    fleet.wait_ready(&world);

    let traffic = Traffic::start(&world, &mut fleet, seed);

    let mut done: HashMap<&str, u32> = HashMap::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(random.random_range(500..4_000)));
        let count = fleet.processes.len();
        // The rare ones come first, so that a short run has all of them.
        let what = match round {
            0 => 10,
            1 => 11,
            2 => 12,
            _ => random.random_range(0..13),
        };
        round += 1;
        match what {
            0..=7 => {
                let process = &mut fleet.processes[random.random_range(0..count)];
                process.kill();
                std::thread::sleep(Duration::from_millis(random.random_range(0..1_500)));
                process.start(&world);
                *done.entry("kill").or_default() += 1;
            }
            8..=9 => {
                // Frozen for longer than others wait for it, then it goes on as if nothing had been.
                let process = &mut fleet.processes[random.random_range(0..count)];
                process.running().signal(libc::SIGSTOP);
                std::thread::sleep(Duration::from_millis(random.random_range(1_000..6_000)));
                process.running().signal(libc::SIGCONT);
                *done.entry("freeze").or_default() += 1;
            }
            10 => {
                zombie(&world, &settings, &mut fleet, &mut random);
                *done.entry("zombie").or_default() += 1;
            }
            11 => {
                cluster.kafka.kill();
                std::thread::sleep(Duration::from_millis(random.random_range(0..2_000)));
                cluster.kafka.resume();
                *done.entry("broker").or_default() += 1;
            }
            _ => {
                cluster.mongo.kill();
                std::thread::sleep(Duration::from_millis(random.random_range(0..2_000)));
                cluster.mongo.resume();
                *done.entry("document store").or_default() += 1;
            }
        }
        fleet.assert_alive(&world);
    }
    println!("{done:?}");
    let (transactions, rounds, readers) = traffic.end_writing();
    fleet.wait_ready(&world);
    fleet.verify(&world);
    let reads = readers.end();
    println!("{transactions} transactions, {rounds} rounds of contacts, {reads} reads");
    assert!(transactions > 100 && rounds > 100 && reads > 100, "the test did too little to mean anything");
}

/// What a connector says that was shut out.
const TAKEN_OVER: &str = "was taken over by another process; this one must stop writing";

/// Freezes a connector, as whatever stops a process for longer than others wait for it, and starts `second` for its source.
fn take_over(world: &World, source: &str, first: &mut Process, second: &mut Process) {
    first.running().signal(libc::SIGSTOP);
    // The database keeps the slot for the frozen one until it misses its answers: as an operator would, it is cut off.
    let cut = format!(
        "select pg_terminate_backend(active_pid) from pg_replication_slots where active and database = '{source}'"
    );
    world.postgres.psql(&cut);
    second.start(world);
    second.wait_ready(world, PATIENCE);
}

/// A connector is frozen, a second one takes its source over, and the first awakes: one of the two must end, shut out, and
/// the other have the source. Which one is between them, since the first may have been about to open its source.
fn zombie(world: &World, settings: &str, fleet: &mut Fleet, random: &mut SmallRng) {
    let source = ["billing", "crm"][random.random_range(0..2)];
    let first = fleet.named(&format!("connect-{source}"));
    let mut second = Process::new(world, "connect-second", &["connect", "--source", source], settings);
    take_over(world, source, first, &mut second);
    first.running().signal(libc::SIGCONT);
    let is_first = wait_until("one of two connectors of a source to end", PATIENCE, || {
        match (first.running().ended(), second.running().ended()) {
            (None, None) => Err(format!("{}\n{}", first.account(world), second.account(world))),
            (ended, _) => Ok(ended.is_some()),
        }
    });
    let (lost, kept) = if is_first { (&*first, &mut second) } else { (&second, &mut *first) };
    assert!(lost.log_tail(world).contains(TAKEN_OVER), "{}", lost.account(world));
    kept.wait_ready(world, PATIENCE);
    second.kill();
    first.kill();
    first.start(world);
}

/// A connector awakes to a change that was on its way to it, and that its successor has written by then: it ends, shut out,
/// and the log has every change once, in its order. Whether it meets its broken connection or a refused append first is left
/// open; that Kafka refuses what a zombie has in flight is tested beside the log.
#[test]
fn a_zombie_writes_nothing_behind_its_successor() {
    let world = world();
    for other in ["connectors/billing.yaml", "models/customer_account.yaml", "models/invoice.yaml"] {
        fs::remove_file(world.path(other)).unwrap();
    }
    let cluster = Cluster::start();
    let settings = cluster.settings("embedded");
    let connect = |name: &str| Process::new(&world, name, &["connect", "--source", "crm"], &settings);
    let (mut first, mut second) = (connect("connect-first"), connect("connect-second"));
    let others = [("project", "project"), ("serve-1", "serve")];
    let mut fleet =
        Fleet { processes: others.map(|(name, role)| Process::new(&world, name, &[role], &settings)).into() };
    first.start(&world);
    fleet.processes.iter_mut().for_each(|process| process.start(&world));
    first.wait_ready(&world, PATIENCE);
    fleet.wait_ready(&world);

    let url = fleet.named("serve-1").url("/v1/contact_card/1");
    let mut written = 0;
    let mut change = || {
        world.postgres.psql_in("crm", "update contacts set n = n + 1 where id = 1");
        written += 1;
        written
    };
    let is_captured = |n: u64| {
        wait_until(&format!("change {n} to be in the document"), PATIENCE, || {
            let answer = get(&url)?;
            if answer.status == 200 && answer.json()["n"] == n { Ok(()) } else { Err(answer.body) }
        });
    };
    is_captured(change());

    first.running().signal(libc::SIGSTOP);
    let unwritten = change();
    let end = world.postgres.psql("select pg_current_wal_flush_lsn()");
    wait_until("the change to be on its way to the frozen one", PATIENCE, || {
        let sent = world.postgres.psql(&format!("select sent_lsn, sent_lsn >= '{end}' from pg_stat_replication"));
        if sent.ends_with('t') { Ok(()) } else { Err(sent) }
    });
    take_over(&world, "crm", &mut first, &mut second);
    is_captured(unwritten);
    first.running().signal(libc::SIGCONT);
    let status = wait_until("the zombie to end", PATIENCE, || {
        change();
        first.running().ended().ok_or_else(|| first.account(&world))
    });
    assert_eq!(status.code(), Some(1), "{}", first.log_tail(&world));
    assert!(first.log_tail(&world).contains(TAKEN_OVER), "{}", first.log_tail(&world));
    let last = change();
    is_captured(last);
    second.wait_ready(&world, PATIENCE);
    fleet.verify(&world);
    let found = counters(&cluster.kafka, "headwater.crm.public.contacts");
    assert_eq!(found, (0..=last).collect::<Vec<u64>>(), "{}", first.log(&world));
    assert!(second.running().stop().success(), "{}", second.log_tail(&world));
}

/// The counters of the first contact in the order of the log, as an independent client sees them.
fn counters(kafka: &Kafka, topic: &str) -> Vec<u64> {
    const SCRIPT: &str = r#"
import json, sys
from confluent_kafka import Consumer, TopicPartition, KafkaError
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "other-eyes", "enable.auto.commit": False,
                     "enable.partition.eof": True, "isolation.level": "read_committed"})
partitions = consumer.list_topics(sys.argv[2], 20).topics[sys.argv[2]].partitions
consumer.assign([TopicPartition(sys.argv[2], partition, 0) for partition in partitions])
ends = 0
while ends < len(partitions):
    message = consumer.poll(20)
    if message is None: sys.exit("no answer")
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF: sys.exit(str(message.error()))
        ends += 1
        continue
    row = json.loads(message.value() or b"{}").get("after") or {}
    if row.get("id") == 1: print(row["n"])
consumer.close()
"#;
    let output = Command::new(python()).args(["-c", SCRIPT, &kafka.bootstrap(), topic]).output().unwrap();
    succeeded("an independent client", &output);
    String::from_utf8(output.stdout).unwrap().lines().map(|n| n.parse().unwrap()).collect()
}

#[test]
fn processes_killed_at_any_moment_lose_nothing() {
    chaos(from_environment("HEADWATER_CHAOS_SECONDS").unwrap_or(CHAOS_SECONDS));
}

/// Everything in one process over both engines, and each engine away for a while: no crash, bounded memory, the status
/// tells, and it catches up by itself.
#[test]
fn engines_that_are_away_are_waited_for() {
    let away = Duration::from_secs(from_environment("HEADWATER_AWAY_SECONDS").unwrap_or(15));
    let world = shop::world();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    let mut cluster = Cluster::start();
    let mut process = Process::new(&world, "all", &["run"], &cluster.settings("embedded"));
    process.start(&world);
    process.wait_ready(&world, PATIENCE);
    let workload = Workload::start(&world, 7);
    std::thread::sleep(Duration::from_secs(2));

    let before = process.memory_mib();
    cluster.kafka.kill();
    std::thread::sleep(away);
    tells(&process, "Kafka");
    // Nothing is captured or projected, and readers have what there is all the while: they need not go elsewhere.
    let (ready, read) = (process.admin("/readyz").unwrap(), get(&process.url("/v1/customer_account/1")).unwrap());
    assert_eq!((ready.status, read.status), (200, 200), "{} {}", ready.body, read.body);
    cluster.kafka.resume();
    follows(&process);

    cluster.mongo.kill();
    std::thread::sleep(away);
    tells(&process, "mongodb://");
    // Whoever balances the load is to send readers elsewhere.
    wait_until("the process to be no longer ready", PATIENCE, || {
        let answer = process.admin("/readyz")?;
        if answer.status == 503 && answer.body.contains("document store") { Ok(()) } else { Err(answer.body) }
    });
    cluster.mongo.resume();
    follows(&process);
    assert_eq!(process.admin("/readyz").unwrap().status, 200);

    workload.finish();
    let (api, admin) = (process.url(""), process.admin_url(""));
    world.verify_with(&["--api", &api, "--admin", &admin, "--wait", "120"]);
    let after = process.memory_mib();
    assert!(after < before + 300, "memory grew from {before} to {after} MiB");
    assert!(process.running().ended().is_none());
    assert!(process.running().stop().success(), "{}", process.log_tail(&world));
}

/// Each role says by its probe which engine it lacks and why, and is ready again by itself once that is back.
#[test]
fn roles_are_ready_while_their_engines_answer() {
    const WITHIN: Duration = Duration::from_secs(40);
    let world = shop::world();
    let mut cluster = Cluster::start();
    let settings = cluster.settings("embedded");
    let roles = ["connect", "project", "serve"];
    let mut fleet =
        Fleet { processes: roles.map(|role| Process::new(&world, role, &[role], &settings)).into_iter().collect() };
    fleet.processes.iter_mut().for_each(|process| process.start(&world));
    fleet.wait_ready(&world);
    let lacks = |fleet: &Fleet, role: &str, words: &[&str]| {
        let process = fleet.processes.iter().find(|process| process.name == role).unwrap();
        wait_until(&format!("{role} to lack {words:?}"), WITHIN, || {
            let answer = process.admin("/readyz")?;
            let is_told = answer.status == 503 && words.iter().all(|word| answer.body.contains(word));
            if is_told { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
        });
    };
    let is_ready = |fleet: &Fleet, role: &str| {
        let process = fleet.processes.iter().find(|process| process.name == role).unwrap();
        let answer = process.admin("/readyz").unwrap();
        assert_eq!(answer.status, 200, "{role}: {}", answer.body);
    };

    let kafka = cluster.kafka.bootstrap();
    let check = || {
        let output = world.command_with("connect.yaml", &["check", "--json"]).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |engine: &str| {
            let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["source"] == engine);
            found.map(|found| (found["severity"] == "ok", found["problem"].to_string())).unwrap()
        };
        (output.status.success(), of("broker"), of("store"))
    };
    let (succeeded, broker, store) = check();
    assert!(succeeded && broker.0 && store.0, "{broker:?} {store:?}");
    cluster.kafka.kill();
    let (succeeded, broker, store) = check();
    assert!(!succeeded && !broker.0 && store.0, "{broker:?} {store:?}");
    assert!(broker.1.contains(&kafka) && broker.1.contains("is it running"), "{broker:?}");
    lacks(&fleet, "connect", &["Kafka", &kafka]);
    lacks(&fleet, "project", &["Kafka", &kafka]);
    is_ready(&fleet, "serve");
    cluster.kafka.resume();
    fleet.wait_ready(&world);

    cluster.mongo.kill();
    lacks(&fleet, "project", &["MongoDB", "documents stay as they are"]);
    lacks(&fleet, "serve", &["MongoDB", "answers may be as old"]);
    is_ready(&fleet, "connect");
    cluster.mongo.resume();
    fleet.wait_ready(&world);
}

/// Whoever looks after processes must not take one that waits for an engine for a dead one, nor for a ready one.
#[test]
fn a_start_that_waits_for_an_engine_lives_and_says_so() {
    let world = shop::world();
    let mut cluster = Cluster::start();
    let settings = cluster.settings("embedded");
    let (kafka, mongo) = (cluster.kafka.bootstrap(), format!("127.0.0.1:{}", cluster.mongo.port()));
    cluster.kafka.kill();
    cluster.mongo.kill();
    let mut process = Process::new(&world, "all", &["run"], &settings);
    process.start(&world);
    waits_for(&process, &kafka);
    let admin = process.admin_url("");
    let output = world.cli(&["status", "--admin", &admin]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "it is not ready: {output:?}");
    assert!([&*admin, "still starting", &*kafka].iter().all(|word| text.contains(word)), "{text}");
    let metrics = process.admin("/metrics").unwrap();
    assert!(metrics.status == 200 && metrics.body.contains("\nheadwater_ready 0\n"), "{metrics:?}");
    // Whoever changes a model file tells everybody, whether they have started or not.
    process.running().signal(libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(500));
    assert!(process.running().ended().is_none(), "{}", process.log_tail(&world));
    // It can be told to stop meanwhile, and starts again where it was.
    assert!(process.running().stop().success(), "{}", process.log_tail(&world));
    process.start(&world);
    waits_for(&process, &kafka);
    cluster.kafka.resume();
    waits_for(&process, &mongo);
    cluster.mongo.resume();
    process.wait_ready(&world, PATIENCE);
    for path in ["/livez", "/startupz", "/metrics", "/status"] {
        assert_eq!(process.admin(path).unwrap().status, 200, "{path}");
    }
    let (api, admin) = (process.url(""), process.admin_url(""));
    world.verify_with(&["--api", &api, "--admin", &admin, "--wait", "120"]);
    assert!(process.running().stop().success(), "{}", process.log_tail(&world));
}

/// Waits until probes and refusals name the server that a start waits for; the process lives all the while.
fn waits_for(process: &Process, server: &str) {
    wait_until(&format!("a start that waits for {server}"), PATIENCE, || {
        let started = process.admin("/startupz")?;
        assert_eq!(process.admin("/livez")?.status, 200);
        let is_told = started.status == 503 && started.body.contains(server);
        if is_told { Ok(()) } else { Err(format!("{} {}", started.status, started.body)) }
    });
    assert_eq!(process.admin("/readyz").unwrap().status, 503);
    let refused = process.admin("/status").unwrap();
    assert_eq!((refused.status, &refused.json()["code"]), (503, &serde_json::json!("starting")), "{}", refused.body);
    assert!(refused.body.contains(server), "{}", refused.body);
}

/// Waits until the status names who is away: whoever was about to use it gives it some time first.
fn tells(process: &Process, name: &str) {
    wait_until("the status to tell who is away", PATIENCE, || {
        let status = process.admin("/status")?.json();
        let errors = [&status["sources"][0]["phase"]["error"], &status["projector"]["last_error"]];
        let told = errors.iter().any(|error| error.as_str().is_some_and(|error| error.contains(name)));
        if told { Ok(()) } else { Err(format!("{status:#}")) }
    });
}

/// Waits until documents have what happens from now on, and the status tells of no error.
fn follows(process: &Process) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    wait_until("documents to follow the source again", PATIENCE, || {
        let status = process.admin("/status")?.json();
        let follows = status["sources"][0]["phase"]["name"] == "streaming"
            && status["projector"]["last_error"].is_null()
            && status["sources"][0]["frontier"]["at_micros"].as_u64().is_some_and(|at| u128::from(at) > now);
        if follows { Ok(()) } else { Err(format!("{status:#}")) }
    });
}

/// What is asked of a role that cannot be had is refused with the remedy, before anything starts.
#[test]
fn roles_need_engines_that_others_reach() {
    let world = shop::world();
    for (arguments, said) in [
        (["connect", "--source", "billing"], "configure `broker.kafka`"),
        (["project", "--model", "invoice"], "configure `broker.kafka`"),
        (["project", "--model", "invoce"], "did you mean `invoice`?"),
        (["connect", "--source", "biling"], "did you mean `billing`?"),
    ] {
        let output = world.cli(&arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    // Neither needs the password of a source that it does not reach.
    world.write_source("crm", "crm", &["contacts"]);
    let billing = fs::read_to_string(world.path("connectors/billing.yaml")).unwrap();
    fs::write(world.path("connectors/billing.yaml"), billing.replace("HEADWATER_TEST_PASSWORD", "HEADWATER_NOT_SET"))
        .unwrap();
    for (arguments, said) in [
        (&["serve"][..], "configure `store.mongodb`"),
        (&["project"], "configure `broker.kafka`"),
        (&["connect", "--source", "crm"], "configure `broker.kafka`"),
        (&["connect"], "`HEADWATER_NOT_SET` is not set"),
        (&["run"], "`HEADWATER_NOT_SET` is not set"),
    ] {
        let output = world.cli(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{arguments:?}: {text}");
    }
}

/// The replay from a topic's offsets over Kafka, beside the version that serves; `status` of all processes as one.
#[test]
fn a_model_is_replayed_from_kafka() {
    let world = shop::world();
    let cluster = Cluster::start();
    let settings = cluster.settings("embedded");
    let mut fleet = Fleet {
        processes: vec![
            Process::new(&world, "connect", &["connect"], &settings),
            Process::new(&world, "project", &["project"], &settings),
            Process::new(&world, "serve", &["serve"], &settings),
        ],
    };
    fleet.processes.iter_mut().for_each(|process| process.start(&world));
    fleet.wait_ready(&world);
    let workload = Workload::start(&world, 11);
    std::thread::sleep(Duration::from_secs(2));
    let projector = fleet.named("project").admin_url("");
    for from in ["earliest", "headwater.billing.public.invoices=3"] {
        let output =
            world.cli(&["replay", "--model", "customer_account", "--from", from, "--json", "--admin", &projector]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("\"done\":true"), "{text}");
    }
    workload.finish();
    let admins: Vec<String> = fleet.processes.iter().map(|process| process.admin_url("")).collect();
    // One that is away keeps nobody from seeing the others.
    let output = world.cli(&["status", "--admin", &format!("http://127.0.0.1:1,{}", admins.join(","))]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let told = ["http://127.0.0.1:1: no Headwater answers", "billing", "customer_account"];
    assert!(told.iter().all(|word| text.contains(word)), "{text}");
    let status: serde_json::Value = wait_until("no lag", PATIENCE, || {
        let output = world.cli(&["status", "--json", "--admin", &admins.join(",")]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let late = status["consumers"].as_array().unwrap().iter().any(|consumer| consumer["lag"] != 0);
        if late { Err(status["consumers"].to_string()) } else { Ok(status) }
    });
    assert_eq!(status["roles"], serde_json::json!(["connect", "project", "serve"]));
    assert_eq!(status["sources"][0]["phase"]["name"], "streaming", "{status:#}");
    assert!(status["sources"][0]["frontier"]["position"].is_string(), "{status:#}");
    assert_eq!(status["models"].as_array().unwrap().len(), 2, "{status:#}");
    let server = fleet.named("serve");
    let (api, admin) = (server.url(""), server.admin_url(""));
    world.verify_with(&["--api", &api, "--admin", &admin]);
    for process in &mut fleet.processes {
        assert!(process.running().stop().success(), "{}:\n{}", process.name, process.log_tail(&world));
    }
}

/// A model's file goes, and its projector with it: nobody is left to retire it. That is told with the remedy, and the remedy
/// ends it.
#[test]
fn a_model_that_lost_its_projector_is_told_and_retired() {
    let world = shop::world();
    world.postgres.psql(
        "insert into customers values (1, 'Ada', null, 1, 0);
         insert into invoices values (1, 1, 1, 'open', 5, '2026-01-01')",
    );
    let cluster = Cluster::start();
    let settings = cluster.settings("embedded");
    let roles: [(&str, &[&str]); 4] = [
        ("connect", &["connect"]),
        ("project-account", &["project", "--model", "customer_account"]),
        ("project-invoice", &["project", "--model", "invoice"]),
        ("serve", &["serve"]),
    ];
    let mut fleet =
        Fleet { processes: roles.map(|(name, arguments)| Process::new(&world, name, arguments, &settings)).into() };
    fleet.processes.iter_mut().for_each(|process| process.start(&world));
    fleet.wait_ready(&world);
    let (api, admin) = (fleet.named("serve").url(""), fleet.named("serve").admin_url(""));
    let account = format!("{api}/v1/customer_account/1");
    let invoice = || get(&format!("{api}/v1/invoice/1~1")).unwrap().status;
    assert_eq!(invoice(), 200);

    fs::remove_file(world.path("models/invoice.yaml")).unwrap();
    assert!(fleet.named("project-invoice").running().stop().success());
    fleet.named("serve").running().signal(libc::SIGHUP);
    let status = || String::from_utf8_lossy(&world.cli(&["status", "--admin", &admin]).stdout).into_owned();
    wait_until("the status to tell the remedy", PATIENCE, || match status() {
        text if text.contains("headwater retire --model invoice") => Ok(()),
        text => Err(text),
    });
    assert!(fleet.named("serve").log(&world).contains("headwater retire --model invoice"), "the log tells it, too");

    // It is served as it was, and what readers of the other model are promised stays where its projector ended.
    let change = || world.postgres.psql("update customers set n = n + 1 where id = 1");
    change();
    let token = format!("billing={}", world.postgres.psql("select pg_current_wal_insert_lsn()"));
    wait_until("the other model to follow", PATIENCE, || {
        let answer = get(&account)?;
        if answer.status == 200 && answer.json()["n"] == 1 { Ok(()) } else { Err(answer.body) }
    });
    change();
    let promised = || get_with(&account, &[("consistency-token", &token)]).unwrap().status;
    assert_eq!((invoice(), promised()), (200, 503));

    let retire = |model: &str| world.command_with("serve.yaml", &["retire", "--model", model]).output().unwrap();
    let refused = retire("customer_account");
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && complaint.contains("customer_account.yaml"), "{complaint}");
    let retired = retire("invoice");
    assert!(retired.status.success(), "{retired:?}");
    wait_until("the model to be gone, and the other to be promised", PATIENCE, || match (invoice(), promised()) {
        (404, 200) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!status().contains("headwater retire"), "{}", status());
    assert_eq!(retire("invoice").status.code(), Some(1), "there is nothing left to retire");
    // Where the files cannot be listed, it is not known which models they declare.
    let settings = fs::read_to_string(world.path("serve.yaml")).unwrap();
    fs::write(world.path("serve.yaml"), settings.replace("models/*.yaml", "nowhere/*.yaml")).unwrap();
    let refused = retire("customer_account");
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && complaint.contains("nowhere/*.yaml"), "{complaint}");
    assert_eq!(get(&account).unwrap().status, 200, "it is served on");
    fs::write(world.path("serve.yaml"), settings).unwrap();
    // The last one goes, too: then the pattern of the models names no file, and whoever retires needs no source.
    fs::remove_file(world.path("models/customer_account.yaml")).unwrap();
    fs::write(world.path("connectors/billing.yaml"), "source: billing\n").unwrap();
    let retired = retire("customer_account");
    assert!(retired.status.success(), "{retired:?}");
    for process in fleet.processes.iter_mut().filter(|process| process.name != "project-invoice") {
        assert!(process.running().stop().success(), "{}:\n{}", process.name, process.log_tail(&world));
    }
}
