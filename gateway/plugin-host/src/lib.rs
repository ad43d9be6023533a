//! Runs plugins: sandboxed WASM components behind the contract in `wit/`.

pub mod ports;

#[cfg(test)]
#[allow(missing_docs, reason = "generated")]
mod contract {
    mod installer {
        wasmtime::component::bindgen!({
            path: ["../../wit/base/0.1.0", "../../wit/install/0.1.0"],
            world: "loopback:install/installer",
            imports: { default: async | trappable },
            exports: { default: async },
        });
    }
    mod notifier {
        wasmtime::component::bindgen!({
            path: ["../../wit/base/0.1.0", "../../wit/signal/0.1.0"],
            world: "loopback:signal/notifier",
            imports: { default: async | trappable },
            exports: { default: async },
        });
    }
    mod policy {
        wasmtime::component::bindgen!({
            path: ["../../wit/base/0.1.0", "../../wit/policy/0.1.0"],
            world: "loopback:policy/policy",
            imports: { default: async | trappable },
            exports: { default: async },
        });
    }
}
