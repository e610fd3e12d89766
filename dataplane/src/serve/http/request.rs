//! One request: taken whole, answered even if nobody waits for it any more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    Limits,
    seats::{Seat, Work},
};

/// What taking a request needs.
#[derive(Clone)]
pub(super) struct Whole {
    pub(super) seat: Arc<Seat>,
    pub(super) limits: Limits,
    pub(super) tasks: TaskTracker,
}

/// Reads the body within the limits, then has the request answered by a task of its own: a client that goes away stops no switch halfway.
pub(super) async fn whole(
    State(Whole { seat, limits, tasks }): State<Whole>,
    request: Request,
    next: Next,
) -> Response {
    let work = seat.work();
    let (head, body) = request.into_parts();
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
    }
    let body = match timeout(limits.body, to_bytes(body, limits.body_bytes)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broken off\n"),
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
    };
    let answer = next.run(Request::from_parts(head, Body::from(body)));
    let answered = tasks.spawn(async move { answer.await.map(|body| Body::new(Answer { body, _work: work })) });
    answered.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be answered");
        refused(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be answered\n")
    })
}

/// What was not read of the request cannot be told from the next one.
fn refused(status: StatusCode, why: &'static str) -> Response {
    (status, [(header::CONNECTION, "close")], why).into_response()
}

/// A body that is work until it has been taken.
struct Answer {
    body: Body,
    _work: Work,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
