//! The operator's command line, run as a program.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    lab::Place,
    sh::{self, Output},
};

const LIMIT: Duration = Duration::from_secs(60);

/// `loopback` with a configuration file of its own.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    place: Place,
    config: PathBuf,
}

impl Cli {
    /// The CLI at `program`, run in `place`, with its contexts kept in `config`.
    pub fn new(program: &Path, place: Place, config: PathBuf) -> Self {
        Self {
            program: program.to_owned(),
            place,
            config,
        }
    }

    /// Its program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The command for these arguments, for callers that want to run it themselves.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&self.program);
        command.args(args).env("LOOPBACK_CONFIG", &self.config);
        // Settings of the person who runs this must not reach the program under test.
        for name in [
            "LOOPBACK_URL",
            "LOOPBACK_API_KEY",
            "LOOPBACK_CA_FILE",
            "LOOPBACK_CONTEXT",
            "LOOPBACK_WORKSPACE",
            "LOOPBACK_TICKET",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs it, whatever it answers.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let what = format!("`loopback {}`", args.join(" "));
        let output = sh::run(&mut self.command(args), LIMIT).with_context(|| what.clone())?;
        Ok(Output { what, ..output })
    }

    /// Runs it and insists on success; what it prints for people.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.ok()
    }

    /// Runs it and insists on success; what it prints for programs.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let text = self.text(&all)?;
        serde_json::from_str(&text)
            .with_context(|| format!("parse the answer of loopback {}: {text}", args.join(" ")))
    }

    /// [`Self::json`] of a listing.
    pub fn list(&self, args: &[&str]) -> Result<Vec<Value>> {
        items(self.json(args)?)
    }
}

/// The items of a listing, plain or as a page.
pub fn items(answer: Value) -> Result<Vec<Value>> {
    match answer {
        Value::Array(items) => Ok(items),
        Value::Object(mut page) => match page.remove("items") {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("the answer is an object without items: {page:?}"),
        },
        other => bail!("the answer is no list: {other}"),
    }
}
