//! One connection: dialled, spoken over, given up. A task of its own, told what to
//! send through a channel and reporting what happens through another.
//!
//! ```text
//! dial ──► Connected ──► frames both ways ──► Closed
//!   └────► Failed             │
//!                             └─ the channel of orders ends: say what is left, close
//! ```
//!
//! Dropping [`Orders`] is how a connection is given up: during the dial at once,
//! later after what was ordered has left. Reports wait for the engine, so a gateway
//! that floods is slowed down by flow control, not stored.

use std::sync::Arc;
use std::time::Duration;

use agent_core::{Conn, DialFailure, Purpose};
use link::dial::{Class, Link, Path, Reason};
use link::frame::{Deadlines, FrameReader, MAX_ENROL_FRAME, MAX_FRAME, ReadError, write_message};
use model::error_chain;
use protocol::v1::{
    AgentFrame, EnrolReply, EnrolRequest, GatewayFrame, agent_frame, gateway_frame,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::files;
use crate::forward::Forwarder;
use crate::plan::Plan;
use crate::scrape::Scraper;
use crate::streams::{self, Hands};

/// Orders in the queue of one connection. The engine never waits: a connection that
/// does not take this many frames is dead.
const ORDERS: usize = 64;
/// Time for the peer to take a frame.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Time for what was said last to arrive before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);
/// The engine's own timers end a silent connection; this one only bounds the
/// impossible.
const READ: Deadlines = Deadlines {
    idle: Duration::from_secs(24 * 3600),
    frame: Duration::from_secs(30),
};

/// What to send.
pub enum Order {
    /// The enrolment request.
    Enrol(Box<EnrolRequest>),
    /// A frame on the control stream.
    Frame(Box<agent_frame::Body>),
}

/// The engine's end of a connection.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// Queues an order; `false` when the connection takes no more.
    pub fn give(&self, order: Order) -> bool {
        self.0.try_send(order).is_ok()
    }
}

/// Something happened on a connection.
#[derive(Debug)]
pub struct Report {
    /// Which one.
    pub conn: Conn,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Debug)]
pub enum Happened {
    /// The dial succeeded; the control stream is open.
    Connected {
        /// For statistics.
        connection: quinn::Connection,
        /// The way it took.
        path: Path,
    },
    /// The dial failed.
    Failed {
        /// What kind of trouble.
        failure: DialFailure,
        /// In words.
        why: String,
    },
    /// The answer to the enrolment.
    Enrolled(EnrolReply),
    /// A frame.
    Frame(gateway_frame::Body),
    /// The connection has ended.
    Closed {
        /// What kind of trouble.
        failure: DialFailure,
        /// In words.
        why: String,
    },
}

/// A pair of ends: orders go into the first, the task reads the second.
pub fn orders() -> (Orders, mpsc::Receiver<Order>) {
    let (give, take) = mpsc::channel(ORDERS);
    (Orders(give), take)
}

/// The task. Ends after `Failed` or `Closed`, or when the orders end.
pub async fn run(
    conn: Conn,
    plan: Plan,
    purpose: Purpose,
    mut orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
    hands: Hands,
) {
    let report = |what| {
        let reports = reports.clone();
        async move {
            // An engine that is gone needs no reports.
            let _ = reports.send(Report { conn, what }).await;
        }
    };
    let dialled = tokio::select! {
        biased;
        // Nothing is ordered before the dial is reported: this is the end of orders.
        _ = orders.recv() => return,
        dialled = plan.dial() => dialled,
    };
    let mut link = match dialled {
        Ok(link) => link,
        Err(error) => {
            let failure = failure_of(error.class());
            return report(Happened::Failed {
                failure,
                why: error_chain(&error),
            })
            .await;
        }
    };
    let (send, receive) = match link.connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => {
            let reason = Reason::of(error);
            let failure = failure_of(reason.class());
            return report(Happened::Failed {
                failure,
                why: error_chain(&reason),
            })
            .await;
        }
    };
    let connected = Happened::Connected {
        connection: link.connection.clone(),
        path: link.path.clone(),
    };
    report(connected).await;

    let stream = Stream {
        send,
        reader: FrameReader::new(receive, MAX_FRAME, READ),
    };
    let ended = match purpose {
        Purpose::Link => {
            let answering = Answering {
                scraper: plan.scraper(),
                files: plan.files(),
                forwarder: plan.forwarder(),
            };
            talk(stream, &mut link, answering, &mut orders, report, &hands).await
        }
        Purpose::Enrol => enrol(stream, &mut link, &mut orders, report).await,
    };
    if let Some(why) = ended {
        let failure = link
            .connection
            .close_reason()
            .map_or(DialFailure::Network, |error| {
                match error {
                    // Said politely, and so for reasons that pass, such as a restart.
                    quinn::ConnectionError::ApplicationClosed(_) => DialFailure::Network,
                    error => failure_of(Reason::of(error).class()),
                }
            });
        report(Happened::Closed { failure, why }).await;
    }
    link.connection.close(VarInt::from_u32(0), b"done");
    // The close itself is worth a moment: without it the peer waits for its timeout.
    let _ = timeout(LINGER, link.endpoint.wait_idle()).await;
}

