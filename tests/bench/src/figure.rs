//! Figures: samples of ours, samples of the peer, and what their ratio should be.

use serde_json::{Value, json};

/// Measurements of one thing, one per round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one, or the mean of the middle two. Not a number without samples.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        }
    }

    /// Least and greatest.
    fn spread(&self) -> (f64, f64) {
        let fold = |pick: fn(f64, f64) -> f64| self.0.iter().copied().fold(f64::NAN, pick);
        (fold(f64::min), fold(f64::max))
    }
}

impl From<f64> for Samples {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

/// Whom ours is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Nobody: the figure has a limit of its own, or only informs.
    Nobody,
    /// Measured in the same run.
    Measured(&'static str, Samples),
    /// It could not be had here, and why.
    Missing(&'static str, String),
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Nothing; the figure explains others.
    Informs,
    /// Ours at most this many times the peer's.
    RatioAtMost(f64),
    /// Ours at least this many times the peer's.
    RatioAtLeast(f64),
    /// Ours at most this.
    AtMost(f64),
    /// Ours at least this.
    AtLeast(f64),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Samples,
    pub(crate) peer: Peer,
    pub(crate) goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Informs,
    Met,
    Missed,
    PeerMissing,
}

impl Figure {
    /// A figure without peer.
    pub(crate) fn alone(
        name: impl Into<String>,
        unit: &'static str,
        ours: impl Into<Samples>,
        goal: Goal,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            ours: ours.into(),
            peer: Peer::Nobody,
            goal,
        }
    }

    /// Ours over the peer's, by medians.
    pub(crate) fn ratio(&self) -> Option<f64> {
        match &self.peer {
            Peer::Measured(_, samples) => Some(self.ours.median() / samples.median()),
            Peer::Nobody | Peer::Missing(..) => None,
        }
    }

    fn verdict(&self) -> Verdict {
        let holds = match (self.goal, self.ratio()) {
            (Goal::Informs, _) => return Verdict::Informs,
            (Goal::RatioAtMost(_) | Goal::RatioAtLeast(_), None) => return Verdict::PeerMissing,
            (Goal::RatioAtMost(most), Some(ratio)) => ratio <= most,
            (Goal::RatioAtLeast(least), Some(ratio)) => ratio >= least,
            (Goal::AtMost(most), _) => self.ours.median() <= most,
            (Goal::AtLeast(least), _) => self.ours.median() >= least,
        };
        if holds { Verdict::Met } else { Verdict::Missed }
    }

    /// Whether nothing about it is wrong. A missing peer is not a pass.
    pub(crate) fn passes(&self) -> bool {
        matches!(self.verdict(), Verdict::Met | Verdict::Informs)
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let (low, high) = self.ours.spread();
        let ours = format!("{:.2} {}", self.ours.median(), self.unit);
        let spread = if low == high {
            String::new()
        } else {
            format!(" [{low:.2}..{high:.2}]")
        };
        let peer = match &self.peer {
            Peer::Nobody => String::new(),
            Peer::Measured(name, samples) => {
                let (low, high) = samples.spread();
                format!(
                    "; {name} {:.2} [{low:.2}..{high:.2}], ratio {:.2}",
                    samples.median(),
                    self.ratio().unwrap_or(f64::NAN)
                )
            }
            Peer::Missing(name, why) => format!("; {name}: peer missing ({why})"),
        };
        let goal = match self.goal {
            Goal::Informs => String::new(),
            Goal::RatioAtMost(most) => format!("; goal <= {most}x"),
            Goal::RatioAtLeast(least) => format!("; goal >= {least}x"),
            Goal::AtMost(most) => format!("; goal <= {most}"),
            Goal::AtLeast(least) => format!("; goal >= {least}"),
        };
        let verdict = match self.verdict() {
            Verdict::Informs => "",
            Verdict::Met => ": met",
            Verdict::Missed => ": MISSED",
            Verdict::PeerMissing => ": PEER MISSING",
        };
        format!("{:38} {ours}{spread}{peer}{goal}{verdict}", self.name)
    }

    fn to_json(&self, row: &str) -> Value {
        let (peer, theirs, missing) = match &self.peer {
            Peer::Nobody => (None, None, None),
            Peer::Measured(name, samples) => (Some(*name), Some(samples), None),
            Peer::Missing(name, why) => (Some(*name), None, Some(why)),
        };
        let goal = match self.goal {
            Goal::Informs => Value::Null,
            Goal::RatioAtMost(most) => json!({ "ratio_at_most": most }),
            Goal::RatioAtLeast(least) => json!({ "ratio_at_least": least }),
            Goal::AtMost(most) => json!({ "at_most": most }),
            Goal::AtLeast(least) => json!({ "at_least": least }),
        };
        let verdict = match self.verdict() {
            Verdict::Informs => "informs",
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::PeerMissing => "peer missing",
        };
        json!({
            "row": row, "figure": self.name, "unit": self.unit,
            "ours": self.ours.median(), "samples": self.ours.0,
            "peer": peer, "peer_missing": missing,
            "theirs": theirs.map(Samples::median), "peer_samples": theirs.map(|it| &it.0),
            "ratio": self.ratio(), "goal": goal, "verdict": verdict,
        })
    }
}

/// All figures with the machine they were taken on.
pub(crate) fn to_json(figures: &[(&'static str, Figure)]) -> Value {
    let figures: Vec<_> = figures
        .iter()
        .map(|(row, figure)| figure.to_json(row))
        .collect();
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "load_average": crate::process::load_average(),
        "figures": figures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    fn figure(peer: Peer, goal: Goal) -> Figure {
        Figure {
            name: "memory".into(),
            unit: "KiB",
            ours: samples(&[12.0, 10.0, 50.0]),
            peer,
            goal,
        }
    }

    #[test]
    fn medians_are_compared_so_that_one_disturbed_round_does_not_decide() {
        let it = figure(
            Peer::Measured("theirs", samples(&[20.0, 24.0])),
            Goal::RatioAtMost(0.6),
        );
        assert!(it.passes());
        assert!(
            it.line().contains("12.00 KiB [10.00..50.00]"),
            "{}",
            it.line()
        );
        assert!(
            it.line().ends_with("ratio 0.55; goal <= 0.6x: met"),
            "{}",
            it.line()
        );
    }

    #[test]
    fn a_missing_peer_is_never_a_pass() {
        let it = figure(
            Peer::Missing("theirs", "no package".into()),
            Goal::RatioAtMost(1e9),
        );
        assert!(!it.passes());
        assert!(it.line().contains("peer missing (no package)"));
        assert_eq!(it.to_json("row")["verdict"], "peer missing");
    }

    #[test]
    fn a_figure_over_its_own_limit_is_missed() {
        assert!(!figure(Peer::Nobody, Goal::AtMost(11.9)).passes());
        assert!(figure(Peer::Nobody, Goal::AtLeast(12.0)).passes());
    }
}
