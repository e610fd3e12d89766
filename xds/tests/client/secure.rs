//! Encryption, tokens, and servers that are something else.

use std::{fs, net::Ipv4Addr, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tonic::{Status, transport::Identity};

use crate::{
    log::Log,
    plane::{Plane, pod, workload},
    world::{World, config},
};
use xds::Config;

/// An authority of the test's own and a directory for its files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("root.pem"), issuer.pem()).unwrap();
        fs::write(directory.path().join("token"), "first\n").unwrap();
        Self { issuer, directory }
    }

    /// A certificate for `localhost` or whatever name.
    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }

    fn path(&self, name: &str) -> &Path {
        Box::leak(self.directory.path().join(name).into_boxed_path())
    }

    /// A configuration that trusts this authority.
    fn config(&self, port: u16) -> Config {
        let mut config = config(format!("localhost:{port}"));
        config.root_ca = self.path("root.pem").to_owned();
        config.token = Some(self.path("token").to_owned());
        config
    }
}

#[tokio::test]
async fn a_bare_address_is_reached_by_tls_and_with_the_token_that_the_file_has_now() {
    let authority = Authority::new();
    let plane = Plane::start_secure(authority.identity("localhost")).await;
    let world = World::start(authority.config(plane.address.port()));
    let (stream, _) = plane.greet().await;
    assert_eq!(stream.metadata.get("authorization").unwrap(), "Bearer first");
    assert!(stream.metadata.get("user-agent").unwrap().to_str().unwrap().starts_with("meshd/"));
    stream.end(Status::unauthenticated("token has expired")).await;
    let line = world.failure().await;
    let expected = "it refuses who we are (Unauthenticated): token has expired; the token sent is that of \"";
    assert!(line.starts_with(expected) && line.ends_with("/token\""), "{line}");
    assert!(!line.contains("first"), "the token is a secret: {line}");

    fs::write(authority.path("token"), "second").unwrap();
    loop {
        let (mut stream, _) = plane.greet().await;
        if stream.metadata.get("authorization").unwrap() == "Bearer second" {
            stream.send(vec![workload(pod("web-1", [10, 1, 0, 1], "web"))], &[]).await;
            break;
        }
        stream.end(Status::unauthenticated("token has expired")).await;
    }
    assert_eq!(world.names().len(), 1);
}

#[tokio::test]
async fn a_token_is_in_no_log_line_whatever_the_level() {
    const SECRET: &str = "eyJhbGciOiJub25lIn0.c2VjcmV0LXNlY3JldA.x";
    let log = Log::default();
    let _guard = log.capture_from(tracing::Level::TRACE);
    let authority = Authority::new();
    fs::write(authority.path("token"), SECRET).unwrap();
    let plane = Plane::start_secure(authority.identity("localhost")).await;
    let world = World::start(authority.config(plane.address.port()));
    let (mut stream, _) = plane.greet().await;
    assert_eq!(stream.metadata.get("authorization").unwrap(), &format!("Bearer {SECRET}"));
    stream.send(vec![workload(pod("web-1", [10, 1, 0, 1], "web"))], &[]).await;
    world.until("the pod", |world| !world.names().is_empty()).await;
    stream.end(Status::unauthenticated("token has expired")).await;
    assert!(!world.failure().await.contains(SECRET));
    // One that cannot be sent is a secret too.
    fs::write(authority.path("token"), format!("{SECRET}\n{SECRET}")).unwrap();
    world.until("the second token", |world| world.status.last_error().is_some_and(|e| e.contains("holds no"))).await;
    world.stop().await;
    assert!(log.lines("TRACE").len() > 10 && !log.lines("h2::").is_empty(), "nothing was logged");
    assert_eq!(log.lines(SECRET), [""; 0]);
    // Nor in pieces, or in the form that a dump of bytes has.
    assert_eq!(log.lines("eyJhbGci"), [""; 0]);
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let plane = Plane::start_secure(other.identity("localhost")).await;
    let world = World::start(authority.config(plane.address.port()));
    let line = world.failure().await;
    assert!(line.starts_with("its certificate is not accepted with the root certificates of \""), "{line}");
    assert!(line.contains("/root.pem\": ") && line.contains("invalid peer certificate: "), "{line}");

    let plane = Plane::start_secure(authority.identity("elsewhere.example")).await;
    let world = World::start(authority.config(plane.address.port()));
    let line = world.failure().await;
    assert!(line.contains("certificate not valid for name \\\"localhost\\\""), "{line}");
}

#[tokio::test]
async fn files_that_are_missing_or_empty_are_named_and_looked_for_again() {
    let authority = Authority::new();
    let plane = Plane::start_secure(authority.identity("localhost")).await;
    let root = fs::read(authority.path("root.pem")).unwrap();
    fs::remove_file(authority.path("token")).unwrap();
    let world = World::start(authority.config(plane.address.port()));
    let until = async |text: &str| {
        world.until(text, |world| world.status.last_error().is_some_and(|line| line.contains(text))).await;
    };
    until("cannot read the token file \"").await;
    until("No such file").await;
    fs::write(authority.path("token"), " \n").unwrap();
    until("/token\" is empty").await;
    fs::write(authority.path("token"), "a\nb").unwrap();
    until("/token\" holds no token").await;
    fs::remove_file(authority.path("root.pem")).unwrap();
    fs::write(authority.path("token"), "first").unwrap();
    until("cannot read the root certificate file \"").await;
    fs::write(authority.path("root.pem"), "no certificate").unwrap();
    until("/root.pem\" holds no certificate in PEM").await;
    fs::write(authority.path("root.pem"), root).unwrap();
    plane.greet().await;
}

#[tokio::test]
async fn a_token_is_never_sent_in_the_clear() {
    let authority = Authority::new();
    let plane = Plane::start().await;
    let mut config = authority.config(plane.address.port());
    config.address = format!("http://{}", plane.address).parse().unwrap();
    let _world = World::start(config);
    let (stream, _) = plane.greet().await;
    assert_eq!(stream.metadata.get("authorization"), None);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_said_to_be_that() {
    let authority = Authority::new();
    let plain = Plane::start().await;
    let world = World::start(authority.config(plain.address.port()));
    let line = world.failure().await;
    assert!(line.starts_with("it does not speak TLS; is it an http:// address? ("), "{line}");

    let secure = Plane::start_secure(authority.identity("localhost")).await;
    let world = World::start(config(format!("http://{}", secure.address)));
    let line = world.failure().await;
    assert!(line.contains("speak gRPC"), "{line}");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 1024]).await;
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    let world = World::start(config(format!("http://{address}")));
    let line = world.failure().await;
    assert!(line.starts_with("it does not speak gRPC: "), "{line}");
    server.abort();
}
