//! Services.

use cache::{Interner, Service, Str, model::LoadBalancing};

use super::{Unusable, brief, enumeration, gateway, ip, namespaced, ports, text, texts};
use crate::proto::workload::{self as proto, load_balancing};

/// Makes a service of its message. Its `namespace/hostname` must be the resource's name.
pub(super) fn convert(name: &Str, from: proto::Service, names: &mut Interner) -> Result<Service, Unusable> {
    if from.hostname.is_empty() {
        return Err(Unusable::Missing("hostname"));
    }
    let key = namespaced(&from.namespace, &from.hostname, names)?;
    if key != *name {
        return Err(Unusable::Name(brief(&key)));
    }
    Ok(Service {
        name: text("name", &from.name, names)?,
        namespace: text("namespace", &from.namespace, names)?,
        hostname: text("hostname", &from.hostname, names)?,
        vips: from.addresses.iter().map(|at| vip(at, names)).collect::<Result<_, _>>()?,
        ports: ports(&from.ports)?,
        subject_alt_names: texts("subject_alt_names", &from.subject_alt_names, names)?,
        waypoint: from.waypoint.as_ref().map(|to| gateway(to, names)).transpose()?,
        load_balancing: from.load_balancing.as_ref().map(|how| balancing(how, names)).transpose()?,
        ip_families: names.name(match enumeration("ip_families", from.ip_families)? {
            proto::IpFamilies::Automatic => "",
            proto::IpFamilies::Ipv4Only => "IPv4",
            proto::IpFamilies::Ipv6Only => "IPv6",
            proto::IpFamilies::Dual => "Dual",
        }),
        canonical: from.canonical,
    })
}

fn vip(at: &proto::NetworkAddress, names: &mut Interner) -> Result<(Str, std::net::IpAddr), Unusable> {
    Ok((text("network", &at.network, names)?, ip(&at.address)?))
}

fn balancing(how: &proto::LoadBalancing, names: &mut Interner) -> Result<LoadBalancing, Unusable> {
    let scope = |value: &i32| {
        let scope: load_balancing::Scope = enumeration("routing_preference", *value)?;
        Ok(names.name(scope.as_str_name()))
    };
    let routing_preference = how.routing_preference.iter().map(scope).collect::<Result<_, Unusable>>()?;
    let mode = match enumeration("mode", how.mode)? {
        load_balancing::Mode::UnspecifiedMode => "STANDARD",
        mode => mode.as_str_name(),
    };
    let policy: load_balancing::HealthPolicy = enumeration("health_policy", how.health_policy)?;
    Ok(LoadBalancing {
        routing_preference,
        mode: names.name(mode),
        allow_unhealthy: policy == load_balancing::HealthPolicy::AllowAll,
    })
}
