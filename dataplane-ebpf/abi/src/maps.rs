//! Names and default capacities of the maps, and the slots of the per-CPU counters.

/// Socket storage, `Storage` by socket.
pub const STORAGE: &str = "STORAGE";
/// Namespaces that mesh state manages: netns cookie (u64) to [`managed::MESH`]. User space alone writes it.
pub const MANAGER: &str = "MANAGER";
/// Namespaces that the CNI signal enrolled: netns cookie (u64) to [`managed::SIGNAL`]. connect4/6 alone write it.
pub const SIGNALLED: &str = "SIGNALLED";
/// `ServiceKey` to `ServiceValue`.
pub const SERVICES: &str = "SERVICES";
/// `EndpointKey` to `EndpointValue`.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Ring of `Record`s.
pub const RING: &str = "RING";
/// Closes and failures that found the ring full: socket cookie and start (two u64; a socket can be used again) to `Record`.
pub const ASIDE: &str = "ASIDE";
/// Per-CPU counters: one entry, an array of u64 by the numbers in [`counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Run-time settings, u64 by the numbers in [`setting`].
pub const SETTINGS: &str = "SETTINGS";

/// Bytes of the ring: 4 MiB hold 0.5 s of 40,000 records a second.
pub const RING_BYTES: u32 = 4 << 20;
/// Entries of the aside map.
pub const ASIDE_ENTRIES: u32 = 8192;
/// Managed namespaces of one node, in each of the two maps that hold them.
pub const MANAGER_ENTRIES: u32 = 8192;
/// Service addresses and ports.
pub const SERVICE_ENTRIES: u32 = 16384;
/// Endpoints of all services together.
pub const ENDPOINT_ENTRIES: u32 = 131072;

/// Why a namespace is managed.
pub mod managed {
    /// Mesh state names a workload in this namespace.
    pub const MESH: u32 = 1;
    /// The CNI signal enrolled it.
    pub const SIGNAL: u32 = 1 << 1;
}

/// Slots of the settings map.
pub mod setting {
    /// 1 while telemetry is attached: connect4/6 keep storage only then.
    pub const TELEMETRY: u32 = 0;
    /// Number of the snapshot pass under way: the iterator shows a socket once a pass.
    pub const PASS: u32 = 1;
    /// Cookie of the socket at which the walk under way stopped, until it has come back there; 0: none. [`MISSED`] once it came back
    /// elsewhere. The program writes it.
    pub const STOPPED: u32 = 2;
    /// In [`STOPPED`]: sockets were passed over.
    pub const MISSED: u64 = u64::MAX;
    /// How many slots there are.
    pub const COUNT: u32 = 4;
}

/// Slots of the per-CPU counters.
pub mod counter {
    /// Established records that found the ring full (the next snapshot or the close supplies them).
    pub const LOST_ESTABLISHED: u32 = 0;
    /// Closes and failures put aside.
    pub const ASIDE: u32 = 1;
    /// Closes and failures lost: neither ring nor aside had room.
    pub const LOST_CONNECTIONS: u32 = 2;
    /// Payload bytes sent of those.
    pub const LOST_SENT: u32 = 3;
    /// Payload bytes received of those.
    pub const LOST_RECEIVED: u32 = 4;
    /// Sockets for which no storage could be had.
    pub const NO_STORAGE: u32 = 5;
    /// Progress records (`--progress packet`) that found the ring full.
    pub const LOST_PROGRESS: u32 = 6;
    /// Established connections counted by the kernel.
    pub const ESTABLISHED: u32 = 7;
    /// Closed connections counted by the kernel.
    pub const CLOSED: u32 = 8;
    /// Failed connects counted by the kernel.
    pub const FAILED: u32 = 9;
    /// CNI signals for which the manager map had no room.
    pub const MANAGER_FULL: u32 = 10;
    /// Progress records of `--progress packet` made by the kernel.
    pub const PROGRESS: u32 = 11;
    /// How many slots there are.
    pub const COUNT: u32 = 16;
}
