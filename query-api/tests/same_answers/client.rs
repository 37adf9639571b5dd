//! Asks the API, by REST and by GraphQL.

use std::net::SocketAddr;
use std::time::Duration;

use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};

use crate::plain::{Plain, elements};
use crate::query::{Paths, Query};

/// Pages of one list, at most: more is a cursor that goes in circles.
const PAGES_MAX: u64 = 100;

pub(crate) struct Client {
    agent: Option<ureq::Agent>,
    base: String,
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A value as it stands in a query string; in a list, `,` and `\` are escaped.
fn rest_value(value: &Plain, in_list: bool) -> String {
    match value {
        Plain::Text(text) if in_list => text.replace('\\', "\\\\").replace(',', "\\,"),
        Plain::Text(text) => text.clone(),
        Plain::Number(number) => number.to_plain_string(),
        Plain::Instant(text) => format!("{text}Z"),
        Plain::Bool(value) => value.to_string(),
        Plain::Null => panic!("null is asked for by `exists`"),
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
        Self { agent: Some(config.build().into()), base: format!("http://{address}") }
    }

    /// Lets go of the connections.
    pub(crate) fn close(&mut self) {
        self.agent = None;
    }

    fn get(&self, path: &str, statuses: &[u16]) -> (u16, Json) {
        let mut response = self.agent.as_ref().unwrap().get(format!("{}{path}", self.base)).call().unwrap();
        let (status, body) = (response.status().as_u16(), response.body_mut().read_to_string().unwrap());
        assert!(statuses.contains(&status), "{path}: {status} {body}");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn post(&self, query: &str) -> Json {
        let body = json!({ "query": query }).to_string();
        let request = self.agent.as_ref().unwrap().post(format!("{}/graphql", self.base));
        let mut response = request.header("content-type", "application/json").send(body).unwrap();
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// `None`: it costs too much, so less must be asked at once.
    fn graphql(&self, query: &str) -> Option<Json> {
        let mut answer = self.post(query);
        if answer["errors"][0]["extensions"]["limit"] == "cost" {
            return None;
        }
        assert!(answer.get("errors").is_none(), "{query}\n{answer}");
        Some(answer["data"]["answer"].take())
    }

    /// Every document of every page, and how many pages there were.
    pub(crate) fn rest_list(&self, model: &str, query: &Query) -> (Vec<Json>, u64) {
        let path = format!("/v1/{model}?limit={}{}{}", query.limit, conditions(query), fields(&query.paths));
        let (mut all, mut after) = (Vec::new(), String::new());
        for page in 1..=PAGES_MAX {
            let (_, mut answer) = self.get(&format!("{path}{after}"), &[200]);
            all.append(answer["data"].as_array_mut().unwrap());
            let Some(next) = answer["page"]["next"].as_str() else { return (all, page) };
            after = format!("&after={next}");
        }
        panic!("{path} has no end");
    }

    /// `None`: it is refused.
    pub(crate) fn rest_count(&self, model: &str, query: &Query) -> Option<u64> {
        let path = format!("/v1/{model}?limit=1&count=exact{}", conditions(query));
        let (status, answer) = self.get(&path, &[200, 400]);
        assert!(status == 200 || answer["code"] == "count_too_large", "{path}: {answer}");
        answer["count"]["value"].as_u64()
    }

    /// What is said of a list that cannot be asked for: by REST and by GraphQL, each a code and a text.
    pub(crate) fn refusals(&self, shape: &ModelShape, query: &Query) -> [(Json, Json); 2] {
        let (_, mut rest) = self.get(&format!("/v1/{}?{}", shape.model, conditions(query)), &[400]);
        let asked = format!("{{ answer: {}s(first: 1{}) {{ totalCount }} }}", shape.model, wheres(query));
        let mut graphql = self.post(&asked)["errors"][0].take();
        let code = graphql["extensions"]["code"].take();
        [(rest["code"].take(), rest["detail"].take()), (code, graphql["message"].take())]
    }

    /// Every element of an array, page by page.
    pub(crate) fn rest_elements(&self, model: &str, id: &str, path: &str, limit: usize, paths: &Paths) -> Vec<Json> {
        let path = format!("/v1/{model}/{}/{path}?limit={limit}{}", escaped(id), fields(paths));
        let (mut all, mut after) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let (_, mut answer) = self.get(&format!("{path}{after}"), &[200]);
            all.append(answer["data"].as_array_mut().unwrap());
            let Some(next) = answer["page"]["next"].as_str() else {
                assert_eq!(answer["count"]["value"], all.len(), "{path}");
                return all;
            };
            after = format!("&after={next}");
        }
        panic!("{path} has no end");
    }

    /// The first elements of an array.
    pub(crate) fn graphql_elements(
        &self,
        shape: &ModelShape,
        id: &str,
        (path, fields): (&str, &[ShapeField]),
        first: usize,
        paths: &Paths,
    ) -> Vec<Json> {
        let array = format!("(first: {first}) {}", selection(fields, paths));
        let asked = format!("{}{array}{}", path.replace('.', " { "), " }".repeat(path.matches('.').count()));
        let answer = self.graphql(&format!("{{ answer: {}(id: {}) {{ {asked} }} }}", shape.model, json!(id)));
        elements(&answer.expect("few elements do not cost too much"), path).to_vec()
    }

    pub(crate) fn rest_batch(&self, model: &str, ids: &[&str], paths: &Paths) -> Vec<Json> {
        let ids: Vec<String> = ids.iter().map(|id| id.replace('\\', "\\\\").replace(',', "\\,")).collect();
        let (_, mut answer) =
            self.get(&format!("/v1/{model}?ids={}{}", escaped(&ids.join(",")), fields(paths)), &[200]);
        std::mem::take(answer["data"].as_array_mut().unwrap())
    }

    /// A document, or null.
    pub(crate) fn rest_one(&self, model: &str, id: &str, paths: &Paths) -> Json {
        let (status, answer) = self.get(&format!("/v1/{model}/{}?{}", escaped(id), fields(paths)), &[200, 404]);
        if status == 200 { answer } else { Json::Null }
    }

    /// Every node of every page, and the count.
    pub(crate) fn graphql_list(&self, shape: &ModelShape, query: &Query) -> (Vec<Json>, Option<u64>) {
        let sort = query.sort.as_ref().map(|(index, descending)| {
            let direction = if *descending { "DESC" } else { "ASC" };
            format!(", orderBy: {}_{direction}", index.name.replace('.', "_"))
        });
        let (sort, wheres, chosen) = (sort.unwrap_or_default(), wheres(query), selection(&shape.fields, &query.paths));
        let (mut all, mut after, mut count, mut first) = (Vec::new(), String::new(), None, query.limit);
        for _ in 0..PAGES_MAX {
            let asked = format!(
                "{{ answer: {}s(first: {first}{wheres}{sort}{after}) {{ nodes {chosen} pageInfo {{ hasNextPage endCursor }} totalCount }} }}",
                shape.model
            );
            let Some(mut answer) = self.graphql(&asked) else {
                assert!(first > 1, "{asked}");
                first /= 2;
                continue;
            };
            all.append(answer["nodes"].as_array_mut().unwrap());
            count = answer["totalCount"].as_u64();
            if answer["pageInfo"]["hasNextPage"] != true {
                return (all, count);
            }
            after = format!(", after: {}", answer["pageInfo"]["endCursor"]);
        }
        panic!("{query:?} has no end: {count:?}");
    }

    pub(crate) fn graphql_batch(&self, shape: &ModelShape, ids: &[&str], paths: &Paths) -> Vec<Json> {
        let asked =
            format!("{{ answer: {}sByIds(ids: {}) {} }}", shape.model, json!(ids), selection(&shape.fields, paths));
        let Some(answer) = self.graphql(&asked) else {
            assert!(ids.len() > 1, "{asked}");
            let (some, others) = ids.split_at(ids.len() / 2);
            return [self.graphql_batch(shape, some, paths), self.graphql_batch(shape, others, paths)].concat();
        };
        answer.as_array().unwrap().clone()
    }

    pub(crate) fn graphql_one(&self, shape: &ModelShape, id: &str, paths: &Paths) -> Json {
        let asked = format!("{{ answer: {}(id: {}) {} }}", shape.model, json!(id), selection(&shape.fields, paths));
        self.graphql(&asked).expect("one document does not cost too much")
    }
}

fn fields(paths: &Paths) -> String {
    if paths.0.is_empty() { String::new() } else { format!("&fields={}", paths.0.join(",")) }
}

/// Filters and order of a query string.
fn conditions(query: &Query) -> String {
    let mut out = String::new();
    for condition in &query.conditions {
        let in_list = matches!(condition.operator, "in" | "nin");
        let values: Vec<String> = condition.values.iter().map(|value| rest_value(value, in_list)).collect();
        let (path, operator) = (&condition.index.name, condition.operator);
        out.push_str(&format!("&filter[{path}][{operator}]={}", escaped(&values.join(","))));
    }
    if let Some((index, descending)) = &query.sort {
        out.push_str(&format!("&sort={}{}", if *descending { "-" } else { "" }, index.name));
    }
    out
}

/// The same as an argument of GraphQL.
fn wheres(query: &Query) -> String {
    use headwater_schemas::ColumnType::Decimal;
    let mut by_index: Vec<(String, String)> = Vec::new();
    for condition in &query.conditions {
        let value = |value: &Plain| match value {
            Plain::Text(text) => json!(text).to_string(),
            Plain::Instant(text) => json!(format!("{text}Z")).to_string(),
            Plain::Number(number) if condition.index.kind == Decimal => json!(number.to_plain_string()).to_string(),
            Plain::Number(number) => number.to_plain_string(),
            Plain::Bool(value) => value.to_string(),
            Plain::Null => panic!("null is asked for by `exists`"),
        };
        let values: Vec<String> = condition.values.iter().map(value).collect();
        let given = match condition.operator {
            "in" | "nin" => format!("[{}]", values.join(", ")),
            _ => values[0].clone(),
        };
        let name = condition.index.name.replace('.', "_");
        let written = format!("{}: {given}", condition.operator);
        match by_index.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => *all += &format!(", {written}"),
            None => by_index.push((name, written)),
        }
    }
    if by_index.is_empty() {
        return String::new();
    }
    let all: Vec<String> = by_index.iter().map(|(name, written)| format!("{name}: {{ {written} }}")).collect();
    format!(", where: {{ {} }}", all.join(", "))
}

/// The selection of these paths, in the order of the document.
fn selection(fields: &[ShapeField], paths: &Paths) -> String {
    fn inside(fields: &[ShapeField], above: &str, paths: &Paths) -> String {
        let mut out = String::from("{");
        for field in fields {
            let path = format!("{above}{}", field.name);
            if !paths.wants(&path) {
                continue;
            }
            out.push_str(&format!(" {}", field.name));
            if let FieldType::Nested { fields, .. } = &field.kind {
                out.push_str(&format!(" {}", inside(fields, &(path + "."), paths)));
            }
        }
        out + " }"
    }
    inside(fields, "", paths)
}
