//! The host names that the gateway serves. A page of another site can resolve its own host name to the address of the gateway
//! (DNS rebinding); its requests then count as same-site, and only the header Host distinguishes them.

use super::problem::Problem;
use crate::settings::{Auth, Settings, normalized_host};
use axum::http::{HeaderMap, Uri, header};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// The host names that the gateway serves.
#[derive(Debug)]
pub(crate) enum Hosts {
    /// Every host name: keys are required, and `gateway.hosts` is empty.
    Any,
    /// `localhost`, loopback addresses and the address of `gateway.bind`: `gateway.hosts` is empty.
    Local(IpAddr),
    /// Those of `gateway.hosts`.
    Listed(BTreeSet<String>),
}

impl Hosts {
    /// Returns the host names of a gateway that listens on `address`. The names in the settings are valid.
    pub(crate) fn of(settings: &Settings, address: SocketAddr) -> Self {
        match settings.auth {
            _ if !settings.hosts.is_empty() => {
                Self::Listed(settings.hosts.iter().filter_map(|host| normalized_host(host)).collect())
            }
            Auth::Keys => Self::Any,
            Auth::Off => Self::Local(address.ip()),
        }
    }

    /// Accepts a request that names one of these hosts.
    ///
    /// # Errors
    /// 400 if the request names no host or several, 421 if it names another one.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        if matches!(self, Self::Any) {
            return Ok(());
        }
        // HTTP/2 sends the host as `:authority`, which is part of the URL here, and may repeat it in the header.
        let mut of_header = headers.get_all(header::HOST).iter();
        let first = of_header.next();
        if of_header.next().is_some() {
            return Err(Problem::unreadable("the header Host is repeated: expected one host name"));
        }
        let of_url = uri.authority().map(|authority| authority.as_str());
        let of_header = first.map(|host| host.to_str().unwrap_or_default());
        let mut named = of_url.into_iter().chain(of_header).peekable();
        if named.peek().is_none() {
            return Err(Problem::unreadable("the header Host is missing: expected one host name"));
        }
        match named.find(|host| !self.answers(host)) {
            None => Ok(()),
            Some(other) => Err(Problem::misdirected(self.refusal(other))),
        }
    }

    /// Returns whether the gateway serves a host. `host` may have a port, as in a header.
    fn answers(&self, host: &str) -> bool {
        let Some(name) = without_port(host).and_then(normalized_host) else { return false };
        match self {
            Self::Any => true,
            Self::Listed(names) => names.contains(&name),
            Self::Local(bound) => {
                let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                name == "localhost"
                    || address
                        .is_ok_and(|address| address.is_loopback() || (address == *bound && !bound.is_unspecified()))
            }
        }
    }

    fn refusal(&self, host: &str) -> String {
        let host: String = host.chars().take(100).collect();
        let answered = match self {
            Self::Listed(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            _ => "localhost and loopback addresses".to_owned(),
        };
        format!("the header Host is {host:?}; gateway.hosts lists the host names that are served: {answered}")
    }
}

/// Returns a host without its port; `None` if the host is not followed by a port.
fn without_port(host: &str) -> Option<&str> {
    // The colons of an IPv6 address are within brackets.
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(end);
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    is_port.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, StatusCode};

    fn hosts(auth: Auth, listed: &[&str], address: &str) -> Hosts {
        let hosts = listed.iter().map(|&host| host.to_owned()).collect();
        Hosts::of(&Settings { auth, hosts, ..Settings::default() }, address.parse().unwrap())
    }

    fn headers(named: &[&str]) -> HeaderMap {
        named.iter().map(|host| (header::HOST, HeaderValue::from_str(host).unwrap())).collect()
    }

    fn status(hosts: &Hosts, uri: &str, named: &[&str]) -> u16 {
        let checked = hosts.check(&uri.parse().unwrap(), &headers(named));
        checked.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn without_keys_and_without_a_list_only_local_names_are_served_on_any_address() {
        for address in ["127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080", "192.0.2.7:8080"] {
            let hosts = hosts(Auth::Off, &[], address);
            for own in
                ["localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1:8080", "127.8.9.1", "[::1]:8080", "[::1]"]
            {
                assert_eq!(status(&hosts, "/", &[own]), 200, "{address} {own}");
            }
            for other in [
                "example.org",
                "localhost.example.org:8080",
                "10.0.0.1",
                "0.0.0.0:8080",
                "127.0.0.1.example.org",
                "user@localhost",
                "localhost:80:80",
                "localhost:http",
                "::1",
                "",
            ] {
                assert_eq!(status(&hosts, "/", &[other]), 421, "{address} {other}");
            }
        }
        let bound = hosts(Auth::Off, &[], "192.0.2.7:8080");
        assert_eq!(status(&bound, "/", &["192.0.2.7:8080"]), 200, "its own address");
    }

    #[test]
    fn a_list_replaces_the_default_with_and_without_keys() {
        for auth in [Auth::Off, Auth::Keys] {
            let hosts = hosts(auth, &["Rides.Example.org.", "::1", "10.0.0.1"], "0.0.0.0:8080");
            for own in ["rides.example.org", "RIDES.example.org.:443", "[::1]:8080", "[0:0:0:0:0:0:0:1]", "10.0.0.1:80"]
            {
                assert_eq!(status(&hosts, "/", &[own]), 200, "{own}");
            }
            for other in ["localhost", "127.0.0.1", "example.org", "other.rides.example.org"] {
                assert_eq!(status(&hosts, "/", &[other]), 421, "{other}");
            }
        }
    }

    #[test]
    fn with_keys_and_without_a_list_every_host_is_served() {
        let hosts = hosts(Auth::Keys, &[], "0.0.0.0:8080");
        assert_eq!(status(&hosts, "/", &["anything.example.org"]), 200);
        assert_eq!(status(&hosts, "/", &[]), 200);
    }

    #[test]
    fn the_authority_of_http2_counts_as_host_and_both_must_match() {
        let hosts = hosts(Auth::Off, &[], "0.0.0.0:8080");
        assert_eq!(status(&hosts, "http://localhost:8080/", &[]), 200);
        assert_eq!(status(&hosts, "http://example.org/", &[]), 421);
        assert_eq!(status(&hosts, "http://localhost/", &["example.org"]), 421);
        assert_eq!(status(&hosts, "http://example.org/", &["localhost"]), 421);
    }

    #[test]
    fn a_missing_or_repeated_host_is_refused() {
        let hosts = hosts(Auth::Off, &[], "0.0.0.0:8080");
        assert_eq!(status(&hosts, "/", &[]), 400);
        assert_eq!(status(&hosts, "/", &["localhost", "localhost"]), 400);
    }

    #[test]
    fn the_refusal_names_the_setting_and_the_served_hosts() {
        let hosts = hosts(Auth::Off, &["rides.example.org"], "0.0.0.0:8080");
        let problem = hosts.check(&Uri::from_static("/"), &headers(&["evil.example"])).unwrap_err();
        assert_eq!(problem.status(), StatusCode::MISDIRECTED_REQUEST);
        for part in ["evil.example", "gateway.hosts", "rides.example.org"] {
            assert!(problem.detail().contains(part), "{}", problem.detail());
        }
    }
}
