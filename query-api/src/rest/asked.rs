//! What a list request asks for: the same whether it came as a query string or as a JSON body.

use std::borrow::Cow;

use headwater_schemas::model::Operator;
use headwater_schemas::nearest;

use super::parameters::{self, Parameter, limit, once, parse, unknown};
use crate::problem::Problem;
use crate::projection::Selection;
use crate::query::{CONDITIONS_MAX, Condition, Sort, VALUES_MAX};
use crate::serving::Model;

/// Parameters of a list beside the filters.
pub(super) const NAMES: [&str; 7] = ["fields", "sort", "limit", "after", "count", "ids", "filter[path][operator]"];

/// What was asked, not yet held against a model. Mistakes in it are told by the names of the query string.
#[derive(Debug, Default)]
pub(super) struct Asked<'q> {
    /// Paths with commas between.
    pub(super) fields: Option<Cow<'q, str>>,
    pub(super) sort: Option<Cow<'q, str>>,
    pub(super) limit: Option<Cow<'q, str>>,
    pub(super) after: Option<Cow<'q, str>>,
    pub(super) count: Option<Cow<'q, str>>,
    pub(super) ids: Option<Vec<String>>,
    pub(super) filters: Vec<Filter>,
}

/// One condition in words.
#[derive(Debug)]
pub(super) struct Filter {
    /// What it is called: `filter[path][operator]`.
    pub(super) name: String,
    pub(super) path: String,
    pub(super) operator: Operator,
    pub(super) values: Vec<String>,
}

/// What a request asks of a model.
pub(super) struct Request {
    pub(super) selection: Option<Selection>,
    pub(super) what: What,
}

pub(super) enum What {
    Ids(Vec<String>),
    Page(PageRequest),
}

pub(super) struct PageRequest {
    pub(super) conditions: Vec<Condition>,
    pub(super) sort: Option<Sort>,
    pub(super) limit: usize,
    pub(super) after: Option<String>,
    pub(super) count: Counting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    None,
    Estimated,
    Exact,
}

impl<'q> Asked<'q> {
    /// What a query string asks.
    pub(super) fn of_query(query: &'q str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        let mut ids = None;
        for parameter in parse(query)? {
            let place = match &*parameter.name {
                "ids" => &mut ids,
                name => match asked.place(name) {
                    Some(place) => place,
                    None => {
                        asked.filters.push(Filter::of(&parameter)?);
                        continue;
                    }
                },
            };
            once(place, parameter)?;
        }
        asked.ids = ids.map(|ids| parameters::split_list(&ids));
        Ok(asked)
    }

    /// Where the value of a parameter with one text is kept.
    pub(super) fn place(&mut self, name: &str) -> Option<&mut Option<Cow<'q, str>>> {
        Some(match name {
            "fields" => &mut self.fields,
            "sort" => &mut self.sort,
            "limit" => &mut self.limit,
            "after" => &mut self.after,
            "count" => &mut self.count,
            _ => return None,
        })
    }

    /// The name of something that was asked beside `fields` and `ids`.
    fn paging(&self) -> Option<&str> {
        let named = [("sort", &self.sort), ("limit", &self.limit), ("after", &self.after), ("count", &self.count)];
        let filter = self.filters.first().map(|filter| filter.name.as_str());
        named.into_iter().find_map(|(name, given)| given.is_some().then_some(name)).or(filter)
    }

    /// What is asked of one document: some of its fields.
    pub(super) fn of_document(&self, model: &Model) -> Result<Option<Selection>, Problem> {
        if let Some(name) = self.paging().or_else(|| self.ids.as_ref().map(|_| "ids")) {
            return Err(unknown(name, &["fields"]));
        }
        self.selection(model)
    }

    fn selection(&self, model: &Model) -> Result<Option<Selection>, Problem> {
        self.fields.as_ref().map(|fields| Selection::new(fields, &model.visibility.shape.fields)).transpose()
    }

    /// What is asked of a list of this model.
    pub(super) fn of_list(self, model: &Model) -> Result<Request, Problem> {
        let visibility = &*model.visibility;
        if self.filters.len() > CONDITIONS_MAX {
            return Err(Problem::parameter("filter", format!("a request has {CONDITIONS_MAX} filters at most")));
        }
        let selection = self.selection(model)?;
        if let Some(ids) = &self.ids {
            if let Some(other) = self.paging() {
                let detail = format!("`{other}` cannot stand beside `ids`, which names the documents one by one");
                return Err(Problem::parameter(other, detail));
            }
            let ids_max = VALUES_MAX.min(visibility.page.max);
            if ids.len() > ids_max {
                return Err(Problem::parameter("ids", format!("at most {ids_max} ids can be asked for at once")));
            }
        }
        if let Some(ids) = self.ids {
            return Ok(Request { selection, what: What::Ids(ids) });
        }
        let conditions = self
            .filters
            .into_iter()
            .map(|filter| Condition::new(visibility, &filter.path, filter.operator, filter.values, &filter.name));
        let conditions = conditions.collect::<Result<_, _>>()?;
        let sort = match self.sort {
            None => None,
            Some(given) => {
                let path = given.strip_prefix('-');
                Some(Sort::new(visibility, path.unwrap_or(&given), path.is_some(), "sort")?)
            }
        };
        let count = match self.count.as_deref() {
            None | Some("none") => Counting::None,
            Some("estimated") => Counting::Estimated,
            Some("exact") => Counting::Exact,
            Some(_) => return Err(Problem::parameter("count", "`count` must be none, estimated or exact")),
        };
        let limit = limit(self.limit.as_deref(), visibility.page)?;
        let after = self.after.map(Cow::into_owned);
        Ok(Request { selection, what: What::Page(PageRequest { conditions, sort, limit, after, count }) })
    }
}

impl Filter {
    /// `filter[path][operator]=value`.
    fn of(parameter: &Parameter<'_>) -> Result<Self, Problem> {
        let name = &*parameter.name;
        let inside = name.strip_prefix("filter").ok_or_else(|| unknown(name, &NAMES))?;
        let form = || {
            let detail = format!("`{name}` must be `filter[path][operator]`, for example `filter[email][eq]`");
            Problem::parameter(name, detail)
        };
        let inside = inside.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).ok_or_else(form)?;
        let (path, word) = inside.split_once("][").ok_or_else(form)?;
        let operator = operator(word, name)?;
        let values = match is_list(operator) {
            true => parameters::split_list(&parameter.value),
            false => vec![parameter.value.clone().into_owned()],
        };
        Ok(Self { name: name.to_string(), path: path.to_string(), operator, values })
    }
}

/// Whether an operator takes a list of values.
pub(super) fn is_list(operator: Operator) -> bool {
    matches!(operator, Operator::In | Operator::Nin)
}

/// The operator with this word; `name` is what the condition is called.
pub(super) fn operator(word: &str, name: &str) -> Result<Operator, Problem> {
    Operator::from_word(word).ok_or_else(|| {
        let words = || Operator::ALL.iter().map(|(word, _)| *word);
        let guess = nearest(word, words()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let all = words().collect::<Vec<_>>().join(", ");
        Problem::unknown_parameter(name, format!("there is no operator `{word}`, but {all}{guess}"))
    })
}
