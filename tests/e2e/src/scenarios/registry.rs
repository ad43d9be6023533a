//! `registry`: a component from its author through a real registry into a gateway that takes only
//! what is signed, and what a registry could do to it on the way.
//!
//! Nothing stands in for anything: the component is one that comes with the product, `loopback-plugin`
//! signs and pushes it, the registry is the one that Debian has, and refusals are read as the operator
//! reads them, in the CLI.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::support::closed_window;
use crate::{
    product::{Daemon, Launch, Programs, WORKSPACE, World},
    scenario::step,
    scratch::Scratch,
    sh, tools,
    wait::{self, Look},
};

/// For what takes a moment; compiling a component takes longest.
const SOON: Duration = Duration::from_secs(60);
/// What the CLI answers where the gateway says no.
const CONFLICT: i32 = 5;

pub(super) fn run(programs: &Programs) -> Result<()> {
    let folder = Scratch::new()?;
    let registry = step("a registry", || Registry::start(folder.path()))?;
    let author = Author {
        programs,
        folder: folder.path(),
        registry: &registry,
    };
    let pinned = step("its author signs and pushes a policy", || {
        author.keygen("author")?;
        author.keygen("stranger")?;
        author.push("policy-window", Some("author"), "stable")
    })?;
    let launch = Launch {
        settings: format!(
            "\n[plugins]\ntrusted_keys = [\"{}\"]\n\n[plugins.registries.\"{}\"]\nplain_http = true\n",
            folder.join("author.pub").display(),
            registry.address,
        ),
        ..Launch::default()
    };
    let world = World::here_with(programs, launch)?;
    let story = Story {
        world: &world,
        author: &author,
        pinned,
    };
    world.step("a layer with other bytes is refused", || story.tampered())?;
    world.step("what nobody trusted has signed is refused", || {
        story.signatures()
    })?;
    world.step("by digest it is installed, and may do nothing", || {
        story.install()
    })?;
    world.step("granted, configured and enabled, it judges", || {
        story.works()
    })?;
    world.step(
        "a tag that moves changes nothing, and its new plugin is refused",
        || story.moved_tag(),
    )?;
    world.step("it judges still", || story.refuses_a_token())
}

/// Who has a component, keys and an account nobody asks for.
struct Author<'a> {
    programs: &'a Programs,
    folder: &'a Path,
    registry: &'a Registry,
}

impl Author<'_> {
    fn kit(&self, args: &[&str]) -> Result<String> {
        let kit = self.programs.kit.display().to_string();
        let words = [&[kit.as_str()], args].concat();
        sh::ok(&words, SOON)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn keygen(&self, name: &str) -> Result<()> {
        let public = self.kit(&["keygen", &self.path(&format!("{name}.key"))])?;
        fs::write(self.folder.join(format!("{name}.pub")), public).context("write the public key")
    }

    /// Pushes a component that comes with the product; the reference that is printed.
    fn push(&self, component: &str, signer: Option<&str>, tag: &str) -> Result<String> {
        let built = self.programs.plugins.join(component).with_extension("wasm");
        let file = self.path(&format!("{component}.wasm"));
        fs::copy(&built, &file).with_context(|| format!("copy {}", built.display()))?;
        let signature = format!("{file}.sig");
        // Of the push before.
        let _ = fs::remove_file(&signature);
        if let Some(signer) = signer {
            self.kit(&["sign", &file, "--key", &self.path(&format!("{signer}.key"))])?;
        }
        self.push_file(&file, tag)
    }

    fn push_file(&self, file: &str, tag: &str) -> Result<String> {
        let said = self.kit(&["push", file, &self.reference(tag), "--plain-http"])?;
        Ok(said.trim_end().to_owned())
    }

    fn reference(&self, tag: &str) -> String {
        format!("oci://{}/team/policy-window:{tag}", self.registry.address)
    }
}

struct Story<'a> {
    world: &'a World,
    author: &'a Author<'a>,
    pinned: String,
}

