//! The routes with what is said of each, so that none can be served without being described.
//!
//! [`Routes`] is the only way to a router here: an operation is added with its summary, parameters,
//! body and answer, and both the router and the OpenAPI 3.1 document come out of the same table. The
//! schemas are those of the types that handlers read and answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::Api;
use crate::paging::PageInfo;

/// What the document is called by others; `servers` is relative to where it was read.
const TITLE: &str = "Muster admin API";

/// Schemas by the names that references use.
type Schemas = BTreeMap<String, Value>;

/// An operation of a path.
pub(crate) struct Operation {
    method: &'static str,
    handler: MethodRouter<Arc<Api>>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answer: Answered,
    status: &'static str,
    summary: Cow<'static, str>,
    schemas: Schemas,
}

/// What an operation answers when it succeeds.
enum Answered {
    /// A list, of such items.
    List(Value),
    /// Something else than JSON.
    Media(&'static str),
    /// One result.
    One(Value),
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $filter:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<H, T>(summary: impl Into<Cow<'static, str>>, handler: H) -> Operation
        where
            H: Handler<T, Arc<Api>>,
            T: 'static,
        {
            Operation::new($text, on(MethodFilter::$filter, handler), summary.into())
        }
    )*};
}

methods! {
    /// DELETE.
    delete, "delete", DELETE;
    /// GET, and HEAD with it.
    get, "get", GET;
    /// PATCH.
    patch, "patch", PATCH;
    /// POST.
    post, "post", POST;
    /// PUT.
    put, "put", PUT;
}

impl Operation {
    fn new(method: &'static str, handler: MethodRouter<Arc<Api>>, summary: Cow<'static, str>) -> Self {
        let key = json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "A repeat with the same key gets the answer of the first, for a day",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
        });
        Self {
            method,
            handler,
            parameters: if method == "post" { vec![key] } else { Vec::new() },
            body: None,
            answer: Answered::One(json!({})),
            status: "200",
            summary,
            schemas: Schemas::new(),
        }
    }

    /// Query parameters that may be given.
    pub(crate) fn query(mut self, names: &[&str]) -> Self {
        let parameter = |name: &&str| json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" } });
        self.parameters.extend(names.iter().map(parameter));
        self
    }

    /// The body it reads.
    pub(crate) fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(self.reference::<T>());
        self
    }

    /// A list of such is the body.
    pub(crate) fn takes_list<T: ToSchema>(mut self) -> Self {
        self.body = Some(json!({ "type": "array", "items": self.reference::<T>() }));
        self
    }

    /// One result.
    pub(crate) fn answers<T: ToSchema>(mut self) -> Self {
        self.answer = Answered::One(self.reference::<T>());
        self
    }

    /// A whole list as one result.
    pub(crate) fn answers_list<T: ToSchema>(mut self) -> Self {
        self.answer = Answered::One(json!({ "type": "array", "items": self.reference::<T>() }));
        self
    }

    /// A page of a list.
    pub(crate) fn lists<T: ToSchema>(self) -> Self {
        let mut paged = self.query(&["cursor"]);
        for name in ["page", "per_page"] {
            let schema = json!({ "type": "integer", "minimum": 1, "maximum": if name == "page" { 1_000_000 } else { 1_000 } });
            paged
                .parameters
                .push(json!({ "name": name, "in": "query", "required": false, "schema": schema }));
        }
        paged.answer = Answered::List(paged.reference::<T>());
        paged.reference::<PageInfo>();
        paged
    }

    /// Something else than JSON.
    pub(crate) fn streams(mut self, media_type: &'static str) -> Self {
        self.answer = Answered::Media(media_type);
        self
    }

    /// It answers 201.
    pub(crate) const fn created(mut self) -> Self {
        self.status = "201";
        self
    }

    /// A reference to the schema of a type, which is kept with those it refers to.
    fn reference<T: ToSchema>(&mut self) -> Value {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            // Plain data: it always is JSON.
            let schema = serde_json::to_value(schema).unwrap_or_default();
            let known = self.schemas.entry(name).or_insert_with(|| schema.clone());
            debug_assert_eq!(*known, schema, "two types of one name");
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    /// What the document says of it, at a path.
    fn describe(&self, path: &str) -> Value {
        let mut parameters: Vec<Value> = path_parameters(path).collect();
        parameters.extend(self.parameters.iter().cloned());
        let mut operation = json!({
            "operationId": operation_id(self.method, path),
            "summary": self.summary,
            "parameters": parameters,
            "responses": {
                self.status: { "description": "Done", "content": self.content() },
                "default": { "$ref": "#/components/responses/Failure" },
            },
        });
        if let (Some(schema), Some(fields)) = (&self.body, operation.as_object_mut()) {
            let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
            fields.insert("requestBody".to_owned(), body);
        }
        operation
    }

    fn content(&self) -> Value {
        let schema = match &self.answer {
            Answered::Media(media_type) => {
                return json!({ *media_type: { "schema": { "type": "string" } } });
            }
            Answered::List(item) => {
                let info = json!({ "result_info": { "$ref": "#/components/schemas/PageInfo" } });
                let page = envelope(&json!({ "type": "array", "items": item }));
                json!({ "allOf": [page, { "type": "object", "properties": info }] })
            }
            Answered::One(result) => envelope(result),
        };
        json!({ "application/json": { "schema": schema } })
    }
}