/// Who answers what the gateway asks on streams of its own.
struct Answering {
    scraper: Option<Arc<Scraper>>,
    files: Option<Arc<files::Settings>>,
    forwarder: Option<Arc<Forwarder>>,
}

struct Stream {
    send: SendStream,
    reader: FrameReader<RecvStream>,
}

/// Frames both ways. `None` when the orders have ended.
async fn talk<F: Future<Output = ()>>(
    mut stream: Stream,
    link: &mut Link,
    answering: Answering,
    orders: &mut mpsc::Receiver<Order>,
    report: impl Fn(Happened) -> F,
    hands: &Hands,
) -> Option<String> {
    // As many as the gateway may have open at a time; they end with the link.
    let mut opened = JoinSet::new();
    if let Some(files) = &answering.files {
        opened.spawn(streams::keep_files_tidy(hands.clone(), Arc::clone(files)));
    }
    let connection = link.connection.clone();
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Frame(body)) => {
                    let frame = AgentFrame { body: Some(*body) };
                    let written =
                        write_message(&mut stream.send, &frame, MAX_FRAME, WRITE_LIMIT).await;
                    if let Err(error) = written {
                        return Some(error_chain(&error));
                    }
                }
                Some(Order::Enrol(_)) => {}
                None => {
                    finish(&mut stream.send).await;
                    return None;
                }
            },
            frame = stream.reader.next::<GatewayFrame>() => match frame {
                // A body from a newer gateway, which this version does not know.
                Ok(Some(GatewayFrame { body: None })) => {}
                Ok(Some(GatewayFrame { body: Some(body) })) => {
                    report(Happened::Frame(body)).await;
                }
                Ok(None) => return Some("the gateway has ended the link".to_owned()),
                Err(error) => return Some(ended_by(link, &error)),
            },
            Ok((send, receive)) = connection.accept_bi() => {
                let (scraper, files) = (answering.scraper.clone(), answering.files.clone());
                let forwarder = answering.forwarder.clone();
                let hands = hands.clone();
                opened.spawn(streams::serve(send, receive, hands, scraper, files, forwarder));
            }
            Some(_) = opened.join_next(), if !opened.is_empty() => {}
            end = link.carrier_ended() => return Some(error_chain(&end)),
        }
    }
}

/// One question, one answer.
async fn enrol<F: Future<Output = ()>>(
    mut stream: Stream,
    link: &mut Link,
    orders: &mut mpsc::Receiver<Order>,
    report: impl Fn(Happened) -> F,
) -> Option<String> {
    let Some(Order::Enrol(request)) = orders.recv().await else {
        return None;
    };
    let written = write_message(&mut stream.send, &*request, MAX_ENROL_FRAME, WRITE_LIMIT).await;
    // Holds the token.
    drop(request);
    if let Err(error) = written {
        return Some(error_chain(&error));
    }
    let answer = tokio::select! {
        biased;
        _ = orders.recv() => return None,
        answer = stream.reader.next::<EnrolReply>() => answer,
        end = link.carrier_ended() => return Some(error_chain(&end)),
    };
    match answer {
        Ok(Some(reply)) => report(Happened::Enrolled(reply)).await,
        Ok(None) => return Some("the gateway ended the enrolment without an answer".to_owned()),
        Err(error) => return Some(ended_by(link, &error)),
    }
    // The engine drops the orders when it has stored the answer.
    let _ = orders.recv().await;
    None
}

/// Says that nothing follows, and waits a moment for it to arrive: a goodbye that is
/// overtaken by the close of its connection is lost.
async fn finish(send: &mut SendStream) {
    if send.finish().is_ok() {
        let _ = timeout(LINGER, send.stopped()).await;
    }
}

/// Why the connection ended says more than that reading failed.
fn ended_by(link: &Link, error: &ReadError) -> String {
    match link.connection.close_reason() {
        Some(reason) => error_chain(&Reason::of(reason)),
        None => error_chain(error),
    }
}

/// What a class of failure means for the ladder. A gateway that we do not trust is
/// looked for again at the network's pace: the next one may be the real one, and the
/// status says what is wrong.
fn failure_of(class: Class) -> DialFailure {
    match class {
        Class::Network | Class::NotOurGateway => DialFailure::Network,
        Class::Settings => DialFailure::Local,
        Class::Refused => DialFailure::Rejected,
    }
}
