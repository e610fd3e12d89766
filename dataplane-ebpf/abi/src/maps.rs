//! Names and default capacities of the maps, and the slots of the per-CPU counters.

/// Version of everything that programs and user space share. A program of one version does not work with maps of another: raise it with
/// every change of a record, a value or what one means. Fields are added to `Storage` at its end: that of open connections goes on.
pub const VERSION: u32 = 2;

/// Socket storage, `Storage` by socket.
pub const STORAGE: &str = "STORAGE";
/// The socket storage of another version, while that is replaced.
pub const OLDER_STORAGE: &str = "OLDER_STORAGE";
/// Namespaces that mesh state manages: netns cookie (u64) to [`managed::MESH`]. User space alone writes it.
pub const MANAGER: &str = "MANAGER";
/// Namespaces that the CNI signal enrolled: netns cookie (u64) to [`managed::SIGNAL`]. connect4/6 alone write it.
pub const SIGNALLED: &str = "SIGNALLED";
/// `ServiceKey` to `ServiceValue`.
pub const SERVICES: &str = "SERVICES";
/// `EndpointKey` to `EndpointValue`.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// `WaypointKey` to 1: namespaces that dial what is behind their own waypoint directly.
pub const WAYPOINTS: &str = "WAYPOINTS";
/// The rings' slots, mapped: [`crate::ring`].
pub const RING: &str = "RING";
/// The rings' cursors, mapped.
pub const CURSORS: &str = "CURSORS";
/// A ring buffer that only wakes user space: a ring is half full.
pub const DOORBELL: &str = "DOORBELL";
/// Closes that found the ring full, of connections that user space knows of: socket cookie and start (two u64; a socket can be used
/// again) to `Record`.
pub const ASIDE: &str = "ASIDE";
/// Closes and failures that found the ring full, of connections that user space knows nothing of; as [`ASIDE`].
pub const UNTOLD: &str = "UNTOLD";
/// Those for which [`UNTOLD`] has no room either, added up: `SumKey` to `Sum`.
pub const SUMS: &str = "SUMS";
/// Per-CPU counters: one entry, an array of u64 by the numbers in [`counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Run-time settings, u64 by the numbers in [`setting`].
pub const SETTINGS: &str = "SETTINGS";
/// Cookies of open connections in which a pass found nothing new, mapped: [`QUIET_ENTRIES`] u64, so many as [`setting::QUIET`] says.
pub const QUIET: &str = "QUIET";

/// Sockets that send to their peer beside TCP: socket cookie to socket. Its program is `message`.
pub const SOCKETS: &str = "SOCKETS";
/// What is known of them: socket cookie to `Joined`.
pub const JOINED: &str = "JOINED";
/// Sockets that look for their peer: `View` to `Seeker`. What was not found lately gives way.
pub const SEEKERS: &str = "SEEKERS";

/// Most sockets that are joined at a time, each with a peer of its own.
pub const JOINED_ENTRIES: u32 = 65536;
/// Most sockets that look for their peer at a time.
pub const SEEKER_ENTRIES: u32 = 8192;
/// Entries of the aside map.
pub const ASIDE_ENTRIES: u32 = 8192;
/// Most entries of the map of ends that user space knows nothing of: 2 MiB.
pub const UNTOLD_ENTRIES: u32 = 8192;
/// Entries of the map of sums: 1.5 MiB.
pub const SUM_ENTRIES: u32 = 8192;
/// Cookies that a pass can leave at a time: 256 KiB.
pub const QUIET_ENTRIES: u32 = 32768;
/// Namespaces whose use of shared room is noted; those that were not busy lately give way.
pub const SHARE_ENTRIES: u32 = 1024;
/// Managed namespaces of one node, in each of the two maps that hold them.
pub const MANAGER_ENTRIES: u32 = 8192;
/// Service addresses and ports.
pub const SERVICE_ENTRIES: u32 = 16384;
/// Namespaces of waypoints on one node.
pub const WAYPOINT_ENTRIES: u32 = 1024;
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
    /// Cookie of the namespace that is being searched for connections older than its enrolment.
    pub const ADOPT_NETNS: u32 = 3;
    /// Which sums are being added to: user space reads those of an epoch after it has begun the next.
    pub const EPOCH: u32 = 4;
    /// Number of the round of emptying the maps of ends: in each, every namespace has its share of room anew.
    pub const ROUND: u32 = 5;
    /// 1 while the service map has entries for any port of an address.
    pub const ANY_PORT: u32 = 6;
    /// Segments, both ways, after which a connection between two sockets of this node joins; 0: none does, and those that have go by TCP.
    pub const ACCELERATE: u32 = 7;
    /// Sockets that have something to read which came beside TCP, as the last walk that looked found.
    pub const UNREAD: u32 = 8;
    /// What waypoints are told before the first byte: one of [`crate::steering::metadata`].
    pub const METADATA: u32 = 9;
    /// How many cookies the pass under way has left in [`super::QUIET`] since user space took them. The program writes it, user space sets
    /// it to 0.
    pub const QUIET: u32 = 10;
    /// 1 while the pass under way shows every connection, those with nothing new too.
    pub const WHOLE: u32 = 11;
    /// 1 once a walk over the TCP sockets of a namespace has come to one with storage. The program writes it, user space sets it to 0.
    pub const VISITED: u32 = 12;
    /// How many slots there are.
    pub const COUNT: u32 = 16;
}

/// Slots of the per-CPU counters.
pub mod counter {
    /// Established records that found the ring full (the next snapshot or the close supplies them).
    pub const LOST_ESTABLISHED: u32 = 0;
    /// Closes and failures put aside.
    pub const ASIDE: u32 = 1;
    /// Closes and failures lost: neither ring nor any map for them had room.
    pub const LOST_CONNECTIONS: u32 = 2;
    /// Payload bytes sent of those that user space does not know of.
    pub const LOST_SENT: u32 = 3;
    /// Payload bytes received of those that user space does not know of.
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
    /// Adopted connections counted by the kernel.
    pub const ADOPTED: u32 = 12;
    /// Closes and failures added up.
    pub const SUMMED: u32 = 13;
    /// Failures among the lost ones.
    pub const LOST_FAILED: u32 = 14;
    /// Payload bytes sent of connections whose close was not lost.
    pub const CLOSED_SENT: u32 = 15;
    /// Payload bytes received of connections whose close was not lost.
    pub const CLOSED_RECEIVED: u32 = 16;
    /// Sockets that have joined their peer.
    pub const JOINED: u32 = 17;
    /// Joined sockets whose end was reported.
    pub const PARTED: u32 = 18;
    /// Payload bytes that ended connections had sent beside TCP.
    pub const REDIRECTED: u32 = 19;
    /// Sockets that could not join: no room, or the kernel refused.
    pub const NOT_JOINED: u32 = 20;
    /// Times that a socket went back to TCP because its peer had too much to read.
    pub const HELD_BACK: u32 = 21;
    /// Connections to waypoints that could not be told what was dialled.
    pub const NOT_TOLD: u32 = 22;
    /// How many slots there are.
    pub const COUNT: u32 = 24;
}
