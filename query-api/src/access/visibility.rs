//! What callers with given roles see of one version of a model, by one channel: first what their roles leave of it, then
//! what the channel does. Everything that answers, checks or describes asks here:
//! selections, filters, orders, cursors, pages inside documents, GraphQL, schemas, live events and messages.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use headwater_schemas::ColumnType;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_store::{Document, VersionId};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::binding::Binding;
use super::options::{Mask, ModelRule};
use super::principal::{Principal, RoleNames, Roles};
use crate::channel::{Cut, Fitted, Format, PageLimits, Taken};
use crate::projection::{How, Shown, Torn};

/// What some callers see of a model.
#[derive(Debug)]
pub(crate) struct Visibility {
    /// The version whose documents are read.
    pub(crate) version: VersionId,
    /// What its documents look like: members and indexes that are not shown are not in it, and others have the names
    /// they have for the reader.
    pub(crate) shape: ModelShape,
    /// The channel; `None`: that of requests of no channel.
    pub(crate) channel: Option<Arc<str>>,
    /// Sizes of pages.
    pub(crate) page: PageLimits,
    /// Whether changes are streamed.
    pub(crate) live: bool,
    /// What documents are written as where a request does not say.
    pub(crate) format: Format,
    /// The store's number of each index of the shape.
    numbers: Vec<u16>,
    /// Every index of the store, by the paths that stored documents have.
    stored_indexes: Vec<IndexShape>,
    /// How stored documents are shown; `None`: as they are.
    shown: Option<Shown>,
    /// Tells answers with other members apart; `None`: nothing is left out.
    pub(crate) fingerprint: Option<u64>,
    /// What decides which documents are shown.
    pub(super) bindings: Vec<Binding>,
    /// What `/v1/me` looks for.
    pub(super) owner: Option<Binding>,
    /// Whether that is among the bindings.
    pub(super) owner_is_bound: bool,
}

/// Why a rule does not fit a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(crate) String);

impl Visibility {
    /// Everything of every document.
    pub(crate) fn everything(version: VersionId, shape: ModelShape) -> Arc<Self> {
        let numbers = (0..shape.indexes.len()).map(|at| at as u16).collect();
        Arc::new(Self {
            version,
            stored_indexes: shape.indexes.clone(),
            shape,
            channel: None,
            page: PageLimits::default(),
            live: true,
            format: Format::Json,
            numbers,
            shown: None,
            fingerprint: None,
            bindings: Vec::new(),
            owner: None,
            owner_is_bound: false,
        })
    }

    /// What a channel shows of every document to callers of whom nothing is hidden.
    pub(crate) fn of_channel(version: VersionId, stored: &ModelShape, channel: &Fitted) -> Option<Arc<Self>> {
        Self::narrowed(version, stored, &[], &[], Some(channel)).map(Arc::new)
    }

    /// What callers with these roles see by a channel; `None`: there is no such model for them.
    ///
    /// # Errors
    ///
    /// The rule names something that the model does not have. Then nobody is shown anything: a mistake must not open
    /// what was meant to be closed.
    pub(crate) fn new(
        version: VersionId,
        stored: &ModelShape,
        rule: &ModelRule,
        roles: Roles,
        names: &RoleNames,
        secret: &[u8],
        channel: Option<&Fitted>,
    ) -> Result<Option<Arc<Self>>, Unfit> {
        let owner = rule.owner.as_ref().map(|rule| Binding::new(stored, rule, "owner")).transpose()?;
        let tenant = rule.tenant.as_ref().map(|rule| Binding::new(stored, rule, "tenant")).transpose()?;
        for path in rule.masks.iter().flat_map(|mask| &mask.fields) {
            check_path(stored, path)?;
        }
        let allowed = |of: &[String]| roles.meets(names.set(of.iter().map(String::as_str)));
        if !rule.roles.as_ref().is_none_or(|of| allowed(of)) {
            return Ok(None);
        }
        let exempt = |of: &Option<super::options::BindingRule>| of.as_ref().is_some_and(|rule| allowed(&rule.except));
        let mut bindings = Vec::new();
        let owner_is_bound = owner.is_some() && !exempt(&rule.owner);
        bindings.extend(owner.clone().filter(|_| owner_is_bound));
        bindings.extend(tenant.filter(|_| !exempt(&rule.tenant)));

        let mut masks: Vec<(&str, Mask)> = Vec::new();
        for of in rule.masks.iter().filter(|of| !allowed(&of.except)) {
            masks.extend(of.fields.iter().map(|path| (path.as_str(), of.mask)));
        }
        let seen = Self::narrowed(version, stored, &masks, secret, channel);
        Ok(seen.map(|seen| Arc::new(Self { bindings, owner, owner_is_bound, ..seen })))
    }

