//! The program that libFuzzer drives: `FUZZ_TARGET` names the target, the arguments
//! are libFuzzer's. Built with coverage and called by `cargo xtask fuzz`.
#![no_main]

use std::sync::OnceLock;

use fuzz::Target;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let target = fuzz::find(&name).expect("FUZZ_TARGET names a target");
        CHOSEN.get_or_init(|| target);
    },
    |input: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(input);
        }
    }
);
