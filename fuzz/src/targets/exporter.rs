//! What an agent reads from programs on its host: an exporter's answer, and systemd's.
//!
//! Input: one byte for the size of the pieces, then the answer of an exporter, which is
//! also read as a message of systemd.

use agent_core::exporter::http::{Answer, Bad, Format};
use agent_core::metrics::units::{HEAD, answer, rest};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "exporter",
    about: "answers of exporters and of systemd: pieces make no difference, sizes hold",
    run,
    seeds,
    longest: 4096,
};

const ACCEPTED: u64 = 1024;

fn run(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(piece).max(1)), whole);
    if let Ok((body, _)) = whole {
        assert!(body.len() as u64 <= ACCEPTED);
    }
    if let Some((head, bytes)) = bytes.split_first_chunk::<HEAD>()
        && let Ok(size) = rest(head)
    {
        let _ = answer(head, &bytes[..size.min(bytes.len())]);
    }
}

fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Format), Bad> {
    let (mut reader, mut body) = (Answer::new(ACCEPTED), Vec::new());
    for piece in bytes.chunks(piece) {
        reader.feed(piece, &mut body)?;
    }
    Ok((body, reader.end()?))
}

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "\x07HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nup 1\n",
        "\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nup\r\n3\r\n 1\n\r\n0\r\nA: b\r\n\r\n",
        "\x03HTTP/1.0 200\r\n\r\nup 1\n",
        "\x02HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        "\x05HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        "\x01HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
    ];
    let mut seeds = super::texts(&texts);
    // One unit, with an empty list of fields.
    let mut body = vec![0x2c, 0, 0, 0, 0, 0, 0, 0];
    for text in ["a.service", "", "", "", "", "", "/x"] {
        body.resize(body.len().next_multiple_of(4), 0);
        body.push(u8::try_from(text.len()).unwrap());
        body.extend([0, 0, 0]);
        body.extend(text.as_bytes());
        body.push(0);
    }
    let size = u8::try_from(body.len()).unwrap();
    let head = [b'l', 2, 1, 1, size, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    seeds.push([&[9], &head[..], &body].concat());
    seeds.push([&[9], &[b'l', 2, 1, 1][..], &[0xff; 40]].concat());
    seeds
}
