//! A control plane whose every word a test decides.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use prost::Message;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::MetadataMap,
    transport::{Identity, Server, ServerTlsConfig},
};
use xds::proto::workload as api;

/// The messages and the server, generated from the same files as the client's messages.
pub(crate) mod discovery {
    #![expect(unreachable_pub, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/server/envoy.service.discovery.v3.rs"));
}
use discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};

pub(crate) const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
pub(crate) const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a port of its own; gone, with its connections, when dropped.
pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    streams: Mutex<mpsc::Receiver<Stream>>,
    server: JoinHandle<()>,
}

/// One stream that a client has opened.
pub(crate) struct Stream {
    pub(crate) metadata: MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    sent: u32,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), None).await
    }

    pub(crate) async fn start_secure(identity: Identity) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), Some(identity)).await
    }

    pub(crate) async fn start_at(address: SocketAddr, identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, streams) = mpsc::channel(16);
        let mut server = Server::builder();
        if let Some(identity) = identity {
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        // istiod's limit, so that a request that it would refuse is refused here.
        let service = AggregatedDiscoveryServiceServer::new(Service { opened }).max_decoding_message_size(4 << 20);
        let serve = server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async { serve.await.unwrap() });
        Self { address, streams: Mutex::new(streams), server }
    }

    /// Waits for a client to open a stream.
    pub(crate) async fn accept(&self) -> Stream {
        timeout(PATIENCE, async { self.streams.lock().await.recv().await.unwrap() })
            .await
            .expect("no stream was opened")
    }

    /// Waits for a client to open a stream and to ask for both types; returns its request for workloads and services.
    pub(crate) async fn greet(&self) -> (Stream, DeltaDiscoveryRequest) {
        let mut stream = self.accept().await;
        let first = stream.request().await;
        assert_eq!(first.type_url, ADDRESS);
        let second = stream.request().await;
        assert_eq!((&*second.type_url, second.node), (AUTHORIZATION, None));
        (stream, first)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Stream {
    pub(crate) async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.next().await.expect("the stream has ended").expect("the stream is broken")
    }

    /// Waits for a request or the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Result<DeltaDiscoveryRequest, Status>> {
        timeout(PATIENCE, self.requests.next()).await.expect("nothing was asked")
    }

    /// Sends a response of workloads and services, and returns what the client says of it: nothing, or a complaint.
    pub(crate) async fn send(&mut self, resources: Vec<Resource>, removed: &[&str]) -> Option<String> {
        let removed_resources = removed.iter().map(|name| (*name).to_owned()).collect();
        self.respond(DeltaDiscoveryResponse {
            resources,
            removed_resources,
            type_url: ADDRESS.to_owned(),
            ..Default::default()
        })
        .await
    }

    /// Sends a response with a nonce of its own, and returns what the client says of it.
    pub(crate) async fn respond(&mut self, mut response: DeltaDiscoveryResponse) -> Option<String> {
        self.sent += 1;
        response.nonce = format!("nonce-{}", self.sent);
        let (nonce, type_url) = (response.nonce.clone(), response.type_url.clone());
        self.push(response).await;
        let reply = self.request().await;
        assert_eq!((reply.response_nonce, reply.type_url), (nonce, type_url));
        assert_eq!(reply.initial_resource_versions, BTreeMap::new());
        reply.error_detail.map(|detail| detail.message)
    }

    /// Sends a response without waiting for what the client says.
    pub(crate) async fn push(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.expect("the stream is gone");
    }

    /// Ends the stream with a status.
    pub(crate) async fn end(self, status: Status) {
        self.responses.send(Err(status)).await.expect("the stream is gone");
    }
}

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
        let (responses, queue) = mpsc::channel(1024);
        let (metadata, _, requests) = request.into_parts();
        let stream = Stream { metadata, requests, responses, sent: 0 };
        self.opened.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

/// Makes a resource of an address, with a hash of its bytes as the version, as istiod does.
pub(crate) fn resource(name: &str, of: api::address::Type) -> Resource {
    let value = api::Address { r#type: Some(of) }.encode_to_vec();
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    any(name, &format!("{hash:x}"), ADDRESS, value)
}

pub(crate) fn any(name: &str, version: &str, type_url: &str, value: Vec<u8>) -> Resource {
    let resource = prost_types::Any { type_url: type_url.to_owned(), value };
    Resource { name: name.to_owned(), version: version.to_owned(), resource: Some(resource), ..Default::default() }
}

/// A pod of namespace `shop` with one address and one service.
pub(crate) fn pod(name: &str, ip: [u8; 4], service: &str) -> api::Workload {
    let port = api::Port { service_port: 80, target_port: 8080 };
    api::Workload {
        uid: format!("Kubernetes//Pod/shop/{name}"),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![ip.to_vec().into()],
        node: "node-1".to_owned(),
        services: [(format!("shop/{service}.shop.svc.cluster.local"), api::PortList { ports: vec![port] })].into(),
        ..Default::default()
    }
}

pub(crate) fn workload(workload: api::Workload) -> Resource {
    resource(&workload.uid.clone(), api::address::Type::Workload(workload))
}

/// A service of namespace `shop` with one virtual address.
pub(crate) fn service(name: &str, vip: [u8; 4]) -> Resource {
    let hostname = format!("{name}.shop.svc.cluster.local");
    let service = api::Service {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        hostname: hostname.clone(),
        addresses: vec![api::NetworkAddress { network: String::new(), address: vip.to_vec().into() }],
        ports: vec![api::Port { service_port: 80, target_port: 8080 }],
        ..Default::default()
    };
    resource(&format!("shop/{hostname}"), api::address::Type::Service(service))
}
