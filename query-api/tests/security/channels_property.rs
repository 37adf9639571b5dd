//! For random models, masks, documents and channels a channel answers with what a naive evaluation over values gives: first
//! what the caller's roles leave, then what the channel does. By REST and by GraphQL alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_query_api::{
    AccessOptions, ApiKeyOptions, ApiOptions, AuthOptions, ChannelOptions, ChannelsOptions, Mask, MaskRule,
    ModelChannel, ModelRule, SelectRule, start,
};
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, Value as Scalar, key};
use headwater_store::{DocumentWrite, VersionId, VersionState};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::fixture::{TestAdmin, admin_server, any_port, engine, record, request, set_version};
use crate::property::{document, field, masked, named, paths, so_many, without_hashes};

/// A random model, what is masked of it, a channel, and documents.
#[derive(Clone, Debug)]
struct Case {
    fields: Vec<ShapeField>,
    masks: Vec<(String, Mask)>,
    channel: Channel,
    documents: Vec<Value>,
}

/// A channel by paths.
#[derive(Clone, Debug)]
struct Channel {
    /// Whether members of the document that are not named are taken, too.
    star: bool,
    taken: BTreeSet<String>,
    slices: BTreeMap<String, (usize, usize)>,
    renamed: BTreeMap<String, String>,
}

impl Channel {
    /// Whether something is shown at a path, and whether it is shown whole. `whole`: that around it is.
    fn takes(&self, path: &str, whole: bool) -> Option<bool> {
        let below = format!("{path}.");
        if whole || self.taken.contains(path) {
            return Some(true);
        }
        if self.taken.iter().any(|taken| taken.starts_with(&below)) {
            return Some(false);
        }
        (self.star && !path.contains('.')).then_some(true)
    }

    fn is_shown(&self, path: &str) -> bool {
        let mut whole = false;
        ends(path).all(|end| self.takes(&path[..end], whole).inspect(|now| whole = *now).is_some())
    }

    fn name(&self, path: &str) -> String {
        let own = path.rsplit('.').next().unwrap();
        self.renamed.get(path).cloned().unwrap_or_else(|| own.to_string())
    }

    fn options(&self) -> ModelChannel {
        let pattern = |path: &String| {
            let (mut text, mut start) = (String::new(), 0);
            for end in ends(path) {
                text += &path[start..end];
                if let Some((from, to)) = self.slices.get(&path[..end]) {
                    text += &format!("[{from}:{to}]");
                }
                start = end;
            }
            text.parse().unwrap()
        };
        let star = self.star.then(|| "*".parse().unwrap());
        let fields = self.taken.iter().map(pattern).chain(star).collect();
        ModelChannel { fields, rename: self.renamed.clone() }
    }
}

/// Where each path on the way to `path` ends.
fn ends(path: &str) -> impl Iterator<Item = usize> {
    path.match_indices('.').map(|(at, _)| at).chain([path.len()])
}

fn cases() -> impl Strategy<Value = Case> {
    prop::collection::vec(field(), 2..5).prop_map(named).prop_flat_map(|fields| {
        let mut all = Vec::new();
        paths(&fields, "", &mut all);
        let slice = (0usize..3, 1usize..3).prop_map(|(from, len)| (from, from + len));
        let mask = (
            prop::sample::select(all.clone()),
            prop_oneof![3 => Just(Mask::Hidden), 1 => Just(Mask::Partial), 1 => Just(Mask::Hash)],
        );
        let most = all.len();
        (
            prop::collection::vec(mask, 0..3),
            any::<bool>(),
            prop::sample::subsequence(all.clone(), 1..=most),
            prop::collection::vec(prop::option::of(slice), most),
            prop::collection::vec(any::<bool>(), most),
            prop::collection::vec(document(&fields), 2..4),
        )
            .prop_map(move |(masks, star, taken, slices, renamed, documents)| {
                let mut channel = Channel {
                    star,
                    taken: taken.into_iter().collect(),
                    slices: BTreeMap::new(),
                    renamed: BTreeMap::new(),
                };
                for (at, path) in all.iter().enumerate() {
                    let slice = slices[at].filter(|_| is_array(&fields, path));
                    channel.slices.extend(slice.map(|slice| (path.clone(), slice)));
                    if renamed[at] && channel.is_shown(path) {
                        channel.renamed.insert(path.clone(), format!("new{at}"));
                    }
                }
                Case { fields: fields.clone(), masks, channel, documents }
            })
    })
}

