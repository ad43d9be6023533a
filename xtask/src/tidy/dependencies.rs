//! Who may use whom.
//!
//! The table is the architecture: cores cannot reach a socket, the store's engine is behind one
//! crate, the CLI and the agent know nothing of the gateway's insides. Adding a line here is the
//! part of a change to think longest about.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Rules about dependencies.
#[derive(Debug)]
pub(super) struct Table {
    /// Each package of ours and the ones of ours it may use.
    ours: &'static [(&'static str, Ours)],
    /// Crates that only these packages may name.
    only: &'static [(&'static str, &'static [&'static str])],
    /// Packages, and crates that must not even be reachable from them.
    never: &'static [(&'static [&'static str], &'static [&'static str])],
}

#[derive(Debug)]
enum Ours {
    /// These and no others.
    Just(&'static [&'static str]),
    /// Whatever it likes.
    All,
}

use Ours::{All, Just};

/// The table of this house.
pub(super) const HOUSE: Table = Table {
    ours: &[
        ("model", Just(&[])),
        ("release", Just(&[])),
        ("install-script", Just(&[])),
        ("protocol", Just(&["model"])),
        ("api", Just(&["model"])),
        ("link", Just(&["model", "protocol"])),
        (
            "gateway-core",
            Just(&["model", "protocol", "install-script"]),
        ),
        ("gateway-store", Just(&["model"])),
        ("plugin-host", Just(&["model"])),
        ("egress", Just(&["model", "plugin-host"])),
        (
            "devkit",
            Just(&["model", "release", "plugin-host", "egress"]),
        ),
        (
            "gateway",
            Just(&[
                "model",
                "protocol",
                "api",
                "link",
                "release",
                "gateway-core",
                "gateway-store",
                "plugin-host",
                "egress",
            ]),
        ),
        ("agent-core", Just(&["model", "protocol"])),
        (
            "agent",
            Just(&["model", "protocol", "link", "release", "agent-core"]),
        ),
        ("cli", Just(&["model", "api"])),
        ("e2e", Just(&[])),
        ("faults", Just(&["e2e", "gateway-store"])),
        ("xtask", Just(&["e2e", "faults", "release"])),
        (
            "sim",
            Just(&["model", "protocol", "gateway-core", "agent-core"]),
        ),
        ("tests", All),
        ("fuzz", All),
        ("bench", All),
        (
            "providers",
            Just(&["model", "plugin-host", "egress", "e2e"]),
        ),
    ],
    only: &[
        // The bench runs the bare engine beside ours.
        ("redb", &["gateway-store", "bench"]),
        ("object_store", &["gateway-store"]),
        // The bench runs bare calls beside ours.
        ("wasmtime", &["plugin-host", "bench"]),
    ],
    never: &[
        (
            &[
                "model",
                "protocol",
                "api",
                "install-script",
                "gateway-core",
                "agent-core",
            ],
            &["tokio", "quinn", "axum", "rand"],
        ),
        (
            &["gateway-store", "plugin-host", "egress"],
            &["axum", "quinn"],
        ),
        (&["plugin-host", "egress"], &["gateway-store", "redb"]),
        (
            &["agent", "cli"],
            &["gateway", "gateway-core", "gateway-store", "redb", "axum"],
        ),
    ],
};

/// Packages by name and what each uses.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The workspace's own packages.
    members: BTreeSet<String>,
    /// What a package links: normal and build dependencies.
    links: BTreeMap<String, BTreeSet<String>>,
    /// What only its tests use.
    tests: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// The graph of the checkout, for every target.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .other_options(vec!["--locked".into()])
            .exec()
            .context("read cargo metadata")?;
        Self::from_metadata(&metadata)
    }

    fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let name: BTreeMap<_, _> = metadata
            .packages
            .iter()
            .map(|package| (&package.id, package.name.to_string()))
            .collect();
        let mut graph = Self {
            members: metadata
                .workspace_members
                .iter()
                .map(|id| name[id].clone())
                .collect(),
            ..Self::default()
        };
        let resolve = metadata
            .resolve
            .as_ref()
            .context("cargo metadata resolves")?;
        for node in &resolve.nodes {
            for dependency in &node.deps {
                let user = name[&node.id].clone();
                let used = name[&dependency.pkg].clone();
                let linked = dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind != DependencyKind::Development);
                let edges = if linked {
                    &mut graph.links
                } else {
                    &mut graph.tests
                };
                edges.entry(user).or_default().insert(used);
            }
        }
        Ok(graph)
    }

    /// Everything `package` names, its tests included.
    fn direct(&self, package: &str) -> impl Iterator<Item = &String> {
        self.links
            .get(package)
            .into_iter()
            .chain(self.tests.get(package))
            .flatten()
    }

    /// How `package` comes to link `target`, as a path of names.
    fn path(&self, package: &str, target: &str) -> Option<Vec<String>> {
        let mut paths = vec![vec![package.to_owned()]];
        let mut seen = BTreeSet::new();
        // Breadth first: the shortest path explains best.
        let mut next = 0;
        while let Some(path) = paths.get(next).cloned() {
            next += 1;
            let last = path.last()?;
            if last == target {
                return Some(path);
            }
            for used in self.links.get(last).into_iter().flatten() {
                if seen.insert(used.clone()) {
                    let mut longer = path.clone();
                    longer.push(used.clone());
                    paths.push(longer);
                }
            }
        }
        None
    }
}

