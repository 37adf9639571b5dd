//! The headers of a record that was read.
//!
//! The client's own walk over them takes every name for UTF-8 and panics at one that is not, and anybody may send one.

use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_message_headers};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

/// Name and value of each header, in order; the value is empty where a header has none.
pub(super) fn all<'m>(message: &'m BorrowedMessage<'_>) -> impl Iterator<Item = (&'m [u8], &'m [u8])> {
    (0..).map_while(|at| header(message, at))
}

#[allow(unsafe_code, reason = "the safe way panics")]
fn header<'m>(message: &'m BorrowedMessage<'_>, at: usize) -> Option<(&'m [u8], &'m [u8])> {
    const FOUND: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let (mut headers, mut name, mut value, mut len) = (ptr::null_mut(), ptr::null(), ptr::null(), 0);
    // SAFETY: the client keeps the message and its headers unchanged for as long as the message is borrowed. Where a call
    // finds something, it has set what it was given: a name that ends with a zero, and a value of `len` bytes or null.
    unsafe {
        if rd_kafka_message_headers(message.ptr(), &raw mut headers) != FOUND
            || rd_kafka_header_get_all(headers, at, &raw mut name, &raw mut value, &raw mut len) != FOUND
        {
            return None;
        }
        let value = if value.is_null() { &[] } else { std::slice::from_raw_parts(value.cast(), len) };
        Some((CStr::from_ptr(name).to_bytes(), value))
    }
}
