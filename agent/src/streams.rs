//! Streams that the gateway opens beside the control stream.
//!
//! Scrapes are answered by [`crate::scrape`]. This version runs nothing for the gateway
//! yet. It reads what a stream is for and says
//! so, in the words in which a host declines a run that it cannot carry out: whoever asked
//! learns at once and for certain that nothing was started here.

use std::sync::Arc;
use std::time::Duration;

use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{Opening, RunRefusal, RunRefused, RunReport, opening, run_report};
use quinn::{RecvStream, SendStream, VarInt};

use crate::scrape::Scraper;

/// For the first frame, and for the gateway to take the answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Told to a stream of a kind that this version does not know.
const UNKNOWN_KIND: VarInt = VarInt::from_u32(1);

/// Answers one stream.
pub async fn decline(mut send: SendStream, receive: RecvStream, scraper: Option<Arc<Scraper>>) {
    let deadlines = Deadlines {
        idle: WITHIN,
        frame: WITHIN,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let opening: Option<Opening> = reader.next().await.unwrap_or_default();
    match (opening.and_then(|opening| opening.kind), scraper) {
        (Some(opening::Kind::Run(_)), _) => {}
        (Some(opening::Kind::Scrape(request)), Some(scraper)) => {
            return scraper.answer(&request, &mut send).await;
        }
        (Some(opening::Kind::Scrape(_)) | None, _) => {
            let _ = send.reset(UNKNOWN_KIND);
            return;
        }
    }
    let refused = RunRefused {
        code: RunRefusal::Unsupported.into(),
        message: "the agent of this version does not run commands; update it".to_owned(),
    };
    let report = RunReport {
        body: Some(run_report::Body::Refused(refused)),
    };
    if write_message(&mut send, &report, MAX_FRAME, WITHIN)
        .await
        .is_ok()
    {
        let _ = send.finish();
        let _ = tokio::time::timeout(WITHIN, send.stopped()).await;
    }
}
