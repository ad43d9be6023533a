//! Bytes that no agent sends, and agents that stop half way.

use std::net::{Ipv4Addr, SocketAddr};

use link::testing::initial::{
    DATAGRAM, client_hello, crypto_frame, initial, least_parameters, parameter,
};
use link::tls::Alpn;
use protocol::v1::{AgentFrame, Goodbye, Heartbeat, agent_frame};
use tests::agent::{Agent, beat_while, quic};
use tests::{soon, until};
use tokio::net::UdpSocket;

use crate::World;

async fn socket() -> anyhow::Result<UdpSocket> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?)
}

/// A first packet with all that a handshake needs; `seed` tells connections apart.
fn first_packet(world: &World, seed: usize) -> Vec<u8> {
    let source = seed.to_be_bytes();
    let hello = client_hello(
        world.gateway.app.ca.trust_store(),
        &least_parameters(&source),
    );
    let destination = (!seed).to_be_bytes();
    initial(&destination, &source, b"", 0, &crypto_frame(0, &hello))
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_11_no_early_data_is_taken_and_a_replayed_first_packet_has_no_effect()
-> anyhow::Result<()> {
    let world = World::new().await?;
    // A client that would send early data if it had ever been offered the means.
    let mut eager = world.caller.tls(Alpn::Enrol, None)?;
    eager.enable_early_data = true;
    let config = quic(eager)?;
    for _ in 0..2 {
        let Err(connecting) = world.caller.connect(config.clone())?.into_0rtt() else {
            panic!("early data could be sent");
        };
        let connection = soon(connecting).await??;
        connection.close(0u32.into(), b"");
    }

    // What an enrolling host sends first, recorded on the way and sent again and again.
    let recorder = socket().await?;
    let mut caller = tests::agent::Caller::of(&world.gateway)?;
    caller.gateway = recorder.local_addr()?;
    let config = quic(caller.tls(Alpn::Enrol, None)?)?;
    let _never_answered = caller.connect(config)?;
    let mut packet = [0; 2048];
    let (length, _) = soon(recorder.recv_from(&mut packet)).await??;
    let replays = socket().await?;
    for _ in 0..32 {
        replays
            .send_to(&packet[..length], world.gateway.address)
            .await?;
    }
    let mut answer = [0; 2048];
    soon(replays.recv_from(&mut answer)).await??;
    let (_, mut agent) = world.bystander().await?;
    agent.beat().await?;
    assert_eq!(world.gateway.app.strangers.seated(), 0);
    assert_eq!(
        world.gateway.app.catalog.read().hosts.len(),
        1,
        "the bystander alone"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_15_frames_that_are_none_end_their_connection_and_no_other() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (_caller, mut bystander) = world.bystander().await?;
    let framed = |body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes(), body].concat()
    };
    let malformed = [
        ("4 GiB announced", u32::MAX.to_be_bytes().to_vec()),
        (
            "a byte too many announced",
            ((1u32 << 20) + 1).to_be_bytes().to_vec(),
        ),
        ("a number without end", framed(&[0x80; 32])),
        (
            "a length beyond the frame",
            framed(&[0x0a, 0xff, 0xff, 0xff, 0x7f]),
        ),
        ("groups in groups", framed(&[0x7b; 10_000])),
        // A hello whose boot id is no text.
        ("no text", framed(&[0x0a, 0x04, 0x22, 0x02, 0xff, 0xfe])),
        ("a field of another kind", framed(&[0x08, 0x01])),
    ];
    for (number, (what, bytes)) in malformed.into_iter().enumerate() {
        let member = world.member(&format!("host-{number}")).await?;
        let (mut agent, _) = world.caller.welcome(&member).await?;
        agent.say_raw(&bytes).await?;
        agent.closed().await?;
        assert_eq!(world.dismissed("malformed"), number as u64 + 1, "{what}");
        bystander.beat().await?;
    }
    // Before a hello it is no different.
    let member = world.member("greeter").await?;
    let connection = world.caller.dial(Some(member.credentials()?)).await?;
    let mut agent = Agent::open(connection).await?;
    agent
        .say_raw(&framed(&[0x0a, 0x04, 0x22, 0x02, 0xff, 0xfe]))
        .await?;
    agent.closed().await?;
    assert_eq!(world.refused("no_hello"), 1);
    // Nor for strangers, who have less room.
    let connection = world.caller.dial(None).await?;
    let mut stranger = Agent::open(connection).await?;
    stranger
        .say_raw(&((256u32 << 10) + 1).to_be_bytes())
        .await?;
    stranger.closed().await?;
    // Values and frames of a later version are no offence.
    let member = world.member("newer").await?;
    let (mut agent, _) = world.caller.welcome(&member).await?;
    agent.say_raw(&framed(&[0xfa, 0x07, 0x01, 0x00])).await?;
    agent.beat().await?;
    agent
        .say(agent_frame::Body::Goodbye(Goodbye { reason: 99 }))
        .await?;
    agent.closed().await?;
    assert_eq!(world.dismissed("malformed"), 8);
    bystander.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_16_malformed_first_packets_at_the_port_disturb_nobody() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (_caller, mut bystander) = world.bystander().await?;
    let trust = || world.gateway.app.ca.trust_store();
    let source = [1; 8];
    let parameters = [
        Vec::new(),
        vec![0xff; 64],
        parameter(0x03, &[0x3f]),
        [least_parameters(&source), parameter(0x0e, &[0])].concat(),
        [least_parameters(&source), least_parameters(&source)].concat(),
        [least_parameters(&source), parameter(0x0a, &[0x40, 0xff])].concat(),
        [least_parameters(&source), parameter(0x04, &[0xff; 8])].concat(),
        least_parameters(&[9; 20]),
    ];
    let hellos = parameters.map(|parameters| client_hello(trust(), &parameters));
    let mut payloads: Vec<Vec<u8>> = hellos.iter().map(|hello| crypto_frame(0, hello)).collect();
    payloads.push(crypto_frame(1 << 29, b"far away"));
    payloads.extend((0..=0x1e).map(|kind| vec![kind, 0xff, 0xff, 0xff]));
    let socket = socket().await?;
    for (number, payload) in payloads.iter().enumerate() {
        let destination = [number as u8; 8];
        for (at, token) in [
            (&destination[..], &b""[..]),
            (&destination[..0], b""),
            (&destination, b"forged"),
        ] {
            let packet = initial(at, &source, token, 0, payload);
            for length in [packet.len(), 1199, 40, 7, 1] {
                let part = &packet[..length.min(packet.len())];
                socket.send_to(part, world.gateway.address).await?;
            }
        }
        if number % 8 == 0 {
            bystander.beat().await?;
        }
    }
    bystander.beat().await?;
    let member = world.member("afterwards").await?;
    world.caller.welcome(&member).await?.0.beat().await?;
    let text = world.gateway.app.metrics.encode();
    assert!(!text.contains("loopback_panics_total{"), "{text}");
    Ok(())
}

