//! Settings of channels: shapes of models for kinds of readers.

use std::collections::{BTreeMap, BTreeSet};

use headwater_query_api::{
    CHANNEL_DEFAULT, CHANNELS_MAX, ChannelOptions, ChannelsOptions, FieldPattern, Format, Misfit, ModelChannel,
    PAGE_DEFAULT, PAGE_MAX, PageLimits, Place, SelectRule, misfits,
};
use headwater_schemas::model::definition::{Node, ReadModel};
use headwater_schemas::model::{FieldType, ShapeField};
use headwater_schemas::{ColumnType, suggestion};
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

use super::api::Api;
use super::engines::Wrong;

/// What readers of one kind see.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Channel {
    /// The models of the channel, by their names; all of them otherwise.
    models: Option<BTreeMap<String, Spanned<Shape>>>,
    /// Fields of models that say nothing of their own.
    fields: Vec<Spanned<PatternText>>,
    /// New names of fields, likewise.
    rename: BTreeMap<String, Spanned<String>>,
    page: Option<Spanned<Page>>,
    format: FormatWord,
    live: Option<bool>,
    /// Whether GraphQL answers trusted documents and nothing else.
    trusted_only: Option<Spanned<bool>>,
}

/// What is shown of a model. Where it says nothing, what the channel says holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Shape {
    fields: Vec<Spanned<PatternText>>,
    rename: BTreeMap<String, Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    max: Option<usize>,
    #[serde(default)]
    default: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatWord {
    #[default]
    Json,
    Cbor,
}

/// One way to find the channel of a request: one of the three.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Select {
    /// Its value names the channel.
    #[serde(default)]
    header: Option<String>,
    /// Requests for this host are of the channel `as`.
    #[serde(default)]
    host: Option<String>,
    /// Requests of user agents that match this pattern are of the channel `as`.
    #[serde(default)]
    user_agent: Option<String>,
    #[serde(default, rename = "as")]
    channel: Option<String>,
}

#[derive(Clone, Debug)]
struct PatternText(FieldPattern);

impl<'de> Deserialize<'de> for PatternText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(de::Error::custom)
    }
}

impl Channel {
    fn shape(&self) -> ModelChannel {
        shape_of(&self.fields, &self.rename)
    }

    fn options(&self) -> ChannelOptions {
        let own = |shape: &Spanned<Shape>| {
            let Shape { fields, rename } = &shape.value;
            (!fields.is_empty() || !rename.is_empty()).then(|| shape_of(fields, rename))
        };
        let models = self.models.as_ref();
        ChannelOptions {
            models: models.map(|models| models.iter().map(|(name, shape)| (name.clone(), own(shape))).collect()),
            shape: self.shape(),
            page: self.page.as_ref().map_or_else(PageLimits::default, |page| page.value.limits()),
            format: match self.format {
                FormatWord::Json => Format::Json,
                FormatWord::Cbor => Format::Cbor,
            },
            live: self.live.unwrap_or(true),
            trusted_only: self.trusted_only.as_ref().is_some_and(|only| only.value),
        }
    }

    /// Where something that does not fit stands.
    fn place(&self, own: Option<&Spanned<Shape>>, misfit: &Misfit, otherwise: Location) -> Location {
        let of_its_own = own.filter(|own| !own.value.fields.is_empty() || !own.value.rename.is_empty());
        let (fields, rename) = match of_its_own {
            Some(own) => (&own.value.fields, &own.value.rename),
            None => (&self.fields, &self.rename),
        };
        match &misfit.place {
            Place::Field(number) => fields.get(*number).map(|field| field.referenced),
            Place::Rename(path) => rename.get(path).map(|name| name.referenced),
        }
        .unwrap_or(otherwise)
    }
}

fn shape_of(fields: &[Spanned<PatternText>], rename: &BTreeMap<String, Spanned<String>>) -> ModelChannel {
    ModelChannel {
        fields: fields.iter().map(|field| field.value.0.clone()).collect(),
        rename: rename.iter().map(|(path, name)| (path.clone(), name.value.clone())).collect(),
    }
}

impl Page {
    fn limits(&self) -> PageLimits {
        let max = self.max.unwrap_or(PAGE_MAX);
        PageLimits { max, default: self.default.unwrap_or(PAGE_DEFAULT.min(max)) }
    }
}

impl Select {
    /// The rule; `Err`: what is wrong with it, and the remedy.
    fn rule(&self) -> Result<SelectRule, (String, String)> {
        let wrong = |message: &str, help: &str| Err((message.to_string(), help.to_string()));
        let rule = match (&self.header, &self.host, &self.user_agent, &self.channel) {
            (Some(name), None, None, None) => match SelectRule::header(name) {
                Some(rule) => rule,
                None => return wrong(&format!("`{name}` cannot name a header"), "X-Channel is usual"),
            },
            (Some(_), None, None, Some(_)) => {
                return wrong("`as` cannot stand beside `header`, whose value names the channel", "take `as` out");
            }
            (None, Some(host), None, Some(_)) if host.is_empty() || host.contains(['/', ':', ' ', '*']) => {
                return wrong(&format!("`{host}` is no host"), "write its name alone: m.example.com");
            }
            (None, Some(host), None, Some(channel)) => SelectRule::host(host, channel),
            (None, None, Some(pattern), Some(channel)) => match SelectRule::user_agent(pattern, channel) {
                Ok(rule) => rule,
                Err(error) => {
                    // The library draws the pattern over several lines and says what is wrong in the last.
                    let text = error.to_string();
                    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
                    return Err((format!("`{pattern}` is no pattern: {why}"), "for example ^Fridge/".to_string()));
                }
            },
            (None, _, _, None) if self.host.is_some() || self.user_agent.is_some() => {
                return wrong("`as` is missing: which channel is it?", "name one of `api.channels`");
            }
            _ => return wrong("a rule has one of `header`, `host` and `user_agent`", "write a rule for each"),
        };
        Ok(rule)
    }
}

