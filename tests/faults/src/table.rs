//! The fault table.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use e2e::{
    interrupt, say,
    scenario::{Needs, Verdict},
    tools::Missing,
};
use serde::Serialize;

use crate::Plan;

/// A fault, and what must come of it.
#[derive(Debug)]
pub struct Case {
    /// What one types to run it.
    pub name: &'static str,
    /// Numbers of the abuse cases that it covers.
    pub abuse: &'static [u8],
    /// What is done to the gateway.
    pub injects: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// Does it. What is promised and not kept is an error.
    pub run: fn(&Plan) -> Result<Finding>,
}

/// What a case found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Finding {
    /// What users saw.
    pub seen: Vec<String>,
    /// What was lost of what had been acknowledged. A case that finds anything fails, so this says
    /// how hard was looked.
    pub lost: String,
    /// Figures with their units.
    pub measured: Vec<String>,
    /// Parts that this machine could not do, with the reason.
    pub skipped: Vec<String>,
}

impl Finding {
    /// Adds something users saw.
    pub fn saw(&mut self, what: impl Into<String>) -> &mut Self {
        self.seen.push(what.into());
        self
    }

    /// Adds a figure.
    pub fn measured(&mut self, what: impl Into<String>) -> &mut Self {
        self.measured.push(what.into());
        self
    }
}

/// A case that was run.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The case.
    pub case: &'static str,
    /// Numbers of the abuse cases that it covers.
    pub abuse: &'static [u8],
    /// What was done.
    pub injected: &'static str,
    /// `PASS`, `FAIL: why` or `SKIPPED: why`.
    pub verdict: String,
    /// What came of it.
    #[serde(flatten)]
    pub finding: Finding,
    /// How long it took, in seconds.
    pub seconds: f32,
}

impl Case {
    /// Runs it and prints its row.
    pub fn play(&self, plan: &Plan) -> (Row, Verdict, Duration) {
        say::line(format_args!("\n=== {}: {}", self.name, self.injects));
        let start = Instant::now();
        let outcome = interrupt::listen()
            .and_then(|()| Ok(self.needs.met()?))
            .and_then(|()| (self.run)(plan));
        let (finding, verdict) = match outcome {
            Ok(finding) => (finding, Verdict::Passed),
            Err(error) => {
                let verdict = match error.downcast_ref::<Missing>() {
                    Some(missing) => Verdict::Skipped(missing.to_string()),
                    None => Verdict::Failed(format!("{error:#}")),
                };
                (Finding::default(), verdict)
            }
        };
        let took = start.elapsed();
        let row = Row {
            case: self.name,
            abuse: self.abuse,
            injected: self.injects,
            verdict: verdict.to_string(),
            finding,
            seconds: took.as_secs_f32(),
        };
        say::line(format_args!("{}", row.text()));
        (row, verdict, took)
    }
}

impl Row {
    /// The row as people read it.
    pub fn text(&self) -> String {
        let mut text = format!(
            "--- {}: {} ({:.1} s)\n",
            self.case, self.verdict, self.seconds
        );
        let mut line = |head: &str, what: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {head:9} {what}");
        };
        line("injected", self.injected);
        for seen in &self.finding.seen {
            line("seen", seen);
        }
        if !self.finding.lost.is_empty() {
            line("lost", &self.finding.lost);
        }
        for measured in &self.finding.measured {
            line("measured", measured);
        }
        for skipped in &self.finding.skipped {
            line("SKIPPED", skipped);
        }
        text
    }
}

/// Percentiles of durations, for the table.
pub fn spread(name: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!(
        "{name}: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms (n={})",
        at(50),
        at(90),
        at(99),
        at(100),
        times.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_counts_from_the_nearest_rank() {
        let times = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(
            spread("open", times),
            "open: p50 50 ms, p90 90 ms, p99 99 ms, max 100 ms (n=100)"
        );
        assert!(spread("none", Vec::new()).contains("n=0"));
    }
}
