//! The manifest of a package.

use model::plugin::PluginDigest;
use serde::{Deserialize, Serialize};

/// Type of the whole.
pub const ARTIFACT_TYPE: &str = "application/vnd.loopback.plugin.v1+wasm";
/// Type of the layer with the component.
pub const COMPONENT_TYPE: &str = "application/wasm";
/// Type of the layer with the detached signature.
pub const SIGNATURE_TYPE: &str = "application/vnd.loopback.signature.v1";

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image has a configuration and a package has none; the specification says what to put there.
pub(super) const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
pub(super) const EMPTY: &[u8] = b"{}";

/// Why a manifest is not that of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPackage {
    /// Not JSON, not an image manifest, or with a digest other than SHA-256.
    #[error("its manifest is not an OCI image manifest with SHA-256 digests")]
    Manifest,
    /// An image of something else.
    #[error("its artifact type is not {ARTIFACT_TYPE}")]
    ArtifactType,
    /// None, or more than one.
    #[error("it does not have exactly one layer of type {COMPONENT_TYPE}")]
    Component,
    /// More than one.
    #[error("it has more than one signature")]
    Signatures,
    /// Something that nobody knows what to do with.
    #[error("it has a layer of an unknown type")]
    Layer,
}

/// A blob, named by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: PluginDigest,
    pub(super) size: u64,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: super::digest_of(bytes),
            size: bytes.len() as u64,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Manifest {
    pub(super) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            config,
            layers,
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, NotAPackage> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|_| NotAPackage::Manifest)?;
        let image = manifest
            .media_type
            .as_deref()
            .is_none_or(|media_type| media_type == MANIFEST_TYPE);
        if manifest.schema_version != 2 || !image {
            return Err(NotAPackage::Manifest);
        }
        // Tools from before `artifactType` say it by the type of the configuration.
        let artifact_type = manifest
            .artifact_type
            .as_ref()
            .unwrap_or(&manifest.config.media_type);
        if artifact_type != ARTIFACT_TYPE {
            return Err(NotAPackage::ArtifactType);
        }
        Ok(manifest)
    }

    pub(super) fn written(&self) -> Vec<u8> {
        // Strings and numbers: writing them cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The component, and its signature if there is one.
    pub(super) fn layers(&self) -> Result<(&Descriptor, Option<&Descriptor>), NotAPackage> {
        let mut component = None;
        let mut signature = None;
        for layer in &self.layers {
            match layer.media_type.as_str() {
                COMPONENT_TYPE if component.replace(layer).is_some() => {
                    return Err(NotAPackage::Component);
                }
                SIGNATURE_TYPE if signature.replace(layer).is_some() => {
                    return Err(NotAPackage::Signatures);
                }
                COMPONENT_TYPE | SIGNATURE_TYPE => {}
                _ => return Err(NotAPackage::Layer),
            }
        }
        let component = component.ok_or(NotAPackage::Component)?;
        Ok((component, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(types: &[&str]) -> Result<(), NotAPackage> {
        let layers = types.iter().map(|it| Descriptor::new(it, b"x")).collect();
        let written = Manifest::new(Descriptor::new(EMPTY_TYPE, EMPTY), layers).written();
        Manifest::read(&written)?.layers().map(drop)
    }

    #[test]
    fn a_package_is_one_component_and_at_most_one_signature() {
        use NotAPackage::{Component, Layer, Signatures};
        let (c, s) = (COMPONENT_TYPE, SIGNATURE_TYPE);
        for (types, expected) in [
            (&[c][..], Ok(())),
            (&[c, s], Ok(())),
            (&[s, c], Ok(())),
            (&[], Err(Component)),
            (&[s], Err(Component)),
            (&[c, c], Err(Component)),
            (&[c, s, s], Err(Signatures)),
            (&[c, "application/x"], Err(Layer)),
        ] {
            assert_eq!(layers(types), expected, "{types:?}");
        }
    }

    #[test]
    fn other_manifests_are_told_apart() {
        let empty = r#"{"mediaType":"M","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        let check = |text: String| Manifest::read(text.as_bytes()).map(drop);
        let config = empty.replace('M', ARTIFACT_TYPE);
        let older = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        assert_eq!(check(older), Ok(()));
        let image = format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[]}}"#);
        assert_eq!(check(image.clone()), Err(NotAPackage::ArtifactType));
        let one = image.replace(":2,", ":1,");
        assert_eq!(check(one), Err(NotAPackage::Manifest));
        let other = image.replace("sha256:", "sha512:");
        assert_eq!(check(other), Err(NotAPackage::Manifest));
        let list = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert_eq!(check(list.to_owned()), Err(NotAPackage::Manifest));
    }
}
