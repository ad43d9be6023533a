//! What an authority can hand out never exceeds what it has.

use proptest::prelude::*;

use super::*;
use crate::Timestamp;
use crate::ids::{ProjectId, WorkspaceId};

fn project(n: u8) -> ProjectId {
    ProjectId::new(Timestamp::from_millis(1), [n; 10])
}

fn workspace(n: u8) -> Scope {
    Scope::Workspace {
        project: project(n / 2),
        workspace: WorkspaceId::new(Timestamp::from_millis(1), [n; 10]),
    }
}

fn scopes() -> Vec<Scope> {
    let mut all = vec![
        Scope::Deployment,
        Scope::Project {
            project: project(0),
        },
        Scope::Project {
            project: project(1),
        },
    ];
    all.extend((0..4).map(workspace));
    all
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    (0..Permission::ALL.len(), 1..5usize).prop_map(|(which, words)| {
        let name = Permission::ALL[which].as_str();
        let prefix: Vec<_> = name.split('.').take(words).collect();
        prefix.join(".").parse().unwrap()
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let environments = proptest::sample::subsequence(Environment::ALL.to_vec(), 0..=3);
    (any_pattern(), environments).prop_map(|(allow, environments)| Rule {
        allow,
        environments,
    })
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(any_rule(), 1..4)
}

fn any_scope() -> impl Strategy<Value = Scope> {
    proptest::sample::select(scopes())
}

fn any_authority() -> impl Strategy<Value = Authority> {
    let holding = (any_scope(), any_rules()).prop_map(|(scope, rules)| Holding { scope, rules });
    let limits = proptest::option::of(
        (any_scope(), any_rules()).prop_map(|(scope, rules)| Limits { scope, rules }),
    );
    (proptest::collection::vec(holding, 0..4), limits)
        .prop_map(|(holdings, limits)| Authority { holdings, limits })
}

proptest! {
    // Most random makers do not cover most random rules: allow many rejects.
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 400_000, ..ProptestConfig::default() })]

    /// Whoever gives a role or a key it covers, gives nothing it lacks.
    #[test]
    fn abuse_03_what_is_handed_out_is_never_wider_than_its_maker(
        maker in any_authority(),
        scope in any_scope(),
        rules in proptest::collection::vec(any_rule(), 1..3),
    ) {
        prop_assume!(maker.covers(&scope, &rules));
        let given = Authority { holdings: vec![Holding { scope, rules }], limits: None };
        for at in scopes() {
            let environments: &[Option<Environment>] = match at {
                Scope::Workspace { .. } => &[Some(Environment::Production), Some(Environment::Staging), Some(Environment::Development)],
                Scope::Deployment | Scope::Project { .. } => &[None],
            };
            for environment in environments {
                for permission in Permission::ALL {
                    if given.allows(*permission, &at, *environment) {
                        prop_assert!(maker.allows(*permission, &at, *environment), "{permission} at {at:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_never_allows_what_its_owner_may_not(owner in any_authority(), scope in any_scope(), rules in any_rules()) {
        let key = Authority { limits: Some(Limits { scope, rules }), ..owner.clone() };
        let owner = Authority { limits: None, ..owner };
        for at in scopes() {
            for permission in Permission::ALL {
                let environment = matches!(at, Scope::Workspace { .. }).then_some(Environment::Production);
                if key.allows(*permission, &at, environment) {
                    prop_assert!(owner.allows(*permission, &at, environment));
                }
            }
        }
    }
}

#[test]
fn built_in_roles_parse_and_exclude_shell_sessions_in_production() {
    for role in BUILT_IN_ROLES {
        role.typed_name();
        role.typed_description();
        let authority = Authority {
            holdings: vec![Holding {
                scope: Scope::Deployment,
                rules: role.rules(),
            }],
            limits: None,
        };
        let shell = |environment| {
            authority.allows(
                Permission::HostShellSession,
                &workspace(0),
                Some(environment),
            )
        };
        assert!(!shell(Environment::Production), "{}", role.name);
    }
}

#[test]
fn the_owner_covers_every_other_built_in_role() {
    let owner = BUILT_IN_ROLES
        .iter()
        .find(|role| role.name == "owner")
        .unwrap();
    let owner = Authority {
        holdings: vec![Holding {
            scope: Scope::Deployment,
            rules: owner.rules(),
        }],
        limits: None,
    };
    for role in BUILT_IN_ROLES {
        assert!(
            owner.covers(&Scope::Deployment, &role.rules()),
            "{}",
            role.name
        );
    }
}

#[test]
fn holding_each_leaf_does_not_allow_handing_out_the_prefix() {
    let leaves = Permission::ALL
        .iter()
        .map(|permission| Rule::everywhere((*permission).into()))
        .collect();
    let maker = Authority {
        holdings: vec![Holding {
            scope: Scope::Deployment,
            rules: leaves,
        }],
        limits: None,
    };
    let prefix = Rule::everywhere("project.workspace.host".parse().unwrap());
    assert!(!maker.covers(&Scope::Deployment, &[prefix]));
}
