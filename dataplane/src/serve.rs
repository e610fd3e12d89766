//! The three ports: metrics, readiness and admin.

pub mod admin;
pub mod http;
pub mod metrics;
pub mod ready;
mod stream;
