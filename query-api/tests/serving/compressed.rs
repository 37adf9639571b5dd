//! Compressed answers.

use std::io::Read;

use serde_json::json;

use crate::fixture::{Answer, World, customer, int_key, put, wait_until};

fn unpacked(answer: &Answer) -> String {
    assert_eq!(answer.header("content-encoding"), "gzip", "{}", answer.body);
    let mut text = String::new();
    flate2::read::GzDecoder::new(answer.bytes.as_slice()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn large_answers_are_compressed_for_those_who_ask() {
    let world = World::new();
    let mut large = customer(7);
    large["name"] = "a long name ".repeat(2000).into();
    put(&world.store, 1, &int_key(7), Some(&large));
    wait_until("the document", || world.get("/v1/customer/7").json() == large);
    let gzip = [("accept-encoding", "br, gzip")];
    for path in [
        "/v1/customer/7",
        "/v1/customer/7?fields=id,name",
        "/v1/customer?limit=50",
        "/v1/customer?ids=7",
        "/openapi.json",
        "/graphql/schema",
    ] {
        let (plain, packed) = (world.get(path), world.get_with(path, &gzip));
        assert_eq!((plain.status, plain.header("content-encoding")), (200, ""), "{path}");
        assert_eq!(unpacked(&packed), plain.body, "{path}");
        assert!(packed.bytes.len() * 2 < plain.bytes.len(), "{path}: {}", packed.bytes.len());
        assert_eq!(packed.header("content-length"), packed.bytes.len().to_string(), "{path}");
        for answer in [&plain, &packed] {
            assert!(answer.header("vary").contains("accept-encoding"), "{path}");
        }
        let (etag, packed_etag) = (plain.header("etag"), packed.header("etag"));
        assert_eq!(etag.is_empty(), packed_etag.is_empty(), "{path}");
        if !etag.is_empty() {
            assert_ne!(etag, packed_etag, "{path}");
            let again = world.get_with(path, &[gzip[0], ("if-none-match", packed_etag)]);
            assert_eq!((again.status, again.header("etag"), again.bytes.len()), (304, packed_etag, 0), "{path}");
            assert_eq!(again.header("content-encoding"), "", "{path}");
            assert_eq!(world.get_with(path, &[("if-none-match", etag)]).status, 304, "{path}");
        }
        let head = world.ask("HEAD", path, &gzip, None);
        assert_eq!((head.header("etag"), head.header("content-encoding")), (packed_etag, "gzip"), "{path}");
    }
    // Kept, and made anew when the document is another.
    assert_eq!(world.get_with("/v1/customer/7", &gzip).bytes, world.get_with("/v1/customer/7", &gzip).bytes);
    large["n"] = json!(5);
    put(&world.store, 1, &int_key(7), Some(&large));
    wait_until("the document", || world.get("/v1/customer/7").json() == large);
    assert_eq!(unpacked(&world.get_with("/v1/customer/7", &gzip)), large.to_string());
    // Small ones and problems are sent as they are.
    for path in ["/v1/customer/8", "/v1/customer/999", "/v1/customer?limit=x"] {
        assert_eq!(world.get_with(path, &gzip).header("content-encoding"), "", "{path}");
    }
    let refused = world.get_with("/v1/customer/7", &[("accept-encoding", "gzip;q=0")]);
    assert_eq!((refused.header("content-encoding"), refused.json()), ("", large));
    let cbor = world.get_with("/v1/customer/7", &[gzip[0], ("accept", "application/cbor")]);
    assert_eq!((cbor.header("content-encoding"), cbor.header("content-type")), ("gzip", "application/cbor"));
}
