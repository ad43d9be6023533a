//! Addresses. Everything that a controller answers as a place is followed on that controller only:
//! what is asked there carries a password.

use loopback_plugin_sdk::Error;

/// A controller: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(String);

/// A path on a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(String);

/// Longer ones are no paths of Redfish, and would not fit into a cursor with much beside them.
const LONGEST: usize = 2_048;

impl Origin {
    /// Of an address as operators write it: with or without `/redfish/v1` behind it.
    pub(crate) fn of(address: &str) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::invalid("redfish.address", what));
        let Some((scheme, rest)) = address.split_once("://") else {
            return refuse("the address must be as in https://bmc.example.com");
        };
        if !matches!(scheme, "https" | "http") {
            return refuse("the address must begin with https:// (or http://, where granted)");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains(['@', '?', '#', ' ', '\\']) {
            return refuse("the address must name a host, without user, query or fragment");
        }
        if !matches!(path.trim_end_matches('/'), "" | "redfish" | "redfish/v1") {
            return refuse(
                "the address ends with the host or with /redfish/v1: which system it is stands in params.system",
            );
        }
        Ok(Self(format!("{scheme}://{authority}")))
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn at(&self, place: &Place) -> String {
        format!("{}{}", self.0, place.0)
    }

    /// A place that an answer names: a path, or an address on this very controller.
    pub(crate) fn place(&self, text: &str) -> Result<Place, Error> {
        let path = match text.strip_prefix(&self.0) {
            Some(path) => path,
            None => text,
        };
        Place::new(path).map_err(|_| {
            let what = "the controller names a place that is not on it";
            Error::upstream("redfish.foreign_place", what)
        })
    }
}

impl Place {
    pub(crate) fn new(path: &str) -> Result<Self, Error> {
        let sound = path.starts_with('/')
            && !path.starts_with("//")
            && path.len() <= LONGEST
            && path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
            && !path.contains('#')
            && !path.split(['/', '?']).any(|part| part == "..");
        if sound {
            Ok(Self(path.to_owned()))
        } else {
            Err(Error::invalid("redfish.path", "is no path on a controller"))
        }
    }

    /// Of a system, by its id or its path.
    pub(crate) fn system(text: &str) -> Result<Self, Error> {
        let refuse = |error: Error| {
            Error::invalid(
                "redfish.system",
                format!(
                    "params.system {}: write the id or the path of a system",
                    error.message
                ),
            )
        };
        if text.starts_with('/') {
            return Self::new(text.trim_end_matches('/')).map_err(refuse);
        }
        if text.is_empty() || text.contains(['/', '?', '%']) {
            return Err(refuse(Error::invalid("", "is no id")));
        }
        Self::new(&format!("{SYSTEMS}/{text}")).map_err(refuse)
    }

    pub(crate) fn systems() -> Self {
        Self(SYSTEMS.to_owned())
    }

    pub(crate) fn sessions() -> Self {
        Self("/redfish/v1/SessionService/Sessions".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where it is on every controller; the service root would say so, one request later.
const SYSTEMS: &str = "/redfish/v1/Systems";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_controller_and_nothing_more() {
        for address in [
            "https://bmc.example",
            "https://bmc.example/",
            "https://bmc.example/redfish/v1/",
        ] {
            assert_eq!(Origin::of(address).unwrap().as_str(), "https://bmc.example");
        }
        for address in [
            "bmc.example",
            "ftp://bmc.example",
            "https://root@bmc.example",
            "https://",
            "https://bmc.example?x",
            "https://bmc.example/redfish/v1/Systems/1",
        ] {
            assert!(Origin::of(address).is_err(), "{address}");
        }
    }

    #[test]
    fn what_a_controller_names_is_on_it() {
        let origin = Origin::of("https://bmc.example").unwrap();
        for text in ["/redfish/v1/x", "https://bmc.example/redfish/v1/x"] {
            assert_eq!(origin.place(text).unwrap().as_str(), "/redfish/v1/x");
        }
        for text in [
            "https://elsewhere.example/x",
            "https://bmc.example.evil/x",
            "https://bmc.example:8443/x",
            "//elsewhere.example/x",
            "/redfish/../x",
            "/x#y",
            "/x y",
            "",
        ] {
            assert!(origin.place(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_system_is_named_by_its_id_or_its_path() {
        let place = |text| Place::system(text).map(|place| place.0);
        assert_eq!(place("1").unwrap(), "/redfish/v1/Systems/1");
        assert_eq!(
            place("System.Embedded.1").unwrap(),
            "/redfish/v1/Systems/System.Embedded.1"
        );
        assert_eq!(
            place("/redfish/v1/Systems/a/").unwrap(),
            "/redfish/v1/Systems/a"
        );
        for text in ["", "a/b", "a?b", "..", "a b", "%2e"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
