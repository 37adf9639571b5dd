//! YAML as a tree in which every scalar and key keeps its exact text and its place: numbers are not rounded on the way,
//! and every mistake of a file can be shown where it stands, not only the first.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Levels of nesting beyond which a file is refused.
const DEPTH_MAX: usize = 128;
/// Nodes beyond which a file is refused, aliases counted as often as they are used.
const NODES_MAX: usize = 100_000;

/// Where something starts: line and column in characters, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Yaml {
    pub(crate) place: Place,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// `plain` is false for quoted and block scalars, which are always text.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Yaml>),
    Mapping(Vec<Member>),
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Yaml,
}

/// Why a text is not the YAML we read.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Reads the one document of `text`. An empty text is an empty mapping. Of keys that stand twice in a mapping the first
/// is kept, and a problem is returned beside the tree.
pub(crate) fn parse(text: &str) -> Result<(Yaml, Vec<Problem>), Problem> {
    let mut builder =
        Builder { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, duplicates: Vec::new() };
    let mut root = None;
    while let Some((event, span)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event if root.is_none() => root = Some(builder.node(event, span, 0)?),
            _ => return Err(problem(span, "a second YAML document; a file holds one")),
        }
    }
    let start = Place { line: 1, column: 1 };
    let root = root.unwrap_or(Yaml { place: start, content: Content::Mapping(Vec::new()) });
    Ok((root, builder.duplicates))
}

struct Builder<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    /// Anchored nodes by their number, with how many nodes each is; a node is here once it is complete.
    anchors: HashMap<usize, (Yaml, usize)>,
    nodes: usize,
    duplicates: Vec<Problem>,
}

fn place(span: Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

fn problem(span: Span, message: impl Into<String>) -> Problem {
    Problem { place: place(span), message: message.into() }
}

impl<'a> Builder<'a> {
    /// The next event that is not a comment.
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Problem> {
        loop {
            return match self.events.next_event() {
                None => Ok(None),
                Some(Ok((Event::Comment(..), _))) => continue,
                Some(Ok(event)) => Ok(Some(event)),
                Some(Err(error)) => {
                    let at = error.marker();
                    let place = Place { line: at.line().max(1), column: at.col() + 1 };
                    Err(Problem { place, message: format!("not YAML: {}", error.info()) })
                }
            };
        }
    }

    fn next_in(&mut self, opened: Span) -> Result<(Event<'a>, Span), Problem> {
        self.next()?.ok_or_else(|| problem(opened, "the file ends inside this"))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Yaml, Problem> {
        if depth > DEPTH_MAX {
            return Err(problem(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let before = self.nodes;
        self.count(1, span)?;
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (anchor, Content::Scalar { text: text.into_owned(), plain })
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next_in(span)? {
                        (Event::SequenceEnd, _) => break,
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
                (anchor, Content::Sequence(items))
            }
            Event::MappingStart(_, anchor, _) => (anchor, Content::Mapping(self.members(span, depth)?)),
            Event::Alias(anchor) => {
                let (mut node, nodes) = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    problem(span, "this alias stands inside the node it refers to: it would never end")
                })?;
                self.count(nodes, span)?;
                node.place = place(span);
                return Ok(node);
            }
            _ => return Err(problem(span, "not YAML: expected a value")),
        };
        let node = Yaml { place: place(span), content };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn members(&mut self, opened: Span, depth: usize) -> Result<Vec<Member>, Problem> {
        let mut members: Vec<Member> = Vec::new();
        loop {
            let (event, span) = self.next_in(opened)?;
            if event == Event::MappingEnd {
                return Ok(members);
            }
            let key_place = place(span);
            let Content::Scalar { text: key, .. } = self.node(event, span, depth + 1)?.content else {
                return Err(problem(span, "a key must be a name"));
            };
            let (event, value_span) = self.next_in(opened)?;
            let value = self.node(event, value_span, depth + 1)?;
            match members.iter().find(|member| member.key == key) {
                Some(first) => {
                    let message = format!("`{key}` already stands in line {}", first.key_place.line);
                    self.duplicates.push(problem(span, message));
                }
                None => members.push(Member { key, key_place, value }),
            }
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(problem(span, format!("more than {NODES_MAX} values, aliases counted as often as used")));
        }
        Ok(())
    }
}
