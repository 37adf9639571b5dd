//! What is sent and what is received.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

/// The body of a response.
pub(crate) enum Body {
    /// All of it, in one buffer.
    Whole(Bytes),
    /// Piece by piece, for as long as there are some.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body {
    /// Size in bytes, where it is known.
    pub(crate) fn len(&self) -> Option<usize> {
        match self {
            Self::Whole(bytes) => Some(bytes.len()),
            Self::Stream(_) => None,
        }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self::Whole(bytes.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Why a request's body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is larger than allowed.
    TooLarge,
    /// The connection broke, or what came was not HTTP.
    Broken,
}

/// Bytes of a body that is too large that are thrown away: a client that is still sending does not listen.
const DISCARDED_MAX: usize = 16 << 20;

/// All of a request's body, up to `max` bytes.
pub(crate) async fn read_body(mut body: Incoming, max: usize) -> Result<Bytes, Unreadable> {
    match Limited::new(&mut body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            // Whatever becomes of the rest, the answer is the same.
            let _ = Limited::new(body, DISCARDED_MAX).map_frame(|_| Frame::data(Bytes::new())).collect().await;
            Err(Unreadable::TooLarge)
        }
        Err(_) => Err(Unreadable::Broken),
    }
}
