//! Whether a rule names only what there is: variables, functions, and fields of the schema.
//!
//! Types are followed where they are plain (fields, items, map values); where they are not, nothing
//! is refused, and a rule that goes wrong there fails when it is evaluated.

use std::{collections::BTreeMap, sync::Arc};

use kube_cel::cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr};

use super::{
    super::node::{Node, Type},
    value::escaped,
};

/// What is known about a value.
#[derive(Clone)]
enum Known {
    /// It is described by this node.
    Node(Arc<Node>),
    /// Nothing.
    Unknown,
}

/// Functions with one name for every kind of value they take.
const FUNCTIONS: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "bytes",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "distinct",
    "double",
    "duration",
    "endsWith",
    "family",
    "find",
    "findAll",
    "first",
    "flatten",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "indexOf",
    "int",
    "ip",
    "isCIDR",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "last",
    "lastIndexOf",
    "lowerAscii",
    "major",
    "masked",
    "matches",
    "max",
    "min",
    "minor",
    "patch",
    "prefixLength",
    "quantity",
    "replace",
    "reverse",
    "semver",
    "sign",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "uint",
    "upperAscii",
    "url",
    "validate",
];

/// Functions of a name space.
const NAMESPACED: &[(&str, &[&str])] = &[
    ("base64", &["decode", "encode"]),
    (
        "format",
        &[
            "dns1123Label",
            "dns1123LabelPrefix",
            "dns1123Subdomain",
            "dns1123SubdomainPrefix",
            "dns1035Label",
            "dns1035LabelPrefix",
            "qualifiedName",
            "labelValue",
            "uri",
            "uuid",
            "byte",
            "date",
            "datetime",
            "named",
        ],
    ),
    ("ip", &["isCanonical"]),
    ("jsonpatch", &["escapeKey"]),
    ("lists", &["range"]),
    (
        "math",
        &[
            "abs",
            "bitAnd",
            "bitNot",
            "bitOr",
            "bitShiftLeft",
            "bitShiftRight",
            "bitXor",
            "ceil",
            "floor",
            "greatest",
            "isFinite",
            "isInf",
            "isNaN",
            "least",
            "round",
            "sign",
            "sqrt",
            "trunc",
        ],
    ),
    ("sets", &["contains", "equivalent", "intersects"]),
    ("strings", &["quote"]),
];

/// Checks an expression in which `self` is described by `node`.
///
/// # Errors
///
/// What is not there, in the words of the reference.
pub(super) fn check(node: &Arc<Node>, expression: &IdedExpr) -> Result<(), String> {
    let mut scope = Scope { variables: BTreeMap::new() };
    for name in ["self", "oldSelf"] {
        scope.variables.insert(name.to_owned(), Known::Node(node.clone()));
    }
    scope.infer(expression).map(drop)
}

struct Scope {
    variables: BTreeMap<String, Known>,
}

impl Scope {
    fn infer(&mut self, expression: &IdedExpr) -> Result<Known, String> {
        match &expression.expr {
            Expr::Ident(name) => match self.variables.get(name) {
                Some(known) => Ok(known.clone()),
                // The accumulators of macros.
                None if name.starts_with('@') || name.starts_with("__result__") => Ok(Known::Unknown),
                None => Err(format!("undeclared reference to '{name}' (in container '')")),
            },
            Expr::Select(select) => {
                let operand = self.infer(&select.operand)?;
                field(&operand, &select.field)
            }
            Expr::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => self.all(list.elements.iter()),
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr)?;
                }
                Ok(Known::Unknown)
            }
            Expr::Struct(made) => Err(format!("undeclared reference to '{}' (in container '')", made.type_name)),
            Expr::Literal(_) | Expr::Unspecified => Ok(Known::Unknown),
        }
    }

    fn entry(&mut self, entry: &EntryExpr) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.infer(&field.value).map(drop),
            EntryExpr::MapEntry(entry) => {
                self.infer(&entry.key)?;
                self.infer(&entry.value).map(drop)
            }
        }
    }

    fn all<'e>(&mut self, expressions: impl Iterator<Item = &'e IdedExpr>) -> Result<Known, String> {
        for expression in expressions {
            self.infer(expression)?;
        }
        Ok(Known::Unknown)
    }

    fn call(&mut self, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr]) -> Result<Known, String> {
        let unknown = || format!("undeclared reference to '{name}' (in container '')");
        let is_operator = !name.starts_with(|letter: char| letter.is_ascii_alphabetic());
        if let Some(target) = target {
            let space = match &target.expr {
                Expr::Ident(space) if !self.variables.contains_key(space) => {
                    NAMESPACED.iter().find(|(known, _)| known == space)
                }
                _ => None,
            };
            match space {
                Some((_, functions)) if functions.contains(&name) => return self.all(args.iter()),
                Some(_) => return Err(unknown()),
                None => self.infer(target).map(drop)?,
            }
        }
        let qualified = name.split_once('.').is_some_and(|(space, function)| {
            NAMESPACED.iter().any(|(known, functions)| *known == space && functions.contains(&function))
        });
        if !is_operator && !qualified && !FUNCTIONS.contains(&name) {
            return Err(unknown());
        }
        let first = args.first().map(|first| self.infer(first)).transpose()?;
        self.all(args.iter().skip(1))?;
        Ok(match (name, first) {
            ("_[_]", Some(Known::Node(container))) => element(&container),
            _ => Known::Unknown,
        })
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Result<Known, String> {
        let range = self.infer(&comprehension.iter_range)?;
        self.infer(&comprehension.accu_init)?;
        let item = match &range {
            // Over a map the keys are visited.
            Known::Node(node) if node.kind == Type::Array => element(node),
            _ => Known::Unknown,
        };
        let mut inner = Self { variables: self.variables.clone() };
        inner.variables.insert(comprehension.iter_var.clone(), item);
        if let Some(second) = &comprehension.iter_var2 {
            inner.variables.insert(second.clone(), Known::Unknown);
        }
        inner.variables.insert(comprehension.accu_var.clone(), Known::Unknown);
        inner.infer(&comprehension.loop_cond)?;
        inner.infer(&comprehension.loop_step)?;
        inner.infer(&comprehension.result)?;
        Ok(Known::Unknown)
    }
}

fn field(operand: &Known, name: &str) -> Result<Known, String> {
    let Known::Node(node) = operand else { return Ok(Known::Unknown) };
    if node.is_map() {
        return Ok(node.additional.clone().map_or(Known::Unknown, Known::Node));
    }
    match node.kind {
        Type::Object if node.properties.is_empty() && node.preserve_unknown => Ok(Known::Unknown),
        Type::Object => match node.properties.iter().find(|(known, _)| escaped(known) == name) {
            Some((_, child)) => Ok(Known::Node(child.clone())),
            None if node.embedded && matches!(name, "apiVersion" | "kind" | "metadata") => Ok(Known::Unknown),
            None => Err(format!("undefined field '{name}'")),
        },
        Type::Any | Type::IntOrString => Ok(Known::Unknown),
        _ => Err(format!("type '{}' does not support field selection", node.kind.name().unwrap_or_default())),
    }
}

fn element(node: &Node) -> Known {
    node.items.clone().or_else(|| node.additional.clone()).map_or(Known::Unknown, Known::Node)
}
