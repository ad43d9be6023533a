use proptest::prelude::*;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn networks(list: &[&str]) -> Vec<Cidr> {
    list.iter()
        .map(|text| text.parse().expect("a network"))
        .collect()
}

/// Addresses that somebody has used to get where nobody should, and what each is.
#[test]
fn every_way_around_is_known() {
    use Block::{Broadcast, LinkLocal, Loopback, Multicast};
    use Reach::{Guarded, Local, Metadata, Nowhere, Public};
    for (text, expected) in [
        ("8.8.8.8", Public),
        ("1.1.1.1", Public),
        ("172.15.255.255", Public),
        ("172.32.0.0", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("192.0.1.1", Public),
        ("198.17.255.255", Public),
        ("198.20.0.0", Public),
        ("223.255.255.255", Public),
        ("2606:4700::1111", Public),
        ("2a00:1450::1", Public),
        ("10.0.0.1", Local),
        ("172.16.0.1", Local),
        ("172.31.255.255", Local),
        ("192.168.255.255", Local),
        ("100.64.0.1", Local),
        ("100.127.255.255", Local),
        ("0.1.2.3", Local),
        ("192.0.0.8", Local),
        ("192.0.2.1", Local),
        ("192.88.99.1", Local),
        ("198.18.0.1", Local),
        ("198.19.255.255", Local),
        ("198.51.100.1", Local),
        ("203.0.113.1", Local),
        ("240.0.0.1", Local),
        ("255.255.255.254", Local),
        ("fc00::1", Local),
        ("fdff::1", Local),
        ("fec0::1", Local),
        ("2001:db8::1", Local),
        ("3fff::1", Local),
        // Teredo, ORCHID, discard, local NAT64, segment routing.
        ("2001::1", Local),
        ("2001:20::1", Local),
        ("100::1", Local),
        ("64:ff9b:1::a00:1", Local),
        ("5f00::1", Local),
        ("4000::1", Local),
        ("127.0.0.1", Guarded(Loopback)),
        ("127.255.255.254", Guarded(Loopback)),
        ("::1", Guarded(Loopback)),
        ("169.254.0.1", Guarded(LinkLocal)),
        ("fe80::1", Guarded(LinkLocal)),
        ("febf::1", Guarded(LinkLocal)),
        ("224.0.0.1", Guarded(Multicast)),
        ("239.255.255.255", Guarded(Multicast)),
        ("ff02::1", Guarded(Multicast)),
        ("255.255.255.255", Guarded(Broadcast)),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("169.254.170.23", Metadata),
        ("100.100.100.200", Metadata),
        ("192.0.0.192", Metadata),
        ("168.63.129.16", Metadata),
        ("fd00:ec2::254", Metadata),
        ("fd00:ec2::23", Metadata),
        ("fd20:ce::254", Metadata),
        ("fe80::a9fe:a9fe", Metadata),
        ("0.0.0.0", Nowhere),
        ("::", Nowhere),
        // Mapped, compatible, translated, NAT64, 6to4.
        ("::ffff:127.0.0.1", Guarded(Loopback)),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:0.0.0.0", Nowhere),
        ("::ffff:10.0.0.1", Local),
        ("::ffff:8.8.8.8", Public),
        ("::127.0.0.1", Guarded(Loopback)),
        ("::169.254.169.254", Metadata),
        ("::10.0.0.1", Local),
        ("::ffff:0:127.0.0.1", Guarded(Loopback)),
        ("64:ff9b::7f00:1", Guarded(Loopback)),
        ("64:ff9b::a9fe:a9fe", Metadata),
        ("64:ff9b::a00:1", Local),
        ("64:ff9b::808:808", Public),
        ("2002:7f00:1::", Guarded(Loopback)),
        ("2002:a9fe:a9fe::1", Metadata),
        ("2002:a00:1::1", Local),
        ("2002:808:808::1", Public),
    ] {
        assert_eq!(reach(address(text)), expected, "{text}");
    }
}

#[test]
fn what_a_rule_permits() {
    for (rule, target, permitted) in [
        (&[][..], "8.8.8.8", true),
        (&[], "10.0.0.1", false),
        (&[], "127.0.0.1", false),
        (&["10.0.0.0/8"], "10.0.0.1", true),
        (&["10.0.0.0/8"], "::ffff:10.0.0.1", true),
        (&["10.0.0.0/8"], "64:ff9b::a00:1", true),
        (&["10.0.0.0/8"], "11.0.0.1", false),
        // Networks are all that a rule with networks means.
        (&["10.0.0.0/8"], "8.8.8.8", false),
        (&["0.0.0.0/0", "::/0"], "10.0.0.1", true),
        (&["0.0.0.0/0", "::/0"], "fd00::1", true),
        (&["0.0.0.0/0", "::/0"], "127.0.0.1", false),
        (&["0.0.0.0/0", "::/0"], "::1", false),
        (&["0.0.0.0/0", "::/0"], "169.254.1.1", false),
        (&["0.0.0.0/0", "::/0"], "fe80::1", false),
        (&["0.0.0.0/0", "::/0"], "224.0.0.1", false),
        (&["0.0.0.0/0", "::/0"], "255.255.255.255", false),
        (&["0.0.0.0/0", "::/0"], "169.254.169.254", false),
        (&["0.0.0.0/0", "::/0"], "168.63.129.16", false),
        (&["127.0.0.0/8"], "127.0.0.1", true),
        (&["127.0.0.0/8"], "::ffff:127.0.0.1", true),
        (&["127.0.0.1/32"], "127.0.0.2", false),
        (&["::1/128"], "::1", true),
        (&["169.254.0.0/16"], "169.254.1.1", true),
        (&["169.254.0.0/16"], "169.254.169.254", false),
        (&["169.254.169.254/32"], "169.254.169.254", true),
        (&["fd00::/8"], "fd00:ec2::254", false),
        (&["fd00:ec2::254/128"], "fd00:ec2::254", true),
        (&["255.255.255.255/32"], "255.255.255.255", true),
        (&["0.0.0.0/32"], "0.0.0.0", false),
        (&["::/128"], "::", false),
    ] {
        assert_eq!(
            permits(&networks(rule), address(target)),
            permitted,
            "{rule:?} {target}"
        );
    }
    assert!(!permits_listed(&[], address("8.8.8.8")));
}

proptest! {
    /// Wrapping an address into IPv6 never opens what was closed, and never changes the answer.
    #[test]
    fn wrapping_changes_nothing(bits: u32, rule in proptest::sample::subsequence(vec![
        "10.0.0.0/8", "127.0.0.0/8", "0.0.0.0/0", "::/0", "169.254.0.0/16", "64:ff9b::/96", "2002::/16",
    ], 0..4)) {
        let rule = networks(&rule);
        let v4 = Ipv4Addr::from_bits(bits);
        let plain = permits(&rule, v4.into());
        let [high, low] = [(bits >> 16) as u16, bits as u16];
        for wrapped in [
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5),
        ] {
            prop_assert_eq!(permits(&rule, wrapped.into()), plain, "{}", wrapped);
        }
    }

    /// Held against the standard library's words for the same blocks.
    #[test]
    fn nothing_of_this_machine_or_its_wire_is_public(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits);
        let v4 = Ipv4Addr::from_bits(bits as u32);
        if v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified() {
            prop_assert_ne!(reach(v4.into()), Reach::Public);
        }
        if v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified() {
            prop_assert_ne!(reach(v6.into()), Reach::Public);
        }
        if bits >> 125 != 1 && embedded(v6).is_none() {
            prop_assert_ne!(reach(v6.into()), Reach::Public);
        }
    }
}
