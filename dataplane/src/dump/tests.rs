use std::{net::IpAddr, sync::Arc};

use cache::{Cache, Delta, Health, Node, Service, Workload};

use super::{Kind, Output, print};
use crate::{cli::Dump, sync::Explainer};

fn cache() -> Arc<Cache> {
    let cache = Arc::new(Cache::new(Node::default()));
    let web = "shop/web.shop.svc.cluster.local";
    let workload = |name: &str, address: &str, status| Workload {
        uid: format!("c//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: "shop".into(),
        node: "node-1".into(),
        addresses: [address.parse::<IpAddr>().unwrap()].into(),
        services: [(web.into(), [(80, 8080)].into())].into(),
        status,
        ..Workload::default()
    };
    let service = Service {
        name: "web".into(),
        namespace: "shop".into(),
        hostname: "web.shop.svc.cluster.local".into(),
        vips: [("".into(), "10.96.0.1".parse().unwrap()), ("east".into(), "fd00::1".parse().unwrap())].into(),
        ports: [(80, 8080), (443, 0)].into(),
        ..Service::default()
    };
    let workloads = vec![
        workload("web-1", "10.0.0.1", Health::Healthy),
        Workload { network: "east".into(), ..workload("a b\u{1b}[2J\n\u{2028}", "fd00::2", Health::Unhealthy) },
    ];
    cache.apply(Delta { workloads, services: vec![service], ..Delta::default() });
    cache
}

fn printed(cache: &Arc<Cache>, kind: Kind, output: Output) -> String {
    let answer = match (kind, output) {
        (Kind::Services, Output::Table) => serde_json::to_vec(&Explainer::of_nothing(cache.clone()).services()),
        _ => serde_json::to_vec(&cache.load().dump()),
    };
    let answer = answer.unwrap();
    let flags = Dump { kind, output, admin_address: "127.0.0.1:1".parse().unwrap() };
    let mut out = Vec::new();
    print(&*answer, &flags, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn workloads_are_a_table_that_no_name_can_break() {
    let text = printed(&cache(), Kind::Workloads, Output::Table);
    let wanted = "\
NAMESPACE  NAME                                ADDRESS       NODE    STATUS     PROTOCOL  WAYPOINT  SERVICES
shop       a\\u{20}b\\u{1b}[2J\\u{a}\\u{2028}  east/fd00::2  node-1  Unhealthy  TCP       -         shop/web.shop.svc.cluster.local
shop       web-1                               10.0.0.1      node-1  Healthy    TCP       -         shop/web.shop.svc.cluster.local
"
    .replace("NAME      ", "NAME  ")
    .replace("web-1      ", "web-1  ");
    assert_eq!(text, wanted);
}

#[test]
fn services_are_a_table_of_where_their_ports_go() {
    let text = printed(&cache(), Kind::Services, Output::Table);
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let service = "shop/web.shop.svc.cluster.local";
    let ill = "shop/a\\u{20}b\\u{1b}[2J\\u{a}\\u{2028}!unhealthy";
    let https = format!("shop/web-1!no_target_port,{ill}");
    let http = format!("10.0.0.1:8080*1,{ill}");
    assert_eq!(rows[0], ["SERVICE", "ADDRESS", "MODE", "GOES", "ENDPOINTS", "WAYPOINT", "WHY"]);
    assert_eq!(rows[1][..6], [service, "10.96.0.1:80", "STANDARD", "unchanged", &http, "-"]);
    // Its own list of ports does not name the target.
    assert_eq!(rows[2][..4], [service, "10.96.0.1:443", "STANDARD", "unchanged"]);
    let mut excluded: Vec<_> = rows[2][4].split(',').collect();
    let mut wanted: Vec<_> = https.split(',').collect();
    excluded.sort_unstable();
    wanted.sort_unstable();
    assert_eq!((excluded, rows.len()), (wanted, 3), "{text}");
}

#[test]
fn json_is_a_list_of_what_the_daemon_says() {
    let cache = cache();
    let whole: serde_json::Value = serde_json::to_value(cache.load().dump()).unwrap();
    for (kind, name) in [(Kind::Workloads, "workloads"), (Kind::Services, "services")] {
        let text = printed(&cache, kind, Output::Json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), whole[name]);
        assert_eq!(text.lines().count(), whole[name].as_array().unwrap().len() + 2);
    }
    assert_eq!(printed(&Arc::new(Cache::new(Node::default())), Kind::Services, Output::Json), "[]\n");
}

#[test]
fn an_answer_that_is_cut_or_no_dump_is_one_line() {
    let answer = serde_json::to_vec(&cache().load().dump()).unwrap();
    let flags = |output| Dump { kind: Kind::Workloads, output, admin_address: "127.0.0.1:1".parse().unwrap() };
    for output in [Output::Json, Output::Table] {
        for bytes in
            [&answer[..answer.len() - 1], &answer[..50], b"{}", b"[]", b"", b"{\"workloads\":[],\"services\":1}"]
        {
            let text = print(bytes, &flags(output), Vec::new()).unwrap_err();
            assert!(text.starts_with("meshd at 127.0.0.1:1 gave no whole dump: "), "{text}");
        }
    }
}

#[test]
fn an_output_that_is_closed_says_nothing_and_another_failure_says_why() {
    struct Closed(std::io::ErrorKind);
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let answer = Arc::new(serde_json::to_vec(&cache().load().dump()).unwrap());
    for output in [Output::Json, Output::Table] {
        let flags = Dump { kind: Kind::Workloads, output, admin_address: "127.0.0.1:1".parse().unwrap() };
        assert_eq!(print(&answer[..], &flags, Closed(std::io::ErrorKind::BrokenPipe)), Err(String::new()));
        let full = print(&answer[..], &flags, Closed(std::io::ErrorKind::StorageFull)).unwrap_err();
        assert!(full.starts_with("cannot write the dump: "), "{full}");
    }
}
