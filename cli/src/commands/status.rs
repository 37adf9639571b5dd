//! `headwater status`: where everything stands.

use std::cmp::Ordering::Equal;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{Global, StatusArguments};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::say;
use crate::report::{GROUPS, SILENT_SECONDS, STARTING, UNREACHABLE, groups_of, items, status_text};

/// What rates are taken over when the status is shown once.
const RATE_OVER: Duration = Duration::from_millis(500);
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// A process that takes longer counts as one that does not answer: the others are to be seen.
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) fn execute(global: &Global, arguments: &StatusArguments) -> Outcome {
    let admins = match arguments.admin.as_slice() {
        [] => vec![Client::admin(None, &global.config)?],
        given => given.iter().map(|url| Client::admin(Some(url), &global.config)).collect::<Result<_, _>>()?,
    };
    let admins: Vec<Client> = admins.into_iter().map(|admin| admin.within(ANSWER_MAX)).collect();
    let mut before: Option<Value> = None;
    loop {
        let told = told_by_all(&admins);
        // Who watches waits for the first of them to come.
        if !arguments.watch
            && let Some(failure) = all_silent(&told)
        {
            return Err(failure);
        }
        let now = merged(told.into_iter().zip(&admins).map(|(told, admin)| part_of(told, admin)).collect());
        if arguments.json {
            say!("{now}");
        } else if before.is_some() {
            let clear = if arguments.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            say!("{clear}{}", status_text(&now, before.as_ref()));
        }
        let shown = arguments.json || before.is_some();
        if shown && !arguments.watch {
            return Ok(if is_well(&now) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        std::thread::sleep(if before.is_some() || arguments.json { WATCH_EVERY } else { RATE_OVER });
        before = Some(now);
    }
}

/// Whether everybody is ready, no source has stopped, and nothing is wrong with a model.
fn is_well(now: &Value) -> bool {
    let has_stopped = |source: &Value| source["phase"]["name"] == "stopped" && !source["phase"]["error"].is_null();
    now["ready"] == true
        && !items(now, "sources").any(has_stopped)
        && items(now, "models").all(|model| model["problem"].is_null())
}

/// Asks all at once, so that they tell of the same moment, and one that is silent holds up nobody.
fn told_by_all(admins: &[Client]) -> Vec<Result<Value, Failure>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = admins.iter().map(|admin| scope.spawn(|| admin.json("/status"))).collect();
        let told = asked.into_iter().map(|thread| thread.join());
        told.map(|told| told.unwrap_or_else(|_| Err(Failure::new("asking for the status broke; please report this"))))
            .collect()
    })
}

