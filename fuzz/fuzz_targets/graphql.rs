#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_query_api::fuzz::graphql(data));