    /// What masks and then a channel leave of a model; `None`: nothing.
    fn narrowed(
        version: VersionId,
        stored: &ModelShape,
        masks: &[(&str, Mask)],
        secret: &[u8],
        channel: Option<&Fitted>,
    ) -> Option<Self> {
        let cut = channel.map(|channel| &channel.cut);
        let mut tree = Tree { model: &stored.model, masks, secret, path: Vec::new() };
        let (fields, shown) = tree.level(&stored.fields, cut);
        if fields.is_empty() && !stored.fields.is_empty() {
            return None;
        }
        let is_open = |index: &IndexShape| {
            !masks.iter().any(|(path, _)| is_within(&index.name, path) || is_within(path, &index.name))
        };
        let (mut numbers, mut indexes) = (Vec::new(), Vec::new());
        for (at, index) in stored.indexes.iter().enumerate().filter(|(_, index)| is_open(index)) {
            let name = match cut {
                None => Some(index.name.clone()),
                Some(cut) => cut.path(&index.name),
            };
            if let Some(name) = name {
                numbers.push(at as u16);
                indexes.push(IndexShape { name, ..index.clone() });
            }
        }
        let fingerprint = (shown.is_some() || channel.is_some()).then(|| {
            let mut hasher = DefaultHasher::new();
            let mut masks = masks.to_vec();
            masks.sort_unstable();
            masks.hash(&mut hasher);
            channel.map(|channel| channel.fingerprint).hash(&mut hasher);
            hasher.finish()
        });
        Some(Self {
            version,
            shape: ModelShape { fields, indexes, ..stored.clone() },
            channel: channel.map(|channel| channel.channel.clone()),
            page: channel.map_or_else(PageLimits::default, |channel| channel.page),
            live: channel.is_none_or(|channel| channel.live),
            format: channel.map_or(Format::Json, |channel| channel.format),
            numbers,
            stored_indexes: stored.indexes.clone(),
            shown,
            fingerprint,
            bindings: Vec::new(),
            owner: None,
            owner_is_bound: false,
        })
    }

    /// The index named `name`, with the store's number.
    pub(crate) fn index(&self, name: &str) -> Option<(u16, &IndexShape)> {
        let at = self.shape.indexes.iter().position(|index| index.name == name)?;
        Some((self.numbers[at], &self.shape.indexes[at]))
    }

    /// The index with this number of the store's, by its path in stored documents; `None`: it is not shown.
    pub(crate) fn numbered(&self, number: u16) -> Option<&IndexShape> {
        self.stored_indexes.get(usize::from(number)).filter(|_| self.numbers.contains(&number))
    }

    /// Path and type of the index with this number of the store's, shown or not.
    pub(crate) fn stored_index(&self, number: u16) -> Option<(&str, &ColumnType)> {
        self.stored_indexes.get(usize::from(number)).map(|index| (index.name.as_str(), &index.kind))
    }

    /// A stored document as it is shown.
    pub(crate) fn show(&self, mut document: Document) -> Result<Document, Torn> {
        if let Some(shown) = &self.shown {
            let mut body = Vec::with_capacity(document.body.len());
            shown.write(&mut body, &document.body)?;
            document.body = body.into();
        }
        Ok(document)
    }

