//! The bytes of every message. Agents in the field speak them: a line may be
//! added, and a line that is there must never change.

use data_encoding::HEXLOWER;
use prost::Message;
use protocol::frame;
use protocol::v1::*;

fn facts() -> Facts {
    Facts {
        hostname: "web-1".to_owned(),
        os: "linux".to_owned(),
        os_version: "Debian 12".to_owned(),
        kernel: "6.1".to_owned(),
        arch: "x86_64".to_owned(),
        addresses: vec!["192.0.2.1".to_owned()],
        cpus: 2,
        cpu_model: "cpu".to_owned(),
        memory_bytes: 1 << 30,
        disks: vec![Disk {
            mount: "/".to_owned(),
            kind: "ext4".to_owned(),
            size_bytes: 1 << 40,
            free_bytes: 1 << 39,
        }],
        virtualization: "kvm".to_owned(),
        machine_id: "abc".to_owned(),
        agent_version: "0.1.0".to_owned(),
        booted_at_secs: 1_700_000_000,
        ..Facts::default()
    }
}

fn refusal() -> Refusal {
    Refusal {
        code: RefusalCode::HostRetired.into(),
        message: "gone".to_owned(),
        retry_after_ms: 300_000,
        server_time_ms: 1_700_000_000_000,
    }
}

fn trust() -> Trust {
    Trust {
        version: 3,
        authorities: vec![vec![1, 2], vec![3]],
    }
}

fn grant() -> Grant {
    Grant {
        deployment: "dpl".to_owned(),
        workspace: "wsp".to_owned(),
        host: "hst".to_owned(),
        generation: 2,
        certificate: vec![0x30],
        trust: Some(trust()),
        counter: 7,
        server_time_ms: 1_700_000_000_000,
    }
}

fn agent(body: agent_frame::Body) -> Vec<u8> {
    frame::encode(&AgentFrame { body: Some(body) })
}

fn gateway(body: gateway_frame::Body) -> Vec<u8> {
    frame::encode(&GatewayFrame { body: Some(body) })
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    use agent_frame::Body as A;
    use gateway_frame::Body as G;
    let hello = Hello {
        version_max: 1,
        version_min: 1,
        agent_version: "0.1.0".to_owned(),
        boot_id: "boot".to_owned(),
        instance: vec![9; 16],
        counter: 7,
        facts_digest: vec![8; 32],
        trust_version: 3,
        host_time_ms: 1_700_000_000_000,
    };
    let welcome = Welcome {
        version: 1,
        counter: 8,
        settings: Some(Settings {
            heartbeat_ms: 10_000,
        }),
        server_time_ms: 1_700_000_000_000,
        want_facts: true,
        want_renewal: true,
        trust: Some(trust()),
        display_name: "web".to_owned(),
        quarantined: true,
    };
    let request = EnrolRequest {
        token: "lbt".to_owned(),
        csr: vec![0x30],
        facts: Some(facts()),
        version_max: 1,
        version_min: 1,
    };
    let reply = |answer| {
        frame::encode(&EnrolReply {
            answer: Some(answer),
        })
    };
    vec![
        ("enrol_request", frame::encode(&request)),
        (
            "enrol_reply.granted",
            reply(enrol_reply::Answer::Granted(grant())),
        ),
        (
            "enrol_reply.refused",
            reply(enrol_reply::Answer::Refused(refusal())),
        ),
        ("agent.hello", agent(A::Hello(hello))),
        (
            "agent.heartbeat",
            agent(A::Heartbeat(Heartbeat { sequence: 300 })),
        ),
        ("agent.facts", agent(A::Facts(Box::new(facts())))),
        ("agent.renew", agent(A::Renew(Renew { csr: vec![0x30] }))),
        (
            "agent.counter_stored",
            agent(A::CounterStored(CounterStored { counter: 8 })),
        ),
        (
            "agent.probe_reply",
            agent(A::ProbeReply(Probe { nonce: 5 })),
        ),
        (
            "agent.goodbye",
            agent(A::Goodbye(Goodbye {
                reason: GoodbyeReason::Uninstalled.into(),
            })),
        ),
        ("gateway.welcome", gateway(G::Welcome(welcome))),
        ("gateway.refused", gateway(G::Refused(refusal()))),
        (
            "gateway.heartbeat_ack",
            gateway(G::HeartbeatAck(HeartbeatAck {
                sequence: 300,
                server_time_ms: 1_700_000_000_000,
            })),
        ),
        ("gateway.probe", gateway(G::Probe(Probe { nonce: 5 }))),
        ("gateway.renewed", gateway(G::Renewed(grant()))),
        ("gateway.renew_refused", gateway(G::RenewRefused(refusal()))),
        (
            "gateway.reidentify",
            gateway(G::Reidentify(Reidentify {
                reason: "why".to_owned(),
            })),
        ),
        (
            "gateway.advance",
            gateway(G::Advance(CounterStored { counter: 9 })),
        ),
        (
            "gateway.settings",
            gateway(G::Settings(Settings {
                heartbeat_ms: 10_000,
            })),
        ),
        ("gateway.trust", gateway(G::Trust(trust()))),
    ]
    .into_iter()
    .chain(runs())
    .chain(scrapes())
    .chain(forwards())
    .chain(diagnosis())
    .chain(files())
    .collect()
}

