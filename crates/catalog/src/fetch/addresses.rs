//! Which addresses lie outside of the networks that the machine itself is in.

use std::net::{IpAddr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Can the address be reached from other networks than the machine's own?
#[must_use]
pub fn is_public_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            // Shared between a provider's customers; reserved for protocols, tests and the future.
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_special =
                a == 0 || (a == 192 && b == 0 && c == 0) || (a == 198 && (18..20).contains(&b)) || a >= 240;
            let is_here = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified();
            !(is_here || is_shared || is_special || v4.is_documentation() || v4.is_broadcast() || v4.is_multicast())
        }
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public_address(v4),
            None => !is_here(v6),
        },
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, translated (64:ff9b::/96) or 6to4 (2002::/16).
fn embedded(v6: Ipv6Addr) -> Option<IpAddr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(((u32::from(high) << 16) | u32::from(low)).into());
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some(v4(g, h)),
        (0x2002, _) => Some(v4(b, c)),
        _ => v6.to_ipv4_mapped().map(IpAddr::V4),
    }
}

fn is_here(v6: Ipv6Addr) -> bool {
    v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast()
}

/// Looks names up and leaves out addresses of the machine's own networks. It is asked for every redirect too.
#[derive(Debug)]
pub(super) struct PublicOnly;

impl Resolver for PublicOnly {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        // A proxy is the operator's, and it is the one that looks up what lies behind it.
        if config.proxy().is_some_and(|proxy| Some(proxy.host()) == uri.host()) {
            return Ok(found);
        }
        let mut public = self.empty();
        found.iter().filter(|address| is_public_address(address.ip())).for_each(|address| public.push(*address));
        if public.is_empty() {
            let host = uri.host().unwrap_or_default();
            let message = format!("{host} is an address of a private network, which requests may not name");
            return Err(ureq::Error::Other(message.into()));
        }
        Ok(public)
    }
}

#[cfg(test)]
mod tests {
    use super::is_public_address;

    #[test]
    fn private_addresses_are_known_in_every_dress() {
        for here in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.9",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "198.18.0.1",
            "240.0.0.1",
            "224.0.0.1",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public_address(here.parse().expect("an address")), "{here}");
        }
        for public in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(is_public_address(public.parse().expect("an address")), "{public}");
        }
    }
}
