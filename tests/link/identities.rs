//! Tokens and certificates: who somebody is, and who they say they are.

use std::time::Duration;

use link::identity::{CertIdentity, Role};
use link::testing::{Authority, Leaf, self_signed};
use link::tls::{Alpn, Credentials, Verifier};
use link::transport::{IDLE_TIMEOUT, server_config};
use link::verify::system_clock;
use model::Timestamp;
use protocol::v1::{
    CounterStored, EnrolReply, Facts, Goodbye, GoodbyeReason, Hello, RefusalCode, agent_frame,
    enrol_reply,
};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tests::agent::{Key, Linked, Member, quic};
use tests::{soon, until};
use tokio::task::JoinSet;

use crate::World;

fn refusal(reply: EnrolReply) -> Option<RefusalCode> {
    match reply.answer {
        Some(enrol_reply::Answer::Refused(refused)) => Some(refused.code()),
        _ => None,
    }
}

fn identity_of(world: &World, member: &Member) -> anyhow::Result<CertIdentity> {
    Ok(CertIdentity::Agent {
        deployment: world.gateway.app.deployment,
        workspace: world.workspace.id,
        host: member.host()?,
        generation: member.grant.generation,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_05_a_token_for_one_host_used_many_times_at_once_lets_one_in() -> anyhow::Result<()> {
    let world = std::sync::Arc::new(World::new().await?);
    let token = world.token(Some(1)).await?;
    let mut tries = JoinSet::new();
    for number in 0..8 {
        let (world, token) = (std::sync::Arc::clone(&world), token.clone());
        tries.spawn(async move {
            let key = Key::new()?;
            let request = key.request(&token, &format!("host-{number}"))?;
            let reply = soon(world.caller.enrol(&request)).await??;
            anyhow::Ok((request, reply))
        });
    }
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    while let Some(tried) = tries.join_next().await {
        let (request, reply) = tried??;
        match refusal(reply.clone()) {
            None => winners.push((request, reply)),
            Some(code) => losers.push(code),
        }
    }
    assert_eq!(losers, [RefusalCode::TokenExhausted; 7]);
    let [
        (
            request,
            EnrolReply {
                answer: Some(enrol_reply::Answer::Granted(grant)),
            },
        ),
    ] = &winners[..]
    else {
        panic!("{} were let in", winners.len());
    };
    // Later, too: another machine is refused, and the same one gets what it got.
    let later = Key::new()?.request(&token, "later")?;
    let reply = world.caller.enrol(&later).await?;
    assert_eq!(refusal(reply), Some(RefusalCode::TokenExhausted));
    let Some(enrol_reply::Answer::Granted(again)) = world.caller.enrol(request).await?.answer
    else {
        panic!("the winner's answer may have been lost");
    };
    assert_eq!(again.host, grant.host);
    assert_eq!(world.gateway.app.catalog.read().hosts.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_06_10_certificates_of_every_wrong_kind_are_refused_counted_and_forgotten()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("victim").await?;
    let now = system_clock()();
    let leaf = Leaf::of(identity_of(&world, &member)?, now);
    let stranger = Authority::new("stranger");
    let single = |it: Credentials| (vec![it.certificate], it.key);

    // Signed by a host with its own certificate, as if it were an authority.
    let nested = {
        let own = KeyPair::try_from(&member.key.private()?)?;
        let issuer = Issuer::from_ca_cert_der(&member.certificate(), own)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(leaf.uris[0].as_str().try_into()?)];
        params.extended_key_usages = leaf.usages.clone();
        let signed = params.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        (signed.der().clone(), key)
    };
    let authority = world.gateway.app.ca.trust_bundle().authorities()[0].clone();
    let chain_of = |first: CertificateDer<'static>, rest: usize| {
        let mut chain = vec![first];
        chain.resize(1 + rest, authority.clone());
        chain
    };
    let (gateways_own, _) = world.gateway.app.ca.issue_gateway(now)?;
    let bad = [
        ("self-signed", single(self_signed(&leaf)), "unknown_issuer"),
        (
            "of a stranger",
            single(stranger.issue(&leaf)),
            "unknown_issuer",
        ),
        (
            "nested",
            (vec![nested.0.clone()], nested.1.clone_key()),
            "unknown_issuer",
        ),
        (
            "nested, with its issuer",
            (vec![nested.0, member.certificate()], nested.1),
            "unknown_issuer",
        ),
        (
            "a good one in a chain of twenty",
            (chain_of(member.certificate(), 19), member.key.private()?),
            "unknown_issuer",
        ),
        ("a gateway's", single(gateways_own), "wrong_usage"),
    ];
    for (what, (chain, key), reason) in bad {
        let before = world.refused(reason);
        let config = quic(world.caller.tls(Alpn::Agent, Some((chain, key)))?)?;
        // TLS 1.3 clients are done before they are judged.
        if let Ok(connection) = soon(world.caller.connect(config)?).await? {
            let end = soon(connection.closed()).await?;
            assert!(
                matches!(end, quinn::ConnectionError::ConnectionClosed(_)),
                "{what}: {end}"
            );
        }
        until(what, || world.refused(reason) == before + 1).await?;
    }
    // None at all is TLS' business for those who enrol only.
    let config = quic(world.caller.tls(Alpn::Agent, None)?)?;
    if let Ok(connection) = soon(world.caller.connect(config)?).await? {
        soon(connection.closed()).await?;
    }
    until("counted", || world.refused("no_certificate") == 1).await?;
    let credentials = Some((vec![member.certificate()], member.key.private()?));
    let config = quic(world.caller.tls(Alpn::Enrol, credentials)?)?;
    if let Ok(connection) = soon(world.caller.connect(config)?).await? {
        soon(connection.closed()).await?;
    }
    until("counted", || world.refused("certificate_in_enrolment") == 1).await?;

    until("no task stays", || world.tasks() == 0).await?;
    assert_eq!(world.gateway.app.handshakes.pending(), 0);
    world.caller.welcome(&member).await?.0.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_06_44_a_certificate_out_of_its_time_is_good_for_renewal_only() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let day = Duration::from_secs(86_400);
    let now = system_clock()();
    for (hostname, at) in [
        ("late", now.saturating_sub(10 * day)),
        ("early", now.saturating_add(3650 * day)),
    ] {
        let mut member = world.member(hostname).await?;
        member.grant.certificate = signed_at(&world, &member, at)?;
        let (mut agent, welcome) = world.caller.welcome(&member).await?;
        assert!(welcome.want_renewal && !welcome.want_facts, "{hostname}");
        // Whatever else it says has no effect.
        let facts = Facts {
            hostname: "changed".to_owned(),
            ..Facts::default()
        };
        agent.say(agent_frame::Body::Facts(Box::new(facts))).await?;
        agent.beat().await?;
        let kept = world.gateway.app.catalog.read().facts[&member.host()?]
            .hostname()
            .to_owned();
        assert_eq!(kept, hostname);
        let renewed = agent.renew(member.key.csr()?).await?;
        let renewed = renewed.map_err(|refused| anyhow::anyhow!(refused.message))?;
        member.grant.certificate = renewed.certificate;
        let hello = Hello {
            counter: welcome.counter,
            ..member.hello()
        };
        let Linked::Welcome(_, welcome) = world.caller.link(&member, hello).await? else {
            panic!("{hostname}: not welcome with its new certificate");
        };
        assert!(!welcome.want_renewal && welcome.want_facts, "{hostname}");
    }
    // And it retires nobody: an old key may be somebody else's by now.
    let mut member = world.member("kept").await?;
    member.grant.certificate = signed_at(&world, &member, now.saturating_sub(10 * day))?;
    let (mut agent, _) = world.caller.welcome(&member).await?;
    let reason = GoodbyeReason::Uninstalled.into();
    agent
        .say(agent_frame::Body::Goodbye(Goodbye { reason }))
        .await?;
    agent.closed().await?;
    let shown = world.host(&member.grant.host).await?;
    assert_eq!(shown["membership"], "managed", "{shown}");
    Ok(())
}

fn signed_at(world: &World, member: &Member, at: Timestamp) -> anyhow::Result<Vec<u8>> {
    let identity = identity_of(world, member)?;
    let lifetime = Duration::from_secs(5 * 86_400);
    let issued = world
        .gateway
        .app
        .ca
        .issue_agent(&member.key.csr()?, identity, at, lifetime)?;
    Ok(issued.certificate.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_07_who_somebody_is_says_the_certificate_and_nothing_they_send() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let (victim, liar) = (world.member("victim").await?, world.member("liar").await?);
    let (mut agent, _) = world.caller.welcome(&liar).await?;
    // Its facts are the victim's, and its request asks for the victim's name.
    let facts = Facts {
        hostname: "victim".to_owned(),
        machine_id: victim.grant.host.clone(),
        ..Facts::default()
    };
    agent.say(agent_frame::Body::Facts(Box::new(facts))).await?;
    let mut params = CertificateParams::default();
    let claimed = identity_of(&world, &victim)?.to_string();
    params.subject_alt_names = vec![SanType::URI(claimed.as_str().try_into()?)];
    let granted = agent.renew(liar.key.csr_with(params)?).await?;
    let granted = granted.map_err(|refused| anyhow::anyhow!(refused.message))?;
    assert_eq!(granted.host, liar.grant.host);
    let app = &world.gateway.app;
    let verifier = Verifier::of_agents(app.ca.trust_store(), app.deployment, system_clock());
    let judged = verifier.judge(&[CertificateDer::from(granted.certificate)])?;
    assert_eq!(judged.identity, identity_of(&world, &liar)?);
    assert!(!app.links.is_linked(victim.host()?));
    assert_eq!(
        app.catalog.read().facts[&victim.host()?].hostname(),
        "victim"
    );
    let kept = app.catalog.read().facts[&victim.host()?].record().cloned();
    assert_eq!(
        kept.map(|it| it.facts.machine_id.clone()),
        Some(String::new())
    );
    world.caller.welcome(&victim).await?.0.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_08_a_retired_hosts_certificate_is_refused_and_a_namesake_inherits_nothing()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web-1").await?;
    let (mut agent, welcome) = world.caller.welcome(&member).await?;
    let path = format!(
        "/v1/workspaces/{}/hosts/{}",
        world.workspace.id, member.grant.host
    );
    let owner = &world.gateway.owner;
    let labels = serde_json::json!({ "labels": { "secrets": "all" } });
    let _: serde_json::Value = world
        .gateway
        .expect(owner, "PATCH", &path, Some(labels), 200)
        .await?;
    let retire = format!("{path}/retire");
    let _: serde_json::Value = world
        .gateway
        .expect(owner, "POST", &retire, Some(serde_json::json!({})), 200)
        .await?;
    assert_eq!(agent.dismissed().await?.code(), RefusalCode::HostRetired);
    let hello = Hello {
        counter: welcome.counter,
        ..member.hello()
    };
    for _ in 0..2 {
        match world.caller.link(&member, hello.clone()).await? {
            Linked::Refused(refused) => assert_eq!(refused.code(), RefusalCode::HostRetired),
            _ => panic!("a retired host is back"),
        }
    }
    let namesake = world.member("web-1").await?;
    assert_ne!(namesake.grant.host, member.grant.host);
    let shown = world.host(&namesake.grant.host).await?;
    assert_eq!(shown["labels"], serde_json::json!({}), "{shown}");
    world.caller.welcome(&namesake).await?.0.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_08_a_key_that_was_replaced_ends_with_the_first_use_of_the_next() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let old = world.member("host").await?;
    let (mut agent, welcome) = world.caller.welcome(&old).await?;
    let key = Key::new()?;
    let grant = agent.renew(key.csr()?).await?;
    let grant = grant.map_err(|refused| anyhow::anyhow!(refused.message))?;
    assert_eq!(grant.generation, old.grant.generation + 1);
    let new = Member { key, grant };
    let hello = Hello {
        counter: welcome.counter,
        ..old.hello()
    };
    let Linked::Welcome(mut agent, welcome) = world.caller.link(&new, hello).await? else {
        panic!("not welcome with its new key");
    };
    let hello = Hello {
        counter: welcome.counter,
        ..old.hello()
    };
    match world.caller.link(&old, hello).await? {
        Linked::Refused(refused) => assert_eq!(refused.code(), RefusalCode::Superseded),
        _ => panic!("the old key is still good"),
    }
    agent.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_09_a_copy_of_a_linked_host_is_told_apart_and_neither_flaps() -> anyhow::Result<()> {
    let world = World::new().await?;
    let original = world.member("original").await?;
    let (mut agent, welcome) = world.caller.welcome(&original).await?;
    agent.beat().await?;
    let copied = Hello {
        counter: welcome.counter,
        instance: b"a copy".to_vec(),
        ..original.hello()
    };
    let copy = async {
        match world.caller.link(&original, copied.clone()).await? {
            Linked::Asked(mut asked) => {
                // The key it was copied with is the original's.
                assert!(asked.renew(original.key.csr()?).await.is_err());
            }
            _ => panic!("the copy is not told apart"),
        }
        match world.caller.link(&original, copied.clone()).await? {
            Linked::Asked(mut asked) => asked.renew(Key::new()?.csr()?).await,
            _ => panic!("the copy is not told apart"),
        }
    };
    let (_, granted) = tests::agent::beat_while(&mut agent, copy).await?;
    let granted = granted?.map_err(|refused| anyhow::anyhow!(refused.message))?;
    assert_ne!(granted.host, original.grant.host);
    let shown = world.host(&granted.host).await?;
    assert_eq!(shown["membership"], "quarantined", "{shown}");
    assert_eq!(shown["clone_of"], original.grant.host.as_str(), "{shown}");
    let path = format!(
        "/v1/workspaces/{}/hosts/{}/history",
        world.workspace.id, original.grant.host
    );
    let owner = &world.gateway.owner;
    let history: serde_json::Value = world.gateway.expect(owner, "GET", &path, None, 200).await?;
    assert!(history.to_string().contains("clone_suspected"), "{history}");

    // However often it comes again, it is soon not even listened to.
    let flapping = async {
        loop {
            if let Linked::Refused(refused) = world.caller.link(&original, copied.clone()).await? {
                return anyhow::Ok(refused.code());
            }
        }
    };
    let (_, refused) = tests::agent::beat_while(&mut agent, soon(flapping)).await?;
    assert_eq!(refused??, RefusalCode::RateLimited);
    agent.beat().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_10_an_agent_is_no_gateway() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("pretender").await?;
    let app = &world.gateway.app;
    let verifier = Verifier::of_agents(app.ca.trust_store(), app.deployment, system_clock());
    let config = server_config(verifier, member.credentials()?, IDLE_TIMEOUT)?;
    let pretender = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into())?;
    let mut accepting = JoinSet::new();
    accepting.spawn({
        let pretender = pretender.clone();
        async move {
            while let Some(incoming) = pretender.accept().await {
                let _refused = incoming.await;
            }
        }
    });
    let mut caller = tests::agent::Caller::of(&world.gateway)?;
    caller.gateway = pretender.local_addr()?;
    for credentials in [None, Some(member.credentials()?)] {
        let refused = soon(caller.dial(credentials)).await?;
        assert!(refused.is_err(), "an agent was taken for a gateway");
    }
    let role = identity_of(&world, &member)?.role();
    assert_eq!(role, Role::Agent);
    accepting.abort_all();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_12_what_was_recorded_in_another_session_moves_nothing() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (recorded, replaying) = (world.member("one").await?, world.member("two").await?);
    let (mut first, welcome) = world.caller.welcome(&recorded).await?;
    let csr = recorded.key.csr()?;
    let granted = first.renew(csr.clone()).await?;
    assert!(granted.is_ok());
    // Another host's request for a certificate: its key stays that host's.
    let (mut second, _) = world.caller.welcome(&replaying).await?;
    match second.renew(csr).await? {
        Err(refused) => assert_eq!(refused.code(), RefusalCode::Invalid),
        Ok(_) => panic!("one host's key became another's"),
    }
    second.beat().await?;
    // A confirmation from an earlier link confirms nothing of this one.
    let stale = CounterStored {
        counter: welcome.counter,
    };
    let hello = Hello {
        counter: welcome.counter,
        ..recorded.hello()
    };
    let Linked::Welcome(mut agent, welcome) = world.caller.link(&recorded, hello).await? else {
        panic!("not welcome");
    };
    agent.beat().await?;
    agent.say(agent_frame::Body::CounterStored(stale)).await?;
    agent.beat().await?;
    let seen = world.gateway.app.catalog.read().seen[&recorded.host()?].clone();
    assert_eq!(
        (seen.issued, seen.confirmed),
        (welcome.counter, welcome.counter)
    );
    Ok(())
}
