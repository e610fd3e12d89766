//! One response while it comes in: every resource is made into what the cache holds as soon as its bytes are there.

use bytes::Bytes;
use cache::{Interner, Service, Snapshot, Str, Workload};
use serde_json::Value as Json;

use crate::{
    convert::{self, Unusable, brief},
    policy,
    session::{ADDRESS, AUTHORIZATION},
    status::Kind,
    versions::{Version, Versions},
    wire::{Fields, Malformed, Value, text},
};

/// A response of which some fields have come.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) type_url: String,
    pub(crate) nonce: String,
    resources: Resources,
}

/// What a response says.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    /// Workloads that differ from what is held.
    pub(crate) workloads: Vec<Workload>,
    /// Services that differ from what is held.
    pub(crate) services: Vec<Service>,
    pub(crate) policies: Vec<(Str, Json)>,
    /// Names and versions of all workloads and services that can be used.
    pub(crate) versions: Versions,
    /// How many resources there were, usable or not.
    pub(crate) count: usize,
    pub(crate) removed: Vec<String>,
    pub(crate) rejected: Vec<Rejection>,
    /// Why the response as a whole cannot be used.
    unasked: Option<String>,
}

/// A resource that cannot be used.
#[derive(Debug)]
pub(crate) struct Rejection {
    /// Its name; one too long to be held is cut.
    pub(crate) name: Str,
    why: Unusable,
}

/// What was held before a response came.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    pub(crate) versions: &'a Versions,
    pub(crate) snapshot: &'a Snapshot,
}

/// So many rejected resources are named in a complaint.
const NAMED: usize = 10;

impl Response {
    /// Takes one field of the message.
    pub(crate) fn field(&mut self, number: u32, content: Bytes, before: Before<'_>, names: &mut Interner) {
        let lossy = || String::from_utf8_lossy(&content).into_owned();
        match number {
            2 => self.resources.add(&content, before, names),
            4 => self.type_url = lossy(),
            5 => self.nonce = lossy(),
            6 => self.resources.removed.push(lossy()),
            _ => {}
        }
    }

    /// Returns what the whole response says. What is of another type than the response is rejected.
    pub(crate) fn into_resources(self, kind: Kind) -> Resources {
        let mut resources = self.resources;
        let of = |type_url: &str| Unusable::Type(type_url.to_owned());
        if kind != Kind::Address {
            resources.workloads.clear();
            resources.services.clear();
            let names = std::mem::take(&mut resources.versions).into_names();
            resources.rejected.extend(names.map(|name| Rejection { name, why: of(ADDRESS) }));
        }
        if kind != Kind::Authorization {
            let names = resources.policies.drain(..);
            resources.rejected.extend(names.map(|(name, _)| Rejection { name, why: of(AUTHORIZATION) }));
        }
        if kind == Kind::Other {
            resources.unasked = Some(format!("type {:?} was not asked for", brief(&self.type_url)));
        }
        resources
    }
}

impl Resources {
    /// Returns what to tell the control plane, if anything cannot be used.
    pub(crate) fn complaint(&self) -> Option<String> {
        if let Some(unasked) = &self.unasked {
            return Some(unasked.clone());
        }
        let count = self.rejected.len();
        if count == 0 {
            return None;
        }
        let one = |rejection: &Rejection| format!("{:?}: {}", brief(&rejection.name), rejection.why);
        let named: Vec<_> = self.rejected.iter().take(NAMED).map(one).collect();
        let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
        Some(format!("{count} of {} resources cannot be used: {}{more}", self.count, named.join("; ")))
    }

    fn add(&mut self, resource: &Bytes, before: Before<'_>, names: &mut Interner) {
        self.count += 1;
        let parts = Parts::read(resource);
        let name = parts.as_ref().map_or("", |parts| parts.name);
        let name = before.versions.name(name).cloned().unwrap_or_else(|| Str::from(convert::cut(name)));
        let converted = parts.map_err(Unusable::from).and_then(|parts| self.convert(&name, &parts, before, names));
        if let Err(why) = converted {
            self.rejected.push(Rejection { name, why });
        }
    }

    fn convert(
        &mut self,
        name: &Str,
        parts: &Parts<'_>,
        before: Before<'_>,
        names: &mut Interner,
    ) -> Result<(), Unusable> {
        if parts.name.is_empty() {
            return Err(Unusable::Missing("the resource's name"));
        }
        convert::short("the resource's name", parts.name)?;
        let (type_url, content) = parts.content.ok_or(Unusable::Missing("the resource"))?;
        match type_url {
            ADDRESS => {
                let address = convert::address(name, content, names)?;
                let first = self.versions.set(name.clone(), Version::parse(parts.version));
                // What is held already need not be held twice meanwhile, unless something else came under the name before it.
                match address {
                    convert::Resource::Workload(workload) => {
                        let held = before.snapshot.workload(name);
                        if !first || held.is_none_or(|held| held.value != workload) {
                            self.workloads.push(workload);
                        }
                    }
                    convert::Resource::Service(service) => {
                        let held = before.snapshot.service(name);
                        if !first || held.is_none_or(|held| held.value != service) {
                            self.services.push(service);
                        }
                    }
                }
            }
            AUTHORIZATION => self.policies.push((name.clone(), policy::convert(name, content)?)),
            other => return Err(Unusable::Type(brief(other))),
        }
        Ok(())
    }
}

/// A `Resource` message, in place.
#[derive(Debug, Default)]
struct Parts<'a> {
    name: &'a str,
    version: &'a str,
    /// Type and value of the `Any` in it.
    content: Option<(&'a str, &'a [u8])>,
}

impl<'a> Parts<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut parts = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(version)) => parts.version = text(version)?,
                (2, Value::Bytes(any)) => parts.content = Some(any_of(any)?),
                (3, Value::Bytes(name)) => parts.name = text(name)?,
                _ => {}
            }
        }
        Ok(parts)
    }
}

fn any_of(message: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let mut any = ("", &[][..]);
    for field in Fields::new(message) {
        match field? {
            (1, Value::Bytes(type_url)) => any.0 = text(type_url)?,
            (2, Value::Bytes(value)) => any.1 = value,
            _ => {}
        }
    }
    Ok(any)
}
