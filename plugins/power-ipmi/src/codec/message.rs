//! Commands and their answers (section 13.8).

/// The controller itself.
const CONTROLLER: u8 = 0x20;
/// A remote console.
const CONSOLE: u8 = 0x81;

/// What is asked: a network function and a command in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) function: u8,
    pub(crate) command: u8,
    /// For people.
    pub(crate) name: &'static str,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0: done.
    pub(crate) completion: u8,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn request(command: Command, sequence: u8, data: &[u8]) -> Vec<u8> {
    let head = [CONTROLLER, command.function << 2];
    let mut body = vec![CONSOLE, sequence << 2, command.command];
    body.extend_from_slice(data);
    let sums = [checksum(&head), checksum(&body)];
    [&head[..], &sums[..1], &body, &sums[1..]].concat()
}

/// The answer to a command that was asked with this number, if that is what it is.
pub(crate) fn answer(command: Command, sequence: u8, message: &[u8]) -> Option<Answer> {
    let (head, body) = message.split_at_checked(3)?;
    if checksum(head) != 0 || checksum(body) != 0 {
        return None;
    }
    let [CONSOLE, function] = head[..2] else {
        return None;
    };
    let (&[from, number, asked, completion], rest) = body.split_first_chunk()?;
    let fits = function == (command.function | 1) << 2
        && from == CONTROLLER
        && number >> 2 == sequence
        && asked == command.command;
    let (_, data) = rest.split_last()?;
    fits.then(|| Answer {
        completion,
        data: data.to_vec(),
    })
}

/// What makes the sum nought.
pub(crate) fn checksum(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}
