use super::*;
use crate::model::definition::{Aggregate, Cardinality, CastType, Expression};
use crate::model::{Literal, Operator, Predicate};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

fn sources() -> ParseContext {
    ParseContext { sources: [("billing".to_string(), "erp".to_string()), ("crm".into(), "public".into())].into() }
}

fn parsed(yaml: &str) -> ReadModel {
    parse("m.yaml", yaml, &ParseContext::default()).unwrap_or_else(|wrong| panic!("{}", wrong[0]))
}

fn wrong(yaml: &str) -> String {
    let wrong = parse("m.yaml", yaml, &ParseContext::default()).expect_err("a mistake");
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Every model in `tests/models/bad` is refused with the text beside it. `HEADWATER_UPDATE_DIAGNOSTICS=1` writes the
/// texts anew.
#[test]
fn mistakes_are_shown_as_they_should_be() {
    let update = std::env::var_os("HEADWATER_UPDATE_DIAGNOSTICS").is_some();
    let mut files: Vec<_> = std::fs::read_dir(format!("{MODELS}/bad"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 6);
    for path in files {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let yaml = std::fs::read_to_string(&path).expect("a file");
        let wrong = parse(&name, &yaml, &sources()).expect_err(&name);
        let shown: String = wrong.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, &shown).expect("written");
        }
        assert_eq!(shown, std::fs::read_to_string(&golden).unwrap_or_default(), "{name}");
    }
}

#[test]
fn the_example_of_the_handbook_is_read() {
    let yaml = std::fs::read_to_string(format!("{MODELS}/customer_account.yaml")).expect("a file");
    let model = parse("customer_account.yaml", &yaml, &sources()).expect("valid");
    assert_eq!((model.name.as_str(), model.version), ("customer_account", 1));
    assert_eq!(model.root.table.to_string(), "billing.erp.customers");
    assert_eq!(model.root.key, ["id"]);
    assert_eq!(model.node.fields[1].expression, Expression::Column("full_name".into()));
    let invoices = &model.node.relations[0];
    assert_eq!(invoices.cardinality, Cardinality::Many);
    assert!(invoices.order[0].descending && invoices.order[0].column == "issued_on");
    let draft = Predicate::Compare {
        name: "status".into(),
        operator: Operator::Ne,
        literals: vec![Literal::Text("draft".into())],
    };
    assert_eq!(invoices.filter, Some(draft));
    assert_eq!(invoices.node.relations[1].on[0].child, "invoice_id");
    let unpaid = &model.node.computes[0];
    assert_eq!((unpaid.function, unpaid.field.as_deref()), (Aggregate::Sum, Some("total")));
    assert_eq!(unpaid.filter.as_ref().map(|filter| filter.names()), Some(vec![&"invoices.status".to_string()]));
    assert_eq!(model.indexes[1].path, ["invoices", "status"]);
}

#[test]
fn every_form_is_read() {
    let model = parsed(
        r#"
model: everything
doc: What there is.
root: { table: crm.sales.person, key: [tenant, id], where: { deleted: false } }
fields:
  name: { concat: [first, { constant: van }, { coalesce: [last, born] }], separator: " ", doc: Full name. }
  size: { column: sz, cast: decimal }
  source: { constant: 1.10, cast: text }
nest:
  tags:
    many: crm.tag
    through: { table: crm.person_tag, on: { tenant: tenant, person: id }, where: { since: { exists: true } } }
    on: { id: tag }
    where: { or: [{ kind: null }, { not: { kind: [a] } }] }
    order: label
    limit: 3
    fields: [label]
"#
        .replace("[a]", "{ in: [a, 2, null] }")
        .as_str(),
    );
    assert_eq!(model.root.table, TableId::new("crm", "sales", "person"));
    assert_eq!(model.root.key, ["tenant", "id"]);
    let Expression::Concat { parts, separator } = &model.node.fields[0].expression else { panic!("concat") };
    assert_eq!((parts.len(), separator.as_str()), (3, " "));
    assert_eq!(parts[1], Expression::Constant(Literal::Text("van".into())));
    assert!(matches!(&parts[2], Expression::Coalesce(parts) if parts.len() == 2));
    let Expression::Cast { of, to: CastType::Text } = &model.node.fields[2].expression else { panic!("cast") };
    assert_eq!(**of, Expression::Constant(Literal::Number("1.10".into())));
    let tags = &model.node.relations[0];
    let through = tags.through.as_ref().expect("through");
    assert_eq!(through.on.len(), 2);
    assert_eq!((through.on[1].child.as_str(), through.on[1].parent.as_str()), ("person", "id"));
    assert_eq!(tags.limit, Some(3));
    let Some(Predicate::Or(either)) = &tags.filter else { panic!("or") };
    assert!(matches!(&either[1], Predicate::Not(inner) if matches!(&**inner, Predicate::Compare { literals, .. }
        if literals[1] == Literal::Number("2".into()) && literals[2] == Literal::Null)));
}

