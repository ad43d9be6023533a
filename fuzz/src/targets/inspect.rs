//! A component before anything of it is compiled: what an operator uploads, or a registry sends.
//!
//! What is found must be what a gateway may believe: of bounded length, harmless to show, and of
//! one kind. Time is bounded by libFuzzer's limit, memory by its own.

use plugin_host::inspect::inspect_within;
use plugin_host::{Inspected, inspect};
use wasm_encoder::{
    CanonicalFunctionSection, CanonicalOption, CodeSection, Component, ComponentAliasSection,
    ComponentExportKind, ComponentExportSection, ComponentImportSection, ComponentInstanceSection,
    ComponentTypeRef, ComponentTypeSection, ComponentValType, CustomSection, ExportKind,
    ExportSection, Function, FunctionSection, InstanceSection, InstanceType, Instruction,
    MemorySection, MemoryType, Module, ModuleArg, ModuleSection, PrimitiveValType, TypeSection,
    ValType,
};

use super::is_harmless;
use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "inspect",
    about: "plugins before they are compiled: what is believed of them is bounded and harmless",
    run,
    seeds,
    longest: 16 << 10,
};

fn run(input: &[u8]) {
    let found = inspect(input);
    let size = input.len() as u64;
    if size > 0 {
        let smaller = inspect_within(input, size - 1).unwrap_err();
        assert_eq!(smaller.code(), "too_large");
    }
    match found {
        Ok(found) => believed(&found, size),
        Err(error) => {
            let text = error.to_string();
            assert!(is_harmless(&text), "{text:?}");
            assert!(text.len() < 4096, "{text:?}");
            assert!(!error.code().is_empty());
        }
    }
}

fn believed(found: &Inspected, size: u64) {
    assert_eq!(found.size_bytes, size);
    assert!(found.manifest.check().is_ok());
    assert!(found.imports.len() + found.exports.len() <= 1_000);
    for name in found.imports.iter().chain(&found.exports) {
        assert!(is_harmless(name), "{name:?}");
    }
    let exports = |interface: &str| {
        let exported = found.exports.iter();
        exported.filter(|name| name.starts_with(interface)).count()
    };
    assert_eq!(exports("loopback:base/plugin@"), 1);
}

const MANIFEST: &str = r#"{"format":1,"name":"x","version":"1.0.0","description":"d"}"#;

/// What each kind exports, with something that it may import.
const KINDS: [(&str, &str); 4] = [
    (
        "loopback:install/renderer@0.1.0",
        "loopback:base/config@0.1.0",
    ),
    ("loopback:signal/sink@0.1.0", "loopback:base/http@0.1.0"),
    ("loopback:policy/authorizer@0.1.0", "wasi:cli/stderr@0.2.6"),
    (
        "loopback:power/provider@0.1.0",
        "loopback:base/datagram@0.1.0",
    ),
];

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = KINDS
        .iter()
        .map(|(export, import)| component(export, import, &[MANIFEST]))
        .collect();
    let (export, import) = KINDS[1];
    let needs = r#"{"format":1,"name":"x","version":"1.0.0","description":"d","needs":{"http":[{"name":"api","purpose":"r"}],"secrets":[{"name":"token","purpose":"r"}],"limits":{"memory_bytes":1048576}}}"#;
    seeds.extend([
        component(export, import, &[needs]),
        component(export, import, &[MANIFEST, MANIFEST]),
        component(export, "loopback:base/reveal@0.1.0", &[MANIFEST]),
        component("loopback:signal/sink@0.2.0", import, &[MANIFEST]),
        component(export, import, &[]),
        module().finish(),
        Component::new().finish(),
        b"\0asm".to_vec(),
        Vec::new(),
    ]);
    seeds
}

/// A component that would run: a core module inside, instantiated and lifted.
fn component(export: &str, import: &str, manifests: &[&str]) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    types
        .function()
        .params([(
            "json",
            ComponentValType::Primitive(PrimitiveValType::String),
        )])
        .result(Some(PrimitiveValType::U32.into()));
    let mut imports = ComponentImportSection::new();
    for import in ["loopback:base/types@0.1.0", import] {
        imports.import(import, ComponentTypeRef::Instance(0));
    }
    let module = module();
    let mut instances = InstanceSection::new();
    instances.instantiate::<[(&str, ModuleArg); 0], _>(0, []);
    let mut aliases = ComponentAliasSection::new();
    for (kind, name) in [
        (ExportKind::Func, "check"),
        (ExportKind::Memory, "memory"),
        (ExportKind::Func, "realloc"),
    ] {
        aliases.alias(wasm_encoder::Alias::CoreInstanceExport {
            instance: 0,
            kind,
            name,
        });
    }
    let mut lifted = CanonicalFunctionSection::new();
    let options = [
        CanonicalOption::Memory(0),
        CanonicalOption::Realloc(1),
        CanonicalOption::UTF8,
    ];
    lifted.lift(0, 1, options);
    let mut inside = ComponentInstanceSection::new();
    inside.export_items([("check", ComponentExportKind::Func, 0)]);
    let mut exports = ComponentExportSection::new();
    for name in ["loopback:base/plugin@0.1.0", export] {
        exports.export(name, ComponentExportKind::Instance, 2, None);
    }
    let mut component = Component::new();
    component
        .section(&types)
        .section(&imports)
        .section(&ModuleSection(&module))
        .section(&instances)
        .section(&aliases)
        .section(&lifted)
        .section(&inside)
        .section(&exports);
    for manifest in manifests {
        component.section(&CustomSection {
            name: model::plugin::MANIFEST_SECTION.into(),
            data: manifest.as_bytes().into(),
        });
    }
    component.finish()
}

fn module() -> Module {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 2], [ValType::I32]);
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(0).function(1);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports
        .export("check", ExportKind::Func, 0)
        .export("realloc", ExportKind::Func, 1)
        .export("memory", ExportKind::Memory, 0);
    let mut code = CodeSection::new();
    for _ in 0..2 {
        let mut body = Function::new([]);
        body.instruction(&Instruction::I32Const(8));
        body.instruction(&Instruction::End);
        code.function(&body);
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&code);
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_all_kinds_are_plugins() {
        for seed in seeds().iter().take(KINDS.len() + 1) {
            inspect(seed).unwrap();
        }
    }
}
