//! The page of one model.

use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};

use super::html::Html;
use super::{operations, words};

/// The page of this model, as the caller sees it.
pub(crate) fn page(shape: &ModelShape) -> String {
    let mut html = Html::page(&shape.model);
    html.raw("<p class=\"crumb\"><a href=\"/docs\">Read models</a></p><h1>").text(&shape.model);
    html.raw(" <span class=\"soft\">version ").text(&shape.version.to_string()).raw("</span></h1>");
    if let Some(doc) = &shape.doc {
        html.raw("<p class=\"lead\">").text(doc).raw("</p>");
    }
    html.raw("<nav class=\"toc\" aria-label=\"On this page\"><a href=\"#fields\">Fields</a> <a href=\"#one\">One</a> ");
    html.raw("<a href=\"#list\">List</a> <a href=\"#batch\">Several</a> <a href=\"#live\">Live</a> ");
    html.raw("<a href=\"#graphql\">GraphQL</a> <a href=\"#errors\">Errors</a> <a href=\"/v1/").text(&shape.model);
    html.raw("/schema\">JSON Schema</a></nav>");
    fields(&mut html, shape);
    operations::all(&mut html, shape);
    errors(&mut html);
    html.finish()
}

fn fields(html: &mut Html, shape: &ModelShape) {
    html.raw("<section id=\"fields\"><h2>Fields</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" ");
    html.raw("aria-label=\"Fields\"><table><thead><tr><th scope=\"col\">Path");
    html.raw("<th scope=\"col\">Value<th scope=\"col\">Can be null<th scope=\"col\">Filter and sort<th scope=\"col\">What it is");
    html.raw("</tr></thead><tbody>");
    rows(html, shape, &shape.fields, &mut Vec::new());
    html.raw("</tbody></table></div></section>");
}

fn rows(html: &mut Html, shape: &ModelShape, fields: &[ShapeField], above: &mut Vec<String>) {
    for field in fields {
        above.push(field.name.clone());
        let path = above.join(".");
        html.raw("<tr><td><code>").text(&path).raw("</code><td>");
        let is_many = match &field.kind {
            FieldType::Scalar(kind) => {
                html.raw(words::kind(kind));
                false
            }
            FieldType::Nested { cardinality: Cardinality::Many, .. } => {
                html.raw("list of objects");
                true
            }
            FieldType::Nested { cardinality: Cardinality::One, .. } => {
                html.raw("object");
                false
            }
        };
        html.raw(if field.required || is_many { "<td>no<td>" } else { "<td>yes<td>" });
        match shape.indexes.iter().find(|index| index.name == path) {
            Some(index) if index.many => html.raw("filter"),
            Some(_) => html.raw("filter, sort"),
            None => html.raw("<span class=\"soft\">no</span>"),
        };
        html.raw("<td>").text(field.doc.as_deref().unwrap_or_default()).raw("</tr>");
        if let FieldType::Nested { fields, .. } = &field.kind {
            rows(html, shape, fields, above);
        }
        above.pop();
    }
}

fn errors(html: &mut Html) {
    html.raw(
        "<section id=\"errors\"><h2>Errors</h2><p>What cannot be answered comes as <code>application/problem+json</code>: \
         <code>code</code> is for programs and stays as it is, <code>detail</code> is for people and says what to do, \
         <code>parameter</code> names the parameter, <code>requestId</code> the line in the server's log. \
         <code>503</code> and <code>429</code> say in <code>Retry-After</code> when to come back.</p></section>",
    );
}
