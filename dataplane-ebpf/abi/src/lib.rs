//! What the kernel programs and user space share: records, map keys and values, map names and sizes.
//!
//! Everything is `repr(C)`, fixed-width and without padding, so that a record can be read from bytes without unsafe code.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod globals;
pub mod joined;
pub mod maps;
pub mod record;
pub mod ring;
pub mod steering;
pub mod storage;
pub mod sum;

pub use address::Endpoint;
pub use record::{Direction, Kind, Record, TcpState};
