//! A channel made to fit a model: which members of each object it takes, under which names, and what of it does not fit.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};

use super::level::Level;
use super::options::{ChannelOptions, Format, ModelChannel, PageLimits};
use super::pattern::Step;
use crate::projection::suggestion;

pub(crate) use super::pattern::Slice;

/// A channel as it fits one version of a model.
#[derive(Clone, Debug)]
pub(crate) struct Fitted {
    /// Name of the channel.
    pub(crate) channel: Arc<str>,
    /// What it takes of a document.
    pub(crate) cut: Cut,
    /// Sizes of pages.
    pub(crate) page: PageLimits,
    /// Whether changes are streamed.
    pub(crate) live: bool,
    /// What documents are written as where a request does not say.
    pub(crate) format: Format,
    /// Tells channels apart, and this declaration from others of the same name.
    pub(crate) fingerprint: u64,
}

/// What is taken of an object: its members, in their order. Others are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cut(pub(crate) Vec<Taken>);

/// A member that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Taken {
    /// Its name in the model.
    pub(crate) name: String,
    /// Its name in the channel.
    pub(crate) shown_as: String,
    /// Which of its elements, where it is an array of which some are left out.
    pub(crate) slice: Option<Slice>,
    /// What is taken of the objects below; `None`: all of it.
    pub(crate) below: Option<Cut>,
}

/// Something of a channel that does not fit a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Where it stands in the channel's shape of the model.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// The remedy.
    pub help: String,
}

/// A place in a channel's shape of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The pattern of this number.
    Field(usize),
    /// The new name of the field at this path.
    Rename(String),
}

/// What of a channel's shape does not fit a model with these fields.
pub fn misfits(shape: &ModelChannel, model: &str, fields: &[ShapeField]) -> Vec<Misfit> {
    fit(shape, model, fields).1
}

impl Fitted {
    /// The channel as it fits a version, and what does not fit; `None`: nothing of the model is in the channel.
    pub(crate) fn new(
        name: &Arc<str>,
        options: &ChannelOptions,
        version: &ModelShape,
    ) -> (Option<Arc<Self>>, Vec<Misfit>) {
        let Some(shape) = options.of(&version.model) else { return (None, Vec::new()) };
        let (cut, misfits) = fit(shape, &version.model, &version.fields);
        if cut.0.is_empty() && !version.fields.is_empty() {
            return (None, misfits);
        }
        let mut hasher = DefaultHasher::new();
        (&**name, &cut).hash(&mut hasher);
        let ChannelOptions { page, live, format, .. } = *options;
        let fingerprint = hasher.finish();
        (Some(Arc::new(Self { channel: name.clone(), cut, page, live, format, fingerprint })), misfits)
    }
}

impl Cut {
    /// What is taken of the member `name`.
    pub(crate) fn member(&self, name: &str) -> Option<&Taken> {
        self.0.iter().find(|taken| taken.name == name)
    }

    /// The path in the channel of the value at `path` in the model; `None` where it is not taken, or is in an array of
    /// which elements are left out: finding a document by such a value would tell of them.
    pub(crate) fn path(&self, path: &str) -> Option<String> {
        let (mut level, mut shown) = (Some(self), String::with_capacity(path.len()));
        for name in path.split('.') {
            let mut shown_as = name;
            if let Some(cut) = level {
                let taken = cut.member(name).filter(|taken| taken.slice.is_none())?;
                shown_as = &taken.shown_as;
                level = taken.below.as_ref();
            }
            if !shown.is_empty() {
                shown.push('.');
            }
            shown.push_str(shown_as);
        }
        Some(shown)
    }
}

fn fit(shape: &ModelChannel, model: &str, fields: &[ShapeField]) -> (Cut, Vec<Misfit>) {
    let mut root = Level::new(shape.fields.is_empty());
    let mut misfits = Vec::new();
    for (number, pattern) in shape.fields.iter().enumerate() {
        for path in &pattern.paths {
            if let Err((message, help)) = check(path, model, fields).and_then(|()| root.add(path, model)) {
                misfits.push(Misfit { place: Place::Field(number), message, help });
            }
        }
    }
    for (path, shown_as) in &shape.rename {
        if let Err((message, help)) = root.rename(path, shown_as, model, fields) {
            misfits.push(Misfit { place: Place::Rename(path.clone()), message, help });
        }
    }
    let cut = root.cut(model, fields, &mut misfits);
    (cut, misfits)
}

/// What is wrong, and the remedy.
pub(super) type Wrong = (String, String);

