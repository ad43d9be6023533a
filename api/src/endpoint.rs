//! What one operation of the API is.

use model::permission::Permission;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::ProblemCode;

/// One operation: everything that both ends and the document must agree on.
pub trait Endpoint: Send + Sync + 'static {
    /// OpenAPI operation id, `verb_noun`; also the handler's name.
    const ID: &'static str;
    /// HTTP method.
    const METHOD: Method;
    /// Path with `{parameters}`, which are the fields of [`Endpoint::Path`].
    const PATH: &'static str;
    /// Who may call it.
    const ACCESS: Access;
    /// One line for the document.
    const SUMMARY: &'static str;
    /// Status of success.
    const SUCCESS: u16;
    /// Media type of a success that has a body.
    const MEDIA: &'static str;
    /// Problems besides those any operation can answer.
    const PROBLEMS: &'static [ProblemCode];

    /// Path parameters.
    type Path: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// Query parameters.
    type Query: Serialize + DeserializeOwned + JsonSchema + Default + Send + 'static;
    /// Request body; [`Nothing`] for none, [`Raw`] when it is not JSON.
    type Body: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// Body of a success; [`Nothing`] for none, [`Raw`] when it is not JSON.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// HTTP methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes or does.
    Post,
    /// Sets as a whole.
    Put,
    /// Changes the fields given.
    Patch,
    /// Takes away.
    Delete,
}

impl Method {
    /// As in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody; the reason why that is right.
    Public(&'static str),
    /// Who has this permission at the scope the path names: the workspace or
    /// project in it, else the deployment.
    Needs(Permission),
}

/// No parameters, or no body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A body that is not JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Raw {}

/// Makes a JSON schema with a generator that collects shared definitions.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An [`Endpoint`] as a value, for documents and tests.
#[derive(Clone, Copy)]
pub struct Operation {
    /// [`Endpoint::ID`].
    pub id: &'static str,
    /// [`Endpoint::METHOD`].
    pub method: Method,
    /// [`Endpoint::PATH`].
    pub path: &'static str,
    /// [`Endpoint::ACCESS`].
    pub access: Access,
    /// [`Endpoint::SUMMARY`].
    pub summary: &'static str,
    /// [`Endpoint::SUCCESS`].
    pub success: u16,
    /// [`Endpoint::MEDIA`].
    pub media: &'static str,
    /// [`Endpoint::PROBLEMS`].
    pub problems: &'static [ProblemCode],
    /// Path parameters.
    pub path_schema: SchemaOf,
    /// Query parameters.
    pub query_schema: SchemaOf,
    /// Whether it takes a body that is not JSON.
    pub raw_body: bool,
    /// Request body, if there is one and it is JSON.
    pub body_schema: Option<SchemaOf>,
    /// Reply, if it is JSON and there is one.
    pub reply_schema: Option<SchemaOf>,
}

impl Operation {
    /// The operation that `E` declares.
    pub fn of<E: Endpoint>() -> Self {
        let present =
            |name: &str, schema: SchemaOf| (name != "Nothing" && name != "Raw").then_some(schema);
        Self {
            id: E::ID,
            method: E::METHOD,
            path: E::PATH,
            access: E::ACCESS,
            summary: E::SUMMARY,
            success: E::SUCCESS,
            media: E::MEDIA,
            problems: E::PROBLEMS,
            path_schema: |generator| E::Path::json_schema(generator),
            query_schema: |generator| E::Query::json_schema(generator),
            raw_body: E::Body::schema_name() == "Raw",
            body_schema: present(&E::Body::schema_name(), |generator| {
                generator.subschema_for::<E::Body>()
            }),
            reply_schema: present(&E::Reply::schema_name(), |generator| {
                generator.subschema_for::<E::Reply>()
            }),
        }
    }
}

/// Declares operations of one area and a list of them.
///
/// ```text
/// endpoints! {
///     /// Summary, one line.
///     list_hosts ListHosts: GET "/v1/workspaces/{workspace}/hosts",
///         needs HostList, path InWorkspace, query HostFilter, reply 200 Page<Host>;
/// }
/// ```
macro_rules! endpoints {
    ($(
        #[doc = $summary:literal]
        $id:ident $name:ident: $method:ident $path:literal,
            $access:ident $what:tt
            $(, path $path_type:ty)?
            $(, query $query_type:ty)?
            $(, body $body_type:ty)?
            , reply $status:literal $(as $media:literal)? $($reply_type:ty)?
            $(, problems [$($problem:ident),* $(,)?])?
        ;
    )*) => {
        $(
            #[doc = $summary]
            #[derive(Debug)]
            pub struct $name;

            impl $crate::endpoint::Endpoint for $name {
                const ID: &'static str = stringify!($id);
                const METHOD: $crate::endpoint::Method = endpoints!(@method $method);
                const PATH: &'static str = $path;
                const ACCESS: $crate::endpoint::Access = endpoints!(@access $access $what);
                const SUMMARY: &'static str = $summary;
                const SUCCESS: u16 = $status;
                const MEDIA: &'static str = endpoints!(@or "application/json" $(, $media)?);
                const PROBLEMS: &'static [$crate::problem::ProblemCode] =
                    &[$($($crate::problem::ProblemCode::$problem),*)?];
                type Path = endpoints!(@type $($path_type)?);
                type Query = endpoints!(@type $($query_type)?);
                type Body = endpoints!(@type $($body_type)?);
                type Reply = endpoints!(@type $($reply_type)?);
            }
        )*

        /// The operations of this area.
        pub(crate) fn operations() -> Vec<$crate::endpoint::Operation> {
            vec![$($crate::endpoint::Operation::of::<$name>()),*]
        }
    };
    (@method GET) => { $crate::endpoint::Method::Get };
    (@method POST) => { $crate::endpoint::Method::Post };
    (@method PUT) => { $crate::endpoint::Method::Put };
    (@method PATCH) => { $crate::endpoint::Method::Patch };
    (@method DELETE) => { $crate::endpoint::Method::Delete };
    (@access needs $permission:ident) => {
        $crate::endpoint::Access::Needs(model::permission::Permission::$permission)
    };
    (@access public $why:literal) => { $crate::endpoint::Access::Public($why) };
    (@or $default:literal) => { $default };
    (@or $default:literal, $given:literal) => { $given };
    (@type) => { $crate::endpoint::Nothing };
    (@type $given:ty) => { $given };
}

pub(crate) use endpoints;
