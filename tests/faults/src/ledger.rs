//! Writers, and the book of what they were told.
//!
//! Writers change things through the API, each over a connection of its own, until theirs breaks.
//! The [`Book`] is append-only: a line is written before its request is sent, and completed by the
//! answer. After whatever happened to the gateway, [`Book::check`] holds it against the book:
//!
//! * what was acknowledged is there, as it was asked for;
//! * what was not answered is repeated with its idempotency key, twice, and is one object;
//! * every change has exactly one audit entry, and every entry its change: nothing is half done.
//!
//! That the book itself notices losses is seen each time: [`Book::notices`] takes something away
//! behind its back.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::product::{WORKSPACE, World};
use serde_json::{Value, json};

use crate::api::{Answer, Api, Broken};

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A project was made.
    Project,
    /// A host was entered into the inventory.
    Host,
    /// An agent token was made.
    Token,
    /// An API key was made.
    Key,
    /// A host's label was raised by one.
    Label,
    /// An agent token was revoked.
    Revoke,
}

/// What the writer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is done; the id of what was made or changed.
    Done(String),
    /// Nothing: the connection broke.
    Nothing,
    /// The gateway refused: status and stable code.
    Refused(u16, String),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Line {
    kind: Kind,
    /// Unique; the object's name or description, and its idempotency key.
    name: String,
    /// The host or token that is changed.
    of: String,
    told: Told,
}

/// All that writers did, and what is to be found of it.
#[derive(Debug)]
pub struct Book {
    /// With a key of its own: what others do is none of the book's business.
    api: Api,
    workspace: String,
    round: u32,
    lines: Vec<Line>,
    /// Lines that were checked.
    checked: usize,
    /// Requests without an answer, over all rounds.
    unanswered: usize,
    /// Of those, how many had been carried out.
    carried_out: usize,
    /// Raised labels by host: how often that was acknowledged, or found to be done.
    labels: BTreeMap<String, u64>,
    /// Objects made, by kind.
    made: BTreeMap<Kind, BTreeMap<String, String>>,
    revoked: BTreeMap<String, bool>,
    audit: Audit,
}

/// What the audit trail says of the book's key.
#[derive(Debug, Default)]
struct Audit {
    /// Read up to these numbers, by path of the chain.
    read: BTreeMap<String, u64>,
    /// How often an action is there, by action and target.
    counts: BTreeMap<(String, String), u64>,
}

impl Book {
    /// An empty book for `world`'s workspace. What is there already is of no interest.
    pub fn open(world: &World) -> Result<Self> {
        let mut api = Api::of(world)?;
        let listed = api.read("/v1/workspaces")?;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let workspace = items
            .iter()
            .find(|it| it["name"] == WORKSPACE)
            .and_then(|it| it["id"].as_str())
            .with_context(|| format!("the workspace {WORKSPACE} is not listed: {listed}"))?;
        Ok(Self {
            api,
            workspace: workspace.to_owned(),
            round: 0,
            lines: Vec::new(),
            checked: 0,
            unanswered: 0,
            carried_out: 0,
            labels: BTreeMap::new(),
            made: BTreeMap::new(),
            revoked: BTreeMap::new(),
            audit: Audit::default(),
        })
    }

    /// The workspace's id.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// How many changes were acknowledged, or found to be done.
    pub fn acknowledged(&self) -> usize {
        let done = |line: &&Line| matches!(line.told, Told::Done(_));
        self.lines.iter().filter(done).count()
    }

    /// Requests without an answer, and how many of them had been carried out.
    pub fn unanswered(&self) -> (usize, usize) {
        (self.unanswered, self.carried_out)
    }

    /// Requests without an answer in all rounds, checked or not.
    pub fn lines_unanswered(&self) -> usize {
        let new = self.lines[self.checked..].iter();
        self.unanswered + new.filter(|line| line.told == Told::Nothing).count()
    }

    /// Refusals so far, by status and code.
    pub fn refusals(&self) -> BTreeMap<(u16, String), usize> {
        let mut refusals = BTreeMap::new();
        for line in &self.lines {
            if let Told::Refused(status, code) = &line.told {
                *refusals.entry((*status, code.clone())).or_default() += 1;
            }
        }
        refusals
    }

