//! The bytes of a component, section by section: to put the manifest in, and to take out what only
//! debuggers read.
//!
//! A component is an eight-byte head and sections: one byte for the sort, the length, the content.
//! Core modules inside are sections with the same shape inside. Nothing else needs to be known for
//! what is done here, so this walks the bytes itself; whether they are a valid component is for
//! `inspect` to say, afterwards, on what was written.

use anyhow::{Context, Result, bail, ensure};
use model::plugin::{MANIFEST_SECTION, Manifest};

const MAGIC: &[u8; 4] = b"\0asm";
const CUSTOM: u8 = 0;
/// A core module inside a component.
const MODULE: u8 = 1;
/// A component inside a component.
const COMPONENT: u8 = 4;

/// Far below what any stack bears; far above what tools nest.
const MAX_DEPTH: usize = 16;

/// The component with this manifest in it, and without names, debugging information and the tools'
/// signatures.
pub(crate) fn pack(component: &[u8], manifest: &Manifest) -> Result<Vec<u8>> {
    let layer = component.get(6..8).context("the file is no component")?;
    ensure!(
        layer == [1, 0],
        "the file is a core module, not a component"
    );
    let mut packed = stripped(component, true, 0)?;
    let mut content = Vec::new();
    text(&mut content, MANIFEST_SECTION);
    content.extend(serde_json::to_vec(manifest).context("write the manifest")?);
    section(&mut packed, CUSTOM, &content);
    Ok(packed)
}

fn stripped(bytes: &[u8], of_component: bool, depth: usize) -> Result<Vec<u8>> {
    ensure!(depth < MAX_DEPTH, "components are nested too deep");
    ensure!(
        bytes.len() >= 8 && bytes.starts_with(MAGIC),
        "the file is no WebAssembly"
    );
    let (head, mut rest) = bytes.split_at(8);
    let mut kept = head.to_vec();
    while let Some((&sort, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        ensure!(length <= after.len(), "a section is cut off");
        let (content, after) = after.split_at(length);
        rest = after;
        match sort {
            CUSTOM if !wanted(content)? => {}
            MODULE | COMPONENT if of_component => {
                section(
                    &mut kept,
                    sort,
                    &stripped(content, sort == COMPONENT, depth + 1)?,
                );
            }
            _ => section(&mut kept, sort, content),
        }
    }
    Ok(kept)
}

/// Whether a custom section is read by anything but debuggers and people.
fn wanted(content: &[u8]) -> Result<bool> {
    let (length, rest) = number(content)?;
    let name = rest.get(..length).context("a section's name is cut off")?;
    let useless: [&[u8]; 5] = [
        b"name",
        b"component-name",
        b"producers",
        b"sourceMappingURL",
        MANIFEST_SECTION.as_bytes(),
    ];
    Ok(!useless.contains(&name) && !name.starts_with(b".debug"))
}

fn section(into: &mut Vec<u8>, sort: u8, content: &[u8]) {
    into.push(sort);
    length(into, content.len());
    into.extend_from_slice(content);
}

fn text(into: &mut Vec<u8>, text: &str) {
    length(into, text.len());
    into.extend_from_slice(text.as_bytes());
}

/// LEB128.
fn length(into: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            into.push(low);
            return;
        }
        into.push(low | 0x80);
    }
}

/// A length of at most 32 bits, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            ensure!(u32::try_from(value).is_ok(), "a section is too long");
            return Ok((value as usize, &bytes[at + 1..]));
        }
    }
    bail!("a section's length is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> Manifest {
        let json =
            format!(r#"{{"format":1,"name":"{name}","version":"1.0.0","description":"it"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    /// A component with a core module in it; both have a custom section of each name.
    fn sample(names: &[&str]) -> Vec<u8> {
        let custom = |into: &mut Vec<u8>| {
            for name in names {
                let mut content = Vec::new();
                text(&mut content, name);
                content.extend([7; 200]);
                section(into, CUSTOM, &content);
            }
        };
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        custom(&mut module);
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        section(&mut component, MODULE, &module);
        custom(&mut component);
        component
    }

    #[test]
    fn a_component_gets_its_manifest_once_and_loses_what_debuggers_read() {
        let bare = sample(&["kept"]);
        let packed = pack(
            &sample(&["name", "producers", ".debug_line", "kept"]),
            &manifest("a"),
        );
        assert_eq!(packed.unwrap(), pack(&bare, &manifest("a")).unwrap());
        let again = pack(&pack(&bare, &manifest("a")).unwrap(), &manifest("b")).unwrap();
        assert_eq!(again, pack(&bare, &manifest("b")).unwrap());
        let text = String::from_utf8_lossy(&again).into_owned();
        assert_eq!(text.matches(MANIFEST_SECTION).count(), 1);
        assert!(again.starts_with(&bare) && text.contains(r#""name":"b""#));
    }

    #[test]
    fn what_is_no_component_is_refused_at_every_cut() {
        let whole = sample(&["kept"]);
        let cuts = (0..whole.len()).filter(|cut| pack(&whole[..*cut], &manifest("a")).is_ok());
        // Between its sections a component is a whole one too.
        let module_end = whole.len() - 208;
        assert_eq!(cuts.collect::<Vec<_>>(), [8, module_end]);
        let module = b"\0asm\x01\0\0\0";
        let error = pack(module, &manifest("a")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file is a core module, not a component"
        );
    }
}
