use std::path::Path;

use super::*;

const MODEL: &str = "model: customer\nroot: { table: billing.cust, key: cust_no }\nfields: [cust_no]\n";
const CONNECTOR: &str =
    "source: billing\npostgres:\n  host: h\n  database: d\n  user: u\n  password: ${PASSWORD}\n  tables: [cust]\n";
const SETTINGS: &str = "connectors: [connectors/*.yaml]\nmodels: [models/*.yaml]\n";

/// Loads the files and gives what is wrong, with paths relative to the folder.
fn load(files: &[(&str, &str)]) -> Result<Configuration, String> {
    load_for(Purpose::Whole, files)
}

fn load_for(purpose: Purpose<'_>, files: &[(&str, &str)]) -> Result<Configuration, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let environment = Environment::from([("PASSWORD".into(), "hunter2".into()), ("EMPTY".into(), String::new())]);
    let place = format!("{}/", folder.path().display());
    let loaded = Configuration::load_for_with(&folder.path().join("headwater.yaml"), purpose, &environment);
    loaded.map_err(|diagnostics| {
        let texts: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        texts.join("\n").replace(&place, "")
    })
}

fn load_settings_of(settings: &str) -> Result<Configuration, String> {
    load(&[("headwater.yaml", settings), ("connectors/billing.yaml", CONNECTOR), ("models/customer.yaml", MODEL)])
}

#[track_caller]
fn refused(settings: &str, expected: &str) {
    assert_eq!(load_settings_of(settings).unwrap_err(), expected.trim_start());
}

#[test]
fn defaults_are_as_documented() {
    let configuration = load_settings_of(SETTINGS).unwrap();
    let settings = &configuration.settings;
    assert_eq!(settings.prefix.value, "headwater");
    assert_eq!(settings.data, Path::new(".headwater"));
    assert_eq!(settings.api.listen.value.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin.listen.value.to_string(), "127.0.0.1:9090");
    assert!(settings.admin.hosts().is_empty());
    assert_eq!(settings.broker.embedded.size_max.value, ByteSize::gib(64));
    assert_eq!(configuration.connectors[0].config.postgres.password.reveal(), "hunter2");
    assert_eq!(configuration.models[0].model.name, "customer");
    assert!(configuration.data_folder().ends_with(".headwater"));
}

#[test]
fn unknown_keys_are_shown_with_the_nearest_correct_name() {
    refused(
        &format!("{SETTINGS}brokre:\n  embedded: {{}}\n"),
        "
headwater.yaml:3:1: unknown key `brokre`
    3 | brokre:
      | ^
  help: did you mean `broker`?",
    );
    refused(
        &format!("{SETTINGS}broker:\n  embedded:\n    retention: {{ agee: 7d }}\n"),
        "
headwater.yaml:5:18: unknown key `agee`
    5 |     retention: { agee: 7d }
      |                  ^
  help: did you mean `age`?",
    );
}