/// The deadlines are seconds, and all of these wait for theirs together.
#[tokio::test(flavor = "multi_thread")]
async fn abuse_17_18_who_stops_half_way_is_let_go_unamplified_and_holds_nobody_up()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let (_caller, mut bystander) = world.bystander().await?;
    let before = world.tasks();

    // A real host that opens no stream, one that says half a hello, one that says a hello
    // byte by byte, and a stranger who asks nothing.
    let member = world.member("slow").await?;
    let silent = world.caller.dial(Some(member.credentials()?)).await?;
    let mut half = Agent::open(world.caller.dial(Some(member.credentials()?)).await?).await?;
    half.say_raw(&[0, 0, 1]).await?;
    let mut announced = Agent::open(world.caller.dial(Some(member.credentials()?)).await?).await?;
    announced.say_raw(&[0, 0, 0x10, 0, 0x0a]).await?;
    let stranger = world.caller.dial(None).await?;

    // A forged source that never answers.
    let victim = socket().await?;
    let sent = first_packet(&world, 0);
    victim.send_to(&sent, world.gateway.address).await?;
    until("the handshake begins", || {
        world.gateway.app.handshakes.pending() > 0
    })
    .await?;
    // And a crowd of them: from some number on, they are asked for proof.
    let crowd = socket().await?;
    let retry_from = gateway::link::listener::admission().retry_from;
    let mut crowd_sent = 0;
    for seed in 1..=4 * retry_from {
        let packet = first_packet(&world, seed);
        crowd_sent += packet.len();
        crowd.send_to(&packet, world.gateway.address).await?;
        assert!(world.gateway.app.handshakes.pending() <= retry_from);
    }
    until("proof is asked for", || {
        world.gateway.app.handshakes.retried() > 0
    })
    .await?;

    let waiting = async {
        // Meanwhile a host joins and links.
        let caller = tests::agent::Caller::of(&world.gateway)?;
        let token = world.token(Some(1)).await?;
        let newcomer = caller.join(&token, "newcomer").await?;
        let (mut agent, _) = caller.welcome(&newcomer).await?;
        agent.beat().await?;
        for connection in [&silent, &half.connection, &announced.connection, &stranger] {
            soon(connection.closed()).await?;
        }
        until("unfinished handshakes end", || {
            world.gateway.app.handshakes.pending() == 0
        })
        .await?;
        agent.beat().await?;
        anyhow::Ok(())
    };
    let (_, waited) = beat_while(&mut bystander, waiting).await?;
    waited?;
    assert_eq!(world.refused("no_stream"), 1);
    assert_eq!(world.refused("no_hello"), 2);
    assert!(world.refused("timeout") > 0);
    until("only those who are linked stay", || {
        world.tasks() <= before + 1
    })
    .await?;

    for (what, socket, sent) in [("one", victim, sent.len()), ("a crowd", crowd, crowd_sent)] {
        let received = drain(&socket, world.gateway.address)?;
        println!(
            "{what}: {received} bytes for {sent}, {:.2}",
            received as f64 / sent as f64
        );
        // quinn's goodbye to an unfinished handshake is not counted by it: a packet of some
        // fifty bytes beyond.
        assert!(
            received > 0 && received < 3 * sent + DATAGRAM,
            "{what}: {received} for {sent}"
        );
    }
    Ok(())
}

