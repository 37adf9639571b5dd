//! What others' programs make of our descriptions: a fuzzer that believes the OpenAPI document, and generators of types.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use headwater_tests::{Running, World, node, project_root, python, succeeded};

use crate::from_environment;

/// The billing example with its first rows.
fn billing() -> (World, Running) {
    let world = World::billing();
    let seed = std::fs::read_to_string(project_root().join("examples/billing/seed.sql")).unwrap();
    world.postgres.psql(&seed);
    let running = world.start_ready();
    world.document_when("/v1/invoice/2026~7", "the seed to be served", |document| document["lines"].is_array());
    (world, running)
}

/// schemathesis makes requests of the OpenAPI document, right ones and wrong ones, and holds every answer against it.
/// `HEADWATER_SCHEMATHESIS_EXAMPLES` asks for more of them, `HEADWATER_SCHEMATHESIS_SEED` for others.
#[test]
fn what_openapi_says_is_so() {
    let (world, mut running) = billing();
    let examples = from_environment("HEADWATER_SCHEMATHESIS_EXAMPLES").unwrap_or(12);
    let seed = from_environment("HEADWATER_SCHEMATHESIS_SEED").unwrap_or(1);
    let output = Command::new(python())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(project_root().join("tests/front-end/schemathesis.toml"))
        .args([
            "run",
            &world.url("/openapi.json"),
            "--no-color",
            "--workers",
            "2",
            "--continue-on-failure",
            "--no-shrink",
        ])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", &examples.to_string()])
        .args(["--seed", &seed.to_string(), "--warnings", "off", "--request-timeout", "10"])
        .current_dir(world.folder())
        .output()
        .unwrap();
    succeeded("schemathesis (make test installs it)", &output);
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{}", said.lines().filter(|line| line.contains("generated")).collect::<Vec<_>>().join("\n"));
    assert!(said.contains("Test cases:"), "nothing was tried:\n{said}");
    assert!(running.stop().success());
}

/// Types are generated from both descriptions by public generators, and a front end that uses them is compiled: what is
/// right in it compiles, and what is wrong does not.
#[test]
fn types_are_generated_from_the_descriptions() {
    let Some(node) = node() else { return };
    let (world, mut running) = billing();
    let folder = world.path("front-end");
    std::fs::create_dir(&folder).unwrap();
    symlink(node.join("node_modules"), folder.join("node_modules")).unwrap();
    for entry in std::fs::read_dir(project_root().join("tests/front-end")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(folder.join("openapi.json"), world.get("/openapi.json").unwrap().body).unwrap();
    std::fs::write(folder.join("schema.graphql"), world.get("/graphql/schema").unwrap().body).unwrap();
    run(&folder, "openapi-typescript", &["openapi.json", "-o", "rest-types.ts"]);
    run(&folder, "graphql-codegen", &["--config", "codegen.json"]);
    run(&folder, "tsc", &["--project", "tsconfig.json"]);
    assert!(running.stop().success());
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let path = folder.join("node_modules/.bin").join(program);
    succeeded(program, &Command::new(path).args(arguments).current_dir(folder).output().unwrap());
}
