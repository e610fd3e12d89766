mod fuzz;

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use cache::{Cache, Node};
use telemetry::{Switch, Switches};
use tower::ServiceExt as _;
use tracing_subscriber::filter::LevelFilter;

use super::{Admin, router};
use crate::{
    control::{Control, Programs},
    log::Loggers,
    mesh::Source,
    record::Queries,
};

/// An admin port, its switches, and what it had the kernel do.
struct Port {
    router: Router,
    switches: Arc<Switches>,
    kernel: Arc<Mutex<Vec<bool>>>,
}

struct Kernel {
    switches: Arc<Switches>,
    works: bool,
    told: Arc<Mutex<Vec<bool>>>,
}

impl Programs for Kernel {
    fn prepare(&self) -> anyhow::Result<()> {
        assert!(!self.switches.get(Switch::Monitoring), "a record could be taken already");
        Ok(())
    }
    fn attach(&self) -> anyhow::Result<()> {
        assert!(self.switches.get(Switch::Monitoring), "a record would be dropped");
        anyhow::ensure!(self.works, "no rights");
        self.told.lock().unwrap().push(true);
        Ok(())
    }
    fn detach(&self) -> anyhow::Result<()> {
        assert!(self.switches.get(Switch::Monitoring), "the last records would be dropped");
        self.told.lock().unwrap().push(false);
        Ok(())
    }
}

fn port(kernel_works: bool) -> Port {
    let switches = Arc::new(Switches::default());
    let kernel = Arc::new(Mutex::new(Vec::new()));
    let programs = Arc::new(Kernel { switches: switches.clone(), works: kernel_works, told: kernel.clone() });
    let admin = Admin {
        control: Arc::new(Control::new(switches.clone(), programs)),
        loggers: Arc::new(Loggers::detached(LevelFilter::INFO)),
        explainer: crate::sync::Explainer::of_nothing(Arc::new(Cache::new(Node::default()))),
        cache: Arc::new(Cache::new(Node::default())),
        mesh: Source::None,
        queries: Queries::closed(),
    };
    Port { router: router(admin), switches, kernel }
}

impl Port {
    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header("host", "localhost:15200");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

#[tokio::test]
async fn monitoring_attaches_and_detaches_once_and_the_finer_switches_keep_their_setting() {
    let port = port(true);
    for path in ["/monitoring?enable=true", "/monitoring?enable=1", "/accesslog?enable=T"] {
        assert_eq!(port.ask("POST", path, "").await, (StatusCode::OK, String::new()));
    }
    assert_eq!(port.ask("POST", "/monitoring?enable=F", "").await.0, StatusCode::OK);
    assert_eq!(*port.kernel.lock().unwrap(), [true, false]);
    assert!(port.switches.get(Switch::AccessLog) && !port.switches.get(Switch::WorkloadMetrics));
    assert_eq!(port.ask("GET", "/monitoring", "").await.1, "false\n");
    assert_eq!(port.ask("GET", "/accesslog", "").await.1, "true\n");
}

#[tokio::test]
async fn a_finer_switch_needs_monitoring_to_be_turned_on() {
    let port = port(true);
    let names = [
        ("accesslog", "accesslog"),
        ("workload_metrics", "workload metrics"),
        ("connection_metrics", "connection metrics"),
    ];
    for (path, name) in names {
        let refused = format!("Kmesh monitoring is disabled, cannot enable {name}.");
        assert_eq!(port.ask("POST", &format!("/{path}?enable=true"), "").await, (StatusCode::BAD_REQUEST, refused));
        assert_eq!(port.ask("POST", &format!("/{path}?enable=false"), "").await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_value_that_go_would_refuse_is_refused_with_go_s_words() {
    let port = port(true);
    for (query, shown) in [("?enable=yes", "yes"), ("?enable=", ""), ("", "")] {
        let refused = (StatusCode::BAD_REQUEST, format!("invalid accesslog enable={shown}"));
        for path in ["/monitoring", "/accesslog", "/workload_metrics", "/connection_metrics"] {
            assert_eq!(port.ask("POST", &format!("{path}{query}"), "").await, refused, "{path}{query}");
        }
    }
    assert_eq!(port.ask("PUT", "/accesslog?enable=true", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(port.ask("DELETE", "/monitoring", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_kernel_that_refuses_leaves_monitoring_off() {
    let port = port(false);
    let (status, text) = port.ask("POST", "/monitoring?enable=true", "").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::INTERNAL_SERVER_ERROR, "monitoring cannot be changed: no rights\n")
    );
    assert!(!port.switches.get(Switch::Monitoring));
}

#[tokio::test]
async fn loggers_are_listed_shown_and_set() {
    let port = port(true);
    let (_, names) = port.ask("GET", "/debug/loggers", "").await;
    let names: Vec<String> = serde_json::from_str(&names).unwrap();
    assert!(names.contains(&"default".to_owned()) && names.contains(&"telemetry".to_owned()));
    let set = port.ask("POST", "/debug/loggers", r#"{"name":"default","level":"debug"}"#).await;
    assert_eq!(set, (StatusCode::OK, "OK".into()));
    let shown = port.ask("GET", "/debug/loggers?name=default", "").await.1;
    assert_eq!(shown, r#"{"name":"default","level":"debug"}"#);
    assert_eq!(port.ask("GET", "/debug/loggers?name=nobody", "").await.0, StatusCode::NOT_FOUND);
    for bad in ["", "{}", r#"{"name":"default","level":"loud"}"#] {
        assert_eq!(port.ask("POST", "/debug/loggers", bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn version_ready_and_the_mesh_are_told() {
    let port = port(true);
    let version: serde_json::Value = serde_json::from_str(&port.ask("GET", "/version", "").await.1).unwrap();
    for field in ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "compiler", "platform"] {
        assert!(version[field].is_string(), "{field} in {version}");
    }
    assert_eq!(port.ask("GET", "/debug/ready", "").await, (StatusCode::OK, "OK".into()));
    let mesh = port.ask("GET", "/debug/config_dump/dual-engine", "").await.1;
    assert_eq!(mesh, r#"{"workloads":[],"services":[],"policies":[]}"#);
    let standing = port.ask("GET", "/debug/mesh", "").await.1;
    let wanted =
        r#"{"source":"","current":null,"complete":false,"ageSeconds":null,"workloads":0,"services":0,"error":null}"#;
    assert_eq!(standing, wanted);
    assert_eq!(port.ask("GET", "/debug/pprof", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn another_site_s_page_or_name_gets_nothing() {
    let port = port(true);
    let ask = |host: Option<&str>, origin: Option<&str>| {
        let mut request = Request::builder().method("POST").uri("/monitoring?enable=true");
        for (name, value) in [("host", host), ("origin", origin)] {
            request = value.into_iter().fold(request, |request, value| request.header(name, value));
        }
        port.send(request.body(Body::empty()).unwrap())
    };
    for (host, origin) in [
        (None, None),
        (Some("evil.example:15200"), None),
        (Some("localhost:15200"), Some("https://evil.example")),
        (Some("localhost:15200"), Some("null")),
    ] {
        assert_eq!(ask(host, origin).await.0, StatusCode::FORBIDDEN, "{host:?} {origin:?}");
    }
    assert!(port.kernel.lock().unwrap().is_empty());
    assert_eq!(ask(Some("127.0.0.1:40000"), Some("http://localhost:40000")).await.0, StatusCode::OK);
}
