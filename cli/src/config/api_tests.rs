//! What is said of wrong settings of the query API.

use headwater_query_api::{Algorithm, KeySource, Mask};

use super::{Configuration, Environment, settings_json_schema};

const MODEL: &str =
    "model: customer\nroot: { table: billing.cust, key: cust_no }\nfields: [cust_no, email]\nindexes: [email]\n";
const CONNECTOR: &str =
    "source: billing\npostgres:\n  host: h\n  database: d\n  user: u\n  password: p\n  tables: [cust]\n";
const SETTINGS: &str = "connectors: [connectors/*.yaml]\nmodels: [models/*.yaml]\n";
const AUTH: &str = "api:
  auth:
    jwt:
      - issuer: https://id.example.com/
        audience: billing
        algorithms: [RS256, ES256]
        jwks: { url: https://id.example.com/keys, refresh: 5m }
      - issuer: partner
        audience: [a, b]
        algorithms: [HS256]
        secret: ${SECRET}
        subject: uid
    api_keys:
      - name: reports
        sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
        roles: [support]
        claims: { tenant: acme, level: 3 }
";

fn load(api: &str) -> Result<Configuration, String> {
    load_with_model(api, MODEL)
}

fn load_with_model(api: &str, model: &str) -> Result<Configuration, String> {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("headwater.yaml", format!("{SETTINGS}{api}")),
        ("connectors/billing.yaml", CONNECTOR.into()),
        ("models/customer.yaml", model.into()),
    ];
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let environment = Environment::from([("SECRET".into(), "0123456789abcdef0123456789abcdef".into())]);
    Configuration::load_with(&folder.path().join("headwater.yaml"), &environment).map_err(|diagnostics| {
        let texts: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        texts.join("\n").replace(&format!("{}/", folder.path().display()), "")
    })
}

