//! Where something stands in a YAML file, which turns out to be wrong only beside something else, such as a database.

use crate::yaml::{self, Content, Place, Yaml};

/// Where the keys and values of a YAML file stand.
pub struct Places(Option<Yaml>);

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The keys of mappings.
    Keys,
    /// Single values, and those in lists.
    Values,
}

impl Places {
    /// In a file that is no YAML everything stands at the beginning.
    pub fn of(text: &str) -> Self {
        Self(yaml::parse(text).ok().map(|(root, _)| root))
    }

    /// Line and column, both from 1, of the first of these names for which `is_it` holds, in what stands under one key in
    /// another.
    ///
    /// ```
    /// use headwater_schemas::{Names, Places};
    ///
    /// let places = Places::of("fields: { id: no, name: full_name }\non:\n  no: id\n");
    /// assert_eq!(places.find(&["fields"], Names::Values, |name| name == "no"), Some((1, 15)));
    /// assert_eq!(places.find(&["on"], Names::Keys, |name| name == "no"), Some((3, 3)));
    /// assert_eq!(places.at(&["fields", "name", "cast"]), (1, 19));
    /// ```
    pub fn find(&self, under: &[&str], names: Names, is_it: impl Fn(&str) -> bool) -> Option<(usize, usize)> {
        let (node, _) = self.follow(under)?;
        first(node, names, &is_it).map(|place| (place.line, place.column))
    }

    /// Line and column of the last of these keys, each in what stands under the one before, that is there.
    pub fn at(&self, under: &[&str]) -> (usize, usize) {
        self.follow(under).map_or((1, 1), |(_, place)| (place.line, place.column))
    }

    fn follow(&self, under: &[&str]) -> Option<(&Yaml, Place)> {
        let (mut node, mut place) = (self.0.as_ref()?, Place { line: 1, column: 1 });
        for key in under {
            let Content::Mapping(members) = &node.content else { break };
            let Some(member) = members.iter().find(|member| member.key == *key) else { break };
            (node, place) = (&member.value, member.key_place);
        }
        Some((node, place))
    }
}

fn first(node: &Yaml, names: Names, is_it: &impl Fn(&str) -> bool) -> Option<Place> {
    match &node.content {
        Content::Scalar { text, .. } => (names == Names::Values && is_it(text)).then_some(node.place),
        Content::Sequence(items) => items.iter().find_map(|item| first(item, names, is_it)),
        Content::Mapping(members) => members.iter().find_map(|member| {
            let is_key = names == Names::Keys && is_it(&member.key);
            is_key.then_some(member.key_place).or_else(|| first(&member.value, names, is_it))
        }),
    }
}