fn runs() -> Vec<(&'static str, Vec<u8>)> {
    use run_order::Body as O;
    use run_report::Body as R;
    let report = |body| frame::encode(&RunReport { body: Some(body) });
    let order = |body| frame::encode(&RunOrder { body: Some(body) });
    let spec = RunSpec {
        argv: vec!["/bin/true".to_owned(), "-x".to_owned()],
        script: b"exit 0".to_vec(),
        interpreter: vec!["/bin/sh".to_owned()],
        user: "nobody".to_owned(),
        directory: "/tmp".to_owned(),
        environment: vec![Variable {
            name: "A".to_owned(),
            value: "1".to_owned(),
        }],
        secrets: vec![Secret {
            name: "B".to_owned(),
            value: "2".to_owned(),
        }],
        stdin: b"in".to_vec(),
        run_timeout_ms: 60_000,
        grace_ms: 10_000,
        limits: Some(Limits {
            memory_bytes: 1 << 20,
            processes: 10,
            cpu_millis: 500,
            open_files: 64,
            nice: -5,
        }),
        actor: "owner".to_owned(),
        ticket: "T-1".to_owned(),
        reboot_code: Some(194),
    };
    let request = RunRequest {
        command: "cmd".to_owned(),
        host: "hst".to_owned(),
        generation: 2,
        life: 3,
        start_before_ms: 1_700_000_060_000,
        server_time_ms: 1_700_000_000_000,
        spec: Some(spec),
        output_from: 4,
        cancel: true,
    };
    let ended = RunEnded {
        kind: EndKind::Cancelled.into(),
        code: Some(3),
        signal: Some(15),
        killed: true,
        others: 2,
        left: 1,
        started_at_ms: Some(1_700_000_000_001),
        ended_at_ms: 1_700_000_000_002,
        reason: "why".to_owned(),
        pieces: 9,
    };
    vec![
        (
            "opening.run",
            frame::encode(&Opening {
                kind: Some(opening::Kind::Run(request)),
            }),
        ),
        ("run.accepted", report(R::Accepted(RunAccepted {}))),
        (
            "run.started",
            report(R::Started(RunStarted {
                at_ms: 1_700_000_000_000,
                pid: 42,
            })),
        ),
        (
            "run.output",
            report(R::Output(RunOutput {
                sequence: 5,
                stream: 2,
                data: vec![0xff, 0x00],
            })),
        ),
        (
            "run.gap",
            report(R::Gap(RunGap {
                sequence: 6,
                resumes_at: 9,
                bytes: 1000,
            })),
        ),
        ("run.ended", report(R::Ended(ended))),
        (
            "run.refused",
            report(R::Refused(RunRefused {
                code: RunRefusal::Busy.into(),
                message: "why".to_owned(),
            })),
        ),
        (
            "run.rebooting",
            report(R::Rebooting(RunReboot { count: 1 })),
        ),
        ("run.rebooted", report(R::Rebooted(RunReboot { count: 1 }))),
        ("run.cancel", order(O::Cancel(RunCancel {}))),
        (
            "run.output_stored",
            order(O::OutputStored(RunOutputStored { sequence: 7 })),
        ),
        (
            "run.result_stored",
            order(O::ResultStored(RunResultStored {})),
        ),
    ]
}

