//! One connection with one stream on it.

use std::{
    error::Error,
    fs,
    future::{Future, poll_fn},
    path::{Path, PathBuf},
    pin::Pin,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tokio::{sync::mpsc, time::timeout};
use tonic::{
    Status,
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tower_service::Service;

use crate::client::{Config, failure::Failure, requests::Requests};

const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// How much the server may send ahead of what has been read, in bytes.
const WINDOW: u32 = 2 << 20;

/// Opens a connection, then the call whose body is `requests`; what that returns resolves with the first response.
pub(super) async fn open(
    config: &Config,
    keep_alive: std::time::Duration,
    requests: mpsc::Receiver<Bytes>,
) -> Result<impl Future<Output = Result<Incoming, Failure>> + use<>, Failure> {
    let timing = &config.timing;
    let token = config.token.clone().filter(|_| config.address.tls());
    let mut call = Request::new(Body::new(Requests(requests)));
    *call.method_mut() = Method::POST;
    *call.uri_mut() = PATH.parse().expect("the path is valid");
    call.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    call.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(path) = &token {
        call.headers_mut().insert(header::AUTHORIZATION, bearer(path)?);
    }
    let mut endpoint = Endpoint::from_shared(config.address.to_string())
        .and_then(|endpoint| endpoint.user_agent(concat!("meshd/", env!("CARGO_PKG_VERSION"))));
    if config.address.tls() {
        let roots = ClientTlsConfig::new().ca_certificate(certificates(&config.root_ca)?);
        endpoint = endpoint.and_then(|endpoint| endpoint.tls_config(roots));
    }
    let endpoint = endpoint
        .map_err(|error| Failure::connect(&error, &config.root_ca))?
        .connect_timeout(timing.connect)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(timing.keep_alive))
        .tcp_keepalive_interval(Some(timing.keep_alive_timeout))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(timing.keep_alive_timeout)
        .keep_alive_while_idle(true);
    let mut channel: Channel = timeout(timing.connect, endpoint.connect())
        .await
        .map_err(|_| Failure::Connect(format!("no answer for {:?}", timing.connect)))?
        .map_err(|error| Failure::connect(&error, &config.root_ca))?;
    Ok(async move {
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|error| Failure::unanswered(&error))?;
        let response = channel.call(call).await.map_err(|error| Failure::unanswered(&error))?;
        Incoming::new(response, token)
    })
}

/// The half of a stream that receives.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    token: Option<PathBuf>,
}

impl Incoming {
    fn new(response: Response<Body>, token: Option<PathBuf>) -> Result<Self, Failure> {
        let (head, body) = response.into_parts();
        let incoming = Self { body, token };
        let kind = head.headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("unreadable"));
        if head.status != StatusCode::OK || !kind.starts_with("application/grpc") {
            return Err(Failure::Protocol(format!("it answered HTTP {} with content type {kind:?}", head.status)));
        }
        match Status::from_header_map(&head.headers) {
            Some(status) => Err(incoming.ended(&status)),
            None => Ok(incoming),
        }
    }

    /// Waits for bytes; fails with the reason when no more will come. Cancel safe.
    pub(super) async fn chunk(&mut self) -> Result<Bytes, Failure> {
        loop {
            let frame = match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                None => return Err(Failure::Lost("the stream ended without a status".to_owned())),
                Some(Err(status)) => return Err(Failure::broken(status.source().unwrap_or(&status))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => return Ok(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                    if let Some(status) = Status::from_header_map(&trailers) {
                        return Err(self.ended(&status));
                    }
                }
            }
        }
    }

    fn ended(&self, status: &Status) -> Failure {
        Failure::status(status, self.token.as_deref())
    }
}

fn certificates(path: &Path) -> Result<Certificate, Failure> {
    const WHAT: &str = "root certificate file";
    let pem = fs::read(path).map_err(|source| Failure::File { what: WHAT, path: path.to_owned(), source })?;
    if !pem.windows(27).any(|line| line == b"-----BEGIN CERTIFICATE-----") {
        return Err(Failure::Content { what: WHAT, path: path.to_owned(), why: "holds no certificate in PEM" });
    }
    Ok(Certificate::from_pem(pem))
}

fn bearer(path: &Path) -> Result<HeaderValue, Failure> {
    const WHAT: &str = "token file";
    let token =
        fs::read_to_string(path).map_err(|source| Failure::File { what: WHAT, path: path.to_owned(), source })?;
    let content = |why| Failure::Content { what: WHAT, path: path.to_owned(), why };
    if token.trim().is_empty() {
        return Err(content("is empty"));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| content("holds no token"))?;
    value.set_sensitive(true);
    Ok(value)
}