fn is_array(fields: &[ShapeField], path: &str) -> bool {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    match &fields.iter().find(|field| field.name == name).unwrap().kind {
        FieldType::Scalar(_) => false,
        FieldType::Nested { cardinality, .. } if rest.is_empty() => *cardinality == Cardinality::Many,
        FieldType::Nested { fields, .. } => is_array(fields, rest),
    }
}

/// What is shown of an object: each member with its path, its name, and whether it is whole.
fn shown<'f>(
    case: &Case,
    fields: &'f [ShapeField],
    before: &str,
    whole: bool,
) -> Vec<(&'f ShapeField, String, String, bool)> {
    let mut out = Vec::new();
    for field in fields {
        let path = if before.is_empty() { field.name.clone() } else { format!("{before}.{}", field.name) };
        let mask = case.masks.iter().filter(|(of, _)| *of == path).map(|(_, mask)| *mask).max();
        let Some(whole) = case.channel.takes(&path, whole) else { continue };
        let any = match (&field.kind, mask) {
            (_, Some(Mask::Hidden)) | (FieldType::Nested { .. }, Some(_)) => false,
            (FieldType::Nested { fields, .. }, None) => !shown(case, fields, &path, whole).is_empty(),
            (FieldType::Scalar(_), _) => true,
        };
        if any {
            let name = case.channel.name(&path);
            out.push((field, path, name, whole));
        }
    }
    out
}

/// The naive evaluation of the channel over what roles leave of a document.
fn evaluated(case: &Case, fields: &[ShapeField], before: &str, whole: bool, value: &Value) -> Value {
    let Value::Object(members) = value else { return value.clone() };
    let mut out = Map::new();
    for (field, path, name, is_whole) in shown(case, fields, before, whole) {
        let value = &members[&field.name];
        let seen = match &field.kind {
            FieldType::Nested { fields, .. } => match value {
                Value::Array(items) => {
                    // A slice is said of an array that is named, not of what lies in something taken whole.
                    let named = case.channel.taken.iter().any(|of| *of == path || of.starts_with(&format!("{path}.")));
                    let slice = case.channel.slices.get(&path).filter(|_| !whole && named);
                    let (from, to) = slice.copied().unwrap_or((0, usize::MAX));
                    let items = items.iter().take(to).skip(from);
                    items.map(|item| evaluated(case, fields, &path, is_whole, item)).collect()
                }
                other => evaluated(case, fields, &path, is_whole, other),
            },
            FieldType::Scalar(_) => value.clone(),
        };
        out.insert(name, seen);
    }
    Value::Object(out)
}

/// All that GraphQL can be asked.
fn selection(case: &Case, fields: &[ShapeField], before: &str, whole: bool) -> String {
    let mut out = String::from("{");
    for (field, path, name, whole) in shown(case, fields, before, whole) {
        out += &format!(" {name}");
        if let FieldType::Nested { fields, .. } = &field.kind {
            out += &selection(case, fields, &path, whole);
        }
    }
    out + " }"
}

