//! What a rule may cost at most, before it is evaluated: the interpreter cannot be interrupted.

use kube_cel::cel::{
    Program,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use serde_json::Value;

/// Steps that the rules of one object may take together.
pub(super) const STEPS_MAX: u64 = 20_000_000;

/// The size of a program: its nodes, by how many loops they stand in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// Nodes in no loop, in one loop, in a loop in a loop, and so on.
    by_depth: Vec<u64>,
    /// Whether texts are taken apart into lists.
    splits: bool,
}

impl Shape {
    pub(super) fn of(program: &Program) -> Self {
        let mut shape = Self::default();
        shape.count(program.expression(), 0);
        shape
    }

    /// An upper bound of the steps when no list is longer than those of these values.
    pub(super) fn steps(&self, values: [Option<&Value>; 2]) -> u64 {
        let longest = values.into_iter().flatten().map(|value| longest(value, self.splits)).max().unwrap_or_default();
        let longest = longest.max(1);
        let mut factor: u64 = 1;
        let mut steps: u64 = 0;
        for nodes in &self.by_depth {
            steps = steps.saturating_add(nodes.saturating_mul(factor));
            factor = factor.saturating_mul(longest);
        }
        steps
    }

    fn count(&mut self, expression: &IdedExpr, depth: usize) {
        if self.by_depth.len() <= depth {
            self.by_depth.resize(depth + 1, 0);
        }
        if let Some(nodes) = self.by_depth.get_mut(depth) {
            *nodes += 1;
        }
        match &expression.expr {
            Expr::Select(select) => self.count(&select.operand, depth),
            Expr::Call(call) => {
                self.splits |= matches!(call.func_name.as_str(), "split" | "findAll" | "range" | "flatten");
                for part in call.target.iter().map(|target| &**target).chain(&call.args) {
                    self.count(part, depth);
                }
            }
            Expr::Comprehension(loops) => {
                self.count(&loops.iter_range, depth);
                self.count(&loops.accu_init, depth);
                self.count(&loops.result, depth);
                self.count(&loops.loop_cond, depth + 1);
                self.count(&loops.loop_step, depth + 1);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.count(element, depth)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.count_entry(&entry.expr, depth)),
            Expr::Struct(made) => made.entries.iter().for_each(|entry| self.count_entry(&entry.expr, depth)),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn count_entry(&mut self, entry: &EntryExpr, depth: usize) {
        match entry {
            EntryExpr::StructField(field) => self.count(&field.value, depth),
            EntryExpr::MapEntry(entry) => {
                self.count(&entry.key, depth);
                self.count(&entry.value, depth);
            }
        }
    }
}

fn longest(value: &Value, texts: bool) -> u64 {
    match value {
        Value::Array(items) => {
            items.iter().map(|item| longest(item, texts)).max().unwrap_or_default().max(items.len() as u64)
        }
        Value::Object(fields) => {
            fields.values().map(|field| longest(field, texts)).max().unwrap_or_default().max(fields.len() as u64)
        }
        Value::String(text) if texts => text.len() as u64,
        _ => 0,
    }
}
