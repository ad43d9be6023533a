//! The help of every command, as one text to review. `UPDATE_GOLDEN=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use cli::commands::Cli;

#[test]
fn help_is_as_reviewed() {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut text = String::new();
    add(&mut text, &mut root, true);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text
        .lines()
        .zip(reviewed.lines())
        .find(|(now, then)| now != then);
    assert!(
        text == reviewed,
        "the help has changed, first at {differs:?}; if that is wanted: UPDATE_GOLDEN=1 cargo test -p cli --test help"
    );
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

/// The options that every command has are written once, with the first.
fn add(text: &mut String, command: &mut Command, with_globals: bool) {
    let help = command.render_help().to_string();
    let own = if with_globals {
        help
    } else {
        let own = help.split("\nGlobal options:").next().unwrap_or_default();
        let after = command.get_after_help();
        let after = after.map(|after| format!("\n{after}"));
        own.to_owned() + &after.unwrap_or_default()
    };
    let name = command.get_bin_name().unwrap_or("loopback").to_owned();
    writeln!(text, "## {name}\n\n{}\n", own.trim_end()).unwrap();
    for subcommand in command
        .get_subcommands_mut()
        .filter(|command| command.get_name() != "help")
    {
        add(text, subcommand, false);
    }
}
