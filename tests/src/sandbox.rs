//! One test's node: pods on a bridge, a cgroup, addresses that no other test has.

use std::{
    cell::Cell,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::{cgroup, cgroup::Cgroup, netns, netns::Namespace, peer::Peer};

/// A node: a namespace with a bridge to which pods are joined, and where `meshd` runs.
///
/// Its subnets, `10.N.0.0/24` and `fd00:N::/64`, are of this test alone: `meshd` looks for a workload's address in every
/// namespace of the machine. There is no route to anything else.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    number: u8,
    pods: Cell<u8>,
    node: Namespace,
    cgroup: Cgroup,
    directory: TempDir,
}

/// A pod: a namespace with one interface, `eth0`.
#[derive(Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    namespace: Namespace,
    cgroup: PathBuf,
}

impl Sandbox {
    /// Makes a node named after a test. The name stands in namespaces and cgroup: short, letters, digits and `-`.
    pub fn new(name: &str) -> Result<Self> {
        static NUMBER: AtomicU8 = AtomicU8::new(100);
        claim_machine()?;
        let number = NUMBER.fetch_add(1, Relaxed);
        let node = Namespace::new(&format!("{name}-node"))?;
        node.ip(&format!(
            "link add br0 type bridge forward_delay 0 mcast_snooping 0\n\
             link set br0 up\n\
             addr add 10.{number}.0.1/24 dev br0\n\
             addr add fd00:{number}::1/64 dev br0 nodad"
        ))?;
        let cgroup = Cgroup::new(name)?;
        let directory = tempfile::Builder::new().prefix(&format!("{}{name}-", netns::PREFIX)).tempdir()?;
        Ok(Self { name: name.to_owned(), number, pods: Cell::new(1), node, cgroup, directory })
    }

    /// Makes a pod.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let namespace = Namespace::new(&format!("{}-{name}", self.name))?;
        let (v4, v6) = self.next_pod();
        let host = self.pods.get() + 1;
        self.pods.set(host);
        self.node.ip(&format!(
            "link add veth{host} type veth peer name eth0 netns {}\nlink set veth{host} master br0 up",
            namespace.name()
        ))?;
        namespace.ip(&format!("link set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad"))?;
        Ok(Pod { name: name.to_owned(), v4, v6, namespace, cgroup: self.cgroup.path().to_owned() })
    }

    /// Returns the addresses that the next pod made will have.
    pub fn next_pod(&self) -> (Ipv4Addr, Ipv6Addr) {
        let host = self.pods.get() + 1;
        (self.v4(0, host), self.v6(0, host))
    }

    /// Returns the `n`th virtual IPv4 address for services: on no interface, and no route leads there.
    pub fn vip(&self, n: u8) -> Ipv4Addr {
        self.v4(255, n)
    }

    /// Returns the `n`th virtual IPv6 address for services.
    pub fn vip6(&self, n: u8) -> Ipv6Addr {
        self.v6(255, n)
    }

    /// Returns the node's own address, which its pods are probed from.
    pub fn address(&self) -> Ipv4Addr {
        self.v4(0, 1)
    }

    /// Returns the node's namespace.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// Returns the cgroup that `meshd` attaches to and peers run in.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// Returns where everything of this cgroup is pinned, while it is.
    pub fn pins(&self) -> Result<PathBuf> {
        let id = self.cgroup().metadata().context("the test's cgroup")?.ino();
        Ok(Path::new("/sys/fs/bpf/meshd").join(id.to_string()))
    }

    /// Returns where the maps are pinned.
    pub fn pinned_maps(&self) -> Result<PathBuf> {
        let pins = self.pins()?;
        let entries = pins.read_dir().with_context(|| format!("{}", pins.display()))?;
        let maps = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let maps =
            maps.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"maps-")));
        let maps = maps.collect::<Vec<_>>();
        ensure!(maps.len() == 1, "maps of one version were expected: {maps:?}");
        Ok(maps[0].clone())
    }

    /// Returns a directory for the test's files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn v4(&self, third: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, third, host)
    }

    fn v6(&self, network: u16, host: u8) -> Ipv6Addr {
        // The number's decimal digits are read as hexadecimal ones, as in `fd00:101::`.
        let number = u16::from_str_radix(&self.number.to_string(), 16).expect("decimal digits are hexadecimal digits");
        Ipv6Addr::new(0xfd00, number, 0, network, 0, 0, 0, host.into())
    }
}

impl Pod {
    /// Starts a peer in the pod.
    pub fn peer(&self) -> Result<Peer> {
        Peer::start(&self.namespace, &self.cgroup)
    }

    /// Returns its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Namespaces and cgroups are the machine's: one run at a time, which first removes what a killed one left.
fn claim_machine() -> Result<()> {
    static LOCK: OnceLock<Result<Flock<File>, String>> = OnceLock::new();
    let claimed = LOCK.get_or_init(|| claim().map_err(|error| format!("{error:#}")));
    claimed.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))
}

fn claim() -> Result<Flock<File>> {
    ensure!(nix::unistd::geteuid().is_root(), "kernel tests need root: sudo env \"PATH=$PATH\" make test");
    let file = File::create("/run/meshd-tests.lock").context("making a lock file")?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, _)) => {
            eprintln!("waiting for another run of kernel tests or benchmarks on this machine");
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context("locking")?
        }
    };
    netns::remove_left_overs();
    cgroup::remove_left_overs()?;
    Ok(lock)
}
