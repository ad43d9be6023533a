//! Addresses, from the kernel's own routing tables: they are there in every network
//! namespace, need no privilege and no netlink code.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 first, each in order; without loopback and link-local, which are the same
/// everywhere.
pub fn addresses(fib_trie: &str, if_inet6: &str) -> Vec<String> {
    let v4 = ipv4(fib_trie)
        .into_iter()
        .map(|address| address.to_string());
    let v6 = ipv6(if_inet6)
        .into_iter()
        .map(|address| address.to_string());
    v4.chain(v6).collect()
}

/// Local addresses are leaves of the trie: a line with the address, then a line
/// `/32 host LOCAL`.
fn ipv4(fib_trie: &str) -> BTreeSet<Ipv4Addr> {
    let mut last = None;
    let mut found = BTreeSet::new();
    for line in fib_trie.lines() {
        if let Some(leaf) = line.trim_start().strip_prefix("|-- ") {
            last = leaf.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(last.filter(|ip| !ip.is_loopback() && !ip.is_link_local()));
        }
    }
    found
}

/// Lines of `address index prefix scope flags name`.
fn ipv6(if_inet6: &str) -> BTreeSet<Ipv6Addr> {
    if_inet6
        .lines()
        .filter_map(|line| {
            let digits = line
                .split_whitespace()
                .next()
                .filter(|digits| digits.len() == 32)?;
            u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from)
        })
        .filter(|ip| !ip.is_loopback() && !ip.is_unicast_link_local())
        .collect()
}
