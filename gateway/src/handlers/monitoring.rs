//! Metrics of hosts: where Prometheus finds them, and the scrapes themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::v1::monitoring::*;
use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::request::Parts;
use model::facts::{OWN_EXPORTER, is_exporter_name};
use model::host::Membership;
use model::selector::Selector;
use protocol::v1::ScrapeFormat;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::scrape::{not_linked, scrape};
use crate::state::catalog::Tables;
use crate::state::records::HostRecordV1;
use crate::view;

/// What a scrape may take when the asker does not say: Prometheus' own default.
const USUAL: Duration = Duration::from_secs(10);
/// And at most.
const LONGEST: Duration = Duration::from_secs(30);
/// What the asker needs to take the answer.
const MARGIN: Duration = Duration::from_millis(250);

/// Targets of a workspace.
pub async fn list_metrics_targets(
    app: Arc<App>,
    call: Call<ListMetricsTargets>,
) -> Result<Vec<TargetGroup>> {
    let selector: Selector = call
        .query
        .selector
        .as_deref()
        .unwrap_or_default()
        .parse()
        .map_err(|error: model::selector::BadSelector| {
            Error::invalid("selector", error.to_string())
        })?;
    let address = address_of(&app.public_url);
    let tables = app.catalog.read();
    let mut groups = Vec::new();
    for id in tables.hosts_after(call.proof.workspace(), None) {
        let Some(record) = tables.hosts.get(&id) else {
            continue;
        };
        if record.membership != Membership::Managed || !selector.matches(&record.labels) {
            continue;
        }
        let labels = labels_of(&tables, record, call.meta.now);
        let exporters = tables.facts.get(&id);
        let exporters = exporters.map_or(&[][..], |facts| facts.exporters());
        for exporter in [OWN_EXPORTER]
            .into_iter()
            .chain(exporters.iter().map(|it| &**it))
        {
            groups.push(TargetGroup {
                targets: vec![address.clone()],
                labels: with_exporter(labels.clone(), exporter),
            });
        }
    }
    Ok(groups)
}

fn labels_of(
    tables: &Tables,
    record: &HostRecordV1,
    now: model::Timestamp,
) -> BTreeMap<String, String> {
    let name = view::name_of(record, view::hostname_of(tables, record));
    let path = format!(
        "/v1/workspaces/{}/hosts/{}/metrics",
        record.workspace, record.id
    );
    let mut labels = BTreeMap::from([
        ("__scheme__".to_owned(), "https".to_owned()),
        ("__metrics_path__".to_owned(), path),
        ("instance".to_owned(), name.clone()),
    ]);
    let mut say = |key: &str, value: String| {
        labels.insert(format!("loopback_{key}"), value.clone());
        labels.insert(format!("__meta_loopback_{key}"), value);
    };
    say("host", record.id.to_string());
    let workspace = tables.workspaces.get(&record.workspace);
    if let Some(workspace) = workspace {
        say("workspace", workspace.name.to_string());
        say("environment", workspace.environment.to_string());
        if let Some(project) = tables.projects.get(&workspace.project) {
            say("project", project.name.to_string());
        }
        labels.insert(
            "__meta_loopback_project_id".to_owned(),
            workspace.project.to_string(),
        );
    }
    let maintained = record.maintenance.as_ref().is_some_and(|it| now < it.until);
    for (key, value) in [
        ("host_name", name),
        ("workspace_id", record.workspace.to_string()),
        ("maintenance", maintained.to_string()),
    ] {
        labels.insert(format!("__meta_loopback_{key}"), value);
    }
    for (key, value) in record.labels.iter() {
        labels.insert(
            format!("__meta_loopback_label_{}", label_name(key)),
            value.to_owned(),
        );
    }
    labels
}

fn with_exporter(mut labels: BTreeMap<String, String>, exporter: &str) -> BTreeMap<String, String> {
    if exporter != OWN_EXPORTER {
        labels.insert("__param_exporter".to_owned(), exporter.to_owned());
    }
    for key in ["loopback_exporter", "__meta_loopback_exporter"] {
        labels.insert(key.to_owned(), exporter.to_owned());
    }
    labels
}

/// A label's key in Prometheus' alphabet, as it is for Kubernetes: two keys that differ
/// in other characters only become one.
fn label_name(key: &str) -> String {
    key.chars()
        .map(|it| if it.is_ascii_alphanumeric() { it } else { '_' })
        .collect()
}

/// `https://gw.example.com` is `gw.example.com:443`.
fn address_of(public_url: &str) -> String {
    let authority = public_url.strip_prefix("https://").unwrap_or(public_url);
    let after_address = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    match after_address.contains(':') {
        true => authority.to_owned(),
        false => format!("{authority}:443"),
    }
}

/// Scrapes a host.
pub async fn get_host_metrics(
    app: Arc<App>,
    call: Call<GetHostMetrics>,
    parts: Parts,
) -> Result<Response<Body>> {
    let host = call.path.host;
    let exporter = match call.query.exporter.as_deref() {
        None | Some("" | OWN_EXPORTER) => "",
        Some(name) if is_exporter_name(name) => name,
        Some(_) => {
            let detail =
                "a name has 1 to 64 of a-z, 0-9, `_`, `-`, and begins with a letter or digit";
            return Err(Error::invalid("exporter", detail));
        }
    };
    let membership = {
        let tables = app.catalog.read();
        let record = tables.host_in(call.proof.workspace(), host);
        record.map(|record| record.membership)
    };
    match membership {
        None => return Err(Error::not_found("host")),
        Some(Membership::Managed) => {}
        Some(_) => {
            return Err(Error::conflict(
                "the host is not managed: nothing is asked of it",
            ));
        }
    }
    let link = app.links.live(host).filter(|link| !link.renewal_only);
    let Some(link) = link else {
        app.metrics.scrape("not_linked", Duration::ZERO);
        return Err(not_linked());
    };
    let scraped = scrape(&app, host, &link, exporter, within(&parts.headers)).await?;
    let mut response = Response::new(Body::from(scraped.text));
    let kind = match scraped.format {
        ScrapeFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        ScrapeFormat::OpenMetrics => crate::metrics::CONTENT_TYPE,
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// How long the asker waits, by its own word.
fn within(headers: &HeaderMap) -> Duration {
    let said = headers
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match said {
        Some(said) => said.min(LONGEST).saturating_sub(MARGIN).max(MARGIN),
        None => USUAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_has_a_port() {
        for (url, address) in [
            ("https://gw.example.com", "gw.example.com:443"),
            ("https://gw:8443", "gw:8443"),
            ("https://[2001:db8::1]", "[2001:db8::1]:443"),
            ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("https://192.0.2.1", "192.0.2.1:443"),
        ] {
            assert_eq!(address_of(url), address);
        }
    }

    #[test]
    fn the_asker_is_heard_within_reason() {
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            let name = "X-Prometheus-Scrape-Timeout-Seconds";
            headers.insert(
                axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static(text),
            );
            within(&headers)
        };
        assert_eq!(asked("5"), Duration::from_millis(4750));
        assert_eq!(asked("1e9"), LONGEST - MARGIN);
        assert_eq!(asked("0.1"), MARGIN);
        for odd in ["", "soon", "-1", "NaN", "inf"] {
            assert_eq!(asked(odd), USUAL, "{odd}");
        }
        assert_eq!(within(&HeaderMap::new()), USUAL);
    }

    #[test]
    fn keys_of_labels_fit_prometheus() {
        assert_eq!(label_name("example.com/role-2"), "example_com_role_2");
    }
}
