//! Machines of a cluster, page by page.
//!
//! The list itself comes whole and has no hardware addresses, so that each machine's configuration
//! is asked for. How many of those fit into a call makes a page; what is handed back for the next
//! one is the number of the last machine, so that machines that come and go meanwhile shift
//! nothing.

use loopback_plugin_sdk::power::{Found, FoundPage};
use loopback_plugin_sdk::{Error, ErrorKind, Kv};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::address::{Kind, is_node};
use crate::api::Client;
use crate::machine::{Current, macs, uuid};

/// Machines of a page: each is a request, and a call has twenty.
const PAGE: usize = 16;

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: String,
    vmid: Option<u32>,
    node: Option<String>,
    name: Option<String>,
    #[serde(default)]
    template: Value,
    status: Option<String>,
    lock: Option<String>,
}

pub(crate) fn page(
    client: &Client<'_>,
    server: &str,
    cursor: Option<&str>,
) -> Result<FoundPage, Error> {
    let after: u32 = match cursor {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Error::invalid("proxmox.cursor", "the cursor is no machine's number"))?,
    };
    let all: Vec<Resource> =
        client.get(&format!("{server}/api2/json/cluster/resources?type=vm"))?;
    let mut machines: Vec<_> = all.into_iter().filter_map(machine).collect();
    machines.sort_by_key(|(id, ..)| *id);
    let rest: Vec<_> = machines
        .into_iter()
        .filter(|(id, ..)| *id > after)
        .collect();
    let more = rest.len() > PAGE;
    let found: Vec<_> = rest
        .into_iter()
        .take(PAGE)
        .map(|(id, kind, node, resource)| {
            let base = format!("nodes/{node}/{}/{id}", kind.word());
            let config = client.get(&format!("{server}/api2/json/{base}/config"));
            let config: Map<String, Value> = match config {
                Ok(config) => config,
                // One that may not be looked into, or is gone since, is listed without its cards.
                Err(error) if !error.is_transient() && error.kind != ErrorKind::Auth => Map::new(),
                Err(error) => return Err(error),
            };
            Ok((id, found(server, &base, &config, resource)))
        })
        .collect::<Result<_, Error>>()?;
    let next = found.last().filter(|_| more).map(|(id, _)| id.to_string());
    Ok(FoundPage {
        found: found.into_iter().map(|(_, found)| found).collect(),
        next,
    })
}

/// Templates are no machines: they never run.
fn machine(resource: Resource) -> Option<(u32, Kind, String, Resource)> {
    let kind = match resource.kind.as_str() {
        "qemu" => Kind::Qemu,
        "lxc" => Kind::Lxc,
        _ => return None,
    };
    let template = resource.template == 1 || resource.template == true;
    let node = resource.node.clone().filter(|node| is_node(node))?;
    Some((resource.vmid.filter(|_| !template)?, kind, node, resource))
}

fn found(server: &str, base: &str, config: &Map<String, Value>, resource: Resource) -> Found {
    let current = Current::listed(resource.status, resource.lock);
    let node = resource.node.map(|value| Kv {
        key: "node".to_owned(),
        value,
    });
    Found {
        address: format!("{server}/{base}"),
        params: "{}".to_owned(),
        name: resource.name.unwrap_or_else(|| base.to_owned()),
        macs: macs(config),
        serial: uuid(config),
        provider_id: None,
        state: current.state(),
        extra: node.into_iter().collect(),
    }
}