/// Whether a path leads to a field.
pub(super) fn check(path: &[Step], model: &str, fields: &[ShapeField]) -> Result<(), Wrong> {
    let mut fields = Some(fields);
    let mut before = model.to_string();
    for step in path {
        let Some(known) = fields else {
            let message = format!("{before} is a value and has no fields");
            return Err((message, "end the path with it".into()));
        };
        if step.name == "*" {
            return Ok(());
        }
        let field = known.iter().find(|field| field.name == step.name);
        let field =
            field.ok_or_else(|| (format!("{before} has no field `{}`", step.name), suggestion(&step.name, known)))?;
        let is_array = matches!(field.kind, FieldType::Nested { cardinality: Cardinality::Many, .. });
        if step.slice.is_some() && !is_array {
            let message = format!("`{}` of {before} is no array of which elements could be chosen", step.name);
            return Err((message, "take the brackets out, or put them behind a relation that is `many`".into()));
        }
        fields = match &field.kind {
            FieldType::Nested { fields, .. } => Some(fields),
            FieldType::Scalar(_) => None,
        };
        before = format!("{before}.{}", step.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use headwater_schemas::ColumnType;

    use super::*;

    fn fields() -> Vec<ShapeField> {
        let field = |name: &str, kind| ShapeField { name: name.into(), doc: None, required: true, kind };
        let value = |name: &str| field(name, FieldType::Scalar(ColumnType::Text));
        let nested = |name: &str, cardinality, fields| field(name, FieldType::Nested { cardinality, fields });
        let tariff = nested("tariff", Cardinality::One, vec![value("code"), value("name")]);
        vec![
            value("id"),
            value("total"),
            nested("customer", Cardinality::One, vec![value("name"), value("email")]),
            nested("lines", Cardinality::Many, vec![value("text"), value("amount"), tariff]),
        ]
    }

    fn shape(patterns: &[&str], rename: &[(&str, &str)]) -> ModelChannel {
        ModelChannel {
            fields: patterns.iter().map(|text| text.parse().expect(text)).collect(),
            rename: rename.iter().map(|(path, to)| (path.to_string(), to.to_string())).collect(),
        }
    }

    fn shown(cut: &Cut) -> String {
        let one = |taken: &Taken| {
            let mut text = taken.name.clone();
            if let Some(Slice { from, to }) = taken.slice {
                text += &format!("[{from}:{to}]");
            }
            if taken.shown_as != taken.name {
                text += &format!("={}", taken.shown_as);
            }
            taken.below.as_ref().map_or(text.clone(), |below| format!("{text}({})", shown(below)))
        };
        cut.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn patterns_and_names_become_a_cut() {
        for (patterns, rename, wanted) in [
            (&[][..], &[][..], "id total customer lines"),
            (&["*"], &[("total", "amt")], "id total=amt customer lines"),
            (&["total", "id"], &[], "id total"),
            (&["lines[0:3].{amount,text}", "id"], &[("lines.amount", "n")], "id lines[0:3](text amount=n)"),
            (&["*", "lines[0:2]"], &[], "id total customer lines[0:2]"),
            (&["*", "customer.name"], &[], "id total customer(name) lines"),
            (&["customer", "customer.name"], &[], "customer"),
            (&["customer.name", "customer"], &[("customer.name", "n")], "customer(name=n email)"),
            (&["lines", "lines.tariff.code"], &[("lines.text", "t")], "lines(text=t amount tariff)"),
            (&["lines.tariff.*"], &[("lines", "items")], "lines=items(tariff(code name))"),
            (&["id", "total"], &[("id", "total"), ("total", "id")], "id=total total=id"),
        ] {
            let (cut, misfits) = fit(&shape(patterns, rename), "invoice", &fields());
            assert_eq!((shown(&cut), misfits), (wanted.to_string(), vec![]), "{patterns:?} {rename:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_and_the_rest_is_taken() {
        for (patterns, rename, words, wanted) in [
            (&["id", "totl"][..], &[][..], "invoice has no field `totl`", "id"),
            (&["id", "customer.nam"], &[], "invoice.customer has no field `nam`", "id"),
            (&["id", "total.x"], &[], "invoice.total is a value", "id"),
            (&["id", "total.*"], &[], "invoice.total is a value", "id"),
            (&["id", "customer[0:1].name"], &[], "`customer` of invoice is no array", "id"),
            (&["id", "total[0:1]"], &[], "is no array", "id"),
            (&["lines[0:3].text", "lines.amount"], &[], "different elements of `lines`", "lines[0:3](text)"),
            (&["id"], &[("total", "amt")], "does not show it", "id"),
            (&["id"], &[("idd", "key")], "has no field `idd`", "id"),
            (&["id"], &[("id", "a-b")], "`a-b` cannot name a field", "id"),
            (&["id"], &[("id", "__id")], "`__id` cannot name a field", "id"),
            (&["id", "total"], &[("id", "n"), ("total", "n")], "two fields of invoice get the name `n`", "id=n"),
            // A field that has the name by itself gives way: the name goes on to mean what it meant.
            (&["*"], &[("total", "id")], "two fields of invoice get the name `id`", "total=id customer lines"),
        ] {
            let (cut, misfits) = fit(&shape(patterns, rename), "invoice", &fields());
            assert_eq!(misfits.len(), 1, "{misfits:?}");
            assert!(misfits[0].message.contains(words), "{misfits:?}");
            assert_eq!(shown(&cut), wanted, "{patterns:?} {rename:?}");
        }
        assert_eq!(misfits(&shape(&["totl"], &[]), "invoice", &fields())[0].help, "did you mean `total`?");
    }

    #[test]
    fn paths_are_those_of_the_channel() {
        let of = |patterns: &[&str], rename: &[(&str, &str)], path: &str| {
            fit(&shape(patterns, rename), "invoice", &fields()).0.path(path)
        };
        assert_eq!(
            of(&["*"], &[("lines.tariff.code", "tc"), ("lines", "l")], "lines.tariff.code"),
            Some("l.tariff.tc".into())
        );
        assert_eq!(of(&["lines"], &[], "lines.tariff.code"), Some("lines.tariff.code".into()));
        assert_eq!(of(&["lines.text"], &[], "lines.tariff.code"), None);
        assert_eq!(of(&["lines[0:2]"], &[], "lines.amount"), None, "it would tell of elements that are left out");
        assert_eq!(of(&["id"], &[], "total"), None);
    }
}
