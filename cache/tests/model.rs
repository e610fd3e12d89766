//! Random deltas and replacements: after each, every look-up answers as a naive model does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use cache::{
    Cache, Change, Delta, Health, Node, Ports, Service, Snapshot, Str, Workload,
    model::{Gateway, GatewayDestination, WorkloadExtra},
};
use proptest::{collection::vec, prelude::*};

/// The state as two maps, each value with the time at which it took its present addresses.
#[derive(Clone, Default)]
struct Model {
    now: u64,
    workloads: BTreeMap<Str, (u64, Workload)>,
    services: BTreeMap<Str, (u64, Service)>,
}

impl Model {
    fn put(&mut self, before: &Model, delta: &Delta) {
        for w in &delta.workloads {
            self.now += 1;
            let was = before.workloads.get(&w.uid);
            let same = was.filter(|(_, was)| was.addresses == w.addresses && was.network == w.network);
            self.services.remove(&w.uid);
            self.workloads.insert(w.uid.clone(), (same.map_or(self.now, |s| s.0), w.clone()));
        }
        for s in &delta.services {
            self.now += 1;
            let same = before.services.get(&s.key()).filter(|(_, was)| was.vips == s.vips);
            self.workloads.remove(&s.key());
            self.services.insert(s.key(), (same.map_or(self.now, |s| s.0), s.clone()));
        }
        for name in &delta.removed {
            self.workloads.remove(name);
            self.services.remove(name);
        }
    }

    fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Workload> {
        let holders = |network: &str| {
            let network = network.to_owned();
            self.workloads.values().filter(move |(_, w)| w.network == network && w.addresses.contains(&address))
        };
        let best = |(since, w): &&(u64, Workload)| {
            (w.status == Health::Unhealthy, w.node != "here", std::cmp::Reverse(*since))
        };
        holders(network).min_by_key(best).or_else(|| holders("").min_by_key(best)).map(|(_, w)| w)
    }

