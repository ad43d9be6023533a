//! The changes. Each is made in the text of the contract and, where the guest has to say something
//! about it, in the guest.

/// What became of a component.
pub(crate) enum Outcome {
    /// It is loaded, and answers what it should.
    Answers,
    /// It is not loaded, with this code.
    Refused(&'static str),
    /// It is loaded, and a call fails with this code.
    Fails(&'static str),
}

/// What is edited.
pub(crate) enum File {
    Base,
    Policy,
    Source,
}

use File::{Base, Policy, Source};

pub(crate) struct Case {
    /// A file's name.
    pub(crate) name: &'static str,
    /// The table's words.
    pub(crate) made_from: &'static str,
    /// What stands where, and what stands there instead.
    pub(crate) edits: &'static [(File, &'static str, &'static str)],
    /// What the operator must be told, where it is refused.
    pub(crate) says: Option<&'static str>,
}

const fn case(
    name: &'static str,
    made_from: &'static str,
    says: Option<&'static str>,
    edits: &'static [(File, &'static str, &'static str)],
) -> Case {
    Case {
        name,
        made_from,
        edits,
        says,
    }
}

/// In the order of the table.
pub(crate) const CASES: &[Case] = &[
    case("published", "the published contract", None, &[]),
    case(
        "comment",
        "another comment",
        None,
        &[(Policy, "/// Judges a request.", "/// Says yes or no.")],
    ),
    case(
        "patch",
        "0.1.1, nothing else changed",
        Some("@0.1.1"),
        &[(Base, "@0.1.0", "@0.1.1"), (Policy, "@0.1.0", "@0.1.1")],
    ),
    case(
        "patch_of_kind",
        "0.1.1 of the kind's package alone",
        Some("loopback:policy/"),
        &[(Policy, "loopback:policy@0.1.0", "loopback:policy@0.1.1")],
    ),
    case(
        "minor",
        "0.2.0",
        Some("@0.2.0"),
        &[(Base, "@0.1.0", "@0.2.0"), (Policy, "@0.1.0", "@0.2.0")],
    ),
    case(
        "minor_before",
        "0.0.9",
        Some("@0.0.9"),
        &[(Base, "@0.1.0", "@0.0.9"), (Policy, "@0.1.0", "@0.0.9")],
    ),
    case(
        "major",
        "1.0.0",
        Some("@1.0.0"),
        &[(Base, "@0.1.0", "@1.0.0"), (Policy, "@0.1.0", "@1.0.0")],
    ),
    case(
        "more_import",
        "one with a new interface, which it imports",
        Some("loopback:base/metrics@0.1.0"),
        &[
            (Base, "/// The call itself.", METRICS),
            (Policy, "  import loopback:base/log@0.1.0;", IMPORT_METRICS),
            (
                Source,
                "log::write(",
                "loopback::base::metrics::count(\"asked\");\n        log::write(",
            ),
        ],
    ),
    case(
        "more_import_unused",
        "the same, and it does not use it",
        None,
        &[
            (Base, "/// The call itself.", METRICS),
            (Policy, "  import loopback:base/log@0.1.0;", IMPORT_METRICS),
        ],
    ),
    case(
        "other_kind_import",
        "one in which its kind may import what is another kind's",
        Some("loopback:base/task@0.1.0"),
        &[
            (
                Policy,
                "  import loopback:base/log@0.1.0;",
                "  import loopback:base/log@0.1.0;\n  import loopback:base/task@0.1.0;",
            ),
            (
                Source,
                "log::write(",
                "loopback::base::task::cancelled();\n        log::write(",
            ),
        ],
    ),
    case(
        "stranger_import",
        "one with an import from somebody else's package",
        Some("acme:tools/rows"),
        &[
            (
                Policy,
                "world policy {",
                "world policy {\n  import acme:tools/rows@3.0.0;",
            ),
            (
                Policy,
                "/// Whether something may be done now, beyond the caller's permissions.\npackage loopback:policy@0.1.0;",
                ACME,
            ),
            (
                Source,
                "log::write(",
                "acme::tools::rows::count();\n        log::write(",
            ),
        ],
    ),
    case(
        "more_function",
        "one with a new function in an interface that it imports, which it calls",
        Some("flush"),
        &[
            (Base, "  write: func(", "  flush: func();\n\n  write: func("),
            (Source, "log::write(", "log::flush();\n        log::write("),
        ],
    ),
    case(
        "more_function_unused",
        "the same, and it does not call it",
        None,
        &[(Base, "  write: func(", "  flush: func();\n\n  write: func(")],
    ),
    case(
        "more_export",
        "one with a new interface, which it exports",
        None,
        &[
            (
                Policy,
                "/// A plugin that judges",
                "interface teller {\n  tell: func() -> string;\n}\n\n/// A plugin that judges",
            ),
            (
                Policy,
                "  export authorizer;",
                "  export authorizer;\n  export teller;",
            ),
            (
                Source,
                "struct Guest;",
                "struct Guest;\n\nimpl exports::loopback::policy::teller::Guest for Guest {\n    fn tell() -> String {\n        String::new()\n    }\n}",
            ),
        ],
    ),
    case(
        "more_exported_function",
        "one with a new function in an interface that it exports",
        None,
        &[
            (
                Policy,
                "  decide: func(",
                "  explain: func() -> string;\n\n  decide: func(",
            ),
            (
                Source,
                "    fn decide(",
                "    fn explain() -> String {\n        String::new()\n    }\n\n    fn decide(",
            ),
        ],
    ),
    case(
        "more_field_given",
        "one with a new field in a record that it gets",
        Some("loopback:policy/authorizer`: "),
        &[(
            Policy,
            "    break-glass: bool,",
            "    break-glass: bool,\n    site: option<string>,",
        )],
    ),
    case(
        "more_field_answered",
        "one with a new field in a record that it answers",
        Some("loopback:policy/authorizer`: "),
        &[
            (
                Policy,
                "    code: string,",
                "    code: string,\n    help: string,",
            ),
            (
                Source,
                "code: code.into(),",
                "code: code.into(), help: String::new(),",
            ),
        ],
    ),
    case(
        "more_case",
        "one with a new case in a variant that it answers",
        Some("loopback:policy/authorizer`: "),
        &[(
            Policy,
            "    deny(reason),",
            "    deny(reason),\n    postpone,",
        )],
    ),
    case(
        "more_enum_import",
        "one with a new case in an enum of an import",
        Some("log"),
        &[(
            Base,
            "    warn,\n    error,\n  }",
            "    warn,\n    error,\n    fatal,\n  }",
        )],
    ),
    case(
        "more_enum_shared",
        "one with a new case in an enum that all kinds share",
        Some("loopback:base/plugin`: "),
        &[(
            Base,
            "    /// Worth knowing.\n",
            "    trivial,\n    /// Worth knowing.\n",
        )],
    ),
    case(
        "less_import",
        "one without an interface that it could import",
        None,
        &[
            (Policy, "  import loopback:base/config@0.1.0;\n", ""),
            (
                Source,
                "use loopback::base::{config, log};",
                "use loopback::base::log;",
            ),
            (Source, KNOWN, "true"),
        ],
    ),
    case(
        "less_function",
        "one without a function that it could import",
        None,
        &[
            (
                Base,
                "  /// Grows with each change of it.\n  revision: func() -> u64;\n",
                "",
            ),
            (Source, " && config::revision() == 3", ""),
        ],
    ),
    case(
        "less_exported_function",
        "one without a function that it is to export",
        Some("migrate-config"),
        &[
            (
                Base,
                "  migrate-config: func(from-version: string, json: string) -> result<string, error>;\n",
                "",
            ),
            (
                Base,
                "  /// The configuration of an earlier version, as this version wants it. Called when a plugin is\n  /// upgraded, before its configuration is checked. Whoever has nothing to change returns `json`.\n",
                "",
            ),
            (
                Source,
                "    fn migrate_config(_: String, json: String) -> Result<String, Error> {\n        Ok(json)\n    }\n",
                "",
            ),
            (Source, ", Error};", "};"),
        ],
    ),
    case(
        "less_field",
        "one without a field of a record",
        Some("loopback:policy/authorizer`: "),
        &[(Policy, "    break-glass: bool,\n", "")],
    ),
    case(
        "less_case",
        "one without a case of a variant",
        Some("loopback:policy/authorizer`: "),
        &[
            (Policy, "    other(string),\n", ""),
            (Policy, "    /// For later versions. Read as `deny`.\n", ""),
        ],
    ),
    case(
        "less_enum_import",
        "one without a case of an enum of an import",
        Some("log"),
        &[(Base, "    trace,\n", "")],
    ),
    case(
        "order",
        "one with two fields of a record the other way round",
        Some("loopback:policy/authorizer`: "),
        &[(
            Policy,
            "    id: string,\n    name: string,\n    /// Names of roles",
            "    name: string,\n    id: string,\n    /// Names of roles",
        )],
    ),
    case(
        "field_name",
        "one with another name for a field",
        Some("loopback:policy/authorizer`: "),
        &[(Policy, "    break-glass: bool,", "    glass-broken: bool,")],
    ),
    case(
        "function_name",
        "one with another name for a function that it is to export",
        Some("decide"),
        &[
            (Policy, "  decide: func(", "  judge: func("),
            (Source, "fn decide(", "fn judge("),
        ],
    ),
    case(
        "function_type",
        "one with another type of a function that it is to export",
        Some("loopback:policy/authorizer`: "),
        &[
            (
                Policy,
                "decide: func(request: request) -> verdict;",
                "decide: func(request: request) -> result<verdict>;",
            ),
            (Source, "-> Verdict {", "-> Result<Verdict, ()> {"),
            (
                Source,
                "Verdict::Deny(Reason { code: code.into(), message: request.action })",
                "Ok(Verdict::Deny(Reason { code: code.into(), message: request.action }))",
            ),
        ],
    ),
    case(
        "no_kind",
        "one whose world has no interface of a kind",
        Some("exports no interface"),
        &[
            (Policy, "interface authorizer {", "interface judge {"),
            (Policy, "  export authorizer;", "  export judge;"),
            (
                Source,
                "use exports::loopback::policy::authorizer;",
                "use exports::loopback::policy::judge;",
            ),
            (Source, "impl authorizer::Guest", "impl judge::Guest"),
        ],
    ),
    case(
        "no_plugin",
        "one whose world does not have `loopback:base/plugin` exported",
        Some("loopback:base/plugin"),
        &[
            (Policy, "  export loopback:base/plugin@0.1.0;\n", ""),
            (Source, "use exports::loopback::base::plugin;\n", ""),
            (
                Source,
                "use loopback::base::types::{Descriptor, Diagnostic, Error};\n",
                "",
            ),
            (Source, PLUGIN, ""),
        ],
    ),
];

const METRICS: &str =
    "/// Figures.\ninterface metrics {\n  count: func(name: string);\n}\n\n/// The call itself.";
const IMPORT_METRICS: &str =
    "  import loopback:base/log@0.1.0;\n  import loopback:base/metrics@0.1.0;";
const ACME: &str = "package loopback:policy@0.1.0;\n\npackage acme:tools@3.0.0 {\n  interface rows {\n    count: func() -> u32;\n  }\n}\n";
const KNOWN: &str = "config::json() == r#\"{\"a\":1}\"# && config::revision() == 3";
const PLUGIN: &str = "impl plugin::Guest for Guest {
    fn describe() -> Descriptor {
        Descriptor { config_schema: String::new(), features: Vec::new(), extra: Vec::new() }
    }

    fn check_config(_: String) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn migrate_config(_: String, json: String) -> Result<String, Error> {
        Ok(json)
    }
}
";
