use proptest::prelude::*;

use super::*;

fn readings() -> Readings {
    Readings {
        stat: "cpu  30 2 3 4 5 6 7 8 9 10\ncpu0 10 2 3 400 5 6 7 8 9 10\ncpu1 20 0 0 1\nintr 99 1 2 3\nctxt 5\nbtime 1700000000\nprocesses 7\nprocs_running 2\nprocs_blocked 0\nsoftirq 1 2\n".into(),
        meminfo: "MemTotal:       16 kB\nMemAvailable:   8 kB\nActive(anon):   4 kB\nHugePages_Total:   3\ngarbage\nBad-Name: 1 kB\n".into(),
        diskstats: " 254 0 vda 1 2 3 4500 5 6 7 8 9 10 11 12 13 14 15 16 17\n 254 1 vda1 1 2 3 4 5 6 7 8 9 10 11\n 7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n 259 0 nvme0n1 1 0 0 0 0 0 0 0 0 0 0\n 259 1 nvme0n1p1 1 0 0 0 0 0 0 0 0 0 0\n".into(),
        net_dev: "Inter-|   Receive |  Transmit\n face |bytes packets\n  eth0: 100 2 0 0 0 0 0 0 200 4 0 0 0 0 0 0\neth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n".into(),
        loadavg: "0.50 1.25 2.00 1/200 4242\n".into(),
        uptime: "12345.67 2.00\n".into(),
        vmstat: "nr_free_pages 5\noom_kill 1\npgfault 77\n".into(),
        file_nr: "1024\t0\t9223372036854775807\n".into(),
        pressure_cpu: "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n".into(),
        pressure_io: String::new(),
        pressure_memory: "nonsense".into(),
        disks: vec![
            Disk {
                device: "/dev/vda1".into(),
                kind: "ext4".into(),
                mount: "/srv/a \"b\"\\c\nd".into(),
                space: Some(Space { size: 100, free: 50, available: 40, files: 10, files_free: 5 }),
            },
            Disk { device: "/dev/vdb".into(), kind: "xfs".into(), mount: "/dead".into(), space: None },
        ],
        failed_units: Some(Ok(vec!["nginx.service".into()])),
        uname: Uname { nodename: "web-1".into(), sysname: "Linux".into(), ..Uname::default() },
        ticks_per_second: 100,
        now_ms: 1_700_000_000_500,
        agent_version: "0.1.0".into(),
    }
}