    fn service_at(&self, network: &str, address: IpAddr) -> Option<&Service> {
        let newest = |network: &str| {
            let vip = (Str::from(network), address);
            self.services.values().filter(|(_, s)| s.vips.contains(&vip)).max_by_key(|(since, _)| *since)
        };
        newest(network).or_else(|| newest("")).map(|(_, s)| s)
    }
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn network() -> impl Strategy<Value = Str> {
    prop_oneof![3 => Just(Str::new()), 1 => Just("net".into()), 1 => Just("other".into())]
}

fn key(n: u8) -> Str {
    arcstr::format!("ns{}/host{}", n % 2, n / 2)
}

/// Some workloads have the name of a service.
fn uid(n: u8) -> Str {
    if n < 20 { arcstr::format!("c//Pod/ns/p{n}") } else { key(n - 20) }
}

fn workload() -> impl Strategy<Value = Workload> {
    let services = vec(0..8_u8, 0..3);
    (0..24_u8, network(), vec(0..12_u8, 0..3), services, any::<(bool, bool)>(), 0..3_u8).prop_map(
        |(id, network, addresses, services, (healthy, here), revision)| {
            let mut services: Vec<_> = services.into_iter().map(|s| (key(s), Ports::from([(80, 8080)]))).collect();
            services.sort();
            services.dedup();
            Workload {
                uid: uid(id),
                network,
                addresses: addresses.into_iter().map(address).collect(),
                services: services.into(),
                status: if healthy { Health::Healthy } else { Health::Unhealthy },
                node: if here { "here" } else { "there" }.into(),
                canonical_revision: arcstr::format!("v{revision}"),
                extra: (revision == 2).then(behind_a_waypoint),
                ..Workload::default()
            }
        },
    )
}

fn behind_a_waypoint() -> Arc<WorkloadExtra> {
    let destination = GatewayDestination::Hostname("ns/way".into());
    Arc::new(WorkloadExtra {
        waypoint: Some(Gateway { destination, hbone_mtls_port: 15008 }),
        ..WorkloadExtra::default()
    })
}

fn service() -> impl Strategy<Value = Service> {
    (0..8_u8, vec((network(), 0..6_u8), 0..3), any::<bool>()).prop_map(|(n, vips, canonical)| Service {
        namespace: arcstr::format!("ns{}", n % 2),
        hostname: arcstr::format!("host{}", n / 2),
        vips: vips.into_iter().map(|(network, n)| (network, address(n))).collect(),
        canonical,
        ..Service::default()
    })
}

fn delta() -> impl Strategy<Value = Delta> {
    let removed = prop_oneof![(0..24_u8).prop_map(uid), (0..8_u8).prop_map(key)];
    (vec(workload(), 0..6), vec(service(), 0..3), vec(removed, 0..4)).prop_map(|(workloads, services, removed)| Delta {
        workloads,
        services,
        removed,
        ..Delta::default()
    })
}

fn agree(snapshot: &Snapshot, model: &Model) -> Result<(), TestCaseError> {
    for network in ["", "net", "other", "unknown"] {
        for n in 0..13 {
            let found = snapshot.workload_at(network, address(n)).map(|w| &w.value);
            prop_assert_eq!(found, model.workload_at(network, address(n)), "{} {}", network, n);
            let found = snapshot.service_at(network, address(n)).map(|s| &s.value);
            prop_assert_eq!(found, model.service_at(network, address(n)), "{} {}", network, n);
        }
    }
    for n in 0..8 {
        let service = snapshot.service(&key(n)).map(|s| &s.value);
        prop_assert_eq!(service, model.services.get(&key(n)).map(|s| &s.1));
        let mut endpoints: Vec<_> = snapshot.endpoints(&key(n)).map(|w| w.uid.clone()).collect();
        endpoints.sort();
        let names = |w: &&(u64, Workload)| w.1.services.iter().any(|s| s.0 == key(n));
        let expected: Vec<_> = model.workloads.values().filter(names).map(|w| w.1.uid.clone()).collect();
        prop_assert_eq!(snapshot.endpoint_count(&key(n)), endpoints.len());
        prop_assert_eq!(endpoints, expected);
    }
    for n in 0..4 {
        let hostname = arcstr::format!("host{n}");
        let found = snapshot.services_by_hostname(&hostname).into_iter().map(|s| s.key()).collect::<Vec<_>>();
        let mut expected: Vec<_> = model.services.values().map(|s| &s.1).filter(|s| s.hostname == hostname).collect();
        expected.sort_by_key(|s| (!s.canonical, s.namespace.clone()));
        prop_assert_eq!(found, expected.into_iter().map(Service::key).collect::<Vec<_>>());
    }
    let mut uids: Vec<_> = snapshot.workloads().map(|w| w.uid.clone()).collect();
    uids.sort();
    prop_assert!(uids.iter().eq(model.workloads.keys()));
    let of_kind = |is: fn(&Workload) -> bool| {
        model.workloads.values().map(|w| &w.1).filter(|w| is(w)).map(|w| w.uid.clone()).collect::<Vec<_>>()
    };
    let mut here: Vec<_> = snapshot.workloads_here().map(|w| w.uid.clone()).collect();
    here.sort();
    prop_assert_eq!(here, of_kind(|w| w.node == "here"));
    let mut behind: Vec<_> = snapshot.workloads_behind_waypoints().map(|w| w.uid.clone()).collect();
    behind.sort();
    prop_assert_eq!(behind, of_kind(|w| w.extra.is_some()));
    prop_assert_eq!((snapshot.workload_count(), snapshot.service_count()), (uids.len(), snapshot.services().count()));
    Ok(())
}

/// What differs is told, and what is told differs (services: or an endpoint of theirs does).
fn told(change: &Change, before: &Snapshot, after: &Snapshot) -> Result<(), TestCaseError> {
    for n in 0..24 {
        let uid = uid(n);
        let serial = |s: &Snapshot| s.workload(&uid).map(|w| w.serial);
        prop_assert_eq!(change.workloads.contains(&uid), serial(before) != serial(after));
    }
    for n in 0..8 {
        let state = |s: &Snapshot| {
            let mut endpoints: Vec<_> = s.endpoints(&key(n)).map(|w| w.serial).collect();
            endpoints.sort_unstable();
            (s.service(&key(n)).map(|s| s.serial), endpoints)
        };
        prop_assert_eq!(change.services.contains(&key(n)), state(before) != state(after));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_the_model_does(steps in vec((delta(), 0..8_u8), 1..20)) {
        let cache = Cache::new(Node { name: "here".into(), network: "net".into() });
        let mut subscription = cache.subscribe();
        subscription.pending();
        let mut model = Model::default();
        for (delta, kind) in steps {
            let before = Snapshot::clone(&cache.load());
            let (was, whole) = (model.clone(), kind == 0);
            if whole {
                model = Model { now: model.now, ..Model::default() };
                model.put(&was, &Delta { removed: Vec::new(), ..clone(&delta) });
                cache.replace(delta.workloads, delta.services);
            } else {
                model.put(&was, &delta);
                cache.apply(delta);
            }
            let after = cache.load();
            agree(&after, &model)?;
            agree(&before, &was)?;
            let change = subscription.pending().unwrap_or_default();
            if !change.full {
                told(&change, &before, &after)?;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn many_workloads_are_all_found_and_all_gone(count in 1..4000_u32, order in any::<u32>()) {
        let cache = Cache::new(Node::default());
        let uid = |i: u32| arcstr::format!("p{i}");
        let pod = |i: u32| Workload {
            uid: uid(i),
            addresses: Box::new([Ipv4Addr::from(i).into()]),
            services: [("ns/all".into(), Ports::default())].into(),
            ..Workload::default()
        };
        cache.apply(Delta { workloads: (0..count).map(pod).collect(), ..Delta::default() });
        let step = order | 1;
        let scattered: Vec<_> = (0..count).map(|i| i.wrapping_mul(step) % count).collect();
        for i in scattered.iter().copied().chain(0..count) {
            if cache.load().workload_at("", Ipv4Addr::from(i).into()).is_some_and(|w| w.uid == uid(i)) {
                cache.apply(Delta { removed: vec![uid(i)], ..Delta::default() });
            }
            prop_assert!(cache.load().workload_at("", Ipv4Addr::from(i).into()).is_none());
        }
        prop_assert_eq!((cache.load().workload_count(), cache.load().endpoint_count("ns/all")), (0, 0));
    }
}

fn clone(delta: &Delta) -> Delta {
    Delta { workloads: delta.workloads.clone(), services: delta.services.clone(), ..Delta::default() }
}
