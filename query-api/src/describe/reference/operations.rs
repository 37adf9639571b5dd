//! What can be asked, each with a form that asks it.

use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use serde_json::Value;

use super::html::Html;
use super::words;
use crate::describe::example;
use crate::graphql::{field_name, plural};

/// Every operation of a model.
pub(super) fn all(html: &mut Html, shape: &ModelShape) {
    one(html, shape);
    list(html, shape);
    batch(html, shape);
    arrays(html, shape, &shape.fields, &mut Vec::new());
    live(html, shape);
    graphql(html, shape);
}

fn one(html: &mut Html, shape: &ModelShape) {
    begin(html, "one", "One document", &format!("GET /v1/{}/{{id}}", shape.model));
    html.raw(
        "<p>The whole document, or the parts named by <code>fields</code>. Keep the <code>ETag</code>: sent back in ",
    );
    html.raw("<code>If-None-Match</code> it costs <code>304</code> and no body while nothing has changed.</p>");
    form(html, &format!("/v1/{}/{{id}}", shape.model));
    id(html, shape);
    fields(html, shape);
    end(html, Some(&example::document(shape)));
}

fn list(html: &mut Html, shape: &ModelShape) {
    begin(html, "list", "A page of them", &format!("GET /v1/{}?filter[path][operator]=value", shape.model));
    html.raw("<p>By declared indexes only. Go on with <code>after</code> from <code>page.next</code>, for as long as ");
    html.raw("<code>page.hasMore</code>.</p>");
    form(html, &format!("/v1/{}", shape.model));
    if !shape.indexes.is_empty() {
        html.raw("<label>Filter by <select name=\"path\" data-in=\"filter\"><option value=\"\">nothing</option>");
        for index in &shape.indexes {
            html.raw("<option data-operators=\"");
            html.text(&words::operators(index).collect::<Vec<_>>().join(" "))
                .raw("\">")
                .text(&index.name)
                .raw("</option>");
        }
        html.raw("</select></label><label>Operator <select name=\"operator\" data-in=\"filter\"></select></label>");
        html.raw("<label>Value <input name=\"value\" data-in=\"filter\"></label>");
    }
    let sorts = || shape.indexes.iter().filter(|index| !index.many);
    if sorts().next().is_some() {
        html.raw("<label>Sort <select name=\"sort\" data-in=\"query\"><option value=\"\">as it comes</option>");
        for index in sorts() {
            html.raw("<option>").text(&index.name).raw("</option><option>-").text(&index.name).raw("</option>");
        }
        html.raw("</select></label>");
    }
    html.raw("<label>Limit <input name=\"limit\" data-in=\"query\" type=\"number\" min=\"1\" max=\"100\" value=\"3\"></label>");
    html.raw("<label>Count <select name=\"count\" data-in=\"query\"><option value=\"\">none</option><option>estimated</option>");
    html.raw("<option>exact</option></select></label>");
    fields(html, shape);
    html.raw(
        "<label>After <input name=\"after\" data-in=\"query\" placeholder=\"page.next of the page before\"></label>",
    );
    end(html, None);
}

fn batch(html: &mut Html, shape: &ModelShape) {
    begin(html, "batch", "Several by id", &format!("GET /v1/{}?ids=a,b,c", shape.model));
    html.raw("<p>In the order asked for, <code>null</code> where there is none.</p>");
    form(html, &format!("/v1/{}", shape.model));
    html.raw("<label>Ids <input name=\"ids\" data-in=\"query\" required value=\"")
        .text(&example::id(shape))
        .raw("\"></label>");
    fields(html, shape);
    end(html, None);
}