impl Story<'_> {
    /// The CLI is refused, for this reason, which it shows.
    fn refused(&self, args: &[&str], code: i32, words: &[&str]) -> Result<()> {
        let refused = self.world.cli().run(args)?;
        ensure!(
            refused.code() == Some(code),
            "not exit code {code}: {refused}"
        );
        for word in words {
            ensure!(
                refused.stderr.contains(word),
                "it does not say {word}: {refused}"
            );
        }
        Ok(())
    }

    fn installed(&self) -> Result<Vec<Value>> {
        self.world.cli().list(&["plugin", "list"])
    }

    fn tampered(&self) -> Result<()> {
        let file = self.author.path("policy-window.wasm");
        let component = self.author.registry.blob(&digest_of_file(&file)?);
        let manifest = self.author.registry.blob(digest_in(&self.pinned)?);
        for (blob, at) in [(component, 4_000), (manifest, 20)] {
            let before = fs::read(&blob).with_context(|| format!("read {}", blob.display()))?;
            let mut other = before.clone();
            *other.get_mut(at).context("a byte to change")? ^= 1;
            fs::write(&blob, &other)?;
            let words = ["invalid", "oci.digest_mismatch"];
            self.refused(&["plugin", "install", &self.pinned], 2, &words)?;
            fs::write(&blob, &before)?;
        }
        ensure!(self.installed()?.is_empty(), "something was installed");
        Ok(())
    }

    fn signatures(&self) -> Result<()> {
        let unsigned = self.author.push("policy-window", None, "unsigned")?;
        let stranger = self
            .author
            .push("policy-window", Some("stranger"), "stranger")?;
        // The author's signature, of something else.
        self.author
            .push("install-default", Some("author"), "elsewhere")?;
        let file = self.author.path("policy-window.wasm");
        let other = self.author.path("install-default.wasm");
        fs::copy(format!("{other}.sig"), format!("{file}.sig")).context("exchange signatures")?;
        let exchanged = self.author.push_file(&file, "exchanged")?;
        for reference in [unsigned, stranger, exchanged] {
            self.refused(&["plugin", "install", &reference], 2, &["bad_signature"])?;
        }
        ensure!(self.installed()?.is_empty(), "something was installed");
        Ok(())
    }

    fn install(&self) -> Result<()> {
        self.world
            .cli()
            .text(&["plugin", "install", &self.pinned])?;
        let shown = self.shown()?;
        let present = &shown["present"];
        ensure!(
            Some(self.pinned.as_str()) == present["source"].as_str().map(oci).as_deref(),
            "it is from elsewhere: {shown}"
        );
        let file = self.author.path("policy-window.wasm");
        let digest = format!("sha256:{}", digest_of_file(&file)?);
        ensure!(present["digest"] == digest.as_str(), "other bytes: {shown}");
        ensure!(
            present["signed_by"].is_string(),
            "nobody signed it: {shown}"
        );
        let enable = ["plugin", "enable", "policy-window"];
        self.refused(&enable, CONFLICT, &["workspaces"])
    }

    fn shown(&self) -> Result<Value> {
        self.world.cli().json(&["plugin", "show", "policy-window"])
    }

    fn works(&self) -> Result<()> {
        let cli = self.world.cli();
        cli.text(&["plugin", "grant", "policy-window", "--workspace", "all"])?;
        let configuration = json!({
            "windows": closed_window()?, "actions": ["project.workspace.agent_token"],
        });
        let file = self.author.path("configuration.json");
        fs::write(&file, configuration.to_string()).context("write the configuration")?;
        cli.text(&["plugin", "configure", "policy-window", "-f", &file])?;
        cli.text(&["plugin", "enable", "policy-window"])?;
        wait::until("the plugin to be ready", SOON, || {
            let running = self.shown()?["running"].clone();
            Ok(Look::when(running["status"] == "ready", || {
                running.to_string()
            }))
        })?;
        self.refuses_a_token()
    }

    fn refuses_a_token(&self) -> Result<()> {
        let token = ["token", "create", "-w", WORKSPACE];
        self.refused(&token, 4, &["policy_denied", "window"])
    }

    fn moved_tag(&self) -> Result<()> {
        let tag = self.author.reference("stable");
        let upgrade = ["plugin", "upgrade", "policy-window", &tag];
        // To the same component, by somebody else; and to another one, by the author.
        self.author
            .push("policy-window", Some("stranger"), "stable")?;
        self.refused(&upgrade, 2, &["bad_signature"])?;
        let moved = self
            .author
            .push("install-default", Some("author"), "stable")?;
        ensure!(moved != self.pinned, "the tag did not move");
        self.refused(&upgrade, CONFLICT, &["installer", "policy"])?;
        // Whoever has the digest has what it names, and that is here already.
        let digest = digest_in(&self.pinned)?;
        let both = format!("{tag}@sha256:{digest}");
        for same in [&self.pinned, &both] {
            let upgrade = ["plugin", "upgrade", "policy-window", same];
            self.refused(&upgrade, CONFLICT, &["conflict"])?;
        }
        // A registry that has forgotten what the tag was before.
        let manifest = self.author.registry.blob(digest);
        fs::remove_file(&manifest).with_context(|| format!("remove {}", manifest.display()))?;
        let install = ["plugin", "install", &self.pinned, "--name", "again"];
        self.refused(&install, 2, &["oci.not_found"])?;
        let shown = self.shown()?;
        ensure!(
            shown["present"]["source"].as_str().map(oci).as_deref() == Some(&self.pinned)
                && shown["running"]["status"] == "ready",
            "the installed plugin changed: {shown}"
        );
        Ok(())
    }
}

/// A reference as one types it.
fn oci(source: &str) -> String {
    format!("oci://{source}")
}

fn digest_in(reference: &str) -> Result<&str> {
    let (_, hex) = reference
        .split_once("@sha256:")
        .context("a reference with a digest")?;
    Ok(hex)
}

fn digest_of_file(file: &str) -> Result<String> {
    let said = sh::ok(&["sha256sum", file], SOON)?;
    let hex = said.split_whitespace().next().context("a digest")?;
    Ok(hex.to_owned())
}

/// The registry, on this machine's loopback interface.
struct Registry {
    address: SocketAddr,
    data: PathBuf,
    _process: Daemon,
}

impl Registry {
    fn start(folder: &Path) -> Result<Self> {
        let program = tools::unpacked("docker-registry", "docker-registry")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr()?;
        drop(listener);
        let data = folder.join("registry");
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n",
            data.display()
        );
        fs::write(&config, text).context("write the registry's configuration")?;
        let (program, config) = (program.display().to_string(), config.display().to_string());
        let command = sh::command(&[&program, "serve", &config]);
        let process = Daemon::start("the registry", command, &folder.join("registry.log"))?;
        wait::until("the registry to listen", SOON, || {
            let there = TcpStream::connect_timeout(&address, Duration::from_secs(1));
            Ok(Look::when(there.is_ok(), || process.tail(3)))
        })?;
        Ok(Self {
            address,
            data,
            _process: process,
        })
    }

    /// Where it keeps the bytes with this digest.
    fn blob(&self, hex: &str) -> PathBuf {
        self.data
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}