    /// Lets `count` writers write, each until its connection breaks or `stop` is set, while `work`
    /// does what it does. Its answer.
    pub fn write_while<T>(&mut self, count: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.round += 1;
        let stop = AtomicBool::new(false);
        let (api, workspace, round) = (self.api.clone(), self.workspace.clone(), self.round);
        let (result, lines) = thread::scope(|scope| {
            let writers: Vec<_> = (0..count)
                .map(|number| {
                    let writer = Writer {
                        api: api.clone(),
                        workspace: &workspace,
                        prefix: format!("r{round}-w{number}"),
                        lines: Vec::new(),
                    };
                    let stop = &stop;
                    scope.spawn(move || writer.run(number, stop))
                })
                .collect();
            let result = work();
            stop.store(true, Ordering::Relaxed);
            let lines: Vec<_> = writers.into_iter().map(|it| it.join()).collect();
            (result, lines)
        });
        for lines in lines {
            match lines {
                Ok(lines) => self.lines.extend(lines),
                Err(_) => bail!("a writer panicked"),
            }
        }
        result
    }

    /// Holds the gateway against the book, as far as the book was not checked yet.
    pub fn check(&mut self) -> Result<()> {
        let api = &mut self.api.clone();
        for at in self.checked..self.lines.len() {
            self.check_line(api, at)
                .with_context(|| format!("line {:?}", self.lines[at]))?;
        }
        self.read_audit(api)?;
        self.check_audit(self.checked)?;
        self.checked = self.lines.len();
        Ok(())
    }

    /// Holds everything there is against everything in the book.
    pub fn check_all(&mut self) -> Result<()> {
        self.check()?;
        let api = &mut self.api.clone();
        self.check_audit(0)?;
        for kind in [Kind::Project, Kind::Host, Kind::Token, Kind::Key] {
            let listed = self.list(api, kind)?;
            let empty = BTreeMap::new();
            let made = self.made.get(&kind).unwrap_or(&empty);
            for (id, name) in made {
                ensure!(
                    listed.get(id) == Some(name),
                    "{kind:?} {id} ({name}) is listed as {:?}",
                    listed.get(id)
                );
            }
            // Names of ours that no line accounts for would be objects made twice.
            let ours = |name: &str| name.starts_with('r') && name.contains("-w");
            let extra = listed
                .iter()
                .find(|(id, name)| ours(name) && !made.contains_key(*id));
            if let Some((id, name)) = extra {
                bail!("{kind:?} {id} ({name}) is there and nobody was told");
            }
        }
        Ok(())
    }

    /// Whether [`Self::check_all`] would notice the loss of one object. It loses one to find out, so
    /// this is the book's last check.
    pub fn notices(mut self) -> Result<()> {
        let made = self.made.get(&Kind::Project);
        let lost = made.and_then(|made| made.keys().next());
        let path = format!("/v1/projects/{}", lost.context("no project was made")?);
        self.api.clone().change("DELETE", &path, None, 204)?;
        ensure!(
            self.check_all().is_err(),
            "an object that was taken away was not missed: this checks nothing"
        );
        Ok(())
    }

    fn check_line(&mut self, api: &mut Api, at: usize) -> Result<()> {
        let line = self.lines[at].clone();
        let told = match (&line.told, line.kind) {
            (Told::Refused(..), _) => return Ok(()),
            (told, Kind::Label) => {
                let found = self.found_label(api, &line.of)?;
                let known = self.labels.entry(line.of.clone()).or_default();
                match told {
                    // Later lines may have raised it further.
                    Told::Done(_) => *known += 1,
                    Told::Nothing => {
                        // The last line of its writer: nobody else raises this label.
                        self.unanswered += 1;
                        ensure!(
                            found == *known || found == *known + 1,
                            "label {found} after {known}"
                        );
                        self.carried_out += usize::from(found > *known);
                        *known = found;
                    }
                    Told::Refused(..) => {}
                }
                ensure!(found >= *known, "label {found}, {known} was acknowledged");
                told.clone()
            }
            (told, Kind::Revoke) => {
                let path = format!("{}/{}", self.path(Kind::Token), line.of);
                let gone = api.read(&path)?["state"] == "revoked";
                if *told == Told::Nothing {
                    self.unanswered += 1;
                    self.carried_out += usize::from(gone);
                } else {
                    ensure!(gone, "a revoked token is back");
                }
                self.revoked.insert(line.of.clone(), gone);
                told.clone()
            }
            (Told::Done(id), kind) => {
                self.check_made(api, kind, id, &line.name)?;
                line.told.clone()
            }
            (Told::Nothing, kind) => {
                self.unanswered += 1;
                let (body, path) = (body(kind, &line.name), self.path(kind));
                let mut repeat = || -> Result<Answer> {
                    let answer =
                        api.send("POST", &path, Some(&body), Some(&repeat_key(&line.name)))?;
                    ensure!(answer.status == 201, "the repeated request: {answer}");
                    Ok(answer)
                };
                let (first, second) = (repeat()?, repeat()?);
                ensure!(
                    first.id() == second.id(),
                    "repeated twice it is two: {} and {}",
                    first.id(),
                    second.id()
                );
                self.check_made(api, kind, first.id(), &line.name)?;
                Told::Done(first.id().to_owned())
            }
        };
        if let (Told::Done(id), Kind::Project | Kind::Host | Kind::Token | Kind::Key) =
            (&told, line.kind)
        {
            let made = self.made.entry(line.kind).or_default();
            made.insert(id.clone(), line.name.clone());
        }
        self.lines[at].told = told;
        Ok(())
    }

