//! Pages of which other origins may read answers in a browser.

use std::time::Duration;

use headwater_query_api::CorsOptions;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::config::engines::Wrong;
use crate::config::quantity::Span;

/// Pages of other origins.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    origins: Spanned<Vec<String>>,
    #[serde(default)]
    credentials: bool,
    #[serde(default)]
    max_age: Option<Span>,
}

impl Cors {
    pub(super) fn options(&self) -> CorsOptions {
        CorsOptions {
            origins: self.origins.value.clone(),
            credentials: self.credentials,
            max_age: self.max_age.map_or(Duration::from_secs(600), |age| age.0),
        }
    }

    pub(super) fn validate(&self) -> Option<Wrong> {
        let wrong = |at, message: String, help: &str| Some((at, message, help.to_string()));
        let any = self.origins.value.iter().any(|origin| origin == "*");
        let at = self.origins.referenced;
        if any && (self.credentials || self.origins.value.len() > 1) {
            let help = "name the origins, or leave `credentials` out";
            return wrong(at, "`*` stands alone, and not with `credentials`".into(), help);
        }
        let is_origin = |origin: &String| {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            origin == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', ' ', '*']))
        };
        if let Some(origin) = self.origins.value.iter().find(|origin| !is_origin(origin)) {
            let help = "write it as browsers do, without a path: https://app.example.com";
            return wrong(at, format!("`{origin}` is no origin"), help);
        }
        None
    }
}
