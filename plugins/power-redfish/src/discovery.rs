//! The machines of the controllers that the configuration names, some at a time.

use loopback_plugin_sdk::Error;
use loopback_plugin_sdk::Kv;
use loopback_plugin_sdk::host::Host;
use loopback_plugin_sdk::power::{Found, FoundPage};
use serde_json::{Value, json};

use crate::config::{Config, Controller};
use crate::connection::Connection;
use crate::place::Place;
use crate::system::System;

/// Systems on a page. Each takes up to two requests and one for each network card.
const SYSTEMS: usize = 4;

/// Network cards that are looked at: within what a call may ask, with as many systems.
const CARDS: usize = 16;

/// Pages of the list of systems that are read. Chassis with more than some thousand machines there
/// are none.
const PAGES: usize = 10;

/// Where the next page begins: which controller, and how many of its systems were shown.
fn position(cursor: Option<&str>) -> Result<(usize, usize), Error> {
    let Some(text) = cursor else {
        return Ok((0, 0));
    };
    let parts = text.split_once(':');
    let parts = parts.and_then(|(at, past)| Some((at.parse().ok()?, past.parse().ok()?)));
    parts.ok_or_else(|| Error::invalid("redfish.cursor", "the cursor is none of this plugin's"))
}

pub(crate) fn page(
    host: &dyn Host,
    config: &Config,
    cursor: Option<&str>,
) -> Result<FoundPage, Error> {
    let (at, past) = position(cursor)?;
    if config.discover.is_empty() {
        let what = "name controllers under `discover` in the plugin's configuration";
        return Err(Error::unsupported("redfish.no_controllers", what));
    }
    let Some(controller) = config.discover.get(at) else {
        return Ok(FoundPage {
            found: Vec::new(),
            next: None,
        });
    };
    let about = |error: Error| error.detail("controller", &controller.address);
    let connection = Connection::to(host, config, controller).map_err(about)?;
    let places = systems(&connection).map_err(about)?;
    let mut found = Vec::new();
    for place in places.iter().skip(past).take(SYSTEMS) {
        found.push(machine(&connection, controller, place).map_err(about)?);
    }
    let more = places.len() > past + SYSTEMS;
    let next = match (more, at + 1 < config.discover.len()) {
        (true, _) => Some(format!("{at}:{}", past + SYSTEMS)),
        (false, true) => Some(format!("{}:0", at + 1)),
        (false, false) => None,
    };
    Ok(FoundPage { found, next })
}

/// Where a controller's systems are.
pub(crate) fn systems(connection: &Connection<'_>) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    let mut next = Some(Place::systems());
    for _ in 0..PAGES {
        let Some(place) = next else {
            break;
        };
        let page = connection.page(&place)?.json;
        places.extend(members(connection, &page)?);
        let link = page["Members@odata.nextLink"].as_str();
        next = link.map(|link| connection.origin.place(link)).transpose()?;
    }
    Ok(places)
}

fn members(connection: &Connection<'_>, page: &Value) -> Result<Vec<Place>, Error> {
    let Some(members) = page["Members"].as_array() else {
        let what = "the page is no list: it has no Members";
        return Err(Error::upstream("redfish.no_members", what));
    };
    let ids = members
        .iter()
        .filter_map(|member| member["@odata.id"].as_str());
    ids.map(|id| connection.origin.place(id)).collect()
}

fn machine(
    connection: &Connection<'_>,
    controller: &Controller,
    place: &Place,
) -> Result<Found, Error> {
    let system = System::new(place.clone(), connection.page(place)?);
    let (state, _) = system.state();
    let mut extra = Vec::new();
    for key in ["Manufacturer", "Model", "UUID"] {
        let value = system.text(key);
        extra.extend(value.map(|value| Kv {
            key: key.to_owned(),
            value,
        }));
    }
    let (macs, missed) = cards(connection, &system);
    if let Some(error) = missed {
        extra.push(Kv {
            key: "cards".to_owned(),
            value: format!("not all were read: {}", error.message),
        });
    }
    Ok(Found {
        address: controller.address.clone(),
        params: json!({ "system": place.as_str() }).to_string(),
        name: system
            .text("HostName")
            .or_else(|| system.text("Name"))
            .unwrap_or_else(|| place.as_str().to_owned()),
        macs,
        serial: system.text("SerialNumber").or_else(|| system.text("UUID")),
        provider_id: None,
        state,
        extra,
    })
}

/// Addresses of the network cards, and why there may be more. A card that cannot be read does not
/// make a machine disappear.
fn cards(connection: &Connection<'_>, system: &System) -> (Vec<String>, Option<Error>) {
    let mut macs = Vec::new();
    let Some(link) = system.json()["EthernetInterfaces"]["@odata.id"].as_str() else {
        return (macs, None);
    };
    let list = connection.origin.place(link);
    let list = list.and_then(|place| connection.page(&place));
    let places = match list.and_then(|page| members(connection, &page.json)) {
        Ok(places) => places,
        Err(error) => return (macs, Some(error)),
    };
    let mut missed = None;
    for place in places.iter().take(CARDS) {
        match connection.page(place) {
            Ok(page) => {
                let keys = ["PermanentMACAddress", "MACAddress"].into_iter();
                macs.extend(keys.filter_map(|key| mac(page.json[key].as_str()?)));
            }
            Err(error) => missed = Some(error),
        }
    }
    macs.sort();
    macs.dedup();
    (macs, missed)
}

/// As we write it. Some write it with dashes, or with nothing between.
fn mac(text: &str) -> Option<String> {
    let digits: Vec<_> = text
        .bytes()
        .filter(|byte| !matches!(byte, b':' | b'-'))
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    if digits.len() != 12 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pairs = digits.chunks(2).map(|pair| String::from_utf8_lossy(pair));
    let mac = pairs.collect::<Vec<_>>().join(":");
    (mac != "00:00:00:00:00:00").then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_cards_are_written_in_one_way() {
        for text in ["52:54:00:AB:CD:EF", "52-54-00-ab-cd-ef", "525400abcdef"] {
            assert_eq!(mac(text).as_deref(), Some("52:54:00:ab:cd:ef"), "{text}");
        }
        for text in ["", "00:00:00:00:00:00", "fe80::1", "52:54:00:ab:cd"] {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    #[test]
    fn a_cursor_of_nonsense_leads_nowhere() {
        assert_eq!(position(None).unwrap(), (0, 0));
        assert_eq!(position(Some("2:8")).unwrap(), (2, 8));
        for text in ["", "x", "1", "1:x", "-1:0"] {
            assert!(position(Some(text)).is_err(), "{text}");
        }
    }
}
