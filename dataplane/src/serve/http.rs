//! One HTTP/1 server for each port, bounded in connections, in what a request may measure, and in patience.

mod request;
mod seats;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::sys::socket::{setsockopt, sockopt};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use request::Whole;
use seats::{Seat, Seats};

/// How long a peer may leave what we sent unacknowledged before its connection is dropped, ms.
const UNACKNOWLEDGED_MS: u32 = 30_000;
/// How long to wait after an accept that failed for want of resources.
const RETRY: Duration = Duration::from_millis(100);

/// What one port bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at a time. Where there are as many, a further one takes the place of that which has waited for a request the
    /// longest; while all are at work it waits in the backlog.
    pub connections: usize,
    /// Time to send a request's head, idle time between two requests included.
    pub head: Duration,
    /// Size of a head, in bytes.
    pub head_bytes: usize,
    /// Time to send a request's body.
    pub body: Duration,
    /// Size of a body, in bytes.
    pub body_bytes: usize,
    /// Time from a request's head to the end of the answer, after which the connection is ended; noticed within once more that time.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(60),
            head_bytes: 32 << 10,
            body: Duration::from_secs(10),
            body_bytes: 64 << 10,
            request: Duration::from_secs(75),
        }
    }
}

/// Registers what counts the connections that made room for others: at the metrics port, the ready port and the admin port.
///
/// # Errors
/// It is registered already.
#[expect(clippy::disallowed_methods, reason = "the label's values are a closed set of our own")]
pub fn displaced(registry: &Registry) -> Result<[IntCounter; 3], prometheus::Error> {
    let help =
        "Connections to a port of meshd that were ended, waiting for a request, because others came and it was full.";
    let displaced = IntCounterVec::new(Opts::new("meshd_http_displaced_total", help), &["port"])?;
    registry.register(Box::new(displaced.clone()))?;
    Ok(["metrics", "ready", "admin"].map(|port| displaced.with_label_values(&[port])))
}

/// Serves until told to stop, then finishes the requests that run. `displaced` counts connections that made room for others.
///
/// # Errors
/// None; the result fits a required task.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    displaced: IntCounter,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let seats = Seats::new(limits.connections, displaced);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let seat = tokio::select! {
                    () = stop.cancelled() => break,
                    seat = seats.take() => seat,
                };
                let whole = Whole { seat: seat.clone(), limits, tasks: tasks.clone() };
                let router = router.clone().layer(middleware::from_fn_with_state(whole, request::whole));
                tasks.spawn(connection(stream, router, seat, limits, stop.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, seat: Arc<Seat>, limits: Limits, stop: CancellationToken) {
    // A client that is gone already needs no patience.
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS);
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let mut overdue = std::pin::pin!(tokio::time::sleep(limits.request));
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = served.as_mut() => break ended,
            () = seat.left() => return,
            () = overdue.as_mut() => {
                if seat.at_work_for().is_some_and(|time| time >= limits.request) {
                    tracing::debug!("a client took too long for an answer");
                    return;
                }
                overdue.as_mut().reset(Instant::now() + limits.request);
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