#[test]
fn wrong_values_are_shown_where_they_stand() {
    refused(
        &format!("{SETTINGS}broker: {{ embedded: {{ retention: {{ age: 7 days }} }} }}\n"),
        "
headwater.yaml:3:36: expected a duration like 500ms, 30s, 5m, 12h or 7d, found string \"7 days\"
    3 | broker: { embedded: { retention: { age: 7 days } } }
      |                                    ^",
    );
    refused(
        &format!("{SETTINGS}broker: {{ embedded: {{ partitions: 0 }} }}\n"),
        "
headwater.yaml:3:35: `broker.embedded.partitions` must be from 1 to 1024
    3 | broker: { embedded: { partitions: 0 } }
      |                                   ^
  help: one partition is right for one process",
    );
    refused(
        &format!("{SETTINGS}api: {{ listen: 127.0.0.1:9090 }}\nadmin: {{ listen: 127.0.0.1:9090 }}\n"),
        "
headwater.yaml:4:18: `admin.listen` is the same address as `api.listen`
    4 | admin: { listen: 127.0.0.1:9090 }
      |                  ^
  help: the admin port has no authentication: keep it apart",
    );
    refused(
        &format!("{SETTINGS}admin: {{ hosts: [ops.example.com:9090] }}\n"),
        "
headwater.yaml:3:18: `admin.hosts` are names of hosts
    3 | admin: { hosts: [ops.example.com:9090] }
      |                  ^
  help: write each without scheme and port: ops.example.com",
    );
    refused(
        "connectors: [connectors/*.yml]\nmodels: [models/*.yaml]\n",
        "
headwater.yaml:1:14: no file fits `connectors/*.yml`
    1 | connectors: [connectors/*.yml]
      |              ^
  help: `connectors` is relative to the folder of this file",
    );
}

#[test]
fn variables_are_replaced_and_never_shown() {
    refused(
        &format!("{SETTINGS}prefix: ${{NOT_SET}}\n"),
        "
headwater.yaml:3:9: the environment variable `NOT_SET` is not set
    3 | prefix: ${NOT_SET}
      |         ^
  help: set it, or give a default: ${NOT_SET:-default}",
    );
    refused(
        &format!("{SETTINGS}prefix: \"${{PASSWORD}}\"\n"),
        "
headwater.yaml:3:9: a variable in quotes is not replaced
    3 | prefix: \"${PASSWORD}\"
      |         ^
  help: remove the quotes; for a literal `${` write `$${`",
    );
    let configuration = load_settings_of(&format!("{SETTINGS}prefix: ${{NOT_SET:-water}}\n")).unwrap();
    assert_eq!(configuration.settings.prefix.value, "water");
    let secret = load_settings_of(&format!("{SETTINGS}api: {{ listen: ${{PASSWORD}} }}\n")).unwrap_err();
    assert!(!secret.contains("hunter2") && secret.contains("${PASSWORD}"), "{secret}");
    assert!(!format!("{configuration:?}").contains("hunter2"));
}

#[test]
fn mistakes_of_all_files_are_told_at_once() {
    let other = "source: other\npostgres: { host: h, database: d, user: u, tabels: [t] }\n";
    let shown = load(&[
        ("headwater.yaml", SETTINGS),
        ("connectors/a.yaml", CONNECTOR),
        ("connectors/b.yaml", CONNECTOR),
        ("connectors/c.yaml", other),
        ("models/customer.yaml", MODEL),
    ])
    .unwrap_err();
    let expected = "
connectors/b.yaml:1:1: a second connector for the source `billing`
    1 | source: billing
      | ^
  help: rename one of them
connectors/c.yaml:2:44: unknown key `tabels`
    2 | postgres: { host: h, database: d, user: u, tabels: [t] }
      |                                            ^
  help: did you mean `tables`?";
    assert_eq!(shown, expected.trim_start());
}

#[test]
fn models_are_held_against_the_configured_sources_and_each_other() {
    let shown = load(&[
        ("headwater.yaml", SETTINGS),
        ("connectors/billing.yaml", CONNECTOR),
        ("models/a.yaml", MODEL),
        ("models/b.yaml", MODEL),
        ("models/c.yaml", &MODEL.replace("model: customer", "model: other").replace("billing.", "biling.")),
    ])
    .unwrap_err();
    let expected = "
models/b.yaml:1:1: a second model `customer`; the first is models/a.yaml
    1 | model: customer
      | ^
  help: rename one of them
models/c.yaml:2:16: there is no source `biling`
    2 | root: { table: biling.cust, key: cust_no }
      |                ^
  help: did you mean `billing`?";
    assert_eq!(shown, expected.trim_start());
}

/// Whoever does not reach a source does not have its secrets, and still must know its name.
#[test]
fn only_who_reaches_a_source_needs_its_variables() {
    let secret = "source: crm\npostgres:\n  host: h\n  port: ${NOT_SET}\n  database: d\n  user: u\n  password: ${NOR_THIS}\n  \
                  tables: [contacts]\n";
    let card = "model: card\nroot: { table: crm.contacts, key: id }\nfields: [id]\n";
    let files = [
        ("headwater.yaml", SETTINGS),
        ("connectors/billing.yaml", CONNECTOR),
        ("connectors/crm.yaml", secret),
        ("models/customer.yaml", MODEL),
        ("models/card.yaml", card),
    ];
    let (billing, crm) = (["billing".to_string()], ["crm".to_string()]);
    for refused in [Purpose::Whole, Purpose::Capture(&[]), Purpose::Capture(&crm)] {
        let told = load_for(refused, &files).unwrap_err();
        assert!(told.starts_with("connectors/crm.yaml:4:") && told.contains("`NOT_SET` is not set"), "{told}");
    }
    for accepted in [Purpose::Capture(&billing), Purpose::Definitions, Purpose::Serve] {
        let configuration = load_for(accepted, &files).unwrap();
        assert_eq!(configuration.sources, ["billing", "crm"]);
        let reached: Vec<&str> = configuration.connectors.iter().map(|file| &*file.config.source).collect();
        assert_eq!(reached, ["billing"], "those whose variables are set can be asked");
        assert_eq!(configuration.models.len(), 2);
    }
    // A name that is not known cannot be left out.
    let nameless = secret.replace("source: crm", "source: ${NOT_SET}");
    let mut files = files;
    files[2].1 = &nameless;
    assert!(load_for(Purpose::Serve, &files).unwrap_err().contains("`NOT_SET` is not set"));
    // What is wrong for another reason is told to everybody.
    let wrong = secret.replace("  user: u\n", "  usr: u\n").replace("${NOT_SET}", "1").replace("${NOR_THIS}", "p");
    files[2].1 = &wrong;
    assert!(load_for(Purpose::Serve, &files).unwrap_err().contains("unknown key `usr`"));
}

#[test]
fn who_only_serves_needs_no_model_files() {
    let rules =
        "api: { auth: { anonymous: true }, access: { customer: { masks: [{ fields: [emial] }] }, gone: {} } }\n";
    let settings = format!("{SETTINGS}{rules}");
    let without = [("headwater.yaml", &*settings), ("connectors/billing.yaml", CONNECTOR)];
    let configuration = load_for(Purpose::Serve, &without).unwrap();
    assert!(configuration.models.is_empty());
    assert_eq!(configuration.settings.api.models_named().into_iter().collect::<Vec<_>>(), ["customer", "gone"]);
    assert!(load(&without).unwrap_err().contains("`models/*.yaml`"));
    // Rules are held against the files that are there.
    let with = [without[0], without[1], ("models/customer.yaml", MODEL)];
    let told = load_for(Purpose::Serve, &with).unwrap_err();
    assert!(told.contains("customer has no field `emial`") && !told.contains("gone`"), "{told}");
    let told = load(&with).unwrap_err();
    assert!(
        told.contains("the model `gone`, which is not there") && told.contains("there is only `customer`"),
        "{told}"
    );
    // Where there is no model at all, that is said.
    let none = settings.replace("models: [models/*.yaml]", "models: []");
    assert!(load(&[("headwater.yaml", &none), without[1]]).unwrap_err().contains("there is none at all"));
}

#[test]
fn what_is_wrong_with_a_connector_is_shown_at_its_key() {
    let wrong = |old: &str, new: &str| {
        let connector = CONNECTOR.replace(old, new);
        load(&[("headwater.yaml", SETTINGS), ("connectors/billing.yaml", &connector), ("models/customer.yaml", MODEL)])
            .unwrap_err()
    };
    let told = wrong("  tables: [cust]\n", "  tables: [cust]\n  # slot: in a comment\n  slot: Upper\n");
    assert!(told.starts_with("connectors/billing.yaml:9:3: postgres.slot:"), "{told}");
    let told = wrong("  user: u\n", "  user: u\n  snapshot: { rows_per_chunk: 100, workers: 99 }\n");
    assert!(told.starts_with("connectors/billing.yaml:6:36: postgres.snapshot.workers:"), "{told}");
    // What is missing is shown where it belongs.
    let told = wrong("  tables: [cust]\n", "");
    assert!(told.starts_with("connectors/billing.yaml:2:1: postgres.tables:"), "{told}");
    let told = wrong("source: billing", "source: Billing");
    assert!(told.starts_with("connectors/billing.yaml:1:1: source:"), "{told}");
}

#[test]
fn files_of_certificates_are_relative_to_the_configuration() {
    let connector =
        format!("{CONNECTOR}  tls: {{ mode: verify-ca, ca: ca.pem, cert: /etc/own.pem, key: keys/own.pem }}\n");
    let configuration =
        load(&[("headwater.yaml", SETTINGS), ("connectors/billing.yaml", &connector), ("models/customer.yaml", MODEL)]);
    let configuration = configuration.unwrap();
    let (folder, tls) = (folder_of(&configuration.file), &configuration.connectors[0].config.postgres.tls);
    assert_eq!(tls.ca, Some(folder.join("ca.pem")));
    assert_eq!(tls.key, Some(folder.join("keys/own.pem")));
    assert_eq!(tls.cert.as_deref(), Some(Path::new("/etc/own.pem")));
}

#[test]
fn what_would_forget_everything_or_turn_everybody_away_is_refused() {
    refused(
        &format!("{SETTINGS}broker: {{ embedded: {{ retention: {{ age: 0s }} }} }}\n"),
        "
headwater.yaml:3:41: `broker.embedded.retention.age` must be at least 1s
    3 | broker: { embedded: { retention: { age: 0s } } }
      |                                         ^
  help: leave it out to keep everything; what nobody has read yet may go at this age",
    );
    let told = |more: &str| load_settings_of(&format!("{SETTINGS}{more}\n")).unwrap_err();
    let kafka = told("broker: { kafka: { servers: [k:1], retention: { size: 0 } } }");
    assert!(kafka.contains("`broker.kafka.retention.size` must be at least 1MiB"), "{kafka}");
    let delay = told("api: { limits: { queue_delay_max: 0s } }");
    assert!(delay.contains("`api.limits.queue_delay_max` must be longer than nothing"), "{delay}");
    for secret in ["''", "abc", "abcdefghijklmnopqrstuvwxyz-abcd"] {
        let short = told(&format!("api: {{ cursor_secret: {secret} }}"));
        assert!(short.contains("headwater.yaml:3:23: `api.cursor_secret` is shorter than 32 characters"), "{short}");
    }
    load_settings_of(&format!("{SETTINGS}api: {{ cursor_secret: abcdefghijklmnopqrstuvwxyz-abcde }}\n")).unwrap();
}

#[test]
fn what_kafka_is_to_do_for_compacted_topics_arrives() {
    let kafka =
        "broker: { kafka: { servers: [k:1], tombstones: true, topic_settings: { segment.bytes: '1048576' } } }\n";
    let settings = load_settings_of(&format!("{SETTINGS}{kafka}")).unwrap().settings;
    let kafka = settings.broker.kafka.unwrap();
    assert!(kafka.tombstones && kafka.topic_settings["segment.bytes"] == "1048576", "{kafka:?}");
}

#[test]
fn a_missing_file_is_named_with_its_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("headwater.yaml"), "").unwrap();
    let wrong = Configuration::load_with(&folder.path().join("headwatr.yaml"), &Environment::new()).unwrap_err();
    assert!(wrong[0].help.as_deref().unwrap().contains("headwater.yaml"), "{}", wrong[0]);
}

#[test]
fn columns_are_held_against_the_tables() {
    use std::collections::{BTreeMap, BTreeSet};

    use headwater_schemas::{Column, ColumnType, TableId, TableSchema};

    let table = TableId::new("billing", "public", "cust");
    let column = |name: &str, key_ordinal| Column {
        name: name.into(),
        kind: ColumnType::Text,
        source_type: "text".into(),
        key_ordinal,
    };
    let columns = vec![column("cust_no", Some(0)), column("nm_last", None)];
    let known = BTreeMap::from([(table.clone(), TableSchema { table, columns })]);
    let text = "model: customer\n# nm_lst in a comment\nroot: { table: billing.cust, key: cust_no }\nfields:\n  \
                name: nm_lst\nnest:\n  invoices:\n    many: billing.custs\n    on: { a: cust_no }\n    fields: [b]\n";
    let model = model::parse("customer.yaml", text, &ParseContext::default()).unwrap();
    let file = ModelFile { file: "customer.yaml".into(), text: text.into(), model };
    let shown: Vec<String> = check_columns(&file, &known, &BTreeSet::new()).iter().map(ToString::to_string).collect();
    let expected = "
customer.yaml:5:9: the table billing.public.cust has no column `nm_lst`
    5 |   name: nm_lst
      |         ^
  help: did you mean `nm_last`?
customer.yaml:8:11: the source `billing` captures no table `custs`
    8 |     many: billing.custs
      |           ^
  help: did you mean `billing.cust`?";
    assert_eq!(shown.join("\n"), expected.trim_start());
}

#[test]
fn a_column_is_shown_where_it_is_named() {
    use std::collections::{BTreeMap, BTreeSet};

    use headwater_schemas::{Column, ColumnType, TableId, TableSchema};

    let table = |name: &str, columns: &[&str]| {
        let table = TableId::new("billing", "public", name);
        let column = |(at, name): (usize, &&str)| Column {
            name: (*name).into(),
            kind: ColumnType::Text,
            source_type: "text".into(),
            key_ordinal: (at == 0).then_some(0),
        };
        (table.clone(), TableSchema { table, columns: columns.iter().enumerate().map(column).collect() })
    };
    // Every name stands in places where it is no mistake, too.
    let text = "model: customer
root: { table: billing.cust, key: id }
fields:
  note: { coalesce: [name, { constant: gone }] }
  gone: name
nest:
  invoices:
    many: billing.inv
    on: { id: id }
    where: { or: [{ state: gone }, { gone: state }] }
    order: [id, -late]
    fields: [id, state]
  tags:
    many: billing.tag
    through: { table: billing.tagged, on: { lost: id } }
    on: { id: id }
    fields:
      - id
      - lost
compute:
  gone_count: { count: invoices }
";
    let known: BTreeMap<TableId, TableSchema> = BTreeMap::from([
        table("cust", &["id", "name"]),
        table("inv", &["id", "state"]),
        table("tag", &["id"]),
        table("tagged", &["id"]),
    ]);
    let check = |text: &str, known: &BTreeMap<TableId, TableSchema>, others: &BTreeSet<TableId>| -> Vec<String> {
        let model = model::parse("a.yaml", text, &ParseContext::default()).unwrap();
        let file = ModelFile { file: "a.yaml".into(), text: text.into(), model };
        let told = check_columns(&file, known, others);
        told.iter()
            .map(|it| format!("{}:{} {} {}", it.line, it.column, it.message, it.help.as_deref().unwrap_or("")))
            .collect()
    };
    let shown = check(text, &known, &BTreeSet::new());
    let expected = [
        ("10:38 ", "inv has no column `gone`"),
        ("11:17 ", "inv has no column `late`"),
        ("15:45 ", "tagged has no column `lost`"),
        ("19:9 ", "tag has no column `lost`"),
    ];
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, (place, words)) in shown.iter().zip(expected) {
        assert!(shown.starts_with(place) && shown.contains(words), "{shown}");
    }

    // What to do about a table depends on whether the database has it.
    let mut fewer = known.clone();
    let (tag, _) = fewer.remove_entry(&TableId::new("billing", "public", "tag")).unwrap();
    let told = check(text, &fewer, &BTreeSet::from([tag]));
    let told = told.iter().find(|told| told.contains("captures no table `tag`")).unwrap();
    assert!(told.starts_with("14:11 ") && told.contains("the database has it: add it to `tables`"), "{told}");
    fewer.remove(&TableId::new("billing", "public", "inv"));
    let told = check(text, &fewer, &BTreeSet::new());
    let told = told.iter().find(|told| told.contains("captures no table `inv`")).unwrap();
    assert!(told.starts_with("8:11 ") && told.contains("the database has none of that name either"), "{told}");
}

#[test]
fn models_that_can_never_be_built_are_told() {
    use std::collections::{BTreeMap, BTreeSet};

    use headwater_schemas::{Column, ColumnType, TableId, TableSchema};

    let column =
        |name: &str, kind: ColumnType| Column { name: name.into(), kind, source_type: "any".into(), key_ordinal: None };
    let mut customers = vec![column("cust_no", ColumnType::Text)];
    customers[0].key_ordinal = Some(0);
    let mut invoices = vec![
        column("co", ColumnType::Int32),
        column("num", ColumnType::Int32),
        column("cust", ColumnType::Int64),
        column("note", ColumnType::Text),
    ];
    invoices[0].key_ordinal = Some(0);
    invoices[1].key_ordinal = Some(1);
    let tables = [("cust", customers), ("inv", invoices), ("loose", vec![column("cust_no", ColumnType::Text)])];
    let known: BTreeMap<TableId, TableSchema> = tables
        .into_iter()
        .map(|(name, columns)| (TableId::new("billing", "public", name), columns))
        .map(|(table, columns)| (table.clone(), TableSchema { table, columns }))
        .collect();
    let check = |text: &str| -> Vec<String> {
        let model = model::parse("a.yaml", text, &ParseContext::default()).unwrap();
        let file = ModelFile { file: "a.yaml".into(), text: text.into(), model };
        // Without the tables nothing can be said.
        assert!(check_columns(&file, &BTreeMap::new(), &BTreeSet::new()).is_empty());
        check_columns(&file, &known, &BTreeSet::new()).iter().map(ToString::to_string).collect()
    };
    let customer = |on: &str, field: &str, compute: &str| {
        check(&format!(
            "model: customer\nroot: {{ table: billing.cust, key: cust_no }}\nfields: [cust_no]\nnest:\n  invoices:\n    \
             many: billing.inv\n    on: {{ {on}: cust_no }}\n    fields: [{field}]\ncompute:\n  added: {{ {compute} }}\n"
        ))
    };
    #[track_caller]
    fn told(shown: &[String], line: &str, words: &str) {
        assert!(shown.len() == 1 && shown[0].starts_with(line) && shown[0].contains(words), "{shown:?}");
    }
    let invoice =
        |key: &str| check(&format!("model: invoice\nroot: {{ table: billing.inv, key: [{key}] }}\nfields: [co]\n"));
    assert_eq!(invoice("co, num"), [""; 0]);
    told(&invoice("num, co"), "a.yaml:2:", "is (co, num), not (num, co)");
    told(&invoice("co"), "a.yaml:2:", "is (co, num), not (co)");
    assert_eq!(customer("note", "co", "sum: invoices.co"), [""; 0]);
    told(&customer("cust", "co", "sum: invoices.co"), "a.yaml:7:", "never compare equal");
    told(&customer("note", "note", "sum: invoices.note"), "a.yaml:10:", "is no number");
    let counted = |field: &str, condition: &str| {
        customer("note", field, &format!("count: invoices, where: {{ invoices.{field}: {condition} }}"))
    };
    assert_eq!(counted("co", "{ in: [1, null] }"), [""; 0]);
    assert_eq!(counted("note", "{ startsWith: open }"), [""; 0]);
    told(&counted("co", "true"), "a.yaml:10:", "cannot be compared with true (`eq`)");
    told(&counted("note", "{ ne: true }"), "a.yaml:10:", "cannot be compared with true (`ne`)");
    told(&counted("co", "{ in: [1, one] }"), "a.yaml:10:", "`invoices.co` is of the type Int32");
    let filtered = |condition: &str| {
        check(&format!(
            "model: invoice\nroot: {{ table: billing.inv, key: [co, num], where: {{ {condition} }} }}\nfields: [co]\n"
        ))
    };
    assert_eq!(filtered("note: { in: [open, null] }, num: { gte: 3 }, co: { exists: true }"), [""; 0]);
    told(&filtered("note: { in: [open, true] }"), "a.yaml:", "cannot be compared with true (`in`)");
    told(&filtered("num: false"), "a.yaml:", "cannot be compared with false (`eq`)");
    told(&filtered("num: { startsWith: a }"), "a.yaml:", "cannot be compared with \"a\" (`startsWith`)");
    let cast = |column: &str, to: &str| {
        check(&format!(
            "model: invoice\nroot: {{ table: billing.inv, key: [co, num] }}\nfields:\n  id: co\n  shown: {{ column: {column}, \
             cast: {to} }}\n"
        ))
    };
    for (column, to) in [("num", "boolean"), ("num", "text"), ("note", "date"), ("note", "integer")] {
        assert_eq!(cast(column, to), [""; 0]);
    }
    told(&cast("num", "date"), "a.yaml:5:", "`shown` casts values of the type Int32 to date");
    told(&cast("cust", "timestamp"), "a.yaml:5:", "`shown` casts values of the type Int64 to timestamp");
    let loose = check("model: loose\nroot: { table: billing.loose, key: cust_no }\nfields: [cust_no]\n");
    told(&loose, "a.yaml:2:", "no key that its changes name rows by");
}

#[test]
fn the_example_is_read() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/billing/headwater.yaml");
    let configuration = Configuration::load_with(&file, &Environment::new()).unwrap_or_else(|diagnostics| {
        panic!("{}", diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    let names: Vec<&str> = configuration.models.iter().map(|file| file.model.name.as_str()).collect();
    assert_eq!(names, ["customer_account", "invoice", "tariff"]);
}

#[test]
fn the_page_about_access_shows_what_is_read() {
    let page = include_str!("../../../docs/access.md");
    let shown: String = page.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/billing").canonicalize().unwrap();
    let settings = format!(
        "connectors: ['{0}/connectors/*.yaml']\nmodels: ['{0}/models/*.yaml']\n{1}",
        example.display(),
        shown.replace("9f86d081…", &"0".repeat(64))
    );
    let api = load(&[("headwater.yaml", &settings)]).unwrap().settings.api;
    assert!(api.auth.is_some() && api.access.len() == 3 && api.cors.is_some());
}

#[test]
fn the_published_schema_is_the_one_the_code_gives_and_accepts_the_example() {
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/headwater.schema.json");
    let expected = format!("{:#}\n", settings_json_schema());
    if std::env::var_os("HEADWATER_UPDATE_GOLDEN").is_some() {
        std::fs::write(&published, &expected).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&published).unwrap_or_default(),
        expected,
        "run this test with HEADWATER_UPDATE_GOLDEN=1 to publish it"
    );
    let schema = jsonschema::validator_for(&settings_json_schema()).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/billing/headwater.yaml");
    let example: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(example).unwrap()).unwrap();
    assert!(schema.is_valid(&example), "{:?}", schema.iter_errors(&example).collect::<Vec<_>>());
    assert!(!schema.is_valid(&serde_json::json!({ "connectors": [], "models": [], "brokre": {} })));
}

#[test]
fn engines_are_chosen_by_configuration() {
    let plain = load_settings_of(SETTINGS).unwrap().settings;
    assert!(plain.broker.kafka.is_none());
    assert_eq!((plain.store.rows(), plain.store.documents()), (StoreEngine::Embedded, StoreEngine::Embedded));
    let mongodb = "store: { mongodb: { uri: mongodb://h } }\n";
    let settings = load_settings_of(&format!("{SETTINGS}broker: {{ kafka: {{ servers: [k:9092] }} }}\n{mongodb}"));
    let settings = settings.unwrap().settings;
    assert_eq!((settings.broker.partitions(), settings.store.rows()), (6, StoreEngine::Embedded));
    assert_eq!(settings.store.documents(), StoreEngine::Mongodb);
    let both = load_settings_of(&format!("{SETTINGS}store: {{ rows: mongodb, mongodb: {{ uri: mongodb://h }} }}\n"));
    assert_eq!(both.unwrap().settings.store.rows(), StoreEngine::Mongodb);
}

#[test]
fn engines_that_do_not_go_together_are_refused() {
    refused(
        &format!("{SETTINGS}store: {{ documents: mongodb }}\n"),
        "
headwater.yaml:3:21: `store.documents` is mongodb, but there is no `store.mongodb`
    3 | store: { documents: mongodb }
      |                     ^
  help: say where, with `uri` below `mongodb`",
    );
    refused(
        &format!("{SETTINGS}store:\n  rows: mongodb\n  documents: embedded\n  mongodb: {{ uri: mongodb://h }}\n"),
        "
headwater.yaml:4:9: rows in MongoDB with documents inside this process cannot be kept in step
    4 |   rows: mongodb
      |         ^
  help: leave out `store.documents`, or keep both inside this process",
    );
    refused(
        &format!("{SETTINGS}broker: {{ kafka: {{ servers: [kafka] }} }}\n"),
        "
headwater.yaml:3:29: `broker.kafka.servers` must be a list of `host:port`
    3 | broker: { kafka: { servers: [kafka] } }
      |                             ^
  help: for example [kafka-1:9092, kafka-2:9092]",
    );
    let security = |text: &str| {
        load_settings_of(&format!("{SETTINGS}broker: {{ kafka: {{ servers: [k:1], security: {{ {text} }} }} }}\n"))
            .unwrap_err()
    };
    assert!(security("user: me").contains("`mechanism`, `user` and `password` together"));
    assert!(security("mechanism: plain, user: me, password: p").contains("without `tls: true` shows the password"));
    assert!(security("tls: true, certificate: a.pem").contains("`certificate` and `key` together"));
    // Whoever names authorities or shows a certificate does not expect clear text.
    for (name, text) in [("ca", "ca: a.pem"), ("certificate", "tls: false, certificate: a.pem, key: a.key")] {
        let told = security(text);
        let message = format!("`broker.kafka.security.{name}` without `tls: true` encrypts nothing");
        assert!(told.starts_with("headwater.yaml:3:") && told.contains(&message), "{told}");
    }
}
