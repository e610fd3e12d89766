//! Records in; metrics and log lines out.
//!
//! [`Families`] keeps the series, written by the one record thread and read by any number of scrapes; [`Exposition`] is
//! what a scrape reads.
#![forbid(unsafe_code)]

pub mod accesslog;
pub mod attribute;
mod check;
pub mod clock;
pub mod config;
pub mod connections;
mod encode;
pub mod exposition;
pub mod families;
pub mod fragment;
pub mod increment;
pub mod labels;
pub mod recorder;
pub mod selfmetrics;
pub mod series;
pub mod store;
pub mod switches;
pub mod view;

pub use accesslog::AccessLog;
pub use attribute::NodeAddresses;
pub use clock::Clock;
pub use config::{Config, LogFormat};
pub use exposition::{Exposition, Format, negotiate};
pub use families::{Ends, Families, Traffic};
pub use labels::{ConnectionLabels, Flag, Reporter};
pub use recorder::{Recorder, new, resume};
pub use selfmetrics::SelfMetrics;
pub use store::{Memory, SEGMENT, Saved, StoreError};
pub use switches::{Switch, Switches};
pub use view::ConnectionView;