fn scrapes() -> Vec<(&'static str, Vec<u8>)> {
    use scrape_reply::Body as S;
    let reply = |body| frame::encode(&ScrapeReply { body: Some(body) });
    let request = ScrapeRequest {
        host: "hst".to_owned(),
        generation: 2,
        exporter: "node".to_owned(),
        server_time_ms: 1_700_000_000_000,
        deadline_ms: 10_000,
        max_bytes: 4 << 20,
    };
    let ended = ScrapeEnded {
        status: ScrapeStatus::HttpStatus.into(),
        message: "why".to_owned(),
        format: ScrapeFormat::OpenMetrics.into(),
    };
    let machine = Facts {
        macs: vec!["02:00:00:00:00:01".to_owned()],
        serial: "S1".to_owned(),
        system_uuid: "4c4c4544-0000-2010-8020-80c04f303132".to_owned(),
        asset_tag: "i-0123".to_owned(),
        ..Facts::default()
    };
    let exporters = Facts {
        exporters: vec!["node".to_owned(), "mysql".to_owned()],
        ..Facts::default()
    };
    vec![
        (
            "opening.scrape",
            frame::encode(&Opening {
                kind: Some(opening::Kind::Scrape(request)),
            }),
        ),
        (
            "scrape.text",
            reply(S::Text(ScrapeText {
                data: b"up 1\n".to_vec(),
            })),
        ),
        ("scrape.ended", reply(S::Ended(ended))),
        (
            "agent.facts.machine",
            agent(agent_frame::Body::Facts(Box::new(machine))),
        ),
        (
            "agent.facts.exporters",
            agent(agent_frame::Body::Facts(Box::new(exporters))),
        ),
    ]
}

fn forwards() -> Vec<(&'static str, Vec<u8>)> {
    use forward_reply::Body as R;
    use forward_request::Kind as K;
    let opening = |kind| {
        let request = ForwardRequest {
            host: "hst".to_owned(),
            generation: 2,
            kind: Some(kind),
            rules: vec![ForwardRule {
                networks: vec!["10.9.0.0/16".to_owned()],
                ports: vec![443, 8443],
            }],
            deadline_ms: 10_000,
            plugin: "bmc".to_owned(),
        };
        frame::encode(&Opening {
            kind: Some(opening::Kind::Forward(request)),
        })
    };
    let target = ForwardTarget {
        host: "bmc-1.example".to_owned(),
        port: 443,
    };
    let reply = |body| frame::encode(&ForwardReply { body: Some(body) });
    vec![
        ("opening.forward.tcp", opening(K::Tcp(target.clone()))),
        ("opening.forward.udp", opening(K::Udp(target))),
        (
            "opening.forward.wake",
            opening(K::Wake(ForwardWake {
                mac: vec![2, 0, 0, 0xaa, 0xbb, 0xcc],
            })),
        ),
        (
            "forward.opened",
            reply(R::Opened(ForwardOpened {
                address: "10.9.0.1:443".to_owned(),
            })),
        ),
        (
            "forward.refused",
            reply(R::Refused(ForwardRefused {
                reason: ForwardRefusal::NotAllowed.into(),
                message: "why".to_owned(),
            })),
        ),
    ]
}

