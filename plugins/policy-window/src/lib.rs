//! Allows actions in maintenance windows only: outside of them they are refused, or need approvals.
//! Within a window they are allowed until it closes.
//!
//! Windows are written in one fixed offset from UTC. Names of zones would need their tables, which
//! change several times a year and would have to come with the plugin; an offset is wrong by an
//! hour for half a year where clocks are changed, and says so in every reason it gives.

mod week;

use loopback_plugin_sdk::policy::{Approval, Policy, Reason, Request, Verdict};
use loopback_plugin_sdk::{Diagnostic, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

use week::{Day, Offset, TimeOfDay, Week};

/// When which actions are allowed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// When they are allowed. At least one.
    #[schemars(length(min = 1, max = 64))]
    windows: Vec<Window>,
    /// What the windows' times are in: `UTC` or a fixed offset as in `+02:00`.
    #[serde(default)]
    utc_offset: Offset,
    /// Permissions, or what they begin with, as in `project.workspace.host.command`: these actions
    /// are judged, others are not.
    #[schemars(length(min = 1, max = 64))]
    actions: Vec<String>,
    /// Environments in which they are judged, as in `production`. Empty: everywhere.
    #[serde(default)]
    environments: Vec<String>,
    /// What happens outside of the windows.
    #[serde(default)]
    outside: Outside,
}

/// A span of time that comes again every week.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Window {
    /// Days on which it begins. Empty: every day.
    #[serde(default)]
    days: Vec<Day>,
    /// When it opens.
    from: TimeOfDay,
    /// When it closes; on the next day, if this is not later than `from`.
    to: TimeOfDay,
}

/// What happens outside of the windows.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outside {
    /// Refused.
    #[default]
    Deny,
    /// Allowed once this many others have approved.
    RequireApproval(#[schemars(range(min = 1, max = 16))] u8),
}

struct WindowPolicy;

impl Plugin for WindowPolicy {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if config.windows.is_empty() {
            found.push(Diagnostic::error(
                "/windows",
                "without a window nothing is ever allowed",
            ));
        }
        if config.actions.is_empty() {
            found.push(Diagnostic::error(
                "/actions",
                "without an action nothing is judged",
            ));
        }
        if config.actions.iter().any(String::is_empty) {
            found.push(Diagnostic::error("/actions", "an action is empty"));
        }
        if let Outside::RequireApproval(0) = config.outside {
            let message = "at least 1 must approve";
            found.push(Diagnostic::error("/outside/require_approval", message));
        }
        if config.week().always_open() && !config.windows.is_empty() {
            found.push(Diagnostic::warning("/windows", "the windows never close"));
        }
        found
    }
}

impl Policy for WindowPolicy {
    fn decide(config: &Config, request: Request) -> Verdict {
        if !config.covers(&request) {
            return Verdict::Abstain;
        }
        let week = config.week();
        let offset = config.utc_offset;
        match week.at(request.now_ms, offset) {
            week::State::Always => Verdict::Abstain,
            week::State::OpenUntil(end_ms) => Verdict::PermitUntil(end_ms),
            week::State::ClosedUntil(next_ms) => {
                let action = &request.action;
                let when = match next_ms {
                    Some(next_ms) => format!("the next window opens {}", offset.show(next_ms)),
                    None => "no window ever opens".to_owned(),
                };
                match config.outside {
                    Outside::Deny => Verdict::Deny(Reason::new(
                        "window.closed",
                        format!("{action} is allowed in maintenance windows only; {when}"),
                    )),
                    Outside::RequireApproval(needed)
                        if request.approvers() >= usize::from(needed) =>
                    {
                        Verdict::Abstain
                    }
                    Outside::RequireApproval(approvers) => Verdict::RequireApproval(Approval {
                        approvers,
                        reason: Reason::new(
                            "window.approval",
                            format!(
                                "{action} outside of maintenance windows needs approval by \
                                     {approvers}; {when}"
                            ),
                        ),
                    }),
                }
            }
        }
    }
}

impl Config {
    fn week(&self) -> Week {
        let spans = self.windows.iter().flat_map(|window| {
            let days = if window.days.is_empty() {
                &Day::ALL[..]
            } else {
                &window.days
            };
            days.iter().map(|day| (*day, window.from, window.to))
        });
        Week::new(spans)
    }

    fn covers(&self, request: &Request) -> bool {
        let action = self.actions.iter().any(|prefix| {
            let rest = request.action.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        // Of many targets only some are shown. What is not shown may be in any environment.
        let all_shown = u64::try_from(request.targets.len()) == Ok(request.target_count);
        let environment = self.environments.is_empty()
            || !all_shown
            || request.targets.iter().any(|target| {
                let of_target = target.environment.as_ref();
                of_target.is_some_and(|name| self.environments.contains(name))
            });
        action && environment
    }
}

loopback_plugin_sdk::export_policy!(WindowPolicy);

#[cfg(test)]
mod tests;
