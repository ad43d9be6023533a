//! Streams that the gateway opens beside the control stream.
//!
//! This version diagnoses its host ([`crate::diagnose`]) and runs nothing for the gateway
//! yet. It reads what a stream is for and says so, in the words in which a host declines a
//! run that it cannot carry out: whoever asked learns at once and for certain that nothing
//! was started here.

use std::time::Duration;

use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{Opening, RunRefusal, RunRefused, RunReport, opening, run_report};
use quinn::{RecvStream, SendStream, VarInt};

/// For the first frame, and for the gateway to take the answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Told to a stream of a kind that this version does not know.
const UNKNOWN_KIND: VarInt = VarInt::from_u32(1);

/// Answers one stream.
pub async fn decline(mut send: SendStream, receive: RecvStream) {
    let deadlines = Deadlines {
        idle: WITHIN,
        frame: WITHIN,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    match reader.next().await {
        Ok(Some(Opening {
            kind: Some(opening::Kind::Run(_)),
        })) => {}
        Ok(Some(Opening {
            kind: Some(opening::Kind::Diagnose(request)),
        })) => return crate::diagnose::answer(request, send).await,
        _ => {
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
