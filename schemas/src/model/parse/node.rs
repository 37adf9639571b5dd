//! One level of a document: its fields, and the relations to the levels below.

use super::reader::{Members, Reader};
use super::{DEPTH_MAX, compute};
use crate::TableId;
use crate::model::definition::{Cardinality, Field, JoinColumn, Node, OrderBy, Relation, Through};
use crate::yaml::{Content, Member, Place, Yaml};

const RELATION: [&str; 11] =
    ["many", "one", "on", "through", "where", "order", "limit", "fields", "nest", "compute", "doc"];

impl Reader<'_> {
    pub(super) fn node(&mut self, members: &Members<'_>, depth: usize) -> Node {
        let mut names: Vec<(String, Place)> = Vec::new();
        let mut node = Node::default();
        if let Some(yaml) = members.get("fields") {
            node.fields = self.fields(yaml, &mut names);
        }
        if let Some(yaml) = members.get("nest") {
            for member in self.entries(yaml, "`nest`") {
                self.declare(&mut names, &member.key, member.key_place);
                if depth == DEPTH_MAX {
                    self.error(member.key_place, format!("relations nest deeper than {DEPTH_MAX} levels"));
                    break;
                }
                let relation = self.relation(member, depth + 1);
                node.relations.push(relation);
            }
        }
        if let Some(yaml) = members.get("compute") {
            for member in self.entries(yaml, "`compute`") {
                self.declare(&mut names, &member.key, member.key_place);
                if let Some(compute) = self.compute(member, &node) {
                    node.computes.push(compute);
                }
            }
        }
        if names.is_empty() && !members.is_meant(&["fields", "nest", "compute"]) {
            let help = "declare at least one member under `fields`, `nest` or `compute`";
            self.error_help(members.place(), "nothing is in this object", help);
        }
        node
    }

    /// Notes a member's name; two members of one object cannot share one.
    fn declare(&mut self, names: &mut Vec<(String, Place)>, name: &str, place: Place) {
        self.member_name(name, place);
        match names.iter().find(|(other, _)| other == name) {
            Some((_, first)) => {
                let message = format!("two members are named `{name}`; the first stands in line {}", first.line);
                self.error_help(place, message, "rename one of them");
            }
            None => names.push((name.into(), place)),
        }
    }

    fn fields(&mut self, yaml: &Yaml, names: &mut Vec<(String, Place)>) -> Vec<Field> {
        use crate::model::definition::Expression;
        match &yaml.content {
            Content::Sequence(items) => items
                .iter()
                .filter_map(|item| match &item.content {
                    Content::Scalar { .. } => {
                        let name = self.text(item);
                        self.declare(names, &name, item.place);
                        Some(Field { expression: Expression::Column(name.clone()), name, doc: None })
                    }
                    _ => {
                        let help = "to rename or compute fields, write `fields` as a mapping: `name: column`";
                        self.error_help(item.place, "a field in a list is a column's name", help);
                        None
                    }
                })
                .collect(),
            Content::Mapping(members) => members
                .iter()
                .map(|member| {
                    self.declare(names, &member.key, member.key_place);
                    let (expression, doc) = self.field(&member.value);
                    Field { name: member.key.clone(), expression, doc }
                })
                .collect(),
            Content::Scalar { .. } => {
                let help = "write `[column, …]`, or a mapping `name: column`";
                self.error_help(yaml.place, "`fields` is a list or a mapping", help);
                Vec::new()
            }
        }
    }

    fn relation(&mut self, member: &Member, depth: usize) -> Relation {
        let members = self.mapping(&member.value, "a relation", &RELATION);
        let (cardinality, table) = match (members.get("many"), members.get("one")) {
            (Some(table), None) => (Cardinality::Many, self.table(table)),
            (None, Some(table)) => (Cardinality::One, self.table(table)),
            (None, None) if members.is_meant(&["many", "one"]) => (Cardinality::Many, TableId::new("", "", "")),
            (both, _) => {
                let message = if both.is_some() { "`many` and `one` exclude each other" } else { "whose rows?" };
                let help = "write `many: source.table` for an array or `one: source.table` for an object";
                self.error_help(member.key_place, format!("relation `{}`: {message}", member.key), help);
                (Cardinality::Many, TableId::new("", "", ""))
            }
        };
        let on = self.joins(&members, "on", member.key_place);
        let through = members.get("through").map(|yaml| {
            let members = self.mapping(yaml, "`through`", &["table", "on", "where"]);
            let table = match members.required(self, "table") {
                Some(yaml) => self.table(yaml),
                None => TableId::new("", "", ""),
            };
            let on = self.joins(&members, "on", yaml.place);
            let filter = members.get("where").map(|yaml| self.predicate(yaml, &mut Self::column));
            Through { table, on, filter }
        });
        let filter = members.get("where").map(|yaml| self.predicate(yaml, &mut Self::column));
        let order = members.get("order").map(|yaml| self.order(yaml)).unwrap_or_default();
        let limit = members.get("limit").map(|yaml| self.positive(yaml, "a limit"));
        if let (Cardinality::One, Some(member)) = (cardinality, members.member("limit")) {
            self.error_help(member.key_place, "a `one` relation has no limit", "leave `limit` out, or write `many`");
        }
        let doc = members.get("doc").map(|yaml| self.text(yaml));
        let node = self.node(&members, depth);
        Relation { name: member.key.clone(), doc, cardinality, table, on, through, filter, order, limit, node }
    }

    fn joins(&mut self, members: &Members<'_>, key: &str, place: Place) -> Vec<JoinColumn> {
        let help = "write `on: { column there: column here }`";
        let Some(yaml) = members.get(key) else {
            if !members.is_meant(&[key]) {
                self.error_help(place, "by which columns are the rows joined? `on` is missing", help);
            }
            return Vec::new();
        };
        let entries = self.entries(yaml, "`on`");
        if entries.is_empty() && matches!(yaml.content, Content::Mapping(_)) {
            self.error_help(yaml.place, "`on` joins no columns", help);
        }
        entries
            .iter()
            .map(|member| JoinColumn {
                child: self.column((&member.key, member.key_place)),
                parent: self.text(&member.value),
            })
            .collect()
    }

    fn order(&mut self, yaml: &Yaml) -> Vec<OrderBy> {
        let mut order: Vec<OrderBy> = Vec::new();
        for item in self.one_or_more(yaml) {
            let text = self.text(item);
            let (descending, column) = match text.strip_prefix('-') {
                Some(column) => (true, column),
                None => (false, text.as_str()),
            };
            if order.iter().any(|by| by.column == column) {
                self.error(item.place, format!("order by `{column}` stands twice"));
            }
            if descending && column.is_empty() {
                self.error(item.place, "`-` needs a column after it: `-issued_on`");
            }
            order.push(OrderBy { column: column.into(), descending });
        }
        order
    }
}

/// The names one can go on with from a node, for suggestions.
pub(super) fn member_names(node: &Node) -> Vec<&str> {
    let fields = node.fields.iter().map(|field| field.name.as_str());
    let relations = node.relations.iter().map(|relation| relation.name.as_str());
    fields.chain(relations).chain(compute::names(node)).collect()
}
