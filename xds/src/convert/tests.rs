use super::*;

fn convert(name: &str, of: proto::address::Type) -> Result<Resource, Unusable> {
    let content = proto::Address { r#type: Some(of) }.encode_to_vec();
    address(&Str::from(name), content.into(), &mut Interner::default())
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
    assert_eq!(refused(|w| w.addresses = vec![Bytes::new()]), "an address has 0 bytes");
    assert_eq!(refused(|w| w.status = 7), "status has no value 7");
    assert_eq!(refused(|w| w.workload_type = -1), "workload_type has no value -1");
    assert_eq!(refused(|w| w.tunnel_protocol = 2), "tunnel_protocol has no value 2");
    assert_eq!(refused(|w| w.network_mode = 9), "network_mode has no value 9");
    let ports = |service, target| proto::PortList { ports: vec![port_of(service, target)] };
    assert_eq!(refused(|w| w.services = [("shop/a".to_owned(), ports(80, 65_536))].into()), "65536 is no port");
    assert_eq!(refused(|w| w.services = [("shop/a".to_owned(), ports(u32::MAX, 1))].into()), "4294967295 is no port");
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
    let how = |mode, policy| proto::LoadBalancing { routing_preference: vec![6], mode, health_policy: policy };
    assert_eq!(refused_service(|s| s.load_balancing = Some(how(4, 0))), "mode has no value 4");
    assert_eq!(refused_service(|s| s.load_balancing = Some(how(0, 2))), "health_policy has no value 2");
}

#[test]
fn bytes_that_are_no_address_say_so() {
    let decode = |bytes: &'static [u8]| address(&"x".into(), Bytes::from_static(bytes), &mut Interner::default()).err();
    assert_eq!(decode(b""), Some(Unusable::Empty));
    assert!(matches!(decode(b"\xff\xff\xff"), Some(Unusable::Decode(_))));
    assert!(matches!(decode(b"\x0a\x05\x0a\x03ab"), Some(Unusable::Decode(_))));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256)) {
        let _ = address(&"x".into(), bytes.into(), &mut Interner::default());
    }

    /// Breaks a good resource in one place, so that decoding gets further than with arbitrary bytes.
    #[test]
    fn a_broken_resource_is_refused_or_still_names_itself(at in 0_usize..512, with in proptest::prelude::any::<u8>()) {
        let mut content = proto::Address { r#type: Some(proto::address::Type::Workload(pod())) }.encode_to_vec();
        let at = at % content.len();
        content[at] = with;
        let name = Str::from("c//Pod/shop/web");
        match address(&name, content.into(), &mut Interner::default()) {
            Ok(Resource::Workload(workload)) => proptest::prop_assert_eq!(workload.uid, name),
            Ok(Resource::Service(service)) => proptest::prop_assert_eq!(service.key(), name),
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
        }
    }
}
