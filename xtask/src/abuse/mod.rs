//! `cargo xtask abuse`: which of the cases in `docs/abuse.md` are held by tests.
//!
//! Three sources meet here: the list of cases ([`list`]), the test functions that carry a number
//! ([`scan`]), and the scenarios and injected faults that declare one. The golden list of what covers what is why a
//! test cannot disappear unnoticed. A tag in the test's name, and not a table beside it, because a
//! name is read by whoever changes the test, and cannot go out of date on its own.

mod list;
mod scan;

use std::{collections::BTreeMap, env, fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{scenarios, sh};
use lexopt::{Arg, Parser};

use self::{
    list::{Case, NotYet},
    scan::Carrier,
};
use crate::{
    play,
    report::Report,
    workspace::{Source, Workspace},
};

const LIST: &str = "docs/abuse.md";
const GOLDEN: &str = "tests/golden/abuse.txt";

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let (mut show_tests, mut run_tests) = (false, false);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("tests") => show_tests = true,
            Arg::Long("run") => run_tests = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let survey = Survey::take(workspace, &workspace.rust(&workspace.files()?)?)?;
    ensure!(
        survey.complaints.is_empty(),
        "tests that say they cover a case and do not:\n  {}",
        survey.complaints.join("\n  ")
    );
    if run_tests {
        return play_all(workspace, &survey);
    }
    print!("{}", survey.render(show_tests));
    Ok(if survey.count(&State::Missing) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Fails when a case is missing.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let survey = Survey::take(workspace, &workspace.rust(&workspace.files()?)?)?;
    print!("{}", survey.render(false));
    let missing = survey.count(&State::Missing);
    ensure!(missing == 0, "{missing} cases of {LIST} are missing");
    Ok(())
}

/// What `cargo xtask tidy` has to say: names that promise a test, and a golden list that differs.
pub(crate) fn complaints(workspace: &Workspace, rust: &[Source]) -> Result<Vec<String>> {
    let survey = Survey::take(workspace, rust)?;
    let mut complaints = survey.complaints.clone();
    let path = workspace.root().join(GOLDEN);
    let actual = survey.golden();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &actual).with_context(|| format!("write {GOLDEN}"))?;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differences = [
        ("no longer covers a case", &expected, &actual),
        ("is not in the list yet", &actual, &expected),
    ];
    for (what, from, to) in differences {
        for line in from
            .lines()
            .filter(|line| !to.lines().any(|other| other == *line))
        {
            complaints.push(format!(
                "{GOLDEN}: \"{line}\" {what}; if that is meant, UPDATE_GOLDEN=1 cargo xtask tidy"
            ));
        }
    }
    Ok(complaints)
}

/// How a case stands.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Covered,
    NotYet,
    Missing,
}

/// All cases and what covers them.
#[derive(Debug)]
struct Survey {
    cases: Vec<Case>,
    carriers: Vec<Carrier>,
    complaints: Vec<String>,
}

impl Survey {
    fn take(workspace: &Workspace, rust: &[Source]) -> Result<Self> {
        let text = fs::read_to_string(workspace.root().join(LIST))
            .with_context(|| format!("read {LIST}"))?;
        let mut survey = Self {
            cases: list::parse(&text).with_context(|| format!("read {LIST}"))?,
            carriers: Vec::new(),
            complaints: Vec::new(),
        };
        for source in rust {
            scan::look(source, &mut survey.carriers, &mut survey.complaints);
        }
        for scenario in scenarios::ALL
            .iter()
            .filter(|scenario| !scenario.cases.is_empty())
        {
            survey.carriers.push(Carrier {
                cases: scenario.cases.to_vec(),
                name: format!("e2e {}", scenario.name),
            });
        }
        let faults = faults::cases::ALL
            .iter()
            .filter(|case| !case.abuse.is_empty());
        survey.carriers.extend(faults.map(|case| Carrier {
            cases: case.abuse.to_vec(),
            name: format!("faults {}", case.name),
        }));
        survey.carriers.sort();
        let mut unknown = Vec::new();
        for Carrier { cases, name } in &survey.carriers {
            for number in cases.iter().filter(|number| !survey.knows(**number)) {
                unknown.push(format!("{name} names case {number}, which {LIST} has not"));
            }
        }
        survey.complaints.extend(unknown);
        Ok(survey)
    }

    fn knows(&self, number: u8) -> bool {
        self.cases.iter().any(|case| case.number == number)
    }

    fn covering(&self, case: &Case) -> Vec<&Carrier> {
        let carries = |carrier: &&Carrier| carrier.cases.contains(&case.number);
        self.carriers.iter().filter(carries).collect()
    }

    fn state(&self, case: &Case) -> State {
        match (self.covering(case).is_empty(), &case.not_yet) {
            (false, _) => State::Covered,
            (true, Some(NotYet::All(_))) => State::NotYet,
            (true, Some(NotYet::Part(_)) | None) => State::Missing,
        }
    }

    fn count(&self, state: &State) -> usize {
        let same = |case: &&Case| self.state(case) == *state;
        self.cases.iter().filter(same).count()
    }