    /// Whether it depends on who asks which documents are shown.
    pub(crate) fn is_bound(&self, principal: &Principal) -> bool {
        principal.restricted && !self.bindings.is_empty()
    }
}

/// Whether `path` is `other` or leads below it.
fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn check_path(shape: &ModelShape, path: &str) -> Result<(), Unfit> {
    let mut fields: &[ShapeField] = &shape.fields;
    for name in path.split('.') {
        let field = fields.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| Unfit(format!("`{path}` is masked, and {} has no such field", shape.model)))?;
        fields = match &field.kind {
            FieldType::Nested { fields, .. } => fields,
            FieldType::Scalar(_) => &[],
        };
    }
    Ok(())
}

struct Tree<'a> {
    model: &'a str,
    masks: &'a [(&'a str, Mask)],
    secret: &'a [u8],
    path: Vec<&'a str>,
}

impl<'a> Tree<'a> {
    /// What is seen of these members, and how it is shown; `None`: all of it. `cut`: what the channel takes of them;
    /// `None`: all of them.
    fn level(&mut self, fields: &'a [ShapeField], cut: Option<&Cut>) -> (Vec<ShapeField>, Option<Shown>) {
        let (mut seen, mut shown, mut changed) = (Vec::with_capacity(fields.len()), Shown::default(), false);
        for field in fields {
            let taken = cut.map(|cut| cut.member(&field.name));
            if let Some(None) = taken {
                changed = true;
                continue;
            }
            let taken = taken.flatten();
            self.path.push(&field.name);
            match self.member(field, taken) {
                Some((kind, how)) => {
                    let name = taken.map_or(&field.name, |taken| &taken.shown_as);
                    changed |= !matches!(how, How::Whole) || *name != field.name;
                    shown.add(&field.name, name, how);
                    seen.push(ShapeField { name: name.clone(), kind, ..field.clone() });
                }
                None => changed = true,
            }
            self.path.pop();
        }
        (seen, changed.then_some(shown))
    }

    fn member(&mut self, field: &'a ShapeField, taken: Option<&Taken>) -> Option<(FieldType, How)> {
        let path = self.path.join(".");
        // The strictest wins.
        let mask = self.masks.iter().filter(|(of, _)| *of == path).map(|(_, mask)| *mask).max();
        let text = FieldType::Scalar(ColumnType::Text);
        match (mask, &field.kind) {
            (Some(Mask::Hidden), _) => None,
            (None, kind @ FieldType::Scalar(_)) => Some((kind.clone(), How::Whole)),
            // Only a single value has a text; of anything else nothing is shown.
            (Some(_), FieldType::Nested { .. } | FieldType::Scalar(ColumnType::Json | ColumnType::Array(_))) => None,
            (Some(Mask::Partial), _) => Some((text, How::Partial)),
            (Some(Mask::Hash), _) => Some((text, How::Hash(Box::new(self.hash_key(&path))))),
            (None, FieldType::Nested { cardinality, fields }) => {
                let (seen, shown) = self.level(fields, taken.and_then(|taken| taken.below.as_ref()));
                if seen.is_empty() && !fields.is_empty() {
                    return None;
                }
                let how = match taken.and_then(|taken| taken.slice) {
                    Some(slice) => How::Elements(slice, shown),
                    None => shown.map_or(How::Whole, How::Below),
                };
                Some((FieldType::Nested { cardinality: *cardinality, fields: seen }, how))
            }
        }
    }

    /// A key for this field alone, so that a hash says nothing about other fields.
    fn hash_key(&self, path: &str) -> Hmac<Sha256> {
        let mac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        let of = mac(self.secret).chain_update(b"mask\0").chain_update(self.model).chain_update(b"\0");
        mac(&of.chain_update(path).finalize().into_bytes())
    }
}