/// Bytes that have arrived.
fn drain(socket: &UdpSocket, from: SocketAddr) -> anyhow::Result<usize> {
    let mut buffer = [0; 2048];
    let mut bytes = 0;
    loop {
        match socket.try_recv_from(&mut buffer) {
            Ok((length, sender)) if sender == from => bytes += length,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(bytes),
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_15_20_a_hello_too_long_is_refused_and_nothing_of_it_kept() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("verbose").await?;
    let hello = protocol::v1::Hello {
        instance: vec![7; 500_000],
        ..member.hello()
    };
    match world.caller.link(&member, hello).await? {
        tests::agent::Linked::Refused(refused) => {
            assert_eq!(refused.code(), protocol::v1::RefusalCode::Invalid);
        }
        _ => panic!("half a megabyte of instance is kept"),
    }
    assert!(!world.gateway.app.links.is_linked(member.host()?));
    let (mut agent, _) = world.caller.welcome(&member).await?;
    // A second hello is out of place.
    let frame = AgentFrame {
        body: Some(agent_frame::Body::Heartbeat(Heartbeat { sequence: 0 })),
    };
    agent.say(frame.body.unwrap()).await?;
    agent.say(agent_frame::Body::Hello(member.hello())).await?;
    agent.closed().await?;
    Ok(())
}
