//! The query string, into parameters.

use std::borrow::Cow;

use headwater_schemas::nearest;

use crate::channel::PageLimits;
use crate::problem::Problem;

/// Parameters of one request, at most.
const PARAMETERS_MAX: usize = 64;

/// One parameter, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter<'q> {
    /// Left of the `=`.
    pub(crate) name: Cow<'q, str>,
    /// Right of it.
    pub(crate) value: Cow<'q, str>,
}

/// The parameters of a query string, in their order.
pub(crate) fn parse(query: &str) -> Result<Vec<Parameter<'_>>, Problem> {
    let parts = || query.split('&').filter(|part| !part.is_empty());
    if parts().nth(PARAMETERS_MAX).is_some() {
        return Err(Problem::parameter("", format!("a request has {PARAMETERS_MAX} parameters at most")));
    }
    parts()
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok(Parameter { name: decode(name, name)?, value: decode(value, name)? })
        })
        .collect()
}

/// Refuses a parameter that is none of `known`.
pub(super) fn unknown(name: &str, known: &[&str]) -> Problem {
    let help = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there are none here".to_string(),
        None => format!("there are {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    Problem::unknown_parameter(name, format!("there is no parameter `{name}` here; {help}"))
}

/// Keeps the value of a parameter that may stand once.
pub(super) fn once<'q>(place: &mut Option<Cow<'q, str>>, parameter: Parameter<'q>) -> Result<(), Problem> {
    if place.is_some() {
        let name = parameter.name;
        return Err(Problem::parameter(&*name, format!("`{name}` stands twice; give it once")));
    }
    *place = Some(parameter.value);
    Ok(())
}

/// The number of items of a page.
pub(super) fn limit(given: Option<&str>, PageLimits { default, max }: PageLimits) -> Result<usize, Problem> {
    let Some(given) = given else { return Ok(default) };
    match given.parse() {
        Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::parameter("limit", format!("`limit` must be a number from 1 to {max}"))),
    }
}

/// A list with `,` between its items; `\,` and `\\` stand for a comma and a backslash within one.
pub(super) fn split_list(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        let item = items.last_mut().expect("there is one from the start");
        match letter {
            ',' => items.push(String::new()),
            '\\' => item.push(letters.next().unwrap_or('\\')),
            letter => item.push(letter),
        }
    }
    items
}

fn decode<'q>(text: &'q str, parameter: &str) -> Result<Cow<'q, str>, Problem> {
    let broken = || Problem::parameter(parameter, format!("`{parameter}` is not UTF-8"));
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().map_err(|_| broken())?;
    Ok(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let parsed = parse("a=b+c&filter%5Bx%5D[eq]=%C3%A9%2B&&flag&e==").expect("valid");
        let pairs: Vec<(&str, &str)> = parsed.iter().map(|one| (&*one.name, &*one.value)).collect();
        assert_eq!(pairs, [("a", "b c"), ("filter[x][eq]", "é+"), ("flag", ""), ("e", "=")]);
        assert!(parse("a=%ff").is_err());
        assert!(parse(&"a=1&".repeat(65)).is_err());
    }

    #[test]
    fn lists_can_hold_commas() {
        assert_eq!(split_list(r"a,b\,c,\\,"), ["a", "b,c", "\\", ""]);
        assert_eq!(split_list("\\"), ["\\"]);
    }

    proptest! {
        #[test]
        fn any_query_string_is_read_or_refused(query in ".*") {
            let _ = parse(&query);
            prop_assert!(!split_list(&query).is_empty());
        }
    }
}
