//! Another manifest for a component, as its next version would have it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const SECTION: &str = "loopback-manifest";
/// Magic number, version and layer.
const HEAD: usize = 8;

/// The component with a changed manifest.
pub(super) fn with_manifest(component: &[u8], change: impl FnOnce(&mut Value)) -> Result<Vec<u8>> {
    let mut out = component.get(..HEAD).context("a component")?.to_vec();
    let mut rest = &component[HEAD..];
    let mut manifest: Option<Value> = None;
    while let Some((&id, after)) = rest.split_first() {
        let (length, used) = number(after)?;
        let end = 1 + used + length;
        let section = rest.get(..end).context("the component ends early")?;
        match content(id, &section[1 + used..])? {
            Some(text) => manifest = Some(serde_json::from_slice(text)?),
            None => out.extend_from_slice(section),
        }
        rest = &rest[end..];
    }
    let mut manifest = manifest.context("the component has no manifest")?;
    change(&mut manifest);
    put_manifest(&mut out, &manifest);
    Ok(out)
}

/// A component that has no manifest, with one.
pub(in crate::scenarios) fn given_manifest(component: &[u8], manifest: &Value) -> Vec<u8> {
    let mut out = component.to_vec();
    put_manifest(&mut out, manifest);
    out
}

fn put_manifest(out: &mut Vec<u8>, manifest: &Value) {
    let text = manifest.to_string();
    let mut payload = Vec::new();
    put_number(&mut payload, SECTION.len());
    payload.extend_from_slice(SECTION.as_bytes());
    payload.extend_from_slice(text.as_bytes());
    out.push(0);
    put_number(out, payload.len());
    out.extend(payload);
}

/// What is in a section, if it is the manifest's.
fn content(id: u8, payload: &[u8]) -> Result<Option<&[u8]>> {
    if id != 0 {
        return Ok(None);
    }
    let (length, used) = number(payload)?;
    let name = payload
        .get(used..used + length)
        .context("a section's name")?;
    Ok((name == SECTION.as_bytes()).then(|| &payload[used + length..]))
}

/// An unsigned number in LEB128, and how many bytes it takes.
fn number(bytes: &[u8]) -> Result<(usize, usize)> {
    let mut value = 0_usize;
    for (place, byte) in bytes.iter().enumerate() {
        ensure!(place < 5, "a number is too long");
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((value, place + 1));
        }
    }
    anyhow::bail!("the component ends in a number")
}

fn put_number(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}
