//! Where the control plane is.

use std::{fmt, str::FromStr};

use http::uri::{Authority, Scheme, Uri};

/// Where the control plane is: host, port, and whether the way there is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    authority: Authority,
    tls: bool,
}

/// A text that names no control plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no control plane's address: {why} (expected https://host:port, http://host:port or host:port)")]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl Address {
    /// Tells whether the connection is encrypted, which it is unless the address begins with `http://`.
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |why| AddressError { text: text.to_owned(), why };
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = whole.parse().map_err(|_| error("it cannot be read"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(error("a path has no meaning here"));
        }
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(error("its scheme is neither http nor https")),
        };
        let authority = uri.into_parts().authority.ok_or_else(|| error("it has no host"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(error("its host cannot be used"));
        }
        if authority.port_u16().is_none() {
            return Err(error("it has no port"));
        }
        Ok(Self { authority, tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_is_encrypted() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(shown("istiod.istio-system.svc:15012").as_deref(), Ok("https://istiod.istio-system.svc:15012"));
        assert_eq!(shown("http://127.0.0.1:15010").as_deref(), Ok("http://127.0.0.1:15010"));
        assert_eq!(shown("https://[fd00::1]:15012/").as_deref(), Ok("https://[fd00::1]:15012"));
        assert!("[fd00::1]:1".parse::<Address>().unwrap().tls());
    }

    #[test]
    fn what_names_no_control_plane_says_why() {
        let why = |text: &str| text.parse::<Address>().expect_err(text).why;
        assert_eq!(why("istiod"), "it has no port");
        assert_eq!(why("ftp://istiod:1"), "its scheme is neither http nor https");
        assert_eq!(why("http://istiod:1/xds"), "a path has no meaning here");
        assert_eq!(why("http://me@istiod:1"), "its host cannot be used");
        assert_eq!(why(""), "it cannot be read");
        assert_eq!(why("a b:1"), "it cannot be read");
    }
}
