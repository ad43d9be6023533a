//! Server-sent events, read line by line as the HTML standard says, within
//! bounds: an event larger than [`MAX_EVENT`] ends the stream with an error
//! rather than filling the memory.

use std::io::{self, BufRead, Read as _};

/// Largest event, in bytes. A host with all its facts is a few kilobytes.
pub const MAX_EVENT: usize = 4 << 20;

/// One event as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEvent {
    /// Its type; `message` is never written out, so empty.
    pub event: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// Reads events from a stream and remembers where to resume.
#[derive(Debug)]
pub struct EventReader<R> {
    input: R,
    last_id: Option<String>,
    retry_ms: Option<u64>,
    first_line: bool,
}

impl<R: BufRead> EventReader<R> {
    /// Reads from `input`; `last_id` is where an earlier stream had come to.
    pub fn new(input: R, last_id: Option<String>) -> Self {
        Self {
            input,
            last_id,
            retry_ms: None,
            first_line: true,
        }
    }

    /// The id to send as `Last-Event-ID`.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the gateway asks to wait before connecting again.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// The next event, or `None` where the stream ends. An event that was cut
    /// off by the end is dropped, and its id does not count: it comes again
    /// after resuming.
    pub fn next_event(&mut self) -> io::Result<Option<RawEvent>> {
        let mut event = RawEvent::default();
        let mut has_data = false;
        let mut id = None;
        let mut size = 0;
        loop {
            let Some(line) = self.line(MAX_EVENT.saturating_sub(size))? else {
                return Ok(None);
            };
            size += line.len();
            if line.is_empty() {
                if let Some(id) = id.take() {
                    self.last_id = Some(id);
                }
                if has_data {
                    return Ok(Some(event));
                }
                event = RawEvent::default();
                size = 0;
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.event = value.to_owned(),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                "id" if !value.contains('\0') => id = Some(value.to_owned()),
                "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
                // A comment has an empty field name; unknown fields are ignored.
                _ => {}
            }
        }
    }

    /// One line without its end, or `None` at the end of the stream. Lines end
    /// with LF or CRLF; a lone CR, which the standard also allows, no gateway
    /// writes.
    fn line(&mut self, limit: usize) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        (&mut self.input).take(cap).read_until(b'\n', &mut bytes)?;
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            return if bytes.len() > limit {
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an event is larger than 4 MiB",
                ))
            } else {
                Ok(None)
            };
        }
        bytes.pop_if(|last| *last == b'\r');
        let mut text = String::from_utf8(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an event is not UTF-8"))?;
        if std::mem::take(&mut self.first_line)
            && let Some(rest) = text.strip_prefix('\u{feff}')
        {
            text = rest.to_owned();
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Vec<RawEvent>, Option<String>) {
        let mut reader = EventReader::new(text.as_bytes(), None);
        let mut events = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            events.push(event);
        }
        (events, reader.last_id().map(str::to_owned))
    }

    fn event(event: &str, data: &str) -> RawEvent {
        RawEvent {
            event: event.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn fields_comments_and_line_ends_are_read_as_the_standard_says() {
        let (events, last) =
            read("\u{feff}: hi\nretry: 500\n\nid: 7\r\nevent: a\r\ndata: x\r\ndata:y\n\ndata\n\n");
        assert_eq!(events, [event("a", "x\ny"), event("", "")]);
        assert_eq!(last.as_deref(), Some("7"));
    }

    #[test]
    fn an_event_cut_off_by_the_end_does_not_count() {
        let (events, last) = read("id: 1\ndata: a\n\nid: 2\ndata: b\n");
        assert_eq!(events, [event("", "a")]);
        assert_eq!(last.as_deref(), Some("1"), "resuming brings event 2 again");
    }

    #[test]
    fn an_id_without_data_still_moves_the_place() {
        let (events, last) = read("id: 9\n\n");
        assert_eq!((events.len(), last.as_deref()), (0, Some("9")));
    }

    #[test]
    fn an_endless_event_is_refused() {
        let endless = io::Read::chain(&b"data: "[..], io::repeat(b'x'));
        let error = EventReader::new(io::BufReader::new(endless), None)
            .next_event()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = EventReader::new(bytes.as_slice(), None);
            while let Ok(Some(_)) = reader.next_event() {}
        }

        #[test]
        fn data_comes_out_as_it_was_written(lines in prop::collection::vec("[^\r\n]{0,20}", 1..5)) {
            let text: String = lines.iter().map(|line| format!("data: {line}\n")).collect::<String>() + "\n";
            let (events, _) = read(&text);
            prop_assert_eq!(events, [event("", &lines.join("\n"))]);
        }
    }
}
