//! Unique names: a record holds each name while somebody has it, so that two
//! requests at once cannot both take it.

use api::ProblemCode;
use gateway_store::{Batch, Condition, Key, KeyError, Record};
use model::names::Name;

use super::records::NameRecordV1;
use crate::error::{Error, Result};

/// Within what a name must be unique.
#[derive(Clone, Copy, Debug)]
pub enum Namespace<'a> {
    /// All projects.
    Project,
    /// The workspaces of a project.
    Workspace(&'a str),
    /// All users.
    User,
    /// All roles.
    Role,
}

fn key(namespace: Namespace<'_>, name: &Name) -> Result<Key, KeyError> {
    let (kind, parent) = match namespace {
        Namespace::Project => ("project", "-"),
        Namespace::Workspace(project) => ("workspace", project),
        Namespace::User => ("user", "-"),
        Namespace::Role => ("role", "-"),
    };
    NameRecordV1::key(&[kind, parent, name.as_str()])
}

/// Takes `name` for `holder` when the batch commits.
pub fn take(
    batch: &mut Batch,
    namespace: Namespace<'_>,
    name: &Name,
    holder: impl std::fmt::Display,
) -> Result<()> {
    let key = key(namespace, name)?;
    batch.require(&key, Condition::Absent);
    batch.put_record(
        &key,
        &NameRecordV1 {
            holder: holder.to_string(),
        },
    )?;
    Ok(())
}

/// Gives `name` back when the batch commits.
pub fn free(batch: &mut Batch, namespace: Namespace<'_>, name: &Name) -> Result<()> {
    batch.delete(&key(namespace, name)?);
    Ok(())
}

/// Moves `holder` from `name` to the wanted one, if that is another.
pub fn change(
    batch: &mut Batch,
    namespace: Namespace<'_>,
    name: &mut Name,
    wanted: Option<&Name>,
    holder: impl std::fmt::Display,
) -> Result<()> {
    let Some(wanted) = wanted.filter(|wanted| *wanted != name) else {
        return Ok(());
    };
    free(batch, namespace, name)?;
    take(batch, namespace, wanted, holder)?;
    name.clone_from(wanted);
    Ok(())
}

/// A conflict on a name is its own situation.
pub fn taken(namespace: Namespace<'_>, name: &Name, conflict: &Key) -> Option<Error> {
    let same = key(namespace, name).is_ok_and(|key| key == *conflict);
    same.then(|| Error {
        field: Some("name"),
        ..Error::new(
            ProblemCode::NameTaken,
            format!("the name `{name}` is taken; choose another"),
        )
    })
}