#[test]
fn everything_arrives_as_it_is_written() {
    let access = "  access:
    customer:
      roles: [customer, support]
      owner: { claim: customer_id, except: [support] }
      tenant: { claim: tenant, field: email }
      masks:
        - { fields: [email], mask: partial, except: [support] }
        - { fields: [cust_no] }
  limits: { principal: { rate: 100/s, burst: 20 }, address: { rate: 600/m }, trusted_hops: 2, deadline: 3s, streams_max: 8 }
  cors: { origins: [\"https://app.example.com\"] }
";
    let options = load(&format!("{AUTH}{access}")).unwrap().access();
    let auth = options.auth.unwrap();
    assert_eq!(auth.issuers[0].algorithms, [Algorithm::RS256, Algorithm::ES256]);
    assert!(matches!(&auth.issuers[0].keys, KeySource::Url(url) if url == "https://id.example.com/keys"));
    assert_eq!((auth.issuers[0].refresh.as_secs(), auth.issuers[0].leeway.as_secs()), (300, 30));
    assert!(matches!(&auth.issuers[1].keys, KeySource::Secret(secret) if secret.len() == 32));
    assert_eq!((auth.issuers[1].audiences.len(), auth.issuers[1].subject.as_str()), (2, "uid"));
    assert_eq!(auth.api_keys[0].sha256[..2], [0xe3, 0xb0]);
    assert_eq!(auth.api_keys[0].claims["level"], 3);
    let rule = &options.rules["customer"];
    assert_eq!(rule.owner.as_ref().unwrap().field, None);
    assert_eq!(rule.tenant.as_ref().unwrap().field.as_deref(), Some("email"));
    assert_eq!(rule.masks.iter().map(|mask| mask.mask).collect::<Vec<_>>(), [Mask::Partial, Mask::Hidden]);
    let principal = options.limits.principal.unwrap();
    assert_eq!((principal.requests.get(), principal.burst.get(), principal.per.as_secs()), (100, 20, 1));
    assert_eq!(options.limits.address.unwrap().burst.get(), 600);
    assert_eq!((options.limits.trusted_hops, options.limits.deadline.as_secs()), (2, 3));
    assert_eq!((options.limits.streams_max, options.limits.connections_max), (Some(8), 20_000));
    assert_eq!(options.limits.connections_per_address_max, None);
    let limits = load("api: { limits: { connections_per_address_max: 50 } }\n").unwrap().access().limits;
    assert_eq!((limits.connections_per_address_max, limits.streams_max), (Some(50), None));
    assert!(!options.cors.unwrap().credentials);
    let plain = load("").unwrap();
    assert!(plain.access().auth.is_none());
    assert_eq!((plain.settings.api.cache.bytes.0, plain.settings.api.compression), (64 << 20, true));
    let small = load("api: { cache: { bytes: 8MiB }, compression: false }\n").unwrap();
    assert_eq!((small.settings.api.cache.bytes.0, small.settings.api.compression), (8 << 20, false));
    assert_eq!(load("api: { cache: { bytes: 0 } }\n").unwrap().settings.api.cache.bytes.0, 0);
}

#[test]
fn how_graphql_is_served_is_read() {
    let trusted = "{ path: documents, only: true }";
    let options = load(&format!(
        "api: {{ graphql: {{ batch_max: 0, persisted_queries: 1MiB, trusted_documents: {trusted} }} }}\n"
    ))
    .unwrap()
    .graphql();
    assert_eq!((options.batch_max, options.persisted_bytes_max, options.subscriptions_max), (0, 1 << 20, 100));
    let trusted = options.trusted.unwrap();
    assert!(trusted.only && trusted.path.is_absolute() && trusted.path.ends_with("documents"), "{trusted:?}");
    assert_eq!(load("").unwrap().graphql(), headwater_query_api::GraphQlOptions::default());
}

#[test]
fn mistakes_are_shown_where_they_stand_with_the_remedy() {
    let issuer = |more: &str| format!("api:\n  auth:\n    jwt:\n      - {{ issuer: i, audience: a, {more} }}\n");
    let ruled = |rule: &str| format!("{}  access:\n    {rule}\n", AUTH);
    for (api, words) in [
        ("api: { access: { customer: {} } }\n".to_string(), &["yaml:3:", "needs `api.auth`"][..]),
        ("api: { auth: {} }\n".into(), &["lets nobody in"]),
        (issuer("algorithms: [RS256, HS256], jwks: { url: \"https://x\" }"), &["yaml:6:", "mixed", "two issuers"]),
        (issuer("algorithms: [none], jwks: { url: \"https://x\" }"), &["yaml:6:", "expected RS256"]),
        (issuer("algorithms: [], jwks: { url: \"https://x\" }"), &["`algorithms` is empty"]),
        (issuer("algorithms: [RS256], jwks: { url: \"ftp://x\" }"), &["must begin with https://"]),
        (issuer("algorithms: [RS256], jwks: {}"), &["either `url` or `file`"]),
        (
            issuer("algorithms: [RS256], jwks: { url: \"https://x\", refresh: 0s }"),
            &["yaml:6:", "`jwks.refresh` must be 10s or longer", "10m"],
        ),
        (issuer("algorithms: [RS256], secret: x"), &["need `jwks`"]),
        (issuer("algorithms: [HS256], jwks: { url: \"https://x\" }"), &["need `secret`"]),
        (issuer("algorithms: [HS256], secret: short"), &["shorter than 32", "openssl rand"]),
        (issuer("algorithms: [RS256], jwks: { file: f }, audiense: x"), &["unknown key `audiense`", "`audience`"]),
        ("api: { auth: { api_keys: [{ name: a, sha256: abc }] } }\n".into(), &["64 hexadecimal digits"]),
        (ruled("custmer: {}"), &["`custmer`", "did you mean `customer`?"]),
        (
            ruled("customer: { owner: { claim: c, field: emial } }"),
            &["yaml:21:", "`emial` is no declared index", "`indexes`"],
        ),
        (ruled("customer: { masks: [{ fields: [phone] }] }"), &["customer has no field `phone`"]),
        (ruled("customer: { masks: [{ fields: [email], mask: blurred }] }"), &["`blurred`", "hidden"]),
        ("api: { limits: { principal: { rate: fast } } }\n".into(), &["a rate like 100/s"]),
        ("api: { limits: { requests_max: 0 } }\n".into(), &["from 1 to 1000000"]),
        ("api: { limits: { streams_max: 0 } }\n".into(), &["`api.limits.streams_max`", "from 1 to 1000000"]),
        ("api: { limits: { connections_per_address_max: 0 } }\n".into(), &["per_address_max`", "from 1 to 1000000"]),
        ("api: { limits: { deadline: 0s } }\n".into(), &["longer than nothing"]),
        ("api: { limits: { sending_bytes_max: 1000 } }\n".into(), &["`api.limits.sending_bytes_max`", "1MiB or more"]),
        ("api: { cache: { bytes: much } }\n".into(), &["a size like"]),
        ("api: { cache: { size: 1MiB } }\n".into(), &["unknown key `size`", "bytes"]),
        ("api: { graphql: { batch_max: 5000 } }\n".into(), &["`api.graphql.batch_max`", "from 0 to 1000"]),
        ("api: { graphql: { subscriptions_max: 0 } }\n".into(), &["from 1 to 1000"]),
        ("api: { graphql: { trusted_documents: { only: true } } }\n".into(), &["path"]),
        ("api: { cors: { origins: [\"*\"], credentials: true } }\n".into(), &["`*` stands alone"]),
        ("api: { cors: { origins: [app.example.com/x] } }\n".into(), &["is no origin"]),
    ] {
        let said = load(&api).expect_err(&api);
        assert!(words.iter().all(|word| said.contains(word)), "{api}\n{said}");
        assert!(!said.contains("0123456789abcdef"), "a secret is shown: {said}");
    }
}

#[test]
fn the_published_schema_takes_what_is_taken() {
    let schema = jsonschema::validator_for(&settings_json_schema()).unwrap();
    let yaml = format!(
        "{SETTINGS}{AUTH}  access: {{ customer: {{ owner: {{ claim: c }}, masks: [{{ fields: [email] }}] }} }}\n"
    );
    let value: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    let wrong: Vec<String> =
        schema.iter_errors(&value).map(|error| format!("{} at {}", error, error.instance_path)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (api, name) in [
        (serde_json::json!({"auth": {"jwt": [{"issuer": "i"}]}}), "a key is missing"),
        (serde_json::json!({"access": {"customer": {"ownr": {}}}}), "a key is mistyped"),
        (serde_json::json!({"limits": {"principal": {"rate": "fast"}}}), "a rate is none"),
    ] {
        let mut value = value.clone();
        value["api"] = api;
        assert!(!schema.is_valid(&value), "{name}");
    }
}

const CHANNEL_MODEL: &str = "model: invoice
root: { table: billing.inv, key: id }
fields: [id, total, status]
nest:
  lines: { many: billing.line, on: { inv: id }, fields: [text, amount] }
";

fn load_channels(api: &str) -> Result<Configuration, String> {
    load_with_model(api, CHANNEL_MODEL)
}

#[test]
fn channels_arrive_as_they_are_written() {
    let api = "api:
  channels:
    web: {}
    mobile:
      models:
        invoice: { fields: [id, total, \"lines[0:3].{text,amount}\"], rename: { total: amt } }
      page: { max: 10 }
      live: false
    iot: { fields: [id, status], page: { max: 50, default: 5 }, format: json }
  select:
    - header: X-Channel
    - { host: m.example.com, as: mobile }
    - { user_agent: ^Fridge/, as: iot }
  channel_required: true
  slow_query: 2s
  server_timing: true
";
    let api = load_channels(api).unwrap().settings.api;
    let options = api.channels_options();
    let mobile = &options.channels["mobile"];
    let invoice = mobile.of("invoice").unwrap();
    assert_eq!(invoice.fields[2].as_str(), "lines[0:3].{text,amount}");
    assert_eq!((invoice.rename["total"].as_str(), mobile.live), ("amt", false));
    assert_eq!((mobile.page.max, mobile.page.default, mobile.of("other").is_none()), (10, 10, true));
    let iot = &options.channels["iot"];
    assert_eq!((iot.page.max, iot.page.default, iot.of("invoice").unwrap().fields.len()), (50, 5, 2));
    assert!(options.channels["web"].of("invoice").unwrap().fields.is_empty());
    assert_eq!((options.select.len(), options.required), (3, true));
    assert_eq!(api.slow_query.0.map(|limit| limit.as_secs()), Some(2));
    assert!(api.server_timing);
    let trusted = "api: { channels: { web: { trusted_only: true } }, graphql: { trusted_documents: { path: q } } }\n";
    assert!(load_channels(trusted).unwrap().settings.api.channels_options().channels["web"].trusted_only);
    let usual = load_channels("api: { channels: { web: {} }, slow_query: off }\n").unwrap().settings.api;
    assert_eq!((usual.channels_options().select.len(), usual.slow_query.0), (1, None));
}

#[test]
fn what_is_wrong_of_channels_is_shown_where_it_stands() {
    let fields = |text: &str| format!("api:\n  channels:\n    web:\n      fields: [id, {text}]\n");
    let rename = |text: &str| format!("api:\n  channels:\n    web: {{ rename: {{ {text} }} }}\n");
    let select = |text: &str| format!("api:\n  channels: {{ web: {{}} }}\n  select:\n    - {{ {text} }}\n");
    for (api, words) in [
        (fields("totl"), &["yaml:6:20", "the channel `web`: invoice has no field `totl`", "did you mean `total`?"][..]),
        (fields("lines.amout"), &["yaml:6:20", "invoice.lines has no field `amout`", "did you mean `amount`?"]),
        (fields("\"total[0:3]\""), &["yaml:6:20", "`total` of invoice is no array"]),
        (fields("total.x"), &["invoice.total is a value"]),
        (fields("\"lines[3]\""), &["yaml:6:20", "a slice like [0:3]"]),
        (rename("totl: t"), &["yaml:5:28", "has no field `totl`"]),
        (rename("total: status"), &["yaml:5:29", "two fields of invoice get the name `status`"]),
        (rename("total: a-b"), &["`a-b` cannot name a field"]),
        ("api: { channels: { web: { models: { invoce: {} } } } }\n".into(), &["`invoce`", "did you mean `invoice`?"]),
        ("api: { channels: { default: {} } }\n".into(), &["no channel can be named `default`"]),
        ("api: { channels: { \"a b\": {} } }\n".into(), &["`a b` cannot name a channel"]),
        ("api: { channels: { web: { page: { max: 0 } } } }\n".into(), &["from 1 to 100"]),
        ("api: { channels: { web: { page: { max: 5, default: 6 } } } }\n".into(), &["`page.default` from 1"]),
        ("api: { channels: { web: { format: xml } } }\n".into(), &["`xml`", "json"]),
        ("api: { channels: { web: { feilds: [id] } } }\n".into(), &["unknown key `feilds`", "`fields`"]),
        (select("host: a.example.com, as: wbe"), &["yaml:6:", "no channel `wbe`", "did you mean `web`?"]),
        (select("host: a.example.com"), &["`as` is missing"]),
        (select("host: \"https://a\", as: web"), &["is no host"]),
        (select("header: X-Channel, as: web"), &["`as` cannot stand beside `header`"]),
        (select("header: \"X Channel\""), &["cannot name a header"]),
        (select("user_agent: \"(\", as: web"), &["`(` is no pattern", "unclosed group"]),
        (select("as: web"), &["one of `header`, `host` and `user_agent`"]),
        (
            "api: { channels: { web: { trusted_only: true } } }\n".into(),
            &["yaml:3:", "the channel `web` would answer no GraphQL", "`api.graphql.trusted_documents`"],
        ),
        ("api: { channel_required: true }\n".into(), &["yaml:3:", "needs `api.channels`"]),
        ("api: { slow_query: fast }\n".into(), &["250ms or 2s, or off"]),
    ] {
        let said = load_channels(&api).expect_err(&api);
        assert!(words.iter().all(|word| said.contains(word)), "{api}\n{said}");
    }
}