impl Api {
    /// As the query API takes it.
    pub(crate) fn channels_options(&self) -> ChannelsOptions {
        let header = || SelectRule::header("x-channel").into_iter().collect();
        let rules = |select: &Vec<Spanned<Select>>| select.iter().filter_map(|one| one.value.rule().ok()).collect();
        ChannelsOptions {
            channels: self.channels.iter().map(|(name, of)| (name.clone(), of.value.options())).collect(),
            select: self.select.as_ref().map_or_else(header, rules),
            required: self.channel_required.as_ref().is_some_and(|required| required.value),
        }
    }

    /// What is wrong of the channels, whatever the models are.
    pub(super) fn validate_channels(&self) -> Option<Wrong> {
        let wrong = |at, message: String, help: &str| Some((at, message, help.to_string()));
        for (number, (name, channel)) in self.channels.iter().enumerate() {
            let at = channel.referenced;
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
                return wrong(at, format!("`{name}` cannot name a channel"), "use letters, digits, `-` and `_`");
            }
            if name == CHANNEL_DEFAULT {
                let help = "choose another name: this is what requests of no channel are counted under";
                return wrong(at, format!("no channel can be named `{name}`"), help);
            }
            if number == CHANNELS_MAX {
                return wrong(at, format!("there are more than {CHANNELS_MAX} channels"), "let readers share some");
            }
            if let Some(only) = channel.value.trusted_only.as_ref().filter(|only| only.value)
                && !self.graphql.has_trusted_documents()
            {
                let message = format!("the channel `{name}` would answer no GraphQL: there are no trusted documents");
                return wrong(only.referenced, message, "name them by `api.graphql.trusted_documents`");
            }
            if let Some(page) = &channel.value.page {
                let PageLimits { default, max } = page.value.limits();
                if !(1..=PAGE_MAX).contains(&max) || !(1..=max).contains(&default) {
                    let message = format!("`page.max` must be from 1 to {PAGE_MAX}, and `page.default` from 1 to it");
                    return wrong(page.referenced, message, "leave out what is to be as usual");
                }
            }
        }
        for rule in self.select.iter().flatten() {
            let at = rule.referenced;
            match rule.value.rule() {
                Err((message, help)) => return Some((at, message, help)),
                Ok(rule) => {
                    if let Some(channel) = rule.channel()
                        && !self.channels.contains_key(channel)
                    {
                        let help = suggestion(channel, self.channels.keys().map(String::as_str));
                        return Some((at, format!("there is no channel `{channel}`"), help));
                    }
                }
            }
        }
        match &self.channel_required {
            Some(required) if required.value && self.channels.is_empty() => {
                let help = "declare channels, or take it out";
                wrong(required.referenced, "`api.channel_required` needs `api.channels`: there is none".into(), help)
            }
            _ => None,
        }
    }

    /// Models that a rule or a channel names.
    pub(crate) fn models_named(&self) -> BTreeSet<&str> {
        let of_channels = self.channels.values().flat_map(|channel| channel.value.models.iter().flatten());
        self.access.keys().map(String::as_str).chain(of_channels.map(|(name, _)| name.as_str())).collect()
    }

    /// What of the channels does not fit the models. Where `all_declared`, there are no other models.
    pub(super) fn check_channels(&self, models: &[ReadModel], all_declared: bool) -> Vec<Wrong> {
        let mut found: Vec<Wrong> = Vec::new();
        for (name, channel) in &self.channels {
            let named = channel.value.models.iter().flatten();
            let is_unknown = |name: &str| all_declared && !models.iter().any(|model| model.name == name);
            for (model, shape) in named.filter(|(name, _)| is_unknown(name)) {
                let help = suggestion(model, models.iter().map(|model| model.name.as_str()));
                let message = format!("the channel `{name}` names the model `{model}`, which is not there");
                found.push((shape.referenced, message, help));
            }
            let options = channel.value.options();
            for model in models {
                let Some(shape) = options.of(&model.name) else { continue };
                let own = channel.value.models.as_ref().and_then(|models| models.get(&model.name));
                for misfit in misfits(shape, &model.name, &outline(&model.node)) {
                    let at = channel.value.place(own, &misfit, channel.referenced);
                    let message = format!("the channel `{name}`: {}", misfit.message);
                    found.push((at, message, misfit.help));
                }
            }
        }
        found
    }
}

/// The members of documents with their names, before their types are known.
fn outline(node: &Node) -> Vec<ShapeField> {
    let member = |name: &str, kind| ShapeField { name: name.into(), doc: None, required: false, kind };
    let values = node.fields.iter().map(|field| &field.name);
    let values = values.chain(node.computes.iter().map(|compute| &compute.name));
    let mut members: Vec<ShapeField> = values.map(|name| member(name, FieldType::Scalar(ColumnType::Text))).collect();
    members.extend(node.relations.iter().map(|relation| {
        let kind = FieldType::Nested { cardinality: relation.cardinality, fields: outline(&relation.node) };
        member(&relation.name, kind)
    }));
    members
}
