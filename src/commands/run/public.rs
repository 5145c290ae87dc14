//! A server that needs no key must not be reached from the whole world.

use std::net::IpAddr;

use anyhow::bail;
use ingle::catalog::is_public_address;

/// Refuses to listen on a public address; a wildcard counts as one where an interface has one.
pub(super) fn refuse(address: IpAddr) -> anyhow::Result<()> {
    let public = match address.is_unspecified() {
        false => Some(address).filter(|address| is_public_address(*address)),
        // Where the interfaces cannot be listed nothing is known to be public.
        true => if_addrs::get_if_addrs()
            .unwrap_or_default()
            .into_iter()
            .map(|known| known.ip())
            .find(|ip| is_public_address(*ip)),
    };
    match public {
        None => Ok(()),
        Some(public) => bail!(
            "{public} is a public address and no key is needed: set keys with --api-keys (LOCALAI_API_KEY), listen on \
             127.0.0.1 with --address, or allow it with --allow-insecure-public-bind"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::refuse;

    #[test]
    fn public_addresses_are_told_apart() {
        for here in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.9",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(refuse(here.parse().expect("an address")).is_ok(), "{here}");
        }
        for public in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:4860::8888", "::ffff:8.8.8.8"] {
            let error = refuse(public.parse().expect("an address")).expect_err("it is refused").to_string();
            assert!(error.contains("--api-keys") && error.contains("--allow-insecure-public-bind"), "{error}");
        }
    }
}
