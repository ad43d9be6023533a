//! A run of several steps: each goes on after another failed, and a table ends it.
//!
//! What could not be tried is a row of its own with its reason. A check that silently did not run
//! looks the same as one that passed.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use e2e::{interrupt, scenario::Verdict, tools::Missing};

/// Rows collected so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    verdict: Verdict,
    took: Duration,
}

impl Report {
    /// Runs one step. A step that returns [`Missing`] as its error was skipped, not failed.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        if interrupt::requested() {
            return self.add(name, Verdict::Skipped("interrupted".into()), Duration::ZERO);
        }
        println!("\n##### {name}");
        let start = Instant::now();
        let verdict = match work() {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<Missing>() {
                Some(missing) => Verdict::Skipped(missing.to_string()),
                None => Verdict::Failed(format!("{error:#}")),
            },
        };
        match &verdict {
            Verdict::Passed => {}
            Verdict::Failed(why) => println!("FAILED: {name}: {why}"),
            Verdict::Skipped(why) => println!("SKIPPED: {name}, because {why}"),
        }
        self.add(name, verdict, start.elapsed());
    }

    /// Adds a row that ran elsewhere.
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict, took: Duration) {
        self.rows.push(Row {
            name: name.to_owned(),
            verdict,
            took,
        });
    }

    /// Prints the table and the counts, which are the last line; fails when a row did.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n{}", self.table());
        let (passed, failed, skipped) = self.counts();
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 && !interrupt::requested() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count = |which: fn(&Verdict) -> bool| {
            self.rows.iter().filter(|row| which(&row.verdict)).count()
        };
        (
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        )
    }

    fn table(&self) -> String {
        let width = self
            .rows
            .iter()
            .map(|row| row.name.len())
            .max()
            .unwrap_or(0);
        let mut table = String::new();
        for Row {
            name,
            verdict,
            took,
        } in &self.rows
        {
            // The whole story was printed where it happened.
            let verdict = verdict.to_string();
            let line = verdict.lines().next().unwrap_or_default();
            table += &format!("{name:width$}  {:7.1} s  {line}\n", took.as_secs_f32());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_skips_and_another_error_fails() {
        let mut report = Report::default();
        report.step("good", || Ok(()));
        report.step("absent", || Err(Missing("no such tool".into()).into()));
        report.step("bad", || anyhow::bail!("first line\nsecond line"));
        assert_eq!(report.counts(), (1, 1, 1));
        let table = report.table();
        assert!(
            table.contains("absent      0.0 s  SKIPPED: because no such tool\n"),
            "{table}"
        );
        assert!(
            table.contains("bad         0.0 s  FAIL: first line\n"),
            "{table}"
        );
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }
}
