//! `power-redfish`.