/// Where the graph breaks the table.
pub(super) fn complaints(table: &Table, graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for member in &graph.members {
        match table.ours.iter().find(|(name, _)| name == member) {
            None => found.push(format!("{member} has no line in the dependency table")),
            Some((_, All)) => {}
            Some((_, Just(allowed))) => {
                for used in graph.direct(member) {
                    // A package's tests may name the package itself, to turn a feature on.
                    let ours = graph.members.contains(used) && used != member;
                    if ours && !allowed.contains(&used.as_str()) {
                        found.push(format!("{member} may not use {used}"));
                    }
                }
            }
        }
        for (engine, users) in table.only {
            let linked = graph
                .links
                .get(member)
                .is_some_and(|links| links.contains(*engine));
            if linked && !users.contains(&member.as_str()) {
                found.push(format!(
                    "{member} may not use {engine}: only {} may",
                    users.join(", ")
                ));
            }
        }
    }
    for (name, _) in table.ours {
        if !graph.members.contains(*name) {
            found.push(format!(
                "the dependency table has a line for {name}, which is not here"
            ));
        }
    }
    for (packages, banned) in table.never {
        for (package, target) in packages
            .iter()
            .flat_map(|p| banned.iter().map(move |b| (p, b)))
        {
            if let Some(path) = graph.path(package, target) {
                found.push(format!(
                    "{package} must not reach {target}: {}",
                    path.join(" -> ")
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table {
        ours: &[
            ("core", Just(&[])),
            ("store", Just(&["core"])),
            ("suite", All),
        ],
        only: &[("engine", &["store"])],
        never: &[(&["core"], &["socket"])],
    };

    #[test]
    fn a_graph_that_keeps_the_table_is_quiet() {
        let graph = graph(
            &["core", "store", "suite"],
            &["core maths", "store core", "store engine", "suite store"],
        );
        assert_eq!(complaints(&TABLE, &graph), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_between_packages_of_ours_is_named() {
        let graph = graph(&["core", "store", "suite"], &["core store"]);
        assert_eq!(complaints(&TABLE, &graph), ["core may not use store"]);
    }

    #[test]
    fn an_edge_of_the_tests_counts_as_well() {
        let mut graph = graph(&["core", "store", "suite"], &[]);
        graph.tests = edges(&["core suite"]);
        assert_eq!(complaints(&TABLE, &graph), ["core may not use suite"]);
    }

    #[test]
    fn an_engine_behind_one_crate_stays_there() {
        let graph = graph(&["core", "store", "suite"], &["suite engine"]);
        assert_eq!(
            complaints(&TABLE, &graph),
            ["suite may not use engine: only store may"]
        );
    }

    #[test]
    fn a_ban_reaches_through_other_crates_and_shows_the_way() {
        let graph = graph(
            &["core", "store", "suite"],
            &["core maths", "maths runtime", "runtime socket"],
        );
        assert_eq!(
            complaints(&TABLE, &graph),
            ["core must not reach socket: core -> maths -> runtime -> socket"]
        );
    }

    #[test]
    fn a_package_without_a_line_and_a_line_without_a_package_are_both_named() {
        let graph = graph(&["core", "store", "guest"], &[]);
        assert_eq!(
            complaints(&TABLE, &graph),
            [
                "guest has no line in the dependency table",
                "the dependency table has a line for suite, which is not here"
            ]
        );
    }

    fn graph(members: &[&str], links: &[&str]) -> Graph {
        Graph {
            members: members.iter().map(|&name| name.into()).collect(),
            links: edges(links),
            tests: BTreeMap::new(),
        }
    }

    fn edges(list: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        let mut edges = BTreeMap::<_, BTreeSet<_>>::new();
        for edge in list {
            let (user, used) = edge.split_once(' ').unwrap();
            edges
                .entry(user.to_owned())
                .or_default()
                .insert(used.to_owned());
        }
        edges
    }
}
