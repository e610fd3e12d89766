//! The messages of `xds/proto`, generated at build time.
#![expect(missing_docs, clippy::large_enum_variant, reason = "generated; the .proto files hold the comments")]

/// Envoy's delta discovery service.
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}
/// Istio's Workload API.
pub mod workload {
    tonic::include_proto!("istio.workload");
}
/// Istio's authorization policies.
pub mod security {
    tonic::include_proto!("istio.security");
}
