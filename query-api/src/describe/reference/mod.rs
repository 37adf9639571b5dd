//! The reference for people: a page for each model, with forms that ask the API itself, and an index of the models.
//!
//! Pages are made of the same shape as OpenAPI, so they show what the caller may see and no more. They load nothing but
//! the two files of [`asset`], and the browser is told to see to it: whatever a model's docs hold stays text.

mod html;
mod model;
mod operations;
mod words;

use headwater_schemas::model::ModelShape;

use html::Html;
pub(crate) use model::page as model_page;

/// What a page may load, and whom it may ask: the API it came from.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                                 frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The file `name` that pages load, with its media type.
pub(crate) fn asset(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "reference.css" => Some((include_str!("reference.css"), "text/css; charset=utf-8")),
        "reference.js" => Some((include_str!("reference.js"), "text/javascript; charset=utf-8")),
        _ => None,
    }
}

/// The page that lists these models.
pub(crate) fn index_page<'s>(shapes: impl Iterator<Item = &'s ModelShape>) -> String {
    let mut html = Html::page("Read models");
    html.raw(
        "<h1>Read models</h1><p class=\"lead\">Nested documents, kept current with the databases they are made of.</p>",
    );
    html.raw("<ul class=\"models\">");
    let mut is_empty = true;
    for shape in shapes {
        is_empty = false;
        html.raw("<li><a href=\"/v1/").text(&shape.model).raw("/docs\">").text(&shape.model).raw("</a>");
        html.raw(" <span class=\"soft\">version ").text(&shape.version.to_string()).raw("</span>");
        if let Some(doc) = &shape.doc {
            html.raw("<p>").text(doc).raw("</p>");
        }
        html.raw("</li>");
    }
    html.raw("</ul>");
    if is_empty {
        html.raw("<p>There is none that you may see.</p>");
    }
    html.finish()
}

/// The page for callers who have not said who they are: it takes a token and asks again with it.
pub(crate) fn sign_in_page() -> String {
    let mut html = Html::page("Who asks?");
    html.raw(
        "<h1>Who asks?</h1><p class=\"lead\">This API wants to know. Put the token that your identity provider gave you, \
         or an API key, into the field at the top; it stays in this tab.</p>",
    );
    html.finish()
}

#[cfg(test)]
mod tests {
    use headwater_schemas::ColumnType;
    use headwater_schemas::model::definition::Cardinality;
    use headwater_schemas::model::{FieldType, IndexShape, ShapeField};

    use super::*;

    fn hostile() -> ModelShape {
        let hostile = "<script>alert(1)</script> \"'&";
        let field =
            |name: &str, kind| ShapeField { name: name.into(), doc: Some(hostile.into()), required: false, kind };
        let inner = vec![field("amount", FieldType::Scalar(ColumnType::Decimal))];
        ModelShape {
            model: "thing".into(),
            version: 2,
            doc: Some(hostile.into()),
            key: vec![ColumnType::Int64],
            fields: vec![
                field("\"><img src=x onerror=alert(1)>", FieldType::Scalar(ColumnType::Text)),
                field("lines", FieldType::Nested { cardinality: Cardinality::Many, fields: inner }),
            ],
            indexes: vec![IndexShape { name: "lines.amount".into(), kind: ColumnType::Decimal, many: true }],
        }
    }

    #[test]
    fn what_a_model_says_stays_text() {
        let shape = hostile();
        for page in [model_page(&shape), index_page([&shape].into_iter())] {
            assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &quot;&#39;&amp;"), "{page}");
            assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
            // Nothing is written into the page that a strict policy would have to allow.
            assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("<style"), "{page}");
        }
    }

    #[test]
    fn everything_that_is_served_is_shown() {
        let page = model_page(&hostile());
        for wanted in [
            "GET /v1/thing/{id}",
            "GET /v1/thing?",
            "/v1/thing/{id}/lines",
            "lines.amount",
            "/v1/thing/schema",
            "things(first: 2)",
        ] {
            assert!(page.contains(wanted), "{wanted}\n{page}");
        }
        assert!(asset("reference.css").is_some() && asset("reference.js").is_some() && asset("other").is_none());
    }
}
