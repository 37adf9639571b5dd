//! The pages for people show what the caller may see, and take a token from those who cannot send one.

use headwater_query_api::{Mask, ModelRule};
use serde_json::json;

use crate::world::{Guarded, mask};

#[test]
fn a_page_shows_no_more_than_documents_do() {
    let rule = ModelRule { masks: vec![mask(&["tariff", "invoices.total"], Mask::Hidden)], ..ModelRule::default() };
    let world = Guarded::new(rule);
    let page = world.get_as(&json!({"sub": "a"}), "/v1/customer/docs");
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("invoices.status"));
    assert!(!page.body.contains("tariff") && !page.body.contains("total"), "{}", page.body);
    let support = world.get_as(&json!({"sub": "b", "roles": ["support"]}), "/v1/customer/docs");
    assert!(support.body.contains("tariff.code") && support.body.contains("invoices.total"));
    // A model without a rule is not there.
    let index = world.get_as(&json!({"sub": "a"}), "/docs");
    assert!(index.body.contains("/v1/customer/docs") && !index.body.contains("rate"), "{}", index.body);
    assert_eq!(world.get_as(&json!({"sub": "a"}), "/v1/rate/docs").status, 404);
}

#[test]
fn strangers_get_a_field_for_their_token() {
    let world = Guarded::new(ModelRule::default());
    let html = [("accept", "text/html,application/xhtml+xml")];
    let (index, page) = (world.get_with("/docs", &html), world.get_with("/v1/customer/docs", &html));
    // The same for what is there and what is not.
    let absent = world.get_with("/v1/nothing/docs", &html);
    for answer in [&index, &page, &absent] {
        assert_eq!((answer.status, answer.header("content-type")), (401, "text/html; charset=utf-8"));
        assert!(answer.header("content-security-policy").contains("script-src 'self'"));
        assert!(answer.body.contains("name=\"token\"") && !answer.body.contains("customer"), "{}", answer.body);
        assert_eq!(answer.body, index.body);
    }
    assert_eq!(world.get("/docs/reference.js").status, 200);
    // Programs, and everything else, are told as ever.
    for (path, headers) in
        [("/docs", &[][..]), ("/docs/other", &html), ("/v1/customer/7", &html), ("/v1/customer", &html)]
    {
        let answer = world.get_with(path, headers);
        assert_eq!((answer.status, answer.header("content-type")), (401, "application/problem+json"), "{path}");
    }
}
