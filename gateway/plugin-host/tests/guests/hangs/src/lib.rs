//! A plugin that never says what it is.

wit_bindgen::generate!({
    path: ["../../../../../wit/base/0.1.0", "../../../../../wit/install/0.1.0"],
    world: "loopback:install/installer",
    generate_all,
});

use exports::loopback::base::plugin;
use exports::loopback::install::renderer;
use loopback::base::types::{Descriptor, Diagnostic, Error};
use loopback::install::types::{Input, Rendered};

struct Guest;

export!(Guest);

impl plugin::Guest for Guest {
    fn describe() -> Descriptor {
        loop {
            std::hint::black_box(());
        }
    }

    fn check_config(_: String) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn migrate_config(_: String, json: String) -> Result<String, Error> {
        Ok(json)
    }
}

impl renderer::Guest for Guest {
    fn render(_: Input) -> Result<Rendered, Error> {
        Ok(Rendered {
            script: String::new(),
            notes: Vec::new(),
        })
    }
}