fn arrays(html: &mut Html, shape: &ModelShape, of: &[ShapeField], above: &mut Vec<String>) {
    for field in of {
        let FieldType::Nested { cardinality, fields: inner } = &field.kind else { continue };
        above.push(field.name.clone());
        match cardinality {
            Cardinality::One => arrays(html, shape, inner, above),
            Cardinality::Many => {
                let path = above.join(".");
                begin(html, "", &format!("A page of {path}"), &format!("GET /v1/{}/{{id}}/{path}", shape.model));
                form(html, &format!("/v1/{}/{{id}}/{path}", shape.model));
                id(html, shape);
                html.raw("<label>Limit <input name=\"limit\" data-in=\"query\" type=\"number\" min=\"1\" max=\"100\" value=\"3\">");
                html.raw("</label>");
                end(html, None);
            }
        }
        above.pop();
    }
}

fn live(html: &mut Html, shape: &ModelShape) {
    begin(html, "live", "Live", &format!("GET /v1/{}/{{id}}  Accept: text/event-stream", shape.model));
    html.raw(
        "<p>The document now, and again each time it changes, as server-sent events named <code>document</code>; ",
    );
    html.raw("<code>deleted</code> when it is gone. In a page: <code>new EventSource(…)</code>.</p>");
    form(html, &format!("/v1/{}/{{id}}", shape.model));
    html.raw("<input type=\"hidden\" name=\"live\" value=\"yes\">");
    id(html, shape);
    fields(html, shape);
    end(html, None);
}

fn graphql(html: &mut Html, shape: &ModelShape) {
    begin(html, "graphql", "The same by GraphQL", "POST /graphql");
    form(html, "/graphql");
    html.raw("<label class=\"wide\">Query <textarea name=\"query\" data-in=\"body\" rows=\"8\" spellcheck=\"false\">");
    html.text(&query(shape)).raw("</textarea></label>");
    end(html, None);
}

/// A query that asks for some of everything.
fn query(shape: &ModelShape) -> String {
    let scalars = |fields: &[ShapeField]| {
        let names = fields.iter().filter(|field| matches!(field.kind, FieldType::Scalar(_))).take(4);
        names.map(|field| field.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let mut asked = scalars(&shape.fields);
    for field in &shape.fields {
        if let FieldType::Nested { cardinality, fields } = &field.kind
            && !scalars(fields).is_empty()
        {
            let first = if *cardinality == Cardinality::Many { "(first: 2)" } else { "" };
            asked.push_str(&format!(" {}{first} {{ {} }}", field.name, scalars(fields)));
            break;
        }
    }
    if asked.is_empty() {
        asked.push_str("__typename");
    }
    let (one, many) = (field_name(&shape.model), plural(&field_name(&shape.model)));
    let id = Value::String(example::id(shape));
    format!(
        "{{\n  {one}(id: {id}) {{\n    {asked}\n  }}\n  {many}(first: 2) {{\n    nodes {{ {asked} }}\n    pageInfo {{ hasNextPage endCursor }}\n  }}\n}}"
    )
}

fn begin(html: &mut Html, id: &str, title: &str, request: &str) {
    html.raw("<section class=\"operation\" id=\"")
        .text(id)
        .raw("\"><h2>")
        .text(title)
        .raw("</h2><p><code class=\"request\">");
    html.text(request).raw("</code></p>");
}

fn form(html: &mut Html, path: &str) {
    html.raw("<form class=\"try\" data-path=\"").text(path).raw("\">");
}

fn id(html: &mut Html, shape: &ModelShape) {
    html.raw("<label>Id <input name=\"id\" data-in=\"path\" required value=\"")
        .text(&example::id(shape))
        .raw("\"></label>");
}

fn fields(html: &mut Html, shape: &ModelShape) {
    let some: Vec<&str> = shape.fields.iter().take(2).map(|field| field.name.as_str()).collect();
    html.raw("<label>Fields <input name=\"fields\" data-in=\"query\" placeholder=\"all, or ").text(&some.join(","));
    html.raw("\"></label>");
}

fn end(html: &mut Html, example: Option<&Value>) {
    html.raw("<button>Try it</button></form><div class=\"answer\" aria-live=\"polite\"></div>");
    if let Some(example) = example {
        html.raw("<details><summary>What an answer looks like</summary><pre tabindex=\"0\">");
        html.text(&format!("{example:#}")).raw("</pre></details>");
    }
    html.raw("</section>");
}
