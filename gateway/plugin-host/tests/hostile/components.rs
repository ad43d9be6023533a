//! Components that no compiler would write: a good one with something hidden in it.

use wasm_encoder::{
    CodeSection, Function, FunctionSection, Instruction, MemorySection, MemoryType, Module,
    RefType, StartSection, TableSection, TableType, TypeSection,
};

use crate::support::{guest, leb, with_section};

/// With a module that has `count` memories of `pages` each.
pub(crate) fn memories(count: u32, pages: u64) -> Vec<u8> {
    let mut section = MemorySection::new();
    for _ in 0..count {
        section.memory(MemoryType {
            minimum: pages,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
    }
    let mut module = Module::new();
    module.section(&section);
    hidden(&module, 1)
}

/// With a module that has `count` tables of `elements` each.
pub(crate) fn tables(count: u32, elements: u64) -> Vec<u8> {
    let mut section = TableSection::new();
    for _ in 0..count {
        section.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: elements,
            maximum: None,
            shared: false,
        });
    }
    let mut module = Module::new();
    module.section(&section);
    hidden(&module, 1)
}

/// With `count` instances of an empty module.
pub(crate) fn instances(count: usize) -> Vec<u8> {
    hidden(&Module::new(), count)
}

/// With a module that computes for ever as it starts.
pub(crate) fn spinning_start() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut body = Function::new([]);
    body.instruction(&Instruction::Loop(wasm_encoder::BlockType::Empty));
    body.instruction(&Instruction::Br(0));
    body.instruction(&Instruction::End);
    body.instruction(&Instruction::End);
    let mut code = CodeSection::new();
    code.function(&body);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&StartSection { function_index: 0 })
        .section(&code);
    hidden(&module, 1)
}

/// With a module of `functions` functions with long bodies, which takes long to compile.
pub(crate) fn long_to_compile(functions: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types
        .ty()
        .function([wasm_encoder::ValType::I64], [wasm_encoder::ValType::I64]);
    let mut declared = FunctionSection::new();
    let mut code = CodeSection::new();
    for _ in 0..functions {
        declared.function(0);
        let mut body = Function::new([]);
        for number in 0..2_000 {
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::I64Const(number));
            body.instruction(&Instruction::I64Mul);
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::I64Xor);
            body.instruction(&Instruction::LocalSet(0));
        }
        body.instruction(&Instruction::LocalGet(0));
        body.instruction(&Instruction::End);
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    hidden(&module, 1)
}

/// A good installer with this module in it, instantiated so many times.
fn hidden(module: &Module, count: usize) -> Vec<u8> {
    let good = guest("installer");
    let index = modules(&good);
    let bytes = with_section(&good, 1, module.as_slice());
    let mut instances = Vec::new();
    leb(&mut instances, count);
    for _ in 0..count {
        // Instantiate, this module, with nothing.
        instances.push(0);
        leb(&mut instances, index);
        instances.push(0);
    }
    with_section(&bytes, 2, &instances)
}

/// How many core modules a component has by itself.
fn modules(component: &[u8]) -> usize {
    let mut depth = 0u32;
    let mut count = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload.expect("a component") {
            wasmparser::Payload::ModuleSection { .. } => {
                count += usize::from(depth == 0);
                depth += 1;
            }
            wasmparser::Payload::ComponentSection { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    count
}