    /// One line for each case and what covers it.
    fn golden(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            for carrier in self.covering(case) {
                text += &format!("{:02} {}\n", case.number, carrier.name);
            }
        }
        text
    }

    fn render(&self, show_tests: bool) -> String {
        let mut text = String::new();
        let mut group = "";
        for case in &self.cases {
            if case.group != group {
                group = &case.group;
                text += &format!("\n{group}\n");
            }
            let carriers = self.covering(case);
            let state = match self.state(case) {
                State::Covered => format!("covered {:3}", carriers.len()),
                State::NotYet => "not yet".into(),
                State::Missing => "MISSING".into(),
            };
            text += &format!("  {:02}  {state:11}  {}\n", case.number, case.title);
            if let Some(reason) = &case.not_yet {
                text += &format!("{:19}{reason}\n", "");
            }
            for carrier in carriers.iter().filter(|_| show_tests) {
                text += &format!("{:19}- {}\n", "", carrier.name);
            }
        }
        text += &format!(
            "\n{} covered by {} tests, {} not yet, {} missing\n",
            self.count(&State::Covered),
            self.carriers.len(),
            self.count(&State::NotYet),
            self.count(&State::Missing),
        );
        text
    }
}

/// Runs every test that carries a number, and the scenarios and faults that do.
fn play_all(workspace: &Workspace, survey: &Survey) -> Result<ExitCode> {
    let mut report = Report::default();
    report.step("tests", || run_functions(workspace, survey));
    let chosen: Vec<_> = scenarios::ALL
        .iter()
        .filter(|scenario| !scenario.cases.is_empty())
        .collect();
    play::play(workspace, play::PRODUCT, &chosen, &mut report)?;
    crate::faults::check(workspace, play::PRODUCT, &mut report)?;
    report.step("every case", || check(workspace));
    Ok(report.finish())
}

/// Runs the test functions; a test that the sources have and no binary ran is a failure too.
fn run_functions(workspace: &Workspace, survey: &Survey) -> Result<()> {
    let mut command = workspace.cargo(&[
        "test",
        "--workspace",
        "--locked",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
        "--",
        "abuse_",
    ]);
    let output = sh::run(&mut command, Duration::from_secs(3600))?;
    let verdicts = verdicts(&output.stdout);
    let mut wrong: Vec<String> = Vec::new();
    for carrier in &survey.carriers {
        // Scenarios and faults, which are no functions of a test binary.
        if carrier.name.contains(' ') {
            continue;
        }
        match verdicts.get(&*carrier.name) {
            Some(true) => {}
            Some(false) => wrong.push(format!("{} failed", carrier.name)),
            None => wrong.push(format!("{} is in no test binary", carrier.name)),
        }
    }
    if !wrong.is_empty() || !output.status.success() {
        println!("{}", output.stdout);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    ensure!(output.status.success(), "{output}");
    println!("{} tests passed", verdicts.len());
    Ok(())
}

/// What the test binaries said, by the functions' names without their modules.
fn verdicts(stdout: &str) -> BTreeMap<&str, bool> {
    let mut verdicts = BTreeMap::new();
    for line in stdout.lines() {
        let Some((path, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        else {
            continue;
        };
        let name = path.rsplit("::").next().unwrap_or(path);
        let passed = verdict == "ok";
        // Two of one name stand and fall together.
        verdicts
            .entry(name)
            .and_modify(|all| *all &= passed)
            .or_insert(passed);
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey() -> Survey {
        let text = "## A. Doors\n\n1. **One.** x\n2. **Two.** x\n   *Not yet:* a bell.\n3. **Three.** x\n   *In part not yet:* a key.\n\
            4. **Four.** x\n   *Not yet:* a door.\n";
        let carrier = |cases: &[u8], name: &str| Carrier {
            cases: cases.to_vec(),
            name: name.into(),
        };
        Survey {
            cases: list::parse(text).unwrap(),
            carriers: vec![carrier(&[1, 2], "one_and_two"), carrier(&[1], "e2e one")],
            complaints: Vec::new(),
        }
    }

    #[test]
    fn a_case_is_covered_not_yet_or_missing() {
        assert_eq!(
            survey().render(true),
            "\nA. Doors\
             \n  01  covered   2  One\
             \n                   - one_and_two\
             \n                   - e2e one\
             \n  02  covered   1  Two\
             \n                   not yet: a bell\
             \n                   - one_and_two\
             \n  03  MISSING      Three\
             \n                   in part not yet: a key\
             \n  04  not yet      Four\
             \n                   not yet: a door\
             \n\n2 covered by 2 tests, 1 not yet, 1 missing\n"
        );
        assert_eq!(
            survey().golden(),
            "01 one_and_two\n01 e2e one\n02 one_and_two\n"
        );
    }

    #[test]
    fn what_binaries_say_is_read_by_name() {
        let said = "\nrunning 3 tests\ntest a::abuse_01_x ... ok\ntest abuse_02_y ... FAILED\n\
            test b::abuse_01_x ... FAILED\ntest result: FAILED.\n";
        let verdicts = verdicts(said);
        assert_eq!(
            verdicts.into_iter().collect::<Vec<_>>(),
            [("abuse_01_x", false), ("abuse_02_y", false)]
        );
    }
}
