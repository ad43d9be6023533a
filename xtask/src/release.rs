//! `cargo xtask release`: static agents and the signed folder a gateway serves them from.
//!
//! The binaries are reproducible: paths of the building machine are taken out, the linker adds no
//! build id, dependencies are locked. The same commit and toolchain give the same bytes anywhere,
//! so anybody can check a release by building it. The manifest around them names the time and is
//! signed, so it differs.
//!
//! Without `--key` a development key in the target folder signs, made on first use. A real release
//! is signed with a key that lies on no gateway.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    say,
    tools::{self, Tool, tool},
};
use jiff::{SignedDuration, Timestamp};
use lexopt::{Arg, Parser, ValueExt};
use release::{Channel, Draft, DraftFile, SigningKey};

use crate::workspace::{self, Workspace, target_folder};

/// Hosts refuse a release after this long, so that nobody can feed them a stale one for ever.
const VALID: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A platform agents are built for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arch {
    /// What `uname -m` says.
    pub(crate) name: &'static str,
    target: &'static str,
    tools: &'static [Tool],
    linker_flags: &'static [&'static str],
}

/// All of them.
pub(crate) const ARCHES: &[Arch] = &[
    Arch {
        name: "x86_64",
        target: "x86_64-unknown-linux-musl",
        tools: &[tool("musl-gcc", "musl-tools")],
        linker_flags: &["-Clink-arg=-Wl,--build-id=none"],
    },
    Arch {
        name: "aarch64",
        target: "aarch64-unknown-linux-musl",
        tools: &[
            tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
            tool(
                "/usr/aarch64-linux-gnu/include/stdio.h",
                "libc6-dev-arm64-cross",
            ),
        ],
        // rust-lld links this target and adds no build id unless asked.
        linker_flags: &[],
    },
];

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut arches = Vec::new();
    let mut channel = Channel::Stable;
    let mut out = None;
    let mut key = None;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("arch") => arches.push(arch(&args.value()?.string()?)?),
            Arg::Long("channel") => channel = args.value()?.parse()?,
            Arg::Long("out") => out = Some(PathBuf::from(args.value()?)),
            Arg::Long("key") => key = Some(PathBuf::from(args.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    if arches.is_empty() {
        arches.extend(ARCHES);
    }
    let key = match key {
        Some(path) => SigningKey::load(&path).context("read the signing key")?,
        None => development_key()?,
    };
    let out = out.unwrap_or_else(|| target_folder().join(format!("release-{channel}")));
    let release = write(workspace, &arches, channel, &out, &key)?;
    println!("\n{}", release.dir().display());
    for file in &release.manifest().files {
        println!(
            "  {:32} {:>9} bytes  sha256 {}",
            file.name, file.size, file.sha256
        );
    }
    println!("signed by {}", key.public());
    Ok(ExitCode::SUCCESS)
}

/// Builds the agents and writes the folder `out`, which must not exist yet.
pub(crate) fn write(
    workspace: &Workspace,
    arches: &[&Arch],
    channel: Channel,
    out: &Path,
    key: &SigningKey,
) -> Result<release::Release> {
    ensure!(
        !out.exists(),
        "{} exists already; a release is never overwritten",
        out.display()
    );
    let created = build_time()?;
    let files = arches
        .iter()
        .map(|arch| {
            let source = build(workspace, arch)?;
            Ok(DraftFile {
                os: "linux".into(),
                arch: arch.name.into(),
                source,
            })
        })
        .collect::<Result<_>>()?;
    let draft = Draft {
        channel,
        version: env!("CARGO_PKG_VERSION").into(),
        // Seconds grow by themselves; nobody has to remember the last number.
        number: u64::try_from(created.as_second()).context("releases are made after 1970")?,
        created,
        expires: created + VALID,
        files,
    };
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    release::write_release(out, &draft, key).context("write the release folder")
}

/// Builds the agent for one platform.
pub(crate) fn build(workspace: &Workspace, arch: &Arch) -> Result<PathBuf> {
    tools::ensure(arch.tools)?;
    tools::ensure_target(arch.target)?;
    say::line(format_args!(
        "      building the static agent for {}",
        arch.name
    ));
    let mut flags = vec![format!(
        "--remap-path-prefix={}=.",
        workspace.root().display()
    )];
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("find cargo's home")?;
    flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    flags.extend(arch.linker_flags.iter().map(|&flag| flag.to_owned()));
    let args = [
        "--profile",
        "agent",
        "--package",
        "agent",
        "--target",
        arch.target,
    ];
    // The separator is cargo's own: a path may contain spaces.
    let flags = flags.join("\u{1f}");
    let env = [
        ("CARGO_ENCODED_RUSTFLAGS", flags.as_str()),
        ("SOURCE_DATE_EPOCH", "0"),
    ];
    workspace::program(&workspace.build_with(&args, &env)?, "loopback-agent")
}

/// A platform by name.
pub(crate) fn arch(name: &str) -> Result<&'static Arch> {
    ARCHES
        .iter()
        .find(|arch| arch.name == name)
        .with_context(|| {
            let known: Vec<_> = ARCHES.iter().map(|arch| arch.name).collect();
            format!(
                "there is no architecture {name:?}; known: {}",
                known.join(", ")
            )
        })
}

/// The platform of this machine.
pub(crate) fn native() -> Result<&'static Arch> {
    arch(env::consts::ARCH)
}

fn development_key() -> Result<SigningKey> {
    let path = target_folder().join("release-development.key");
    if path.exists() {
        return SigningKey::load(&path).context("read the development key");
    }
    println!(
        "making a development key in {}; hosts of others do not trust it",
        path.display()
    );
    let key = SigningKey::generate()?;
    key.save(&path)?;
    Ok(key)
}

/// Now, or what `SOURCE_DATE_EPOCH` says.
fn build_time() -> Result<Timestamp> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            let seconds = seconds.parse().context("read SOURCE_DATE_EPOCH")?;
            Timestamp::from_second(seconds).context("read SOURCE_DATE_EPOCH")
        }
        Err(_) => Timestamp::from_second(Timestamp::now().as_second()).context("read the clock"),
    }
}
