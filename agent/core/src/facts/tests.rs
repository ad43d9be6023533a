use model::facts::{Disk, Facts};
use proptest::prelude::*;

use super::*;

const FIB_TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.7.0.0/24 2 0 2
        +-- 10.7.0.0/28 2 0 2
           |-- 10.7.0.0
              /24 link UNICAST
           |-- 10.7.0.9
              /32 host LOCAL
        |-- 10.7.0.255
           /32 link BROADCAST
Local:
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     |-- 169.254.3.4
        /32 host LOCAL
           |-- 10.7.0.9
              /32 host LOCAL
     |-- 9.1.2.3
        /32 host LOCAL
";

const IF_INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000021a2bfffe3c4d5e 02 40 20 80     eth0
20010db8000000000000000000000009 02 40 00 80     eth0
";

const MOUNTINFO: &str = r"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
24 22 254:1 / /srv/my\040data rw - xfs /dev/vdb rw
25 22 254:0 /var/lib/docker /var/lib/docker rw - ext4 /dev/vda rw
26 22 0:40 / /mnt/nas rw - nfs4 nas:/export rw
27 22 0:50 / /var/lib/docker/overlay2/x rw - overlay overlay rw
garbage
28 22 254:2 / /efi
";

#[test]
fn addresses_are_the_local_ones_that_tell_hosts_apart() {
    let expected = ["9.1.2.3", "10.7.0.9", "2001:db8::9"];
    assert_eq!(addresses(FIB_TRIE, IF_INET6), expected);
}

#[test]
fn each_local_disk_is_reported_once_and_network_mounts_never() {
    let found = mounts(MOUNTINFO);
    let paths: Vec<_> = found.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/", "/srv/my data"]);
}

#[test]
fn an_overlay_is_a_disk_only_as_the_root_of_a_container() {
    let inside = "1 0 0:50 / / rw - overlay overlay rw\n2 1 0:51 / /x rw - overlay overlay rw\n";
    assert_eq!(
        mounts(inside),
        [Mount {
            path: "/".into(),
            kind: "overlay".into(),
            source: "overlay".into(),
        }]
    );
}

#[test]
fn processors_are_counted_from_lists_and_from_cpuinfo() {
    for (list, expected) in [
        ("0-3\n", Some(4)),
        ("0", Some(1)),
        ("0-1,4-7", Some(6)),
        ("", None),
        ("3-1", None),
        ("0-4294967295", None),
        ("0-", None),
    ] {
        assert_eq!(cpu::count(list), expected, "{list}");
    }
    assert_eq!(
        cpu::count_of_cpuinfo("processor\t: 0\nmodel name\t: X\n\nprocessor\t: 1\n"),
        Some(2)
    );
    assert_eq!(cpu::count_of_cpuinfo("nothing"), None);
}

#[test]
fn processor_models_are_found_on_both_architectures() {
    assert_eq!(
        cpu::model("model name\t: AMD  EPYC 7B13   64-Core\n"),
        "AMD EPYC 7B13 64-Core"
    );
    let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
    assert_eq!(cpu::model(arm), "implementer 0x41 part 0xd0c");
}

#[test]
fn distributions_name_themselves() {
    for (text, expected) in [
        (
            "NAME=\"x\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
            "Debian GNU/Linux 12 (bookworm)",
        ),
        (
            "NAME='Alpine Linux'\nVERSION_ID=3.20\n",
            "Alpine Linux 3.20",
        ),
        ("NAME=Arch\n", "Arch"),
        ("PRETTY_NAME=\n", ""),
        ("", ""),
    ] {
        assert_eq!(system::os_name(text), expected);
    }
}

#[test]
fn memory_boot_time_and_machine_id_are_numbers_or_nothing() {
    assert_eq!(
        system::memory("MemTotal:       16318480 kB\nMemFree: 1 kB\n"),
        Some(16_318_480 * 1024)
    );
    assert_eq!(system::memory("MemTotal: 99999999999999999999 kB"), None);
    assert_eq!(
        system::boot_time("cpu 1 2\nbtime 1700000000\n"),
        Some(1_700_000_000)
    );
    assert_eq!(system::boot_time("btime soon"), None);
    assert_eq!(
        system::machine_id("0123456789abcdef0123456789abcdef\n"),
        "0123456789abcdef0123456789abcdef"
    );
    assert_eq!(system::machine_id("uninitialized\n"), "");
}

