//! What an expression selects and groups by.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use promql_parser::{
    label::MatchOp,
    parser::{self, Expr, LabelModifier, VectorMatchCardinality, VectorSelector},
};

thread_local! {
    /// The same expressions are asked for by several checks, and by each mutation.
    static PARSED: RefCell<BTreeMap<String, Result<Rc<Expr>, String>>> = const { RefCell::new(BTreeMap::new()) };
}

pub fn parse(text: &str) -> Result<Rc<Expr>, String> {
    if let Some(known) = PARSED.with_borrow(|parsed| parsed.get(text).cloned()) {
        return known;
    }
    let result = parser::parse(text).map(Rc::new);
    PARSED.with_borrow_mut(|parsed| parsed.insert(text.to_owned(), result.clone()));
    result
}

/// A selector: its metric and its matchers.
#[derive(Clone, Debug)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
pub struct Matcher {
    pub label: String,
    pub value: String,
    /// `=~` or `!~`.
    pub is_regex: bool,
    /// `=` or `=~`.
    pub is_positive: bool,
}

impl From<&VectorSelector> for Selector {
    fn from(selector: &VectorSelector) -> Self {
        let matchers = &selector.matchers;
        let all = matchers.matchers.iter().chain(matchers.or_matchers.iter().flatten());
        let mut metric = selector.name.clone().unwrap_or_default();
        let mut ours = Vec::new();
        for matcher in all {
            let is_regex = matches!(matcher.op, MatchOp::Re(_) | MatchOp::NotRe(_));
            let is_positive = matches!(matcher.op, MatchOp::Equal | MatchOp::Re(_));
            if matcher.name == "__name__" {
                metric.clone_from(&matcher.value);
                continue;
            }
            ours.push(Matcher { label: matcher.name.clone(), value: matcher.value.clone(), is_regex, is_positive });
        }
        Self { metric, matchers: ours }
    }
}

/// Every selector in an expression.
pub fn selectors(expr: &Expr) -> Vec<Selector> {
    let mut found = Vec::new();
    walk(expr, &mut |expr| match expr {
        Expr::VectorSelector(selector) => found.push(selector.into()),
        Expr::MatrixSelector(matrix) => found.push((&matrix.vs).into()),
        _ => {}
    });
    found
}

/// Labels that an expression groups or matches by, each with the selectors it can come from.
pub fn groupings(expr: &Expr) -> Vec<(String, Vec<Selector>)> {
    let mut found = Vec::new();
    walk(expr, &mut |expr| {
        let mut add = |modifier: Option<&LabelModifier>| {
            for label in modifier.map(|modifier| &modifier.labels().labels).into_iter().flatten() {
                found.push((label.clone(), selectors(expr)));
            }
        };
        match expr {
            Expr::Aggregate(aggregate) => add(aggregate.modifier.as_ref()),
            Expr::Binary(binary) => {
                let Some(modifier) = &binary.modifier else { return };
                add(modifier.matching.as_ref());
                if let VectorMatchCardinality::ManyToOne(labels) | VectorMatchCardinality::OneToMany(labels) =
                    &modifier.card
                {
                    add(Some(&LabelModifier::Include(labels.clone())));
                }
            }
            _ => {}
        }
    });
    found
}

/// Comparisons with a number, as written: `> 0.4`.
pub fn thresholds(expr: &Expr) -> Vec<String> {
    let mut found = Vec::new();
    walk(expr, &mut |expr| {
        if let Expr::Binary(binary) = expr
            && let (Expr::NumberLiteral(number), false) = (&*binary.rhs, matches!(*binary.lhs, Expr::NumberLiteral(_)))
        {
            let operator = binary.op.to_string();
            // Hours and days say when an alert is looked at, not how much is too much.
            let is_clock =
                matches!(&*binary.lhs, Expr::Call(call) if ["hour", "day_of_week"].contains(&call.func.name));
            if [">", "<", ">=", "<=", "==", "!="].contains(&operator.as_str()) && !is_clock {
                found.push(format!("{operator} {}", number.val));
            }
        }
    });
    found
}

fn walk<'a>(expr: &'a Expr, visit: &mut impl FnMut(&'a Expr)) {
    visit(expr);
    match expr {
        Expr::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                walk(param, visit);
            }
            walk(&aggregate.expr, visit);
        }
        Expr::Unary(unary) => walk(&unary.expr, visit),
        Expr::Binary(binary) => {
            walk(&binary.lhs, visit);
            walk(&binary.rhs, visit);
        }
        Expr::Paren(paren) => walk(&paren.expr, visit),
        Expr::Subquery(subquery) => walk(&subquery.expr, visit),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| walk(arg, visit)),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => {}
    }
}
