//! Asks the admin port of the `meshd` that runs here.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{anyhow, bail};

/// How long the daemon may take to begin an answer, and then to go on with it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer that is a refusal, so much is shown, in bytes.
const REFUSAL: u64 = 200;

/// Gets a path of the admin port at `address`; what it returns reads the answer while it comes.
///
/// # Errors
/// One line: nobody answers there, or somebody refuses.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<impl Read + use<>> {
    let address = reachable(address);
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE));
    let agent = ureq::Agent::from(config.build());
    // The port answers to names of this host alone, whatever address it is bound to.
    let answer = agent.get(format!("http://{address}{path}")).header("host", "localhost").call();
    let answer = answer
        .map_err(|error| anyhow!("no meshd answers at {address}: {error} (--admin-address names its admin port)"))?;
    let status = answer.status();
    let mut body = answer.into_body().into_reader();
    if !status.is_success() {
        let mut text = String::new();
        // What cannot be read adds nothing to the refusal.
        let _ = body.by_ref().take(REFUSAL).read_to_string(&mut text);
        bail!("what answers at {address} is no meshd that knows {path}: {status} {:?}", text.trim());
    }
    Ok(body)
}

/// An address that a listener of all addresses is reached at from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::{get, reachable};

    #[test]
    fn nobody_there_is_one_line_that_names_address_and_flag() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!("{:#}", get(address, "/").map(drop).unwrap_err());
        assert!(text.starts_with(&format!("no meshd answers at {address}: ")), "{text}");
        assert!(text.contains("refused") && text.contains("--admin-address") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_refusal_is_one_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let taken = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\na\x1b[2Jb").unwrap();
            String::from_utf8_lossy(&request[..taken]).to_lowercase()
        });
        let text = format!("{:#}", get(address, "/debug/x").map(drop).unwrap_err());
        assert!(text.contains("404") && text.contains("/debug/x") && !text.contains('\u{1b}'), "{text}");
        assert!(server.join().unwrap().contains("\r\nhost: localhost\r\n"));
    }

    #[test]
    fn a_port_on_all_addresses_is_asked_on_this_host() {
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