/// A name that no other operation has.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches('/').replace(['/', '-'], "_").replace(['{', '}'], "");
    format!("{method}_{words}")
}

/// The envelope of a success.
fn envelope(result: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["success", "errors", "messages", "result"],
        "properties": {
            "success": { "const": true },
            "errors": { "type": "array", "maxItems": 0 },
            "messages": { "type": "array", "items": { "$ref": "#/components/schemas/Message" } },
            "result": result,
        },
    })
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let schema = match name {
            "number" => json!({ "type": "integer", "minimum": 0 }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    })
}

/// Routes, and what is said of them.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<Api>>,
    paths: BTreeMap<String, Map<String, Value>>,
    schemas: Schemas,
}

impl Routes {
    /// Adds the operations of a path.
    pub(crate) fn at<const N: usize>(mut self, path: &str, operations: [Operation; N]) -> Self {
        let described = self.paths.entry(path.to_owned()).or_default();
        for operation in operations {
            described.insert(operation.method.to_owned(), operation.describe(path));
            self.schemas.extend(operation.schemas);
            self.router = self.router.route(path, operation.handler);
        }
        self
    }

    /// Adds routes beside these.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        self.schemas.extend(other.schemas);
        self.router = self.router.merge(other.router);
        self
    }

    /// Adds routes below a path.
    pub(crate) fn nest(mut self, prefix: &str, inner: Self) -> Self {
        for (path, operations) in inner.paths {
            let path = format!("{prefix}{}", path.trim_end_matches('/'));
            let described = self.paths.entry(path.clone()).or_default();
            for (method, mut operation) in operations {
                if let Some(fields) = operation.as_object_mut() {
                    let mut parameters: Vec<Value> = path_parameters(prefix).collect();
                    if let Some(Value::Array(own)) = fields.remove("parameters") {
                        parameters.extend(own);
                    }
                    fields.insert("parameters".to_owned(), Value::Array(parameters));
                    fields.insert("operationId".to_owned(), json!(operation_id(&method, &path)));
                }
                described.insert(method, operation);
            }
        }
        self.schemas.extend(inner.schemas);
        self.router = self.router.nest(prefix, inner.router);
        self
    }

    /// The router, and the document of what it answers.
    pub(crate) fn finish(self) -> (Router<Arc<Api>>, Value) {
        let mut schemas = self.schemas;
        let text = json!({ "type": "string" });
        let number = json!({ "type": "integer", "minimum": 1_000 });
        let pointer = json!({ "type": "object", "properties": { "pointer": text } });
        let message = json!({
            "type": "object",
            "required": ["code", "message"],
            "properties": { "code": number, "message": text, "source": pointer },
        });
        schemas.insert("Message".to_owned(), message);
        let failure = json!({
            "type": "object",
            "required": ["success", "errors", "messages", "result"],
            "properties": {
                "success": { "const": false },
                "errors": { "type": "array", "minItems": 1, "items": { "$ref": "#/components/schemas/Message" } },
                "messages": { "type": "array", "maxItems": 0 },
                "result": { "type": "null" },
            },
        });
        let document = json!({
            "openapi": "3.1.0",
            "info": { "title": TITLE, "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
            "servers": [{ "url": "/client/v4" }],
            "security": [{ "token": [] }],
            "paths": self.paths,
            "components": {
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
                "responses": {
                    "Failure": {
                        "description": "Refused or failed",
                        "content": { "application/json": { "schema": failure } },
                    },
                },
                "schemas": schemas,
            },
        });
        (self.router, document)
    }
}
