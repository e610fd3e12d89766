//! The daemon's answer, read element by element while it comes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    marker::PhantomData,
    net::IpAddr,
};

use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// What a table shows of a workload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) network: String,
    pub(super) node: String,
    #[serde(default)]
    pub(super) hostname: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) status: String,
    pub(super) protocol: String,
    pub(super) services: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    pub(super) waypoint: Option<Gateway>,
}

/// What a table shows of a service's port.
#[derive(Debug, Deserialize)]
pub(super) struct Port {
    pub(super) service: Option<String>,
    pub(super) dialled: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) waypoint: Option<String>,
    pub(super) endpoints: Vec<Considered>,
    pub(super) verdict: String,
    pub(super) why: String,
}

/// What a table shows of an endpoint.
#[derive(Debug, Deserialize)]
pub(super) struct Considered {
    pub(super) workload: Option<String>,
    pub(super) address: Option<String>,
    pub(super) weight: u32,
    pub(super) excluded: Option<String>,
}

/// Where a gateway is.
#[derive(Debug, Deserialize)]
pub(super) struct Gateway {
    pub(super) destination: String,
}

/// Why a dump ended early.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// The answer is not whole, or no dump.
    Answer(serde_json::Error),
    /// What was read could not be written.
    Output(io::Error),
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Hands over each workload and each service, in the order of the answer. `IgnoredAny` skips those of a kind.
pub(super) fn read<W: DeserializeOwned, S: DeserializeOwned>(
    answer: impl Read,
    workload: impl FnMut(W) -> io::Result<()>,
    service: impl FnMut(S) -> io::Result<()>,
) -> Result<(), Interrupted> {
    let failed = RefCell::new(None);
    let workloads = List { each: workload, failed: &failed, of: PhantomData };
    let services = List { each: service, failed: &failed, of: PhantomData };
    let mut answer = serde_json::Deserializer::from_reader(answer);
    let done = Dump { workloads, services }.deserialize(&mut answer).and_then(|()| answer.end());
    match failed.into_inner() {
        Some(error) => Err(Interrupted::Output(error)),
        None => done.map_err(Interrupted::Answer),
    }
}

struct Dump<W, S> {
    workloads: W,
    services: S,
}

impl<'de, W, S> DeserializeSeed<'de> for Dump<W, S>
where
    W: DeserializeSeed<'de, Value = ()>,
    S: DeserializeSeed<'de, Value = ()>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W, S> Visitor<'de> for Dump<W, S>
where
    W: DeserializeSeed<'de, Value = ()>,
    S: DeserializeSeed<'de, Value = ()>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dump of the mesh")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut workloads, mut services) = (Some(self.workloads), Some(self.services));
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "workloads" if workloads.is_some() => map.next_value_seed(workloads.take().expect("just seen"))?,
                "services" if services.is_some() => map.next_value_seed(services.take().expect("just seen"))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (workloads, services) {
            (None, None) => Ok(()),
            _ => Err(A::Error::custom("workloads or services are missing")),
        }
    }
}

struct List<'a, T, F> {
    each: F,
    /// Why `each` failed.
    failed: &'a RefCell<Option<io::Error>>,
    of: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> io::Result<()>> DeserializeSeed<'de> for List<'_, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> io::Result<()>> Visitor<'de> for List<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            if let Err(error) = (self.each)(element) {
                *self.failed.borrow_mut() = Some(error);
                return Err(A::Error::custom("the output failed"));
            }
        }
        Ok(())
    }
}
