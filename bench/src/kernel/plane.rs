//! A control plane for one `meshd`: it says what it is told to, by delta ADS.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tests::netns::Namespace;
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use xds::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use service::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};

mod service {
    #![expect(unreachable_pub, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// The type of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a port of its own; gone, with its connections, when dropped.
#[derive(Debug)]
pub struct Plane {
    address: SocketAddr,
    runtime: Runtime,
    opened: mpsc::Receiver<Stream>,
    stream: Option<Stream>,
    sent: u32,
}

/// What a client has opened.
#[derive(Debug)]
struct Stream {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Plane {
    /// Begins to listen on the loopback address of a namespace.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.context("listening")?;
        listener.set_nonblocking(true).context("listening")?;
        let address = listener.local_addr().context("listening")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (sender, opened) = mpsc::channel(1);
        let service = AggregatedDiscoveryServiceServer::new(Service { opened: sender });
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.context("serving")
        });
        Ok(Self { address, runtime, opened, stream: None, sent: 0 })
    }

    /// Returns what a client is told to connect to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a response with workloads and services, first to whoever opens a stream, and waits until the client has accepted it.
    pub fn send(&mut self, resources: Vec<Resource>) -> Result<()> {
        self.sent += 1;
        let nonce = self.sent.to_string();
        let response = DeltaDiscoveryResponse {
            resources,
            type_url: ADDRESS.to_owned(),
            nonce: nonce.clone(),
            ..Default::default()
        };
        let Self { runtime, opened, stream, .. } = self;
        runtime.block_on(async {
            let said = timeout(PATIENCE, async {
                if stream.is_none() {
                    *stream = opened.recv().await;
                }
                let Stream { requests, responses } = stream.as_mut().context("the server has ended")?;
                responses.send(Ok(response)).await.context("the stream is gone")?;
                while let Some(request) = requests.next().await {
                    let request = request.context("a request")?;
                    if request.response_nonce == nonce {
                        return Ok(request.error_detail);
                    }
                }
                bail!("the stream has ended")
            });
            let complaint = said.await.context("the client does not answer")??;
            ensure!(complaint.is_none(), "the client complains: {complaint:?}");
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Service {
    opened: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, queue) = mpsc::channel(1);
        let stream = Stream { requests: request.into_inner(), responses };
        self.opened.send(stream).await.map_err(|_| Status::unavailable("the benchmark is over"))?;
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}
