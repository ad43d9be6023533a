//! `bench serve-http`: bare axum that answers one path with the same bytes every time.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use lexopt::{Arg, Parser, ValueExt};

pub(crate) fn main(mut args: Parser) -> Result<ExitCode> {
    let (mut address, mut body) = (None, PathBuf::new());
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("listen") => address = Some(args.value()?.parse::<SocketAddr>()?),
            Arg::Long("body") => body = args.value()?.into(),
            other => return Err(other.unexpected().into()),
        }
    }
    let address = address.context("--listen ADDRESS")?;
    let body: &'static str = std::fs::read_to_string(body)?.leak();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let answer = move || async move { ([(CONTENT_TYPE, "application/json")], body) };
        let router = Router::new().route("/", get(answer));
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("ready");
        axum::serve(listener, router).await?;
        Ok(ExitCode::SUCCESS)
    })
}
