//! What went wrong lately, for `status`: the latest of each kind, gone when it works
//! again.

use std::collections::BTreeMap;

use model::Timestamp;

use crate::status::{RefusalView, SKEW_WARNING_MS, Trouble};

#[derive(Debug, Default)]
pub(super) struct Board {
    refusal: Option<RefusalView>,
    troubles: BTreeMap<&'static str, (String, Timestamp)>,
    warnings: BTreeMap<&'static str, String>,
    skewed: bool,
}

impl Board {
    /// Something failed on a rung or on this host. Whether it is something else than
    /// the last time.
    pub(super) fn trouble(&mut self, place: &'static str, what: String, at: Timestamp) -> bool {
        let news = self
            .troubles
            .get(place)
            .is_none_or(|(before, _)| *before != what);
        self.troubles.insert(place, (what, at));
        news
    }

    pub(super) fn untrouble(&mut self, place: &'static str) {
        self.troubles.remove(place);
    }

    pub(super) fn refused(&mut self, code: &str, message: String, at: Timestamp) {
        self.refusal = Some(RefusalView {
            code: code.to_owned(),
            message,
            at,
        });
    }

    /// A welcome ends what was wrong with the rung it came over, and every refusal.
    pub(super) fn welcomed(&mut self, rung: &'static str) {
        self.untrouble(rung);
        self.untrouble("host");
        self.refusal = None;
    }

    /// Something about this host that a person should look at.
    pub(super) fn warn(&mut self, what: &'static str, text: String) {
        self.warnings.insert(what, text);
    }

    pub(super) fn unwarn(&mut self, what: &'static str) {
        self.warnings.remove(what);
    }

    /// Whether the clocks have begun to differ.
    pub(super) fn skew_is_news(&mut self, skew_ms: i64) -> bool {
        let skewed = skew_ms.saturating_abs() >= SKEW_WARNING_MS;
        let news = skewed && !self.skewed;
        self.skewed = skewed;
        news
    }

    pub(super) fn refusal(&self) -> Option<&RefusalView> {
        self.refusal.as_ref()
    }

    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let trouble = |(rung, (what, at)): (&&'static str, &(String, Timestamp))| Trouble {
            rung: (*rung).to_owned(),
            what: what.clone(),
            at: *at,
        };
        self.troubles.iter().map(trouble).collect()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.values().cloned().collect()
    }
}