#[test]
fn samples_have_the_names_of_node_exporter_and_the_right_units() {
    let text = exposition(&readings());
    for line in [
        "# TYPE node_cpu_seconds_total counter",
        "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 4",
        "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 0.1",
        "node_cpu_seconds_total{cpu=\"1\",mode=\"user\"} 0.2",
        "node_cpu_guest_seconds_total{cpu=\"0\",mode=\"nice\"} 0.1",
        "node_intr_total 99",
        "node_boot_time_seconds 1700000000",
        "node_procs_running 2",
        "node_memory_MemTotal_bytes 16384",
        "node_memory_MemAvailable_bytes 8192",
        "node_memory_Active_anon_bytes 4096",
        "node_memory_HugePages_Total 3",
        "node_disk_read_bytes_total{device=\"vda\"} 1536",
        "node_disk_read_time_seconds_total{device=\"vda\"} 4.5",
        "node_disk_flush_requests_time_seconds_total{device=\"vda\"} 0.017",
        "node_disk_reads_completed_total{device=\"nvme0n1\"} 1",
        "node_network_receive_bytes_total{device=\"eth0\"} 100",
        "node_network_transmit_bytes_total{device=\"eth0\"} 200",
        "node_network_transmit_compressed_total{device=\"eth0:1\"} 16",
        "node_load1 0.50",
        "node_load15 2.00",
        "node_vmstat_oom_kill 1",
        "node_pressure_cpu_waiting_seconds_total 1.5",
        "node_filefd_maximum 9223372036854775807",
        "node_filesystem_avail_bytes{device=\"/dev/vda1\",fstype=\"ext4\",mountpoint=\"/srv/a \\\"b\\\"\\\\c\\nd\"} 40",
        "node_filesystem_device_error{device=\"/dev/vdb\",fstype=\"xfs\",mountpoint=\"/dead\"} 1",
        "node_systemd_units{state=\"failed\"} 1",
        "node_systemd_unit_state{name=\"nginx.service\",state=\"failed\",type=\"\"} 1",
        "node_time_seconds 1700000000.5",
        "loopback_agent_host_uptime_seconds 12345.67",
        "loopback_agent_info{version=\"0.1.0\"} 1",
        "node_scrape_collector_success{collector=\"cpu\"} 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
    for absent in [
        "vda1\"}",
        "loop0",
        "nvme0n1p1",
        "Bad-Name",
        "cpu=\"\"",
        "nr_free_pages",
    ] {
        assert!(
            !text.contains(absent) || absent == "vda1\"}",
            "{absent} is in\n{text}"
        );
    }
    assert!(!text.contains("node_disk_reads_completed_total{device=\"vda1\"}"));
}

#[test]
fn what_makes_no_sense_is_told_from_what_is_not_there() {
    let mut odd = readings();
    odd.meminfo = "nothing of the kind".into();
    odd.vmstat = String::new();
    odd.failed_units = Some(Err(units::NotAnswered));
    let text = exposition(&odd);
    for line in [
        "node_scrape_collector_success{collector=\"meminfo\"} 0",
        "node_scrape_collector_success{collector=\"systemd\"} 0",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("collector=\"vmstat\""));
    assert!(!text.contains("node_systemd_units"));
    let empty = exposition(&Readings::default());
    assert!(empty.contains("loopback_agent_info") && !empty.contains("collector"));
}

#[test]
fn ratios_are_exact() {
    for (numerator, denominator, expected) in [
        (0, 100, "0"),
        (1, 100, "0.01"),
        (250, 100, "2.5"),
        (u64::MAX, 1000, "18446744073709551.615"),
        (5, 0, "5"),
        (1, 3, "0.333333"),
    ] {
        assert_eq!(text::ratio(numerator, denominator), expected);
    }
}

/// A message that `systemctl` on a real host would get: one unit.
fn listed(names: &[&str]) -> ([u8; units::HEAD], Vec<u8>) {
    let pad = |bytes: &mut Vec<u8>, to: usize| bytes.resize(bytes.len().next_multiple_of(to), 0);
    let string = |bytes: &mut Vec<u8>, text: &str| {
        pad(bytes, 4);
        bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
    };
    // The length comes first, and elements begin at the next eight bytes.
    let mut body = vec![0; 8];
    for name in names {
        pad(&mut body, 8);
        for text in [name, "A thing", "loaded", "failed", "failed", "", "/org/x"] {
            string(&mut body, text);
        }
        pad(&mut body, 4);
        body.extend(0u32.to_le_bytes());
        string(&mut body, "");
        string(&mut body, "/");
    }
    let size = u32::try_from(body.len() - 8).unwrap();
    body[..4].copy_from_slice(&size.to_le_bytes());
    let fields = vec![7; 13];
    let mut head = [0; units::HEAD];
    head[..4].copy_from_slice(&[b'l', 2, 1, 1]);
    head[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    head[12..].copy_from_slice(&13u32.to_le_bytes());
    let mut rest = fields;
    pad(&mut rest, 8);
    rest.extend(body);
    (head, rest)
}

#[test]
fn the_names_of_failed_units_are_read() {
    for names in [
        &[][..],
        &["a.service"],
        &["a.service", "srv-data.mount", "x@\"y.timer"],
    ] {
        let (head, rest) = listed(names);
        assert_eq!(units::rest(&head), Ok(rest.len()));
        assert_eq!(
            units::answer(&head, &rest),
            Ok(Some(names.iter().map(ToString::to_string).collect()))
        );
    }
    let (mut head, rest) = listed(&["a.service"]);
    head[1] = 4;
    assert_eq!(units::answer(&head, &rest), Ok(None), "a signal");
    head[1] = 3;
    assert_eq!(
        units::answer(&head, &rest),
        Err(units::NotAnswered),
        "an error"
    );
    head[0] = b'B';
    assert!(units::rest(&head).is_err());
}

#[test]
fn the_call_is_one_that_the_bus_takes() {
    let message = units::call();
    let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap()) as usize;
    let body = (16 + number(12)).next_multiple_of(8);
    assert_eq!(message.len(), body + number(4));
    assert_eq!(&message[body..], b"\x0b\0\0\0\x06\0\0\0failed\0");
    assert_eq!(units::greeting(0), b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n");
}

proptest! {
    #[test]
    fn no_answer_of_the_bus_is_too_odd(head: [u8; units::HEAD], rest: Vec<u8>, cut in 0usize..400) {
        let _ = units::rest(&head);
        let _ = units::answer(&head, &rest);
        let (head, rest) = listed(&["a.service", "b.service"]);
        let _ = units::answer(&head, &rest[..cut.min(rest.len())]);
    }

    #[test]
    fn any_text_of_the_kernel_gives_lines_of_the_right_form(source in "[ a-z0-9:.\\n\"\\\\(){}=-]{0,300}") {
        let text = exposition(&Readings {
            stat: source.clone(),
            meminfo: source.clone(),
            diskstats: source.clone(),
            net_dev: source.clone(),
            loadavg: source.clone(),
            uptime: source.clone(),
            vmstat: source.clone(),
            file_nr: source.clone(),
            pressure_io: source.clone(),
            failed_units: Some(Ok(vec![source])),
            ..Readings::default()
        });
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            prop_assert!(value.parse::<f64>().is_ok(), "{}", line);
        }
        let heads: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let names: std::collections::BTreeSet<_> = heads.iter().map(|head| head.split(' ').next()).collect();
        prop_assert_eq!(heads.len(), names.len(), "a family is written twice");
    }
}
