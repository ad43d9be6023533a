use std::io::Write as _;
use std::sync::Arc;

use bytes::BytesMut;
use gateway_store::Objects;
use model::Timestamp;
use model::command::OutputStream;
use model::ids::{CommandId, HostId};

use super::frame::{Frame, take};
use super::{Folder, News, OutputLog, Reader};

const PIECE: usize = 1000;

struct World {
    state: tempfile::TempDir,
    objects: Objects,
    command: CommandId,
    host: HostId,
}

impl World {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let objects = Objects::local(state.path().join("objects")).await.unwrap();
        let at = Timestamp::from_millis(1_700_000_000_000);
        Self {
            state,
            objects,
            command: CommandId::new(at, [1; 10]),
            host: HostId::new(at, [2; 10]),
        }
    }

    fn log(&self) -> Arc<OutputLog> {
        OutputLog::new(&Folder::at(self.state.path()), self.command, self.host)
    }

    /// Bytes behind the last frame, as a write leaves them that a full disk or a loss of
    /// power cut short.
    fn tear(&self) {
        let folder = self.state.path().join("command-output");
        let folder = folder
            .join(self.command.to_string())
            .join(self.host.to_string());
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let last = files.pop().unwrap();
        let mut file = std::fs::File::options().append(true).open(last).unwrap();
        file.write_all(&[1, 0, 0, 0]).unwrap();
    }

    async fn read(&self, log: Arc<OutputLog>) -> Vec<u64> {
        let mut reader = Reader::new(log);
        let mut sequences = Vec::new();
        while let News::Frames(frames) = reader.read(&self.objects).await.unwrap() {
            for frame in frames {
                if let Frame::Piece { sequence, data, .. } = frame {
                    assert_eq!(data.len(), PIECE);
                    sequences.push(sequence);
                }
            }
        }
        sequences
    }
}

fn piece(sequence: u64) -> Frame {
    Frame::Piece {
        sequence,
        stream: OutputStream::Stdout,
        data: vec![b'x'; PIECE].into(),
    }
}

fn all(pieces: u64) -> Vec<u64> {
    (0..pieces).collect()
}

#[tokio::test]
async fn what_a_killed_gateway_left_is_taken_up_without_its_torn_end() {
    let world = World::new().await;
    let mut writer = world.log().writer().await.unwrap();
    for sequence in 0..50 {
        writer.add(piece(sequence)).await;
    }
    drop(writer);
    world.tear();
    let log = world.log();
    let mut writer = log.writer().await.unwrap();
    assert_eq!(log.next(), 50);
    // The host repeats what it is not sure of.
    for sequence in 45..60 {
        writer.add(piece(sequence)).await;
    }
    let output = writer.finish(&world.objects).await;
    assert_eq!(output.stdout_bytes, 60 * PIECE as u64);
    assert_eq!(output.dropped_bytes, 0);
    assert_eq!(world.read(OutputLog::stored(&output)).await, all(60));
}

#[tokio::test]
async fn what_was_written_in_part_is_not_stored() {
    let world = World::new().await;
    let mut writer = world.log().writer().await.unwrap();
    for sequence in 0..50 {
        writer.add(piece(sequence)).await;
    }
    world.tear();
    let output = writer.finish(&world.objects).await;
    let object = output.object().unwrap();
    let stored = world.objects.get(&object, 1 << 20).await.unwrap();
    let mut rest = BytesMut::from(&stored[..]);
    while take(&mut rest).unwrap().is_some() {}
    assert!(rest.is_empty());
    assert_eq!(world.read(OutputLog::stored(&output)).await, all(50));
}

#[tokio::test]
async fn a_reader_follows_a_log_from_memory_to_disk_to_where_it_stays() {
    let world = World::new().await;
    let log = world.log();
    let mut reader = Reader::new(Arc::clone(&log));
    let mut writer = log.writer().await.unwrap();
    let mut read = Vec::new();
    for sequence in 0..50 {
        writer.add(piece(sequence)).await;
        while let News::Frames(frames) = reader.read(&world.objects).await.unwrap() {
            read.extend(frames.iter().filter_map(Frame::next).map(|next| next - 1));
        }
    }
    writer.add(piece(50)).await;
    let output = writer.finish(&world.objects).await;
    assert!(output.object.is_some());
    while let News::Frames(frames) = reader.read(&world.objects).await.unwrap() {
        read.extend(frames.iter().filter_map(Frame::next).map(|next| next - 1));
    }
    assert_eq!(read, all(51));
    assert_eq!(reader.read(&world.objects).await.unwrap(), News::End);
}
