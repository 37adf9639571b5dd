//! The shape of the house, held against what cargo knows of it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata(deep: bool) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["metadata", "--format-version=1", "--locked"]);
    if !deep {
        command.arg("--no-deps");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Crate → the crates of this workspace it may depend on, as ARCHITECTURE.md draws them. Dev-dependencies are free:
/// tests may look anywhere.
fn allowed_arrows() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let schemas = "headwater-schemas";
    let everything = [
        schemas,
        "headwater-connectors",
        "headwater-broker",
        "headwater-store",
        "headwater-projector",
        "headwater-query-api",
        "headwater-test-servers",
        "headwater",
    ];
    BTreeMap::from([
        (schemas, BTreeSet::new()),
        ("headwater-broker", BTreeSet::from([schemas])),
        ("headwater-store", BTreeSet::from([schemas])),
        ("headwater-connectors", BTreeSet::from([schemas, "headwater-broker"])),
        ("headwater-projector", BTreeSet::from([schemas, "headwater-broker", "headwater-store"])),
        ("headwater-query-api", BTreeSet::from([schemas, "headwater-store"])),
        ("headwater-test-servers", BTreeSet::new()),
        ("headwater", BTreeSet::from(everything)),
        ("headwater-tests", BTreeSet::from(everything)),
        ("headwater-bench", BTreeSet::from(everything)),
    ])
}

fn forbidden(arrows: &[(String, String)]) -> Vec<String> {
    let allowed = allowed_arrows();
    arrows
        .iter()
        .filter(|(from, to)| !allowed.get(from.as_str()).is_some_and(|targets| targets.contains(to.as_str())))
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect()
}

#[test]
fn no_crate_depends_against_the_flow_of_the_data() {
    let metadata = metadata(false);
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut arrows = Vec::new();
    for package in packages {
        let from = package["name"].as_str().unwrap();
        assert!(allowed_arrows().contains_key(from), "crate {from} is new: say in this test what it may depend on");
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if names.contains(to) && dependency["kind"] != "dev" {
                arrows.push((from.to_string(), to.to_string()));
            }
        }
    }
    assert_eq!(forbidden(&arrows), Vec::<String>::new(), "arrows against the flow: see ARCHITECTURE.md, \"Crates\"");
}

#[test]
fn the_arrow_check_itself_notices_a_forbidden_arrow() {
    let arrow = |from: &str, to: &str| (from.to_string(), to.to_string());
    assert_eq!(forbidden(&[arrow("headwater-connectors", "headwater-store")]).len(), 1);
    assert_eq!(forbidden(&[arrow("headwater-query-api", "headwater-broker")]).len(), 1);
    assert_eq!(forbidden(&[arrow("headwater-store", "headwater-broker")]).len(), 1);
    assert!(forbidden(&[arrow("headwater-projector", "headwater-store")]).is_empty());
}

/// Whether an SPDX expression can be met with the allowed licences alone. `OR` binds weaker than `AND`.
fn licence_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    fn either(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
        let mut ok = both(tokens, at, allowed);
        while tokens.get(*at) == Some(&"OR") {
            *at += 1;
            ok |= both(tokens, at, allowed);
        }
        ok
    }
    fn both(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
        let mut ok = one(tokens, at, allowed);
        while tokens.get(*at) == Some(&"AND") {
            *at += 1;
            ok &= one(tokens, at, allowed);
        }
        ok
    }
    fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
        if tokens.get(*at) == Some(&"(") {
            *at += 1;
            let ok = either(tokens, at, allowed);
            *at += 1;
            return ok;
        }
        let Some(name) = tokens.get(*at) else { return false };
        *at += 1;
        let mut name = (*name).to_string();
        if tokens.get(*at) == Some(&"WITH") {
            name = format!("{name} WITH {}", tokens.get(*at + 1).unwrap_or(&""));
            *at += 2;
        }
        allowed.contains(&name)
    }
    either(&tokens, &mut 0, allowed)
}

/// The licence of a package that names none but ships its text, as cargo-deny reads it too.
fn licence_in_file(package: &Value) -> String {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    let file = package["license_file"].as_str().map(|file| manifest.with_file_name(file));
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    if text.trim_start().starts_with("MIT License") { "MIT".into() } else { String::new() }
}

#[test]
fn every_dependency_has_an_allowed_licence_comes_from_the_registry_and_is_not_banned() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = deny.split("allow = [").nth(1).unwrap().split(']').next().unwrap();
    let allowed: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_string).collect();
    assert!(allowed.contains("Apache-2.0") && allowed.len() > 5, "deny.toml's licence list was not understood");
    assert!(licence_allowed("MIT OR GPL-3.0", &allowed) && !licence_allowed("MIT AND GPL-3.0", &allowed));

    let banned: Vec<&str> =
        deny.split("{ crate = \"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name).collect();
    assert!(banned.contains(&"native-tls") && banned.len() > 2, "deny.toml's bans were not understood: {banned:?}");

    let metadata = metadata(true);
    let mut offenders = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let Some(source) = package["source"].as_str() else { continue };
        let name = package["name"].as_str().unwrap();
        if banned.contains(&name) {
            offenders.push(format!("{name} is banned"));
        }
        if !source.starts_with("registry+") {
            offenders.push(format!("{name} comes from {source}"));
        }
        let licence = package["license"].as_str().map_or_else(|| licence_in_file(package), str::to_string);
        if !licence_allowed(&licence, &allowed) {
            offenders.push(format!("{name} is under {licence:?}"));
        }
    }
    assert_eq!(offenders, Vec::<String>::new(), "mend the dependency, or deny.toml with a reason");
}

/// The targets for cargo-fuzz need a compiler of their own, and no build here makes them: each is the one call of a function
/// that is built, and run with random input, by every test run.
#[test]
fn every_fuzz_target_is_the_call_of_a_function_that_is_tested() {
    let (root, manifest) = (root(), "fuzz/Cargo.toml");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|_| panic!("{path} is missing"));
    let functions = read("query-api/src/fuzz.rs");
    let functions: BTreeSet<&str> = functions
        .split("\npub fn ")
        .skip(1)
        .filter_map(|rest| rest.split_once("(data: &[u8])"))
        .map(|(n, _)| n)
        .collect();
    let manifest = read(manifest);
    let bins = manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split_once('"'));
    let bins: BTreeSet<&str> = bins.map(|(name, _)| name).collect();
    assert!(functions.len() > 3, "{functions:?}");
    assert_eq!(bins, functions);
    for name in bins {
        let call = format!("libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_query_api::fuzz::{name}(data));");
        assert_eq!(read(&format!("fuzz/fuzz_targets/{name}.rs")), format!("#![no_main]\n\n{call}\n"));
    }
}

#[test]
fn the_documents_point_at_things_that_exist() {
    let root = root();
    let mut broken = Vec::new();
    let pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/access.md",
        "docs/front-end.md",
        "docs/operations.md",
        "examples/billing/README.md",
    ];
    for page in pages {
        let text = std::fs::read_to_string(root.join(page)).unwrap_or_else(|_| panic!("{page} is missing"));
        let folder = root.join(page).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}
