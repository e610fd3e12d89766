//! The client against a control plane that each test scripts.
#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod hostile;
mod log;
mod outage;
mod plane;
mod proxy;
mod recorded;
mod secure;
mod size;
mod stream;
mod world;
