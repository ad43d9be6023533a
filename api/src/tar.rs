//! Heads of tar archives (POSIX ustar), as bundles have them: plain files with short
//! names from a fixed list.
//!
//! A crate for tar reads and writes links, devices, long names and sparse files, all of
//! which a reader of bundles would have to refuse again. What is left is one block.

/// Archives are made of blocks of this size.
pub const BLOCK: usize = 512;
/// Longest name.
pub const MAX_NAME: usize = 100;

/// The head of a file. Nothing if the name is too long or the size is beyond 8 GiB.
pub fn head(name: &str, size: u64, modified_secs: u64) -> Option<[u8; BLOCK]> {
    if name.is_empty() || name.len() > MAX_NAME || size >= 1 << 33 {
        return None;
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(
        136,
        format!("{:011o}\0", modified_secs & ((1 << 33) - 1)).as_bytes(),
    );
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

/// Zeroes that fill the last block of a file of this size.
pub fn padding(size: u64) -> usize {
    let last = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - last) % BLOCK
}

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A block where a head is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A file follows.
    File {
        /// Its name.
        name: String,
        /// Its size.
        size: u64,
    },
    /// The archive ends.
    End,
}

/// The block is no head that [`head`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the head of a plain file in a tar archive")]
pub struct NotAHead;

/// Reads a head.
pub fn read(block: &[u8; BLOCK]) -> Result<Head, NotAHead> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(Head::End);
    }
    let octal = |from: usize, to: usize| {
        let digits = str::from_utf8(&block[from..to]).ok()?;
        u64::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok()
    };
    let good = octal(148, 156) == Some(checksum(block).into())
        && block[156] == b'0'
        && block[257..262] == *b"ustar";
    let name = block[..MAX_NAME].split(|byte| *byte == 0).next();
    let name = name.and_then(|name| str::from_utf8(name).ok());
    match (good, name, octal(124, 136)) {
        (true, Some(name), Some(size)) if !name.is_empty() => Ok(Head::File {
            name: name.to_owned(),
            size,
        }),
        _ => Err(NotAHead),
    }
}

/// The sum of all bytes, those of the sum itself taken for blanks.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let one = |(place, byte): (usize, &u8)| {
        if (148..156).contains(&place) {
            u32::from(b' ')
        } else {
            u32::from(*byte)
        }
    };
    block.iter().enumerate().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_a_changed_one_does_not() {
        let block = head("results/system.json", 4097, 1_800_000_000).unwrap();
        let expected = Head::File {
            name: "results/system.json".to_owned(),
            size: 4097,
        };
        assert_eq!(read(&block), Ok(expected));
        let mut other = block;
        other[0] ^= 1;
        assert_eq!(read(&other), Err(NotAHead));
        assert_eq!(read(&[0; BLOCK]), Ok(Head::End));
        assert_eq!(read(&[b'x'; BLOCK]), Err(NotAHead));
        assert_eq!(head(&"x".repeat(101), 1, 1), None);
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }

    #[test]
    fn other_programs_read_it() {
        let mut archive = head("a.txt", 3, 1_800_000_000).unwrap().to_vec();
        archive.extend(b"abc");
        archive.resize(archive.len() + padding(3), 0);
        archive.extend(END);
        let folder = std::env::temp_dir().join(format!("tar-{}", std::process::id()));
        std::fs::write(&folder, &archive).unwrap();
        let listed = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&folder)
            .output();
        let _ = std::fs::remove_file(&folder);
        // Where there is no tar, nothing is shown by this test.
        if let Ok(listed) = listed {
            let said = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(
                listed.status.success() && said.contains("-rw-------"),
                "{said}"
            );
            assert!(said.trim_end().ends_with("a.txt"), "{said}");
        }
    }
}
