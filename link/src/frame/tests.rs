use super::*;

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

const DEADLINES: Deadlines = Deadlines {
    idle: Duration::from_secs(60),
    frame: Duration::from_secs(5),
};

#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

fn note(text: &str) -> Note {
    Note {
        text: text.to_owned(),
    }
}

fn reader(limit: usize) -> (DuplexStream, FrameReader<DuplexStream>) {
    let (here, there) = duplex(64 << 10);
    (here, FrameReader::new(there, limit, DEADLINES))
}

#[tokio::test]
async fn messages_come_out_in_order_and_the_end_is_clean() {
    let (mut here, mut reader) = reader(MAX_FRAME);
    for text in ["one", "", "three"] {
        write_message(&mut here, &note(text), MAX_FRAME, DEADLINES.frame)
            .await
            .unwrap();
    }
    drop(here);
    for text in ["one", "", "three"] {
        assert_eq!(reader.next::<Note>().await.unwrap(), Some(note(text)));
    }
    assert_eq!(reader.next::<Note>().await.unwrap(), None);
}

#[tokio::test]
async fn an_announced_giant_is_refused_before_any_room_is_made() {
    for header in [[0xff; 4], [0, 0x10, 0, 1]] {
        let (mut here, mut reader) = reader(MAX_FRAME);
        here.write_all(&header).await.unwrap();
        let error = reader.next::<Note>().await.unwrap_err();
        assert!(
            matches!(error, ReadError::Codec(CodecError::TooLarge { .. })),
            "{error:?}"
        );
        assert!(
            reader.buffer.capacity() < 1024,
            "{}",
            reader.buffer.capacity()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn room_follows_the_bytes_received_not_those_announced() {
    let (mut here, mut reader) = reader(MAX_FRAME);
    here.write_all(&[0, 0x0f, 0xff, 0xff, 1, 2, 3])
        .await
        .unwrap();
    let error = reader.next::<Note>().await.unwrap_err();
    assert!(matches!(error, ReadError::Slow(_)), "{error:?}");
    assert!(
        reader.buffer.capacity() <= 4 * STEP,
        "{}",
        reader.buffer.capacity()
    );
}

#[tokio::test(start_paused = true)]
async fn a_drip_of_bytes_does_not_extend_the_deadline() {
    let (mut here, mut reader) = reader(MAX_FRAME);
    let drip = async {
        for byte in [0, 0, 0, 9].into_iter().chain([7; 9]) {
            let _ = here.write_all(&[byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (_, result) = tokio::join!(drip, reader.next::<Note>());
    assert!(matches!(result, Err(ReadError::Slow(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_idle_not_slow() {
    let (_here, mut reader) = reader(MAX_FRAME);
    assert!(matches!(
        reader.next::<Note>().await,
        Err(ReadError::Idle(_))
    ));
}

#[tokio::test]
async fn an_end_within_a_frame_is_said_so() {
    let (mut here, mut reader) = reader(MAX_FRAME);
    here.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    drop(here);
    let error = reader.next::<Note>().await.unwrap_err();
    assert!(
        matches!(error, ReadError::Truncated { got: 5, wanted: 13 }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_that_is_no_message_is_an_error() {
    let (mut here, mut reader) = reader(MAX_FRAME);
    here.write_all(&[0, 0, 0, 2, 0xff, 0xff]).await.unwrap();
    let error = reader.next::<Note>().await.unwrap_err();
    assert!(
        matches!(error, ReadError::Codec(CodecError::Malformed(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn cancelling_a_read_loses_nothing() {
    let (mut here, mut reader) = reader(MAX_FRAME);
    for byte in protocol::frame::encode(&note("kept")) {
        let pending = tokio::select! {
            biased;
            read = reader.next::<Note>() => Some(read),
            () = std::future::ready(()) => None,
        };
        assert!(pending.is_none());
        here.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(reader.next::<Note>().await.unwrap(), Some(note("kept")));
}

#[tokio::test]
async fn own_giants_are_not_sent() {
    let (mut here, _reader) = reader(MAX_FRAME);
    let error = write_message(&mut here, &note("12345"), 6, DEADLINES.frame)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            WriteError::TooLarge {
                length: 7,
                limit: 6
            }
        ),
        "{error:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_end_in_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut reader = FrameReader::new(&bytes[..], 64, DEADLINES);
            while let Ok(Some(Note { .. })) = reader.next().await {}
        });
    }
}