#[test]
fn virtualization_prefers_the_container_over_the_machine_that_runs_it() {
    let kvm = || Clues {
        dmi_product: "KVM".into(),
        dmi_present: true,
        ..Clues::default()
    };
    let flags = "flags\t\t: fpu hypervisor lm\n";
    for (clues, cpuinfo, expected) in [
        (
            Clues {
                systemd_container: "systemd-nspawn\n".into(),
                ..kvm()
            },
            "",
            "systemd-nspawn",
        ),
        (
            Clues {
                systemd_container: "\u{1b}[31mevil".into(),
                ..kvm()
            },
            "",
            "container-other",
        ),
        (
            Clues {
                dockerenv: true,
                ..kvm()
            },
            "",
            "docker",
        ),
        (kvm(), "", "kvm"),
        (
            Clues {
                dmi_vendor: "Amazon EC2".into(),
                dmi_product: "m5.large".into(),
                dmi_present: true,
                ..Clues::default()
            },
            "",
            "amazon",
        ),
        (
            Clues {
                dmi_vendor: "Amazon EC2".into(),
                dmi_product: "m5.metal".into(),
                dmi_present: true,
                ..Clues::default()
            },
            "",
            "none",
        ),
        (
            Clues {
                dmi_vendor: "Dell Inc.".into(),
                dmi_present: true,
                ..Clues::default()
            },
            "",
            "none",
        ),
        (Clues::default(), flags, "vm-other"),
        (Clues::default(), "", ""),
    ] {
        assert_eq!(virtualization::name(&clues, cpuinfo), expected, "{clues:?}");
    }
}

#[test]
fn facts_stay_equal_while_only_noise_changes() {
    let disk = |free_bytes| Disk {
        mount: "/".into(),
        kind: "ext4".into(),
        size_bytes: 1000,
        free_bytes,
    };
    let readings = |btime: i64, free| Readings {
        stat: format!("btime {btime}\n"),
        disks: vec![disk(free)],
        ..Readings::default()
    };
    let first = assemble(&readings(1000, 449), "0.1.0", "x86_64", None);
    let second = assemble(&readings(1003, 401), "0.1.0", "x86_64", Some(&first));
    assert_eq!(first, second);
    let rebooted = assemble(&readings(5000, 401), "0.1.0", "x86_64", Some(&first));
    assert_eq!(rebooted.booted_at_secs, 5000);
    let filled = assemble(&readings(1000, 399), "0.1.0", "x86_64", Some(&first));
    assert_eq!(filled.disks[0].free_bytes, 350);
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,200}",
        "[\u{0}-\u{ff}\n:=/ -]{0,400}",
        Just("\u{1b}]0;pwned\u{7}\n".repeat(50)),
        Just("|-- 1.2.3.4\n /32 host LOCAL\n".repeat(500)),
        Just("1 2 3:4 /a /\\377\\000 x - ext4 d o\n".repeat(9)),
        Just(
            "PRETTY_NAME=\"\u{1b}[2J\u{202e}evil\"\nMemTotal: -1 kB\nbtime -9\nprocessor:"
                .to_owned()
        ),
    ]
}

proptest! {
    #[test]
    fn hostile_texts_give_bounded_and_printable_facts(text in hostile(), other in hostile()) {
        let clues = Clues { systemd_container: other.clone(), dmi_vendor: text.clone(), ..Clues::default() };
        let disks = mounts(&text)
            .into_iter()
            .map(|mount| Disk { mount: mount.path, kind: mount.kind, size_bytes: 7, free_bytes: u64::MAX })
            .collect();
        let readings = Readings {
            hostname: text.clone(),
            os_release: text.clone(),
            kernel: other.clone(),
            cpuinfo: text.clone(),
            cpus_online: other.clone(),
            meminfo: text.clone(),
            stat: text.clone(),
            fib_trie: text.clone(),
            if_inet6: other.clone(),
            machine_id: other,
            clues,
            disks,
            exporters: Vec::new(),
            ..Readings::default()
        };
        let facts = assemble(&readings, "0.1.0", "x86_64", None);
        prop_assert_eq!(&facts, &facts.clone().cleaned());
        prop_assert!(printable(&facts));
    }
}

fn printable(facts: &Facts) -> bool {
    let texts = [
        &facts.hostname,
        &facts.os_version,
        &facts.kernel,
        &facts.cpu_model,
    ];
    let mounts = facts.disks.iter().map(|disk| &disk.mount);
    texts
        .into_iter()
        .chain(mounts)
        .all(|text| !text.chars().any(char::is_control))
}

#[test]
fn a_machine_is_told_by_its_real_cards_and_its_firmware() {
    let card = |address: &str, is_virtual| (address.to_owned(), is_virtual);
    let cards = [
        card("00:00:00:00:00:00\n", true),
        card("02:42:AC:11:00:02\n", true),
        card("AA:bb:cc:00:11:22\n", false),
        card("", false),
    ];
    assert_eq!(system::macs(&cards), ["aa:bb:cc:00:11:22"]);
    assert_eq!(system::macs(&cards[..2]), ["02:42:ac:11:00:02"]);
    assert_eq!(system::firmware_text(" To be filled by O.E.M.\n"), "");
    assert_eq!(system::firmware_text("VMware-42 1a\n"), "VMware-42 1a");
}