    fn check_made(&self, api: &mut Api, kind: Kind, id: &str, name: &str) -> Result<()> {
        // Keys are only listed; `check_all` looks at them, and the audit trail below.
        if kind == Kind::Key {
            return Ok(());
        }
        let found = api.read(&format!("{}/{id}", self.path(kind)))?;
        ensure!(found[name_field(kind)] == name, "{id} is there as {found}");
        Ok(())
    }

    /// One audit entry for each change, one change for each entry.
    fn check_audit(&mut self, from: usize) -> Result<()> {
        let count = |action: &str, target: &str| {
            let at = (action.to_owned(), target.to_owned());
            self.audit.counts.get(&at).copied().unwrap_or(0)
        };
        for line in &self.lines[from..] {
            let Told::Done(id) = &line.told else { continue };
            let Some(action) = made_action(line.kind) else {
                continue;
            };
            let found = count(action, id);
            ensure!(found == 1, "{found} entries {action} for {line:?}");
        }
        for (host, raised) in &self.labels {
            let found = count("host.update", host);
            ensure!(
                found == *raised,
                "{found} entries host.update for {host}, whose label was raised {raised} times"
            );
        }
        for (token, gone) in &self.revoked {
            let found = count("agent_token.revoke", token);
            ensure!(
                found == u64::from(*gone),
                "{found} entries agent_token.revoke for {token}, revoked: {gone}"
            );
        }
        for kind in [Kind::Project, Kind::Host, Kind::Token, Kind::Key] {
            let action = made_action(kind).unwrap_or_default();
            let entries = self.audit.counts.keys().filter(|(it, _)| it == action);
            let empty = BTreeMap::new();
            let made = self.made.get(&kind).unwrap_or(&empty);
            for (_, target) in entries {
                ensure!(
                    made.contains_key(target),
                    "an entry {action} for {target}, which nobody made"
                );
            }
        }
        Ok(())
    }

    fn read_audit(&mut self, api: &mut Api) -> Result<()> {
        let chains = [
            "/v1/audit".to_owned(),
            format!("/v1/workspaces/{}/audit", self.workspace),
        ];
        for chain in chains {
            let before = self.audit.read.get(&chain).copied().unwrap_or(0);
            let (mut newest, mut after) = (before, String::new());
            'pages: loop {
                let page = api.read(&format!("{chain}?limit=500{after}"))?;
                for item in page["items"].as_array().into_iter().flatten() {
                    let seq = item["seq"].as_u64().context("an entry without number")?;
                    if seq <= before {
                        break 'pages;
                    }
                    newest = newest.max(seq);
                    let body = item["body"].as_str().unwrap_or_default();
                    let entry: Value = serde_json::from_str(body).context("read an entry")?;
                    if entry["actor"]["api_key"] != self.api.key_id() {
                        continue;
                    }
                    let (action, target) = (entry["action"].as_str(), entry["target"].as_str());
                    let key = (
                        action.unwrap_or_default().to_owned(),
                        target.unwrap_or_default().to_owned(),
                    );
                    *self.audit.counts.entry(key).or_default() += 1;
                }
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            self.audit.read.insert(chain, newest);
        }
        Ok(())
    }

    fn found_label(&self, api: &mut Api, host: &str) -> Result<u64> {
        let found = api.read(&format!("{}/{host}", self.path(Kind::Host)))?;
        let label = found["labels"]["n"].as_str().and_then(|n| n.parse().ok());
        label.with_context(|| format!("the host has no label: {found}"))
    }