/// Why nothing can be shown: nobody answers, not even that it is starting.
fn all_silent(told: &[Result<Value, Failure>]) -> Option<Failure> {
    let silent: Vec<String> = told
        .iter()
        .map(|told| match told {
            Err(failure) if !failure.has_code("starting") => Some(failure.to_string()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    Some(Failure::new(silent.join("\n")))
}

/// What a process tells of itself. Of one that is still starting that is what it waits for, and of one that does not answer
/// why; nothing else.
fn part_of(told: Result<Value, Failure>, admin: &Client) -> Value {
    told.unwrap_or_else(|failure| {
        let name = if failure.has_code("starting") { STARTING } else { UNREACHABLE };
        json!({
            "ready": false, "roles": [], "sources": [], "models": [], "consumers": [], "projector": null,
            "dead_letters": null, name: [format!("{}: {failure}", admin.base())],
        })
    })
}

/// The status of several processes as that of one: each source as the process tells that captures it, each model as its
/// projector does, and the consumers of all.
fn merged(mut parts: Vec<Value>) -> Value {
    // Others know more than who is starting, or silent.
    parts.sort_by_key(|part| part[STARTING].is_array() || part[UNREACHABLE].is_array());
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        all["ready"] = (all["ready"] == true && part["ready"] == true).into();
        merge_list(&mut all, &part, "roles", |a, b| a == b, |_| false);
        merge_list(&mut all, &part, "sources", |a, b| a["source"] == b["source"], |it| it.get("position").is_some());
        merge_list(
            &mut all,
            &part,
            "models",
            |a, b| a["version_id"] == b["version_id"],
            |it| it.get("documents").is_some(),
        );
        for name in ["consumers", STARTING, UNREACHABLE] {
            merge_list(&mut all, &part, name, |_, _| false, |_| false);
        }
        // All servers of the same models tell the same.
        merge_list(&mut all, &part, "channel_problems", |a, b| a == b, |_| false);
        // Letters are of the log, not of a process: whoever counts them counts all. The silence of one is told.
        for name in ["dead_letters", SILENT_SECONDS] {
            all[name] = all[name].as_u64().max(part[name].as_u64()).into();
        }
        let (Some(ours), Some(theirs)) = (all["projector"].as_object_mut(), part["projector"].as_object()) else {
            if all["projector"].is_null() {
                all["projector"] = part["projector"].clone();
            }
            continue;
        };
        for (name, value) in theirs {
            let sum = ours.get(name).and_then(Value::as_u64).zip(value.as_u64()).map(|(a, b)| a + b);
            let merged = match sum {
                Some(sum) => sum.into(),
                None => ours.get(name).filter(|it| !it.is_null()).unwrap_or(value).clone(),
            };
            ours.insert(name.clone(), merged);
        }
    }
    all[GROUPS] = groups_of(&all);
    all
}

/// Adds the members of `part`; of two that are the `same` the one that `knows` more stays, with the frontier of either and
/// the worse freshness.
fn merge_list(
    all: &mut Value,
    part: &Value,
    name: &str,
    same: impl Fn(&Value, &Value) -> bool,
    knows: impl Fn(&Value) -> bool,
) {
    // Not everybody has every list.
    if part[name].is_array() && all[name].is_null() {
        all[name] = json!([]);
    }
    let Some(ours) = all[name].as_array_mut() else { return };
    for theirs in part[name].as_array().into_iter().flatten() {
        match ours.iter_mut().find(|our| same(our, theirs)) {
            None => ours.push(theirs.clone()),
            Some(our) => {
                let frontier = [&our["frontier"], &theirs["frontier"]].into_iter().find(|it| !it.is_null()).cloned();
                let freshness = staler(&our["freshness"], &theirs["freshness"]).cloned();
                if knows(theirs) {
                    *our = theirs.clone();
                }
                let kept = [("frontier", frontier), ("freshness", freshness)];
                kept.into_iter().for_each(|(name, kept)| {
                    if let Some(kept) = kept {
                        our[name] = kept;
                    }
                });
            }
        }
    }
}

/// Of the freshness of two processes, each of which built other documents of the same model, the worse.
fn staler<'v>(a: &'v Value, b: &'v Value) -> Option<&'v Value> {
    let late = |it: &Value| it["p99_seconds"].as_f64();
    [a, b].into_iter().filter(|it| late(it).is_some()).max_by(|a, b| late(a).partial_cmp(&late(b)).unwrap_or(Equal))
}

#[cfg(test)]
mod tests {
    use headwater_connectors::Phase;

    use super::*;
    use crate::client::tests::answering;

    #[test]
    fn the_parts_of_a_pipeline_are_shown_as_one() {
        let connector = json!({ "ready": true, "roles": ["connect"], "models": [], "consumers": [], "projector": null,
            "sources": [{ "source": "billing", "position": "1/2", "frontier": null }], "dead_letters": null });
        let fresh = |seconds: u64| json!({ "p50_seconds": seconds, "p99_seconds": seconds });
        let projector = |model: &str, id: u32, lag: u64| {
            json!({ "ready": true, "roles": ["project"], "dead_letters": 3,
                "sources": [{ "source": "billing", "phase": {}, "frontier": { "position": "1/1" } }],
                "models": [{ "model": model, "version_id": id, "documents": 7, "freshness": fresh(lag) },
                           { "model": "both", "version_id": 3, "documents": 7, "freshness": fresh(lag) }],
                "consumers": [{ "group": "apply", "topic": "t", "lag": lag, "lag_seconds": lag * 2 }],
                "projector": { "lag_events": lag, "last_error": null } })
        };
        let all = merged(vec![projector("a", 1, 5), connector, projector("b", 2, 6)]);
        assert_eq!(
            all["sources"],
            json!([{ "source": "billing", "position": "1/2", "frontier": { "position": "1/1" } }])
        );
        assert_eq!(all["models"].as_array().unwrap().len(), 3);
        let both = items(&all, "models").find(|model| model["model"] == "both").unwrap();
        assert_eq!(both["freshness"], fresh(6), "the worse of the two");
        assert_eq!(all["consumers"].as_array().unwrap().len(), 2);
        let group = json!({ "group": "apply", "partitions": 2, "lag": 11, "lag_seconds": 12.0 });
        assert_eq!(all["groups"], json!([group]));
        let text = status_text(&all, None);
        let said = ["apply", "11 records", "12.0 s", "6.0 s, 6.0 s"];
        assert!(said.iter().all(|word| text.contains(word)), "{text}");
        assert_eq!(all["roles"], json!(["project", "connect"]));
        assert_eq!((&all["projector"]["lag_events"], &all["dead_letters"]), (&json!(11), &json!(3)));
    }

    /// Just then it matters what the others say.
    #[test]
    fn who_does_not_answer_is_told_beside_the_others() {
        const ANSWER: &str = "200 OK\r\ncontent-length: 96\r\nconnection: close\r\n\r\n\
            {\"ready\":true,\"roles\":[\"connect\"],\"sources\":[{\"source\":\"billing\",\"position\":\"1/2\"}],\"models\":[]}";
        let gone = answering(&[]);
        gone.1.join().unwrap();
        let (client, thread) = answering(&[ANSWER]);
        let admins = [gone.0, client];
        let told = told_by_all(&admins);
        thread.join().unwrap();
        assert!(all_silent(&told).is_none());
        let failure = all_silent(&told[..1]).unwrap().to_string();
        assert!(failure.contains(admins[0].base()), "{failure}");
        let all = merged(told.into_iter().zip(&admins).map(|(told, admin)| part_of(told, admin)).collect());
        assert_eq!((&all["ready"], &all["roles"]), (&json!(false), &json!(["connect"])), "{all}");
        let text = status_text(&all, None);
        let line = text.lines().find(|line| line.contains(admins[0].base()));
        assert!(line.is_some_and(|line| line.contains("no Headwater answers")) && text.contains("billing"), "{text}");
    }

    #[test]
    fn a_model_with_a_problem_is_not_well() {
        let status =
            |ready: bool, problem: Value| json!({ "ready": ready, "models": [{ "model": "a", "problem": problem }] });
        assert!(is_well(&status(true, Value::Null)) && !is_well(&status(false, Value::Null)));
        assert!(!is_well(&status(true, json!("a column is gone"))));
    }

    #[test]
    fn a_source_that_had_to_stop_is_not_well() {
        let status = |error: Value| {
            let stopped = Phase::Stopped { error: error.as_str().map(str::to_owned) };
            json!({ "ready": true, "models": [], "sources": [{ "source": "a", "phase": stopped }] })
        };
        assert!(is_well(&status(Value::Null)) && !is_well(&status(json!("the slot is lost"))));
    }

    #[test]
    fn problems_of_channels_are_told_whoever_comes_first() {
        let problem = json!({ "channel": "web", "model": "a", "version": 1, "problem": "p", "remedy": "r" });
        let server = json!({ "ready": true, "roles": ["serve"], "sources": [], "models": [], "consumers": [],
            "projector": null, "dead_letters": null, "channel_problems": [problem] });
        let connector = json!({ "ready": true, "roles": ["connect"], "sources": [], "models": [], "consumers": [],
            "projector": null, "dead_letters": null });
        for parts in [vec![connector.clone(), server.clone(), server.clone()], vec![server, connector]] {
            let all = merged(parts);
            assert_eq!(all["channel_problems"], json!([problem]), "{all}");
            assert!(status_text(&all, None).contains("channel web, a: p; r"));
        }
    }

    #[test]
    fn who_is_starting_is_told_beside_the_others() {
        const ANSWER: &str = "503 Service Unavailable\r\ncontent-length: 69\r\nconnection: close\r\n\r\n\
            {\"code\":\"starting\",\"detail\":\"still starting: waiting to use MongoDB\"}";
        let (client, thread) = answering(&[ANSWER]);
        let starting = part_of(client.json("/status"), &client);
        thread.join().unwrap();
        let line = format!("{}: still starting: waiting to use MongoDB", client.base());
        assert_eq!(status_text(&starting, None), line);
        let other = json!({ "ready": true, "roles": ["connect"], "models": [], "consumers": [], "projector": null,
            "sources": [{ "source": "billing", "position": "1/2", "frontier": null }], "dead_letters": null });
        for parts in [vec![starting.clone(), other.clone()], vec![other, starting]] {
            let all = merged(parts);
            assert_eq!(
                (&all["ready"], &all["roles"], &all[STARTING]),
                (&json!(false), &json!(["connect"]), &json!([line]))
            );
            let text = status_text(&all, None);
            assert!(text.contains(&line) && text.contains("billing"), "{text}");
        }
    }
}
