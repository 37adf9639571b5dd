//! Conditions and the literals in them.

use super::reader::{Reader, is_null, kind_of};
use crate::model::{Literal, Operator, Predicate};
use crate::yaml::{Content, Member, Place, Yaml};

/// Largest exponent a number may be written with: it is expanded to plain digits.
const EXPONENT_MAX: i64 = 1_000;

impl Reader<'_> {
    /// A mapping whose members all must hold. `name` checks and keeps what is compared.
    pub(super) fn predicate(
        &mut self,
        yaml: &Yaml,
        name: &mut dyn FnMut(&mut Self, (&str, Place)) -> String,
    ) -> Predicate {
        let mut parts: Vec<Predicate> = Vec::new();
        for member in self.entries(yaml, "a condition") {
            match member.key.as_str() {
                "and" => parts.push(Predicate::And(self.alternatives(member, name))),
                "or" => {
                    let alternatives = self.alternatives(member, name);
                    parts.push(Predicate::Or(alternatives));
                }
                "not" => parts.push(Predicate::Not(Box::new(self.predicate(&member.value, name)))),
                _ => {
                    let compared = name(self, (&member.key, member.key_place));
                    self.comparisons(&compared, member, &mut parts);
                }
            }
        }
        match <[Predicate; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => Predicate::And(parts),
        }
    }

    fn alternatives(
        &mut self,
        member: &Member,
        name: &mut dyn FnMut(&mut Self, (&str, Place)) -> String,
    ) -> Vec<Predicate> {
        let items = self.items(&member.value, "conditions");
        if items.is_empty() && matches!(member.value.content, Content::Sequence(_)) {
            self.error(member.value.place, format!("`{}` of nothing", member.key));
        }
        items.into_iter().map(|item| self.predicate(item, name)).collect()
    }

    /// What stands behind a name: a literal it must equal, or `operator: literal` pairs that must all hold.
    fn comparisons(&mut self, name: &str, member: &Member, out: &mut Vec<Predicate>) {
        let mut push = |operator: Operator, literals: Vec<Literal>| {
            out.push(Predicate::Compare { name: name.to_string(), operator, literals });
        };
        match &member.value.content {
            Content::Scalar { .. } => push(Operator::Eq, vec![self.literal(&member.value)]),
            Content::Sequence(_) => {
                self.error_help(member.value.place, "a list is compared with `in` or `nin`", "write `{ in: […] }`");
            }
            Content::Mapping(operators) if operators.is_empty() => {
                self.error(member.value.place, "compared how? The mapping is empty");
            }
            Content::Mapping(operators) => {
                for written in operators {
                    match Operator::from_word(&written.key) {
                        Some(operator) => push(operator, self.operands(operator, &written.value)),
                        None => {
                            let words = Operator::ALL.iter().map(|(word, _)| *word);
                            let message = format!("there is no comparison `{}`", written.key);
                            self.unknown(written.key_place, message, &written.key, words);
                        }
                    }
                }
            }
        }
    }

    fn operands(&mut self, operator: Operator, yaml: &Yaml) -> Vec<Literal> {
        let word = operator.word();
        if let Operator::In | Operator::Nin = operator {
            let items = self.items(yaml, &format!("values for `{word}`"));
            return items.into_iter().map(|item| self.literal(item)).collect();
        }
        let literal = self.literal(yaml);
        let wanted = match (operator, &literal) {
            (Operator::Exists, Literal::Bool(_)) => None,
            (Operator::Exists, _) => Some("true or false"),
            (Operator::StartsWith | Operator::Contains, Literal::Text(_)) => None,
            (Operator::StartsWith | Operator::Contains, _) => Some("a text; put it in quotes"),
            (Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte, Literal::Null) => {
                Some("a value: nothing is greater or less than null")
            }
            _ => None,
        };
        if let (Some(wanted), Content::Scalar { .. }) = (wanted, &yaml.content) {
            self.error(yaml.place, format!("`{word}` takes {wanted}"));
        }
        vec![literal]
    }

    /// A scalar by YAML's core schema; numbers keep their digits.
    pub(super) fn literal(&mut self, yaml: &Yaml) -> Literal {
        let (text, plain) = match &yaml.content {
            Content::Scalar { text, plain } => (text.as_str(), *plain),
            other => {
                self.error(yaml.place, format!("expected a single value, not {}", kind_of(other)));
                return Literal::Null;
            }
        };
        match text {
            _ if !plain => Literal::Text(text.into()),
            _ if is_null(text) => Literal::Null,
            "true" | "True" | "TRUE" => Literal::Bool(true),
            "false" | "False" | "FALSE" => Literal::Bool(false),
            ".nan" | ".NaN" | ".NAN" => Literal::Number("NaN".into()),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Literal::Number("Infinity".into()),
            "-.inf" | "-.Inf" | "-.INF" => Literal::Number("-Infinity".into()),
            _ => match number(text) {
                Number::Plain(digits) => Literal::Number(digits),
                Number::TooLarge => {
                    self.error(yaml.place, format!("a number's exponent is at most {EXPONENT_MAX}"));
                    Literal::Null
                }
                Number::OtherBase => {
                    let help = "write it in decimal, or in quotes if a text is meant";
                    self.error_help(yaml.place, format!("`{text}` is a number of another base"), help);
                    Literal::Null
                }
                Number::Not => Literal::Text(text.into()),
            },
        }
    }
}

enum Number {
    Plain(String),
    TooLarge,
    OtherBase,
    Not,
}

/// A number of YAML's core schema in plain notation: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn number(text: &str) -> Number {
    let digits_only = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix("0x").or(text.strip_prefix("0o")) {
        let other_base = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit());
        return if other_base { Number::OtherBase } else { Number::Not };
    }
    let (sign, magnitude) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match magnitude.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (magnitude, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !digits_only(whole) || !digits_only(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Number::Not;
    }
    let exponent = match exponent {
        None => 0,
        Some(written) => {
            let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
            if digits.is_empty() || !digits_only(digits) {
                return Number::Not;
            }
            match written.parse::<i64>() {
                Ok(n) if n.abs() <= EXPONENT_MAX => n,
                _ => return Number::TooLarge,
            }
        }
    };
    // The point moves by the exponent; zeros fill up where there are no digits.
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i64 + exponent;
    if point < 1 {
        digits.insert_str(0, &"0".repeat((1 - point) as usize));
        point = 1;
    }
    let point = point as usize;
    if digits.len() < point {
        digits.push_str(&"0".repeat(point - digits.len()));
    }
    let (whole, fraction) = digits.split_at(point);
    Number::Plain(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}
