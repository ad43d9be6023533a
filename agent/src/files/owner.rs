//! Names of users and groups as numbers.
//!
//! Read from `/etc/passwd` and `/etc/group` themselves: the agent is a static program, in
//! which the C library's name services do not work. Who is known elsewhere only, in a
//! directory service say, is named by number.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use model::file::FileOwner;
use protocol::v1::FileRefusal;
use rustix::fs::{Gid, Uid};

use super::refusal::{Refusal, to};

/// No machine's own list is longer.
const MOST: u64 = 16 << 20;

/// User and group, where they were asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
}

/// The numbers of `owner`, which may be empty.
pub(super) fn numbers(owner: &str) -> Result<Numbers, Refusal> {
    if owner.is_empty() {
        return Ok(Numbers::default());
    }
    let owner: FileOwner = owner.parse().map_err(super::invalid)?;
    let uid = owner.user().map(|it| number("user", "/etc/passwd", it));
    let gid = owner.group().map(|it| number("group", "/etc/group", it));
    Ok(Numbers {
        uid: uid.transpose()?.map(Uid::from_raw),
        gid: gid.transpose()?.map(Gid::from_raw),
    })
}

fn number(what: &str, list: &str, name: &str) -> Result<u32, Refusal> {
    // The largest is how the kernel's calls say "leave it as it is".
    if let Ok(number) = name.parse::<u32>()
        && number != u32::MAX
    {
        return Ok(number);
    }
    let verb = format!("look for the {what}");
    let file = File::open(list).map_err(to(&verb))?;
    find(
        BufReader::new(file.take(MOST))
            .lines()
            .map_while(Result::ok),
        name,
    )
    .ok_or_else(|| {
        let why = format!("there is no {what} `{name}` in {list}");
        Refusal::new(FileRefusal::NoSuchOwner, why)
    })
}

/// Both lists have the name first and the number third.
fn find(lines: impl Iterator<Item = String>, name: &str) -> Option<u32> {
    lines
        .filter_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some(name);
            let number = fields.nth(1)?.parse().ok()?;
            found.then_some(number)
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole_and_numbers_are_themselves() {
        let lines = ["# x", "root:x:0:0", "roo:x:7:7", "bad:x:y:1", "short"];
        let find = |name| find(lines.iter().map(|it| (*it).to_owned()), name);
        assert_eq!(find("root"), Some(0));
        assert_eq!(find("roo"), Some(7));
        assert_eq!(find("ro"), None);
        assert_eq!(find("bad"), None);
        assert_eq!(find("short"), None);
        let both = numbers("12:34").unwrap();
        assert_eq!(both.uid.map(Uid::as_raw), Some(12));
        assert_eq!(both.gid.map(Gid::as_raw), Some(34));
        assert!(numbers("no-such-user-here").is_err());
        assert!(numbers("4294967295").is_err());
    }
}
