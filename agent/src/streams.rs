//! Streams that the gateway opens beside the control stream.
//!
//! Files are answered ([`crate::files`]). Commands are not run by this version yet: it says
//! so in the words in which a host declines a run that it cannot carry out, and whoever
//! asked learns at once and for certain that nothing was started here.

use std::sync::Arc;
use std::time::Duration;

use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{Opening, RunRefusal, RunRefused, RunReport, opening, run_report};
use quinn::{RecvStream, SendStream, VarInt};

use crate::files;

/// For the first frame, and for the gateway to take the answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Told to a stream of a kind that this version does not know.
const UNKNOWN_KIND: VarInt = VarInt::from_u32(1);

/// Answers one stream.
pub async fn answer(
    mut send: SendStream,
    receive: RecvStream,
    files: Option<Arc<files::Settings>>,
) {
    let deadlines = Deadlines {
        idle: WITHIN,
        frame: WITHIN,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let opening = reader.next().await;
    match (opening, files) {
        (
            Ok(Some(Opening {
                kind: Some(opening::Kind::Run(_)),
            })),
            _,
        ) => decline(send).await,
        (
            Ok(Some(Opening {
                kind: Some(opening::Kind::File(request)),
            })),
            Some(files),
        ) => {
            if let Err(error) = files::serve(request, reader.into_inner(), send, files).await {
                tracing::debug!(error = %model::error_chain(&error), "a file's stream was cut");
            }
        }
        _ => {
            let _ = send.reset(UNKNOWN_KIND);
        }
    }
}

async fn decline(mut send: SendStream) {
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
