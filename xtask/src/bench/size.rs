//! How large the agent is that every host downloads and keeps.

use std::fs;

use anyhow::{Context, Result};

use super::Figure;
use crate::{release, workspace::Workspace};

/// A megabyte-class download over a slow line is felt; so is each dependency that adds one.
const LIMIT_MB: f64 = 8.0;

pub(super) fn agent(workspace: &Workspace) -> Result<Vec<Figure>> {
    let binary = release::build(workspace, release::native()?)?;
    let size = fs::metadata(&binary)
        .with_context(|| format!("look at {}", binary.display()))?
        .len();
    Ok(vec![Figure {
        name: "static binary",
        #[expect(
            clippy::cast_precision_loss,
            reason = "a file size fits a float's 53 bits"
        )]
        value: size as f64 / 1e6,
        unit: "MB",
        limit: Some(LIMIT_MB),
    }])
}
