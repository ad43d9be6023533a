//! From what people type to ids: an id as it is, else a name that must be
//! unique among what the caller sees.

use api::Page;
use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::access::{ListRoles, Role};
use api::v1::host::{Host, HostFilter, ListHosts};
use api::v1::people::{ListUsers, User};
use api::v1::tenancy::{ListProjects, ListWorkspaces, Project, Workspace, WorkspaceFilter};
use api::v1::{InProject, InWorkspace, OfUser};
use model::host::Membership;
use model::ids::{HostId, ProjectId, RoleId, UserId, WorkspaceId};

use crate::client::{Client, ClientError};
use crate::failure::Failure;

/// The project with this id or name.
pub fn project(client: &Client, text: &str) -> Result<ProjectId, Failure> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => only(
            "project",
            text,
            projects(client)?,
            |project| project.name.as_str() == text,
            |project| project.id,
        ),
    }
}

/// The workspace with this id, `project/name`, or name.
pub fn workspace(client: &Client, text: &str) -> Result<WorkspaceId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let (within, name) = match text.split_once('/') {
        Some((within, name)) => (Some(project(client, within)?), name),
        None => (None, text),
    };
    let filter = WorkspaceFilter {
        project: within,
        ..WorkspaceFilter::default()
    };
    only(
        "workspace",
        text,
        workspaces(client, &filter)?,
        |workspace| workspace.name.as_str() == name,
        |workspace| workspace.id,
    )
}

/// The workspace named, else the only one the caller sees.
pub fn workspace_or_only(client: &Client, text: Option<&str>) -> Result<WorkspaceId, Failure> {
    if let Some(text) = text {
        return workspace(client, text);
    }
    let all = workspaces(client, &WorkspaceFilter::default())?;
    match all.as_slice() {
        [one] => Ok(one.id),
        [] => Err(Failure::Usage("there is no workspace you can see; make one with `loopback workspace create`".to_owned())),
        _ => Err(Failure::Usage(
            "which workspace? name it with -w, set LOOPBACK_WORKSPACE, or keep one with `loopback context use NAME -w WORKSPACE`".to_owned(),
        )),
    }
}

/// The host with this id or name. Hosts that have retired are looked at only
/// when no other has the name.
pub fn host(client: &Client, workspace: WorkspaceId, text: &str) -> Result<HostId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let search = |membership| {
        let filter = HostFilter {
            name: Some(text.to_owned()),
            membership,
            ..HostFilter::default()
        };
        let page: Page<Host> =
            client.list::<ListHosts, _>(&InWorkspace { workspace }, &filter, None)?;
        Ok::<_, ClientError>(
            page.items
                .into_iter()
                .filter(|host| is_called(host, text))
                .collect::<Vec<_>>(),
        )
    };
    let mut found = search(None)?;
    if found.is_empty() {
        found = search(Some(Membership::Retired))?;
    }
    only("host", text, found, |_| true, |host| host.id)
}

fn is_called(host: &Host, text: &str) -> bool {
    host.name == text
        || host
            .facts
            .as_ref()
            .is_some_and(|facts| facts.hostname == text)
}

/// The user or service account with this id or name.
pub fn user(client: &Client, text: &str) -> Result<UserId, Failure> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => only(
            "user",
            text,
            users(client)?,
            |user| user.name.as_str() == text,
            |user| user.id,
        ),
    }
}

/// The user or service account itself.
pub fn user_record(client: &Client, text: &str) -> Result<User, Failure> {
    let user = user(client, text)?;
    Ok(client.fetch::<api::v1::people::GetUser>(&OfUser { user })?)
}

/// The role with this id or name.
pub fn role(client: &Client, text: &str) -> Result<RoleId, Failure> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => only(
            "role",
            text,
            roles(client)?,
            |role| role.name.as_str() == text,
            |role| role.id,
        ),
    }
}

/// All projects the caller sees.
pub fn projects(client: &Client) -> Result<Vec<Project>, ClientError> {
    Ok(client
        .list::<ListProjects, _>(&Nothing {}, &Paging::default(), None)?
        .items)
}

/// All workspaces the caller sees that pass the filter.
pub fn workspaces(
    client: &Client,
    filter: &WorkspaceFilter,
) -> Result<Vec<Workspace>, ClientError> {
    Ok(client
        .list::<ListWorkspaces, _>(&Nothing {}, filter, None)?
        .items)
}

/// All users.
pub fn users(client: &Client) -> Result<Vec<User>, ClientError> {
    Ok(client
        .list::<ListUsers, _>(&Nothing {}, &Paging::default(), None)?
        .items)
}

/// All roles.
pub fn roles(client: &Client) -> Result<Vec<Role>, ClientError> {
    Ok(client
        .list::<ListRoles, _>(&Nothing {}, &Paging::default(), None)?
        .items)
}

/// The project of a path.
pub fn in_project(client: &Client, text: &str) -> Result<InProject, Failure> {
    Ok(InProject {
        project: project(client, text)?,
    })
}

fn only<T, I: std::fmt::Display>(
    what: &'static str,
    name: &str,
    all: Vec<T>,
    matches: impl Fn(&T) -> bool,
    id: impl Fn(&T) -> I,
) -> Result<I, Failure> {
    let mut ids = all.iter().filter(|item| matches(item)).map(&id);
    match (ids.next(), ids.next()) {
        (None, _) => Err(Failure::NotFound {
            what,
            name: name.to_owned(),
        }),
        (Some(only), None) => Ok(only),
        (Some(first), Some(second)) => {
            let candidates = [first, second]
                .into_iter()
                .chain(ids)
                .map(|id| id.to_string())
                .collect();
            Err(Failure::Ambiguous {
                what,
                name: name.to_owned(),
                candidates,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_be_unique() {
        let find = |all: Vec<(&'static str, u8)>| {
            only("host", "a", all, |item| item.0 == "a", |item| item.1)
        };
        assert_eq!(find(vec![("b", 1), ("a", 2)]).unwrap(), 2);
        assert_eq!(find(vec![("b", 1)]).unwrap_err().exit_code(), 3);
        let error = find(vec![("a", 1), ("a", 2), ("a", 3)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "3 hosts are called `a`; name one by its id: 1, 2, 3"
        );
    }
}
