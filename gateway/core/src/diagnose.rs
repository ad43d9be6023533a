//! What a host says on the stream of a diagnosis, held against what it was asked.
//!
//! The host may be hostile. It names no section that was not asked for, and none twice;
//! nothing comes outside a section; and no section, nor all together, are larger than
//! allowed. Whatever else it says ends the diagnosis, with what was whole until then.

use model::diagnose::{MAX_SECTION, MAX_TOTAL, Outcome, Section};
use model::names::clean;
use protocol::v1::{DiagnoseRefused, DiagnoseReport, SectionOutcome, diagnose_report};

/// A section, as the host has told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub section: Section,
    /// How it came out.
    pub outcome: Outcome,
    /// What is missing and why.
    pub reason: String,
    /// How long the host took.
    pub duration_ms: u32,
    /// The content.
    pub content: Vec<u8>,
}

impl Told {
    /// A section that the host has not told.
    pub fn untold(section: Section, reason: &str) -> Self {
        Self {
            section,
            outcome: Outcome::Failed,
            reason: reason.to_owned(),
            duration_ms: 0,
            content: Vec::new(),
        }
    }
}

/// What a frame comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// More is to come.
    More,
    /// A section is whole.
    Section(Told),
    /// The host has told all.
    Done,
    /// The host declines.
    Refused(DiagnoseRefused),
}

/// The host talks nonsense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A section that was not asked for, or is told a second time.
    #[error("the host began a section that was not due")]
    NotDue,
    /// A frame outside a section.
    #[error("the host sent content outside a section")]
    Outside,
    /// A section that begins within another, or ends the diagnosis within it.
    #[error("the host left a section without an end")]
    Within,
    /// More than allowed.
    #[error("the host sent more than a section may have")]
    TooMuch,
    /// A refusal after sections.
    #[error("the host declined what it had begun")]
    Late,
}

/// The state of one diagnosis.
#[derive(Debug)]
pub struct Intake {
    due: Vec<Section>,
    open: Option<(Section, Vec<u8>)>,
    begun: bool,
    room: usize,
}

impl Intake {
    /// These sections are asked for.
    pub fn new(asked: &[Section]) -> Self {
        Self {
            due: asked.to_vec(),
            open: None,
            begun: false,
            room: MAX_TOTAL,
        }
    }

    /// A section that will not become whole any more, each once.
    pub fn give_up(&mut self) -> Option<Section> {
        match self.open.take() {
            Some((section, _)) => Some(section),
            None if self.due.is_empty() => None,
            None => Some(self.due.remove(0)),
        }
    }

    /// Takes a frame. A body that this version does not know says nothing to it.
    pub fn hear(&mut self, report: DiagnoseReport) -> Result<Heard, Nonsense> {
        use diagnose_report::Body;
        match report.body {
            None => Ok(Heard::More),
            Some(Body::Begun(begun)) => {
                if self.open.is_some() {
                    return Err(Nonsense::Within);
                }
                let section: Option<Section> = begun.name.parse().ok();
                let place = self.due.iter().position(|due| Some(*due) == section);
                let section = self.due.remove(place.ok_or(Nonsense::NotDue)?);
                self.begun = true;
                self.open = Some((section, Vec::new()));
                Ok(Heard::More)
            }
            Some(Body::Piece(piece)) => {
                let (_, content) = self.open.as_mut().ok_or(Nonsense::Outside)?;
                let length = piece.data.len();
                if length > self.room || content.len() + length > MAX_SECTION {
                    return Err(Nonsense::TooMuch);
                }
                self.room -= length;
                content.extend_from_slice(&piece.data);
                Ok(Heard::More)
            }
            Some(Body::Ended(ended)) => {
                let (section, content) = self.open.take().ok_or(Nonsense::Outside)?;
                let outcome = match ended.outcome() {
                    SectionOutcome::Ok => Outcome::Ok,
                    SectionOutcome::Partial => Outcome::Partial,
                    SectionOutcome::Failed | SectionOutcome::Unspecified => Outcome::Failed,
                };
                Ok(Heard::Section(Told {
                    section,
                    outcome,
                    reason: clean(&ended.reason, 512),
                    duration_ms: ended.duration_ms,
                    content,
                }))
            }
            Some(Body::Done(_)) if self.open.is_some() => Err(Nonsense::Within),
            Some(Body::Done(_)) => Ok(Heard::Done),
            Some(Body::Refused(_)) if self.begun => Err(Nonsense::Late),
            Some(Body::Refused(refused)) => Ok(Heard::Refused(refused)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagnose_report::Body;
    use protocol::v1::{DiagnoseDone, SectionBegun, SectionEnded, SectionPiece};

    fn begun(name: &str) -> Body {
        Body::Begun(SectionBegun {
            name: name.to_owned(),
        })
    }

    fn piece(length: usize) -> Body {
        Body::Piece(SectionPiece {
            data: vec![b'x'; length],
        })
    }

    fn ended() -> Body {
        Body::Ended(SectionEnded {
            outcome: SectionOutcome::Partial.into(),
            reason: "a\u{1b}b".to_owned(),
            duration_ms: 5,
        })
    }

    fn hear(intake: &mut Intake, body: Body) -> Result<Heard, Nonsense> {
        intake.hear(DiagnoseReport { body: Some(body) })
    }

    #[test]
    fn sections_that_were_asked_for_are_taken_whole() {
        let mut intake = Intake::new(&[Section::Disks, Section::System]);
        assert_eq!(hear(&mut intake, begun("system")), Ok(Heard::More));
        assert_eq!(hear(&mut intake, piece(2)), Ok(Heard::More));
        let Ok(Heard::Section(told)) = hear(&mut intake, ended()) else {
            panic!("not whole");
        };
        assert_eq!(
            (told.section, told.outcome),
            (Section::System, Outcome::Partial)
        );
        assert_eq!(
            (told.content.as_slice(), told.reason.contains('\u{1b}')),
            (&b"xx"[..], false)
        );
        assert_eq!(
            hear(&mut intake, Body::Done(DiagnoseDone {})),
            Ok(Heard::Done)
        );
        assert_eq!(
            (intake.give_up(), intake.give_up()),
            (Some(Section::Disks), None)
        );
    }

    #[test]
    fn whatever_else_a_host_says_is_nonsense() {
        let asked = [Section::Disks, Section::System];
        let refused = || Body::Refused(DiagnoseRefused::default());
        for (said, expected) in [
            (vec![begun("../x")], Nonsense::NotDue),
            (vec![begun("journal")], Nonsense::NotDue),
            (
                vec![begun("disks"), ended(), begun("disks")],
                Nonsense::NotDue,
            ),
            (vec![piece(1)], Nonsense::Outside),
            (vec![ended()], Nonsense::Outside),
            (vec![begun("disks"), begun("system")], Nonsense::Within),
            (
                vec![begun("disks"), Body::Done(DiagnoseDone {})],
                Nonsense::Within,
            ),
            (
                vec![begun("disks"), piece(MAX_SECTION), piece(1)],
                Nonsense::TooMuch,
            ),
            (vec![begun("disks"), refused()], Nonsense::Late),
        ] {
            let mut intake = Intake::new(&asked);
            let last = said.into_iter().map(|body| hear(&mut intake, body)).last();
            assert_eq!(last, Some(Err(expected)));
        }
    }
}