fn diagnosis() -> Vec<(&'static str, Vec<u8>)> {
    use diagnose_report::Body as D;
    let report = |body| frame::encode(&DiagnoseReport { body: Some(body) });
    let request = DiagnoseRequest {
        host: "hst".to_owned(),
        generation: 2,
        sections: vec![DiagnoseSection {
            name: "journal".to_owned(),
            unit: "ssh.service".to_owned(),
            lines: 100,
            targets: vec!["db:5432".to_owned()],
        }],
        within_ms: 60_000,
    };
    let opening = Opening {
        kind: Some(opening::Kind::Diagnose(request)),
    };
    vec![
        ("opening.diagnose", frame::encode(&opening)),
        (
            "diagnose.begun",
            report(D::Begun(SectionBegun {
                name: "journal".to_owned(),
            })),
        ),
        (
            "diagnose.piece",
            report(D::Piece(SectionPiece {
                data: vec![0xff, 0x00],
            })),
        ),
        (
            "diagnose.ended",
            report(D::Ended(SectionEnded {
                outcome: SectionOutcome::Partial.into(),
                reason: "why".to_owned(),
                duration_ms: 250,
            })),
        ),
        ("diagnose.done", report(D::Done(DiagnoseDone {}))),
        (
            "diagnose.refused",
            report(D::Refused(DiagnoseRefused {
                code: DiagnoseRefusal::Busy.into(),
                message: "why".to_owned(),
            })),
        ),
    ]
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    use file_reply::Body as F;
    use file_request::Action;
    let file = |action| {
        frame::encode(&Opening {
            kind: Some(opening::Kind::File(FileRequest {
                host: "hst".to_owned(),
                generation: 2,
                path: "/etc/x".to_owned(),
                max_bytes: 1 << 32,
                action: Some(action),
            })),
        })
    };
    let told = |body| frame::encode(&FileReply { body: Some(body) });
    vec![
        ("file.stat", file(Action::Stat(FileStat { digest: true }))),
        (
            "file.read",
            file(Action::Read(FileRead {
                offset: 5,
                length: Some(7),
                version: vec![1; 16],
            })),
        ),
        (
            "file.write",
            file(Action::Write(FileWrite {
                transfer: vec![2; 16],
                size: 1000,
                sha256: vec![3; 32],
                offset: 10,
                mode: Some(0o640),
                owner: "root:app".to_owned(),
                overwrite: true,
                make_parents: true,
                allow_special: true,
            })),
        ),
        (
            "file.held_question",
            file(Action::Held(FileHeldQuestion {
                transfer: vec![2; 16],
            })),
        ),
        (
            "file.meta",
            told(F::Meta(FileMeta {
                size: 1000,
                mode: 0o640,
                uid: 1,
                gid: 2,
                modified_at_ms: 1_700_000_000_000,
                version: vec![1; 16],
                offset: 5,
                length: 7,
                is_directory: true,
            })),
        ),
        (
            "file.data",
            told(F::Data(FileData {
                bytes: vec![0xff, 0x00],
            })),
        ),
        (
            "file.end",
            told(F::End(FileEnd {
                sha256: vec![3; 32],
            })),
        ),
        (
            "file.refused",
            told(F::Refused(FileRefused {
                code: FileRefusal::DiskFull.into(),
                message: "why".to_owned(),
            })),
        ),
        ("file.held", told(F::Held(FileHeld { bytes: 10 }))),
        ("file.working", told(F::Working(FileWorking {}))),
        (
            "file.order_data",
            frame::encode(&FileOrder {
                body: Some(file_order::Body::Data(FileData {
                    bytes: vec![0xff, 0x00],
                })),
            }),
        ),
    ]
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let text: String = all()
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", HEXLOWER.encode(bytes)))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/frames.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
}

#[test]
fn fields_and_kinds_of_a_later_version_are_skipped() {
    // Field 99 of a heartbeat, and body 99 of a frame.
    let mut later = AgentFrame {
        body: Some(agent_frame::Body::Heartbeat(Heartbeat { sequence: 1 })),
    }
    .encode_to_vec();
    later.extend([0x9a, 0x06, 0x01, 0x00]);
    let frame: AgentFrame = frame::decode(&later).unwrap();
    assert_eq!(
        frame.body,
        Some(agent_frame::Body::Heartbeat(Heartbeat { sequence: 1 }))
    );
    let unknown: GatewayFrame = frame::decode(&[0x9a, 0x06, 0x01, 0x00]).unwrap();
    assert_eq!(unknown.body, None);
    assert_eq!(
        RefusalCode::try_from(999).unwrap_or(RefusalCode::Unspecified),
        RefusalCode::Unspecified
    );
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_the_body() {
    assert!(frame::body_length([0xff; 4], frame::MAX_FRAME).is_err());
    assert_eq!(frame::body_length([0, 0, 1, 0], frame::MAX_FRAME), Ok(256));
}

#[test]
fn a_token_is_not_printed_by_debug() {
    let request = EnrolRequest {
        token: "lbt_secret".to_owned(),
        ..EnrolRequest::default()
    };
    assert!(!format!("{request:?}").contains("secret"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
        let _ = frame::decode::<AgentFrame>(&bytes);
        let _ = frame::decode::<GatewayFrame>(&bytes);
        let _ = frame::decode::<EnrolRequest>(&bytes);
        let _ = frame::decode::<Opening>(&bytes);
        let _ = frame::decode::<FileReply>(&bytes);
        let _ = frame::decode::<FileOrder>(&bytes);
    }
}
