use super::*;

fn convert(name: &str, of: proto::address::Type) -> Result<Resource, Unusable> {
    let content = proto::Address { r#type: Some(of) }.encode_to_vec();
    address(&Str::from(name), &content, &mut Interner::default())
}

fn pod() -> proto::Workload {
    proto::Workload {
        uid: "c//Pod/shop/web".to_owned(),
        addresses: vec![vec![10, 0, 0, 1].into()],
        services: [("shop/web.example".to_owned(), proto::PortList { ports: vec![port_of(80, 8080)] })].into(),
        ..Default::default()
    }
}

fn service() -> proto::Service {
    proto::Service { namespace: "shop".to_owned(), hostname: "web.example".to_owned(), ..Default::default() }
}

fn port_of(service_port: u32, target_port: u32) -> proto::Port {
    proto::Port { service_port, target_port }
}

fn workload(change: impl FnOnce(&mut proto::Workload)) -> Result<Workload, Unusable> {
    let mut pod = pod();
    change(&mut pod);
    match convert("c//Pod/shop/web", proto::address::Type::Workload(pod))? {
        Resource::Workload(workload) => Ok(workload),
        Resource::Service(service) => panic!("{service:?}"),
    }
}

fn refused(change: impl FnOnce(&mut proto::Workload)) -> String {
    workload(change).expect_err("it was accepted").to_string()
}

fn refused_service(change: impl FnOnce(&mut proto::Service)) -> String {
    let mut service = service();
    change(&mut service);
    convert("shop/web.example", proto::address::Type::Service(service)).err().expect("it was accepted").to_string()
}

#[test]
fn what_the_control_plane_leaves_out_gets_its_default() {
    let workload = workload(|_| ()).unwrap();
    assert_eq!(workload.principal(), "spiffe://cluster.local/ns//sa/default");
    assert_eq!((&*workload.trust_domain, &*workload.service_account), ("cluster.local", "default"));
    assert_eq!(workload.workload_type, "deployment");
    assert_eq!(workload.extra, None);
    assert_eq!(&*workload.services, [("shop/web.example".into(), [(80, 8080)].into())]);
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let mapped = "::ffff:10.0.0.9".parse::<Ipv6Addr>().unwrap().octets();
    let workload = workload(|w| w.addresses = vec![mapped.to_vec().into()]).unwrap();
    assert_eq!(&*workload.addresses, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_workload_that_cannot_be_used_says_why() {
    assert_eq!(refused(|w| w.uid.clear()), "uid is empty");
    assert_eq!(refused(|w| w.uid = "other".to_owned()), "it says that it is \"other\"");
    assert_eq!(refused(|w| w.addresses = vec![vec![1, 2, 3].into()]), "an address has 3 bytes");
    assert_eq!(refused(|w| w.addresses = vec![bytes::Bytes::new()]), "an address has 0 bytes");
    assert_eq!(refused(|w| w.status = 7), "status has no value 7");
    assert_eq!(refused(|w| w.workload_type = -1), "workload_type has no value -1");
    assert_eq!(refused(|w| w.tunnel_protocol = 2), "tunnel_protocol has no value 2");
    assert_eq!(refused(|w| w.network_mode = 9), "network_mode has no value 9");
    let ports = |service, target| proto::PortList { ports: vec![port_of(service, target)] };
    assert_eq!(refused(|w| w.services = [("shop/a".to_owned(), ports(80, 65_536))].into()), "65536 is no port");
    assert_eq!(refused(|w| w.services = [("shop/a".to_owned(), ports(u32::MAX, 1))].into()), "4294967295 is no port");
    assert_eq!(refused(|w| w.services = [("shop/a".to_owned(), ports(0, 80))].into()), "0 is no port");
    let nowhere = |w: &mut proto::Workload| {
        (w.addresses, w.services) = (vec![], [("shop/a".to_owned(), ports(80, 80))].into());
    };
    assert_eq!(refused(nowhere), "addresses of an endpoint is empty");
    assert_eq!(
        refused(|w| w.services = [("shop".to_owned(), ports(1, 1))].into()),
        "\"shop\" is not namespace/hostname"
    );
    assert_eq!(refused(|w| w.waypoint = Some(Default::default())), "destination of a gateway is empty");
    assert_eq!(refused(|w| w.node = "n".repeat(4097)), "node is 4097 bytes long, at most 4096 are accepted");
}

#[test]
fn a_service_that_cannot_be_used_says_why() {
    assert_eq!(refused_service(|s| s.hostname.clear()), "hostname is empty");
    assert_eq!(refused_service(|s| s.namespace.clear()), "\"/web.example\" is not namespace/hostname");
    assert_eq!(refused_service(|s| s.namespace = "bank".to_owned()), "it says that it is \"bank/web.example\"");
    assert_eq!(refused_service(|s| s.ip_families = 4), "ip_families has no value 4");
    let at = |address: &'static [u8]| proto::NetworkAddress { network: String::new(), address: address.into() };
    assert_eq!(refused_service(|s| s.addresses = vec![at(&[1; 4]), at(&[1; 5])]), "an address has 5 bytes");
    assert_eq!(refused_service(|s| s.ports = vec![port_of(80, 0), port_of(0, 80)]), "0 is no port");
    let how = |mode, policy| proto::LoadBalancing { routing_preference: vec![6], mode, health_policy: policy };
    assert_eq!(refused_service(|s| s.load_balancing = Some(how(4, 0))), "mode has no value 4");
    assert_eq!(refused_service(|s| s.load_balancing = Some(how(0, 2))), "health_policy has no value 2");
}

#[test]
fn bytes_that_are_no_address_say_so() {
    let decode = |bytes: &'static [u8]| address(&"x".into(), bytes, &mut Interner::default()).err();
    assert_eq!(decode(b""), Some(Unusable::Empty));
    assert!(matches!(decode(b"\xff\xff\xff"), Some(Unusable::Malformed(_))));
    assert!(matches!(decode(b"\x0a\x05\x0a\x03ab"), Some(Unusable::Malformed(_))));
}

/// A workload as prost writes it, with something in every field that is read by hand.
fn any_workload() -> impl proptest::strategy::Strategy<Value = proto::Workload> {
    use proptest::{collection, prelude::*};
    let port = (1..=u16::MAX, any::<u16>()).prop_map(|(a, b)| port_of(a.into(), b.into()));
    let list = collection::vec(port, 0..3).prop_map(|ports| proto::PortList { ports });
    let address = prop_oneof![collection::vec(any::<u8>(), 4), collection::vec(any::<u8>(), 16)];
    let texts = collection::vec("[a-z\u{e9}]{0,6}", 16);
    let lists = (
        collection::vec(address, 1..3),
        collection::btree_map("[a-z]{1,3}/[a-z]{1,3}", list, 0..4),
        collection::vec("[a-z]{0,3}", 0..3),
    );
    let numbers = (0..2_i32, 0..4_i32, 0..2_i32, 0..2_i32, any::<bool>(), any::<Option<u32>>(), any::<u16>());
    (texts, lists, numbers).prop_map(|(texts, (addresses, services, policies), numbers)| {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap();
        let (tunnel_protocol, workload_type, status, network_mode, native_tunnel, capacity, port) = numbers;
        let name = proto::NamespacedHostname { namespace: "n".to_owned(), hostname: "h".to_owned() };
        let to = proto::gateway_address::Destination::Hostname(name);
        let gateway = proto::GatewayAddress { destination: Some(to), hbone_mtls_port: port.into() };
        proto::Workload {
            uid: format!("uid{}", text()),
            name: text(),
            namespace: text(),
            addresses: addresses.into_iter().map(Into::into).collect(),
            hostname: text(),
            network: text(),
            tunnel_protocol,
            trust_domain: text(),
            service_account: text(),
            waypoint: native_tunnel.then(|| gateway.clone()),
            network_gateway: capacity.map(|_| gateway),
            node: text(),
            canonical_name: text(),
            canonical_revision: text(),
            workload_type,
            workload_name: text(),
            native_tunnel,
            application_tunnel: capacity.map(|_| proto::ApplicationTunnel { protocol: 1, port: port.into() }),
            services,
            authorization_policies: policies,
            status,
            cluster_id: text(),
            locality: capacity.map(|_| proto::Locality { region: text(), zone: text(), subzone: text() }),
            network_mode,
            capacity,
        }
    })
}

/// Compares a workload with the message that it was made of, field by field.
fn is_meant(w: &Workload, from: &proto::Workload) -> Result<(), proptest::test_runner::TestCaseError> {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let read = [
        (&w.uid, from.uid.clone()),
        (&w.name, from.name.clone()),
        (&w.namespace, from.namespace.clone()),
        (&w.hostname, from.hostname.clone()),
        (&w.network, from.network.clone()),
        (&w.trust_domain, or(&from.trust_domain, "cluster.local")),
        (&w.service_account, or(&from.service_account, "default")),
        (&w.node, from.node.clone()),
        (&w.canonical_name, from.canonical_name.clone()),
        (&w.canonical_revision, from.canonical_revision.clone()),
        (&w.workload_name, from.workload_name.clone()),
        (&w.cluster_id, from.cluster_id.clone()),
    ];
    for (read, meant) in read {
        proptest::prop_assert_eq!(read.as_str(), meant);
    }
    let kinds = ["deployment", "cronjob", "pod", "job"];
    proptest::prop_assert_eq!(w.workload_type.as_str(), kinds[usize::try_from(from.workload_type).unwrap()]);
    let numbers = (w.protocol as i32, w.status as i32, w.network_mode as i32);
    proptest::prop_assert_eq!(numbers, (from.tunnel_protocol, from.status, from.network_mode));
    let addresses: Vec<_> = from.addresses.iter().map(|bytes| ip(bytes).unwrap()).collect();
    proptest::prop_assert_eq!(&*w.addresses, &*addresses);
    let pairs = |list: &proto::PortList| ports(&list.ports).unwrap();
    let services: Vec<_> = from.services.iter().map(|(key, list)| (Str::from(key.as_str()), pairs(list))).collect();
    proptest::prop_assert_eq!(&*w.services, &*services);
    let extra = w.extra.as_deref().cloned().unwrap_or_default();
    proptest::prop_assert_eq!((extra.native_tunnel, extra.capacity), (from.native_tunnel, from.capacity));
    let gateways = (extra.waypoint.is_some(), extra.network_gateway.is_some());
    proptest::prop_assert_eq!(gateways, (from.waypoint.is_some(), from.network_gateway.is_some()));
    let tunnel = extra.application_tunnel.map(|(protocol, port)| (protocol.to_string(), port.unwrap_or(0).into()));
    proptest::prop_assert_eq!(tunnel, from.application_tunnel.as_ref().map(|t| ("PROXY".to_owned(), t.port)));
    proptest::prop_assert!(extra.authorization_policies.iter().eq(&from.authorization_policies));
    let at = from.locality.clone().unwrap_or_default();
    proptest::prop_assert_eq!(extra.locality.region.as_str(), at.region);
    proptest::prop_assert_eq!(extra.locality.zone.as_str(), at.zone);
    proptest::prop_assert_eq!(extra.locality.subzone.as_str(), at.subzone);
    Ok(())
}

#[test]
fn of_two_entries_of_one_service_the_last_counts() {
    let of = |port| proto::Workload {
        services: [("a/b".to_owned(), proto::PortList { ports: vec![port_of(port, port)] })].into(),
        ..Default::default()
    };
    let uid = proto::Workload { uid: "x".to_owned(), hostname: "h".to_owned(), ..Default::default() };
    let message = [of(1), of(2), uid].iter().flat_map(Message::encode_to_vec).collect::<Vec<_>>();
    let workload = workload::convert(&"x".into(), &message, &mut Interner::default()).unwrap();
    assert_eq!(&*workload.services, [("a/b".into(), [(2, 2)].into())]);
}

proptest::proptest! {
    #[test]
    fn a_workload_is_read_as_it_was_written(from in any_workload()) {
        let name = Str::from(from.uid.as_str());
        let workload = workload::convert(&name, &from.encode_to_vec(), &mut Interner::default()).unwrap();
        is_meant(&workload, &from)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256)) {
        let _ = address(&"x".into(), &bytes, &mut Interner::default());
    }

    /// Breaks a good resource in one place, so that decoding gets further than with arbitrary bytes.
    #[test]
    fn a_broken_resource_is_refused_or_still_names_itself(at in 0_usize..512, with in proptest::prelude::any::<u8>()) {
        let mut content = proto::Address { r#type: Some(proto::address::Type::Workload(pod())) }.encode_to_vec();
        let at = at % content.len();
        content[at] = with;
        let name = Str::from("c//Pod/shop/web");
        match address(&name, &content, &mut Interner::default()) {
            Ok(Resource::Workload(workload)) => proptest::prop_assert_eq!(workload.uid, name),
            Ok(Resource::Service(service)) => proptest::prop_assert_eq!(service.key(), name),
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
        }
    }
}
