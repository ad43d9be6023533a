//! Too much of what is valid, and what others notice of it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use link::tls::Alpn;
use protocol::v1::{CounterStored, Heartbeat, Hello, RefusalCode, agent_frame};
use tests::agent::{Caller, Linked, beat_while, quic};
use tests::{soon, until};

use crate::World;

#[tokio::test(flavor = "multi_thread")]
async fn abuse_19_a_flood_of_strangers_has_bounded_room_and_links_go_on() -> anyhow::Result<()> {
    const STRANGERS: u64 = 200;
    let world = World::new().await?;
    let (_caller, mut bystander) = world.bystander().await?;
    let room = gateway::link::strangers::PER_SOURCE;
    let flood = async {
        let mut held = Vec::new();
        for _ in 0..STRANGERS {
            held.push(soon(world.caller.dial(None)).await??);
            anyhow::ensure!(world.gateway.app.strangers.seated() <= room);
        }
        until("the rest is sent away", || {
            let away = world
                .gateway
                .metric("loopback_enrolments_total{outcome=\"too_many\"}");
            away == STRANGERS - room as u64
        })
        .await?;
        // Agents without a certificate are not even asked what they want.
        for count in 1..=20 {
            let config = quic(world.caller.tls(Alpn::Agent, None)?)?;
            if let Ok(connection) = soon(world.caller.connect(config)?).await? {
                soon(connection.closed()).await?;
            }
            until("refused", || world.refused("no_certificate") == count).await?;
        }
        anyhow::Ok(held)
    };
    let (beats, held) = beat_while(&mut bystander, flood).await?;
    let held = held?;
    assert!(beats > 1);
    for connection in &held {
        connection.close(0u32.into(), b"");
    }
    until("places are given back", || {
        world.gateway.app.strangers.seated() == 0
    })
    .await?;
    world.member("afterwards").await?;
    bystander.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_20_an_agent_that_floods_its_stream_is_dismissed_and_others_hear_nothing()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let (_caller, mut bystander) = world.bystander().await?;
    let member = world.member("flooder").await?;
    let (mut agent, _) = world.caller.welcome(&member).await?;
    let flood = async {
        for sequence in 0..10_000 {
            let beat = agent_frame::Body::Heartbeat(Heartbeat { sequence });
            if agent.say(beat).await.is_err() {
                break;
            }
        }
        agent.dismissed().await
    };
    let (_, refused) = beat_while(&mut bystander, soon(flood)).await?;
    assert_eq!(refused??.code(), RefusalCode::RateLimited);
    until("counted", || world.dismissed("flooding") == 1).await?;
    bystander.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_20_streams_are_few_and_what_is_not_read_is_not_taken() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (_caller, mut bystander) = world.bystander().await?;
    let member = world.member("opener").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let mut streams = Vec::new();
    while let Some(opened) = agent.connection.open_bi().now_or_never() {
        streams.push(opened?);
        anyhow::ensure!(streams.len() < 100, "any number of streams");
    }
    assert!(
        (1..16).contains(&streams.len()),
        "{} beside the control stream",
        streams.len()
    );
    assert!(agent.connection.open_uni().now_or_never().is_none());
    // A megabyte in all, of everything that nobody reads.
    let chunk = vec![0; 64 << 10];
    let mut taken = 0;
    for (send, _) in &mut streams {
        // As much as the windows allow; more waits for ever.
        while let Some(written) = send.write(&chunk).now_or_never() {
            taken += written?;
            tokio::task::yield_now().await;
        }
    }
    assert!(
        taken <= 4 << 20,
        "{taken} bytes, with what waits on our side"
    );
    bystander.beat().await?;
    agent.connection.close(0u32.into(), b"");
    bystander.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_09_20_a_host_that_links_in_a_loop_gets_no_fresh_allowance() -> anyhow::Result<()> {
    let world = Arc::new(World::new().await?);
    let (_caller, mut bystander) = world.bystander().await?;
    let member = world.member("churning").await?;
    let caller = Caller::of(&world.gateway)?;
    let churn = async {
        let (mut links, mut counter) = (0, member.grant.counter);
        loop {
            let hello = Hello {
                counter,
                ..member.hello()
            };
            match caller.link(&member, hello).await? {
                Linked::Welcome(agent, welcome) => {
                    counter = welcome.counter;
                    agent.connection.close(0u32.into(), b"");
                    links += 1;
                }
                Linked::Refused(refused) => return anyhow::Ok((links, refused)),
                Linked::Asked(_) => anyhow::bail!("taken for a clone"),
            }
        }
    };
    let (_, churned) = beat_while(&mut bystander, soon(churn)).await?;
    let (links, refused) = churned??;
    assert_eq!(refused.code(), RefusalCode::RateLimited);
    assert!(refused.retry_after_ms > 0);
    assert!(
        links >= 20,
        "an honest agent comes back that often: {links}"
    );

    // What is written to the store is counted over links, too.
    let writer = world.member("writer").await?;
    let mut counter = writer.grant.counter;
    let mut dismissed = false;
    for _ in 0..10 {
        let hello = Hello {
            counter,
            ..writer.hello()
        };
        let Linked::Welcome(mut agent, welcome) = caller.link(&writer, hello).await? else {
            break;
        };
        counter = welcome.counter;
        // Fewer than one link may say.
        for _ in 0..40 {
            let stored = CounterStored { counter };
            if agent
                .say(agent_frame::Body::CounterStored(stored))
                .await
                .is_err()
            {
                break;
            }
        }
        if soon(agent.beat()).await?.is_err() {
            dismissed = true;
            break;
        }
    }
    assert!(dismissed, "ten links wrote 400 times");
    assert_eq!(world.dismissed("flooding"), 1);
    bystander.beat().await
}
