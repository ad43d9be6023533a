//! `cargo xtask bench`: figures, and the limits they must keep.
//!
//! A row is a named measurement of one part. A figure with a limit fails the run when it exceeds
//! it: that is how a promise like "a small agent" stays one.

mod idle;
mod size;

use std::process::ExitCode;

use anyhow::{Result, bail};
use e2e::say;
use lexopt::{Arg, Parser, ValueExt};
use serde_json::json;

use crate::workspace::Workspace;

/// A measurement one can ask for.
#[derive(Debug)]
struct Row {
    name: &'static str,
    measures: &'static str,
    run: fn(&Workspace) -> Result<Vec<Figure>>,
}

/// One measured number.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// It must not be more than this.
    limit: Option<f64>,
}

const ROWS: &[Row] = &[
    Row {
        name: "agent-size",
        measures: "bytes of the static agent as hosts install it",
        run: size::agent,
    },
    Row {
        name: "agent-idle",
        measures: "memory of the static agent at rest",
        run: idle::agent,
    },
    Row {
        name: "gateway-idle",
        measures: "memory of the gateway at rest, and its start on existing state",
        run: idle::gateway,
    },
];

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut chosen: Vec<&Row> = Vec::new();
    let mut as_json = false;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("list") => {
                for row in ROWS {
                    println!("{:16} {}", row.name, row.measures);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Arg::Long("json") => {
                as_json = true;
                say::to_stderr();
            }
            Arg::Value(name) => {
                let name = name.string()?;
                match ROWS.iter().find(|row| row.name == name) {
                    Some(row) => chosen.push(row),
                    None => bail!("there is no row {name:?}; --list shows them"),
                }
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.is_empty() {
        chosen.extend(ROWS);
    }
    measure(workspace, &chosen, as_json)
}

fn measure(workspace: &Workspace, rows: &[&Row], as_json: bool) -> Result<ExitCode> {
    let mut all_keep = true;
    let mut results = Vec::new();
    for row in rows {
        let figures =
            (row.run)(workspace).map_err(|error| error.context(format!("measure {}", row.name)))?;
        for figure in &figures {
            all_keep &= figure.keeps();
            if as_json {
                results.push(json!({
                    "row": row.name, "figure": figure.name, "value": figure.value,
                    "unit": figure.unit, "limit": figure.limit, "keeps": figure.keeps(),
                }));
            } else {
                println!("{:16} {}", row.name, figure.line());
            }
        }
    }
    if as_json {
        println!("{:#}", json!({ "figures": results }));
    }
    Ok(if all_keep {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Figure {
    fn keeps(&self) -> bool {
        self.limit.is_none_or(|limit| self.value <= limit)
    }

    fn line(&self) -> String {
        let Self {
            name,
            value,
            unit,
            limit,
        } = self;
        let verdict = match limit {
            None => String::new(),
            Some(limit) if self.keeps() => format!("  ok, limit {limit}"),
            Some(limit) => format!("  TOO MUCH, limit {limit}"),
        };
        format!("{name:24} {value:10.2} {unit:4}{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_over_its_limit_says_so() {
        let figure = Figure {
            name: "size",
            value: 9.5,
            unit: "MB",
            limit: Some(9.0),
        };
        assert!(!figure.keeps());
        assert!(
            figure.line().ends_with("MB    TOO MUCH, limit 9"),
            "{}",
            figure.line()
        );
    }

    #[test]
    fn a_figure_without_a_limit_only_informs() {
        assert!(
            Figure {
                name: "time",
                value: 1e9,
                unit: "ms",
                limit: None
            }
            .keeps()
        );
    }
}
