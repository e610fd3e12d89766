//! The body of the one call: requests as they are made.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost::Message;
use tokio::sync::mpsc;

use crate::proto::discovery::DeltaDiscoveryRequest;

/// Yields each request once it is sent; ends when the sender is gone.
#[derive(Debug)]
pub(super) struct Requests(pub(super) mpsc::Receiver<Bytes>);

impl Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|request| request.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Encodes a request as gRPC frames it: not compressed, length, message.
pub(super) fn encode(request: &DeltaDiscoveryRequest) -> Bytes {
    let length = request.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).expect("a request is kept below 4 MiB"));
    request.encode_raw(&mut framed);
    framed.freeze()
}
