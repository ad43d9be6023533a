//! What wit-bindgen makes of the contract. What the kinds share, imports and `loopback:base/plugin`,
//! is made once, so that an error is the same type everywhere and cargo may unify the features of
//! several plugins; for each kind only its own export is added. The linker merges the worlds.
//!
//! What a component imports is what it calls: interfaces that nothing calls are left out when the
//! component is linked.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    clippy::all,
    reason = "generated"
)]

pub mod base {
    wit_bindgen::generate!({
        path: "wit/base/0.1.0",
        inline: "
            package loopback:sdk;
            world base {
                import loopback:base/types@0.1.0;
                import loopback:base/log@0.1.0;
                import loopback:base/config@0.1.0;
                import loopback:base/secrets@0.1.0;
                import loopback:base/reveal@0.1.0;
                import loopback:base/http@0.1.0;
                import loopback:base/sign@0.1.0;
                import loopback:base/datagram@0.1.0;
                import loopback:base/state@0.1.0;
                import loopback:base/task@0.1.0;
            }
        ",
        world: "loopback:sdk/base",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        additional_derives_ignore: ["credential"],
    });
}

pub use base::loopback::base::*;

/// Exports `loopback:base/plugin@0.1.0`.
pub mod plugin {
    wit_bindgen::generate!({
        path: ["wit/base/0.1.0"],
        inline: "
            package loopback:sdk-plugin;
            world plugin {
                export loopback:base/plugin@0.1.0;
            }
        ",
        world: "loopback:sdk-plugin/plugin",
        with: { "loopback:base/types@0.1.0": crate::bindings::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_plugin_world",
        additional_derives: [PartialEq],
    });
}

/// Exports `loopback:base/health@0.1.0`.
pub mod health {
    wit_bindgen::generate!({
        path: ["wit/base/0.1.0"],
        inline: "
            package loopback:sdk-health;
            world health {
                export loopback:base/health@0.1.0;
            }
        ",
        world: "loopback:sdk-health/health",
        with: { "loopback:base/types@0.1.0": crate::bindings::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_health_world",
        additional_derives: [PartialEq],
    });
}

/// Exports `loopback:install/renderer@0.1.0`.
#[cfg(feature = "installer")]
pub mod installer {
    wit_bindgen::generate!({
        path: ["wit/base/0.1.0", "wit/install/0.1.0"],
        inline: "
            package loopback:sdk-installer;
            world installer {
                export loopback:install/renderer@0.1.0;
            }
        ",
        world: "loopback:sdk-installer/installer",
        with: { "loopback:base/types@0.1.0": crate::bindings::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_installer_world",
        additional_derives: [PartialEq],
    });
}

/// Exports `loopback:signal/sink@0.1.0`.
#[cfg(feature = "notifier")]
pub mod notifier {
    wit_bindgen::generate!({
        path: ["wit/base/0.1.0", "wit/signal/0.1.0"],
        inline: "
            package loopback:sdk-notifier;
            world notifier {
                export loopback:signal/sink@0.1.0;
            }
        ",
        world: "loopback:sdk-notifier/notifier",
        with: { "loopback:base/types@0.1.0": crate::bindings::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_notifier_world",
        additional_derives: [PartialEq],
    });
}

/// Exports `loopback:power/provider@0.1.0`.
#[cfg(feature = "power")]
pub mod power {
    wit_bindgen::generate!({
        path: ["wit/base/0.1.0", "wit/power/0.1.0"],
        inline: "
            package loopback:sdk-power;
            world power {
                export loopback:power/provider@0.1.0;
            }
        ",
        world: "loopback:sdk-power/power",
        with: { "loopback:base/types@0.1.0": crate::bindings::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_power_world",
        additional_derives: [PartialEq],
    });
}

/// Exports `loopback:policy/authorizer@0.1.0`.
#[cfg(feature = "policy")]
pub mod policy {
    wit_bindgen::generate!({
        path: ["wit/base/0.1.0", "wit/policy/0.1.0"],
        inline: "
            package loopback:sdk-policy;
            world policy {
                export loopback:policy/authorizer@0.1.0;
            }
        ",
        world: "loopback:sdk-policy/policy",
        with: { "loopback:base/types@0.1.0": crate::bindings::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_policy_world",
        additional_derives: [PartialEq],
    });
}
