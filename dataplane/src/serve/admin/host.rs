//! Keeps browsers that other sites lured here out of the admin port.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Refuses a request whose `Host` is not this host (a rebound DNS name), or that a page of another origin sent.
pub(super) async fn local_only(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|a| a.as_str());
    let host = header_text(request.headers(), header::HOST).or(authority);
    let origin =
        header_text(request.headers(), header::ORIGIN).map(|o| o.split_once("://").map_or(o, |(_, host)| host));
    if host.is_some_and(is_local) && origin.is_none_or(is_local) {
        return next.run(request).await;
    }
    let text = "the admin port answers only requests to localhost, 127.0.0.1 or [::1]\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Tells whether `host` or `host:port` names this host.
fn is_local(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_this_host_are_local_whatever_the_port() {
        for yes in ["localhost", "LocalHost:15200", "127.0.0.1", "127.0.0.1:40001", "[::1]", "[::1]:15200"] {
            assert!(is_local(yes), "{yes}");
        }
        for no in
            ["", "evil.example", "localhost.evil.example:15200", "127.0.0.1.evil.example", "null", "localhost:x", "?"]
        {
            assert!(!is_local(no), "{no}");
        }
    }
}