fn check(case: &Case) {
    let first = case.fields.iter().find_map(|field| match &field.kind {
        FieldType::Scalar(kind) => Some((field.name.clone(), kind.clone())),
        FieldType::Nested { .. } => None,
    });
    let indexes = first.iter().map(|(name, kind)| IndexShape { name: name.clone(), kind: kind.clone(), many: false });
    let shape = ModelShape {
        model: "thing".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Int64],
        fields: case.fields.clone(),
        indexes: indexes.collect(),
    };
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let opened = engine::open(engine::OF_THIS_PROGRAM, folder.path(), &runtime);
    set_version(&opened.store, &record(1, shape, VersionState::Active));
    let mut batch = opened.store.begin().unwrap();
    for (id, document) in case.documents.iter().enumerate() {
        let indexed = first.as_ref().map(|(name, kind)| {
            let value = match &document[name] {
                Value::Null => Scalar::Null,
                Value::String(text) => Scalar::parse(text, kind).unwrap(),
                other => Scalar::parse(&other.to_string(), kind).unwrap(),
            };
            key::of(value.scalar().unwrap())
        });
        let entries: Vec<(u16, &[u8])> = indexed.iter().map(|key| (0, key.as_slice())).collect();
        let id = key::of(Scalar::Int(id as i64).scalar().unwrap());
        let body = document.to_string();
        let write = DocumentWrite { id: &id, body: Some(body.as_bytes()), entries: &entries, stamp: None };
        batch.put_documents(VersionId(1), 1, &[write]).unwrap();
    }
    batch.commit().unwrap();

    let masks =
        case.masks.iter().map(|(path, mask)| MaskRule { fields: vec![path.clone()], mask: *mask, except: vec![] });
    let rule = ModelRule { masks: masks.collect(), ..ModelRule::default() };
    let key = ApiKeyOptions {
        name: "reader".into(),
        sha256: Sha256::digest("reader").into(),
        roles: vec![],
        claims: Map::new(),
    };
    let auth = AuthOptions { anonymous: false, issuers: vec![], api_keys: vec![key] };
    let rules = BTreeMap::from([("thing".to_string(), rule)]);
    let access = AccessOptions { auth: Some(auth), rules, ..AccessOptions::default() };
    let of = ChannelOptions { shape: case.channel.options(), ..ChannelOptions::default() };
    let channels = ChannelsOptions {
        channels: BTreeMap::from([("c".to_string(), of)]),
        select: vec![SelectRule::header("x-channel").unwrap()],
        required: false,
    };
    let options = ApiOptions { access, channels, ..ApiOptions::new(b"secret".to_vec()) };
    let stop = CancellationToken::new();
    let registry = Arc::new(Mutex::new(Registry::default()));
    let start = start(options, any_port(), opened.reader(&runtime), registry.clone(), stop.clone());
    let api = runtime.block_on(start).unwrap();
    let admin = admin_server(&runtime);
    admin.open(Arc::new(TestAdmin), registry, Some(&api));

    let headers = [("x-api-key", "reader"), ("x-channel", "c"), ("content-type", "application/json")];
    let get = |path: &str| request(&format!("http://{}{path}", api.address), "GET", &headers, None);
    let status = request(&format!("http://{}/status", admin.address()), "GET", &[], None).json();
    assert_eq!(status["channel_problems"], Value::Null, "the channel fits");
    let members = shown(case, &case.fields, "", false);
    if members.is_empty() {
        assert_eq!(get("/v1/thing/0").status, 404);
    } else {
        let wanted: Vec<Value> = case
            .documents
            .iter()
            .map(|document| evaluated(case, &case.fields, "", false, &masked(&case.fields, &case.masks, "", document)))
            .collect();
        for (id, wanted) in wanted.iter().enumerate() {
            assert_eq!(without_hashes(get(&format!("/v1/thing/{id}")).json()), *wanted);
        }
        assert_eq!(without_hashes(get("/v1/thing").json()["data"].clone()), json!(wanted));
        let names: Vec<&String> = members.iter().map(|(_, _, name, _)| name).collect();
        let described = get("/v1/thing/schema").json();
        assert_eq!(described["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), names);

        let text = selection(case, &case.fields, "", false);
        let query = format!("{{ thing(id: 0) {text} things {{ nodes {text} }} }}");
        let body = json!({ "query": query }).to_string();
        let answer = request(&format!("http://{}/graphql", api.address), "POST", &headers, Some(&body));
        let data = without_hashes(answer.json()["data"].clone());
        assert_eq!(data["thing"], wanted[0], "{query}: {}", answer.body);
        assert_eq!(data["things"]["nodes"], json!(wanted), "{query}");

        if let Some((name, _)) = &first {
            let is_masked = case.masks.iter().any(|(path, _)| path == name);
            let shown_as = case.channel.is_shown(name).then(|| case.channel.name(name)).filter(|_| !is_masked);
            for sorted in ["sort", "filter"] {
                let ask = |name: &str| match sorted {
                    "sort" => get(&format!("/v1/thing?sort={name}")).status,
                    _ => get(&format!("/v1/thing?filter[{name}][exists]=true")).status,
                };
                assert_eq!(ask(name) == 200, shown_as.as_ref() == Some(name), "{sorted} {name}");
                assert!(shown_as.as_ref().is_none_or(|name| ask(name) == 200), "{sorted} {shown_as:?}");
            }
        }
    }
    stop.cancel();
    runtime.block_on(api.join).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: so_many(60), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn channels_show_what_a_naive_evaluation_shows(case in cases()) {
        check(&case);
    }
}