#[test]
fn literals_keep_their_digits() {
    let big = "0.1000000000000000055511151231257827021181583404541015625";
    for (written, literal) in [
        ("9007199254740993", Literal::Number("9007199254740993".into())),
        (big, Literal::Number(big.into())),
        ("-1.50", Literal::Number("-1.50".into())),
        ("007", Literal::Number("007".into())),
        ("+5", Literal::Number("5".into())),
        (".5", Literal::Number("0.5".into())),
        ("5.", Literal::Number("5".into())),
        ("1e3", Literal::Number("1000".into())),
        ("-12.5E-3", Literal::Number("-0.0125".into())),
        ("1.25e1", Literal::Number("12.5".into())),
        (".inf", Literal::Number("Infinity".into())),
        ("\"12\"", Literal::Text("12".into())),
        ("'null'", Literal::Text("null".into())),
        ("!!str 12", Literal::Text("12".into())),
        ("2026-01-31", Literal::Text("2026-01-31".into())),
        ("1.2.3", Literal::Text("1.2.3".into())),
        ("1e", Literal::Text("1e".into())),
        ("yes", Literal::Text("yes".into())),
        ("True", Literal::Bool(true)),
        ("~", Literal::Null),
        ("", Literal::Null),
    ] {
        let yaml = format!("model: m\nroot: {{ table: s.t, key: id }}\nfields:\n  a:\n    constant: {written}\n");
        assert_eq!(parsed(&yaml).node.fields[0].expression, Expression::Constant(literal), "{written}");
    }
}

#[test]
fn aliases_may_be_used_and_must_end() {
    let head = "model: m\nroot: { table: s.t, key: id }\nfields: [id]\nnest:\n";
    let twice = "  a: &a { many: s.u, on: { x: id }, fields: [y] }\n  b: *a\n";
    let model = parsed(&format!("{head}{twice}"));
    assert_eq!(model.node.relations[0].node, model.node.relations[1].node);

    // Each level holds the one before twice: a small file, and 2^40 nodes.
    let mut laughs = String::from("x0: &x0 [a, b]\n");
    for level in 1..40 {
        let below = level - 1;
        laughs.push_str(&format!("x{level}: &x{level} [*x{below}, *x{below}]\n"));
    }
    assert!(wrong(&laughs).contains("aliases counted as often as used"), "{}", wrong(&laughs));
    assert!(wrong(&"[".repeat(10_000)).contains("nested deeper") || wrong(&"[".repeat(10_000)).contains("not YAML"));
}

#[test]
fn relations_nest_sixteen_levels_deep() {
    let nested = |levels: usize| {
        let mut yaml = String::from("{ many: s.t, on: { up: id }, fields: [id] }");
        for _ in 1..levels {
            yaml = format!("{{ many: s.t, on: {{ up: id }}, fields: [id], nest: {{ down: {yaml} }} }}");
        }
        format!("model: m\nroot: {{ table: s.t, key: id }}\nfields: [id]\nnest: {{ down: {yaml} }}\n")
    };
    parsed(&nested(DEPTH_MAX));
    let refused = wrong(&nested(DEPTH_MAX + 1));
    assert!(refused.starts_with("m.yaml:4:") && refused.contains("deeper than 16 levels"), "{refused}");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    let all = wrong("");
    assert!(all.contains("m.yaml:1:1: a read model needs `model`") && all.contains("needs `root`"), "{all}");
    assert!(wrong("- a\n").starts_with("m.yaml:1:1: a read model is a mapping"), "{}", wrong("- a\n"));
    assert!(wrong("model: a\n---\nmodel: b\n").contains("a second YAML document"));
}

#[test]
fn what_a_newer_arithmetic_makes_other_documents_of_has_another_hash() {
    let plain = "model: m\nroot: { table: s.t, key: id }\nfields: [id]\n\
                 nest: { c: { many: s.c, on: { t: id }, fields: [b] } }\n";
    assert_eq!(parsed(plain).hash().len(), 16, "it was built by the first one as it is by this one");
    for (from, to) in [
        ("fields: [id]\n", "fields: [id]\ncompute: { a: { avg: c.b } }\n"),
        ("fields: [id]\n", "fields: [id]\ncompute: { a: { count: c, where: { not: { c.b: 1 } } } }\n"),
        ("key: id }", "key: id, where: { or: [{ b: 2 }, { not: { b: 1 } }] } }"),
        ("{ t: id }, ", "{ t: id }, where: { not: { b: 1 } }, "),
        ("{ t: id }, ", "{ t: id }, through: { table: s.l, on: { t: id }, where: { not: { b: 1 } } }, "),
    ] {
        let model = parsed(&plain.replace(from, to));
        let hash = model.hash();
        let before = hash.strip_suffix(".2").expect("the number of the arithmetic");
        assert!(model.is_definition_of(before) && model.is_definition_of(&hash), "{to}");
        assert!(!parsed(plain).is_definition_of(&hash), "{to}");
    }
}

#[test]
fn definitions_that_differ_only_in_docs_have_one_hash() {
    let yaml = "model: m\nroot: { table: s.t, key: id }\nfields: { a: { column: a } }\n";
    let hash = parsed(yaml).hash();
    assert_eq!(hash, parsed(&yaml.replace("{ column: a }", "{ column: a, doc: For people. }")).hash());
    assert_ne!(hash, parsed(&yaml.replace("column: a", "column: b")).hash());
    assert_eq!(parsed(yaml).tables(), [&TableId::new("s", "public", "t")]);
}

#[test]
fn when_a_version_takes_over_is_no_part_of_what_it_is() {
    let yaml = "model: m\nroot: { table: s.t, key: id }\nfields: [id]\n";
    let percent = |percent: &str| format!("{yaml}dead_letters_percent_max: {percent}\n");
    assert_eq!(parsed(yaml).dead_letters_percent_max, None);
    for share in [0, 25, 100] {
        let model = parsed(&percent(&share.to_string()));
        assert_eq!((model.dead_letters_percent_max, model.hash()), (Some(share), parsed(yaml).hash()));
        let stored: ReadModel = serde_json::from_str(&serde_json::to_string(&model).expect("JSON")).expect("a model");
        assert_eq!(stored, model);
    }
    for share in ["101", "-1", "1.5", "'10'", "many"] {
        assert!(wrong(&percent(share)).contains("a whole number of hundredths, from 0 to 100"), "{share}");
    }
}