    fn list(&self, api: &mut Api, kind: Kind) -> Result<BTreeMap<String, String>> {
        let (path, mut after) = (self.path(kind), String::new());
        let mut all = BTreeMap::new();
        // Revoked tokens are listed only for those who ask.
        let all_of_them = if kind == Kind::Token { "&all=true" } else { "" };
        loop {
            let page = api.read(&format!("{path}?limit=1000{all_of_them}{after}"))?;
            for item in page["items"].as_array().into_iter().flatten() {
                let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
                all.insert(text("id"), text(name_field(kind)));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    fn path(&self, kind: Kind) -> String {
        path(kind, &self.workspace)
    }
}

fn path(kind: Kind, workspace: &str) -> String {
    match kind {
        Kind::Project => "/v1/projects".to_owned(),
        Kind::Key => "/v1/self/api-keys".to_owned(),
        Kind::Host | Kind::Label => format!("/v1/workspaces/{workspace}/hosts"),
        Kind::Token | Kind::Revoke => format!("/v1/workspaces/{workspace}/agent-tokens"),
    }
}

fn name_field(kind: Kind) -> &'static str {
    match kind {
        Kind::Project => "name",
        Kind::Host | Kind::Label => "name",
        Kind::Token | Kind::Revoke | Kind::Key => "description",
    }
}

fn made_action(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Project => Some("project.create"),
        Kind::Host => Some("host.create"),
        Kind::Token => Some("agent_token.create"),
        Kind::Key => Some("api_key.create"),
        Kind::Label | Kind::Revoke => None,
    }
}

/// The idempotency key of a line.
fn repeat_key(name: &str) -> String {
    format!("faults-{name}")
}

fn body(kind: Kind, name: &str) -> Value {
    match kind {
        Kind::Project => json!({ "name": name }),
        Kind::Host | Kind::Label => json!({ "hostname": name, "labels": { "n": "0" } }),
        Kind::Token | Kind::Revoke | Kind::Key => json!({ "description": name }),
    }
}

struct Writer<'a> {
    api: Api,
    workspace: &'a str,
    prefix: String,
    lines: Vec<Line>,
}

impl Writer<'_> {
    fn run(mut self, number: usize, stop: &AtomicBool) -> Vec<Line> {
        let kinds = [
            Kind::Host,
            Kind::Label,
            Kind::Token,
            Kind::Project,
            Kind::Label,
            Kind::Revoke,
            Kind::Key,
        ];
        // Writers begin at different kinds, so that short lives have all of them.
        for turn in number.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Some(line) = self.line(kinds[turn % kinds.len()]) else {
                continue;
            };
            if self.perform(line).is_err() {
                break;
            }
        }
        self.lines
    }

    /// The next line of this kind; nothing when there is nothing to change yet.
    fn line(&self, kind: Kind) -> Option<Line> {
        let made = |wanted: Kind| {
            let lines = self.lines.iter().filter(move |line| line.kind == wanted);
            lines.filter_map(|line| match &line.told {
                Told::Done(id) => Some(id.clone()),
                Told::Nothing | Told::Refused(..) => None,
            })
        };
        let changed = |of: &String| {
            let mut changes = self.lines.iter();
            changes.any(|line| line.kind == Kind::Revoke && line.of == *of)
        };
        let of = match kind {
            Kind::Label => made(Kind::Host).next()?,
            Kind::Revoke => made(Kind::Token).find(|token| !changed(token))?,
            Kind::Project | Kind::Host | Kind::Token | Kind::Key => String::new(),
        };
        Some(Line {
            kind,
            name: format!("{}-{}", self.prefix, self.lines.len()),
            of,
            told: Told::Nothing,
        })
    }

    /// Sends the line. An error means that the connection broke.
    fn perform(&mut self, mut line: Line) -> Result<(), ()> {
        let path = path(line.kind, self.workspace);
        let sent = match line.kind {
            Kind::Label => {
                let raised = self.lines.iter().filter(|it| {
                    it.kind == Kind::Label && it.of == line.of && matches!(it.told, Told::Done(_))
                });
                let n = (raised.count() + 1).to_string();
                let path = format!("{path}/{}", line.of);
                let body = json!({ "labels": { "n": n } });
                self.api.send("PATCH", &path, Some(&body), None)
            }
            Kind::Revoke => {
                let path = format!("{path}/{}", line.of);
                self.api.send("DELETE", &path, None, None)
            }
            kind => {
                let body = body(kind, &line.name);
                self.api
                    .send("POST", &path, Some(&body), Some(&repeat_key(&line.name)))
            }
        };
        let broke = match sent {
            Ok(answer) if answer.status < 300 => {
                let id = match line.kind {
                    Kind::Label | Kind::Revoke => &line.of,
                    _ => answer.id(),
                };
                line.told = Told::Done(id.to_owned());
                false
            }
            // Nobody knows, says the gateway: the same as no answer.
            Ok(answer) if answer.status == 503 && answer.text.contains("was done or it") => true,
            Ok(answer) => {
                line.told = Told::Refused(answer.status, answer.code().to_owned());
                false
            }
            Err(Broken::NotSent(_)) => return Err(()),
            Err(Broken::Unknown(_)) => true,
        };
        self.lines.push(line);
        if broke { Err(()) } else { Ok(()) }
    }
}
