//! Writing a page: what is ours as it is, and everything else escaped.

/// A page that is being written.
pub(super) struct Html(String);

impl Html {
    /// The beginning of a page with this title.
    pub(super) fn page(title: &str) -> Self {
        let mut html = Self(String::with_capacity(16 * 1024));
        html.raw(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>",
        );
        html.text(title).raw(" · Headwater</title><link rel=\"icon\" href=\"data:,\">");
        html.raw(
            "<link rel=\"stylesheet\" href=\"/docs/reference.css\"><script src=\"/docs/reference.js\" defer></script></head>\
             <body><header><a class=\"home\" href=\"/docs\">Headwater</a>\
             <form id=\"credentials\"><label>Token or key <input name=\"token\" type=\"password\" autocomplete=\"off\" \
             placeholder=\"none\"></label><button>Use</button></form>\
             <nav><a href=\"/openapi.json\">OpenAPI</a> <a href=\"/graphql/schema\">GraphQL schema</a></nav></header><main>",
        );
        html
    }

    /// Adds what is ours and has no part that came from elsewhere.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds a text, which stays one: good between tags and between the quotes of an attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                letter => self.0.push(letter),
            }
        }
        self
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</main></body></html>\n");
        self.0
    }
}
