//! Places in a text where something can be broken, and what becomes of it.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// One place, and what stands there instead.
pub struct Edit {
    pub kind: &'static str,
    pub range: Range<usize>,
    pub by: String,
    /// For the report.
    pub what: String,
}

impl Edit {
    pub fn of(&self, text: &str) -> String {
        format!("{}{}{}", &text[..self.range.start], self.by, &text[self.range.end..])
    }
}

/// Every comparison and every matcher of an expression.
pub fn in_expression(text: &str, within: &Range<usize>) -> Vec<Edit> {
    let mut edits = comparisons(text, within);
    edits.extend(matchers(text, within));
    edits
}

fn comparisons(text: &str, within: &Range<usize>) -> Vec<Edit> {
    // Not those of matchers, after which a string stands.
    static COMPARED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(>=|<=|==|>|<)\s*(?:on \([^)]*\)\s*)?(-?\d+(?:\.\d+)?)?").unwrap());
    let mut edits = Vec::new();
    for found in COMPARED.captures_iter(&text[within.clone()]) {
        let (operator, number) = (found.get(1).unwrap(), found.get(2));
        let said = found[0].trim().to_owned();
        let at = |part: regex::Match<'_>| within.start + part.start()..within.start + part.end();
        let (neighbour, opposite) = match operator.as_str() {
            ">" => (">=", "<"),
            ">=" => (">", "<"),
            "<" => ("<=", ">"),
            "<=" => ("<", ">"),
            _ => ("!=", "<"),
        };
        for by in [neighbour, opposite] {
            let (range, what) = (at(operator), format!("{said} becomes {by}"));
            edits.push(Edit { kind: "comparisons", range, by: by.to_owned(), what });
        }
        for by in number.iter().flat_map(|number| nearby(number.as_str())) {
            let range = at(number.unwrap());
            edits.push(Edit { kind: "thresholds", what: format!("{said} becomes {by}"), range, by });
        }
    }
    edits
}

/// A little more and a little less: the next whole number, or a tenth of what it is.
pub fn nearby(number: &str) -> Vec<String> {
    let value: f64 = number.parse().unwrap();
    let is_whole = !number.contains('.');
    if is_whole && value == 0.0 {
        return vec!["1".to_owned()];
    }
    let step = if is_whole && value <= 100.0 { 1.0 } else { value / 10.0 };
    [value + step, value - step].map(|near| crate::slo::rounded(near).to_string()).to_vec()
}

/// Each turned round, and each left out.
fn matchers(text: &str, within: &Range<usize>) -> Vec<Edit> {
    static MATCHER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?:,\s*)?(\w+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")(\s*,)?"#).unwrap());
    static COMMA: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^,\s*").unwrap());
    let mut edits = Vec::new();
    let mut from = within.start;
    while let Some(found) = MATCHER.captures(&text[from..within.end]) {
        let (whole, operator) = (found.get(0).unwrap(), found.get(2).unwrap());
        let said = format!("{}{}{}", &found[1], &found[2], &found[3]);
        let by = match operator.as_str() {
            "=" => "!=",
            "!=" => "=",
            "=~" => "!~",
            _ => "=~",
        };
        let range = from + operator.start()..from + operator.end();
        edits.push(Edit { kind: "matchers", range, by: by.to_owned(), what: format!("{said} becomes {by}") });
        // One comma goes with it: the one before it, or else the one behind.
        let leads = COMMA.is_match(whole.as_str());
        let trails = found.get(4).map_or(0, |comma| comma.as_str().len());
        let end = if leads { whole.end() - trails } else { whole.end() };
        let range = from + whole.start()..from + end;
        edits.push(Edit { kind: "matchers", range, by: String::new(), what: format!("{said} is left out") });
        // A comma behind it leads the next one.
        from += whole.end() - trails;
    }
    edits
}

/// A minute more and a minute less.
pub fn other_durations(duration: &str) -> Vec<String> {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let number: u32 = number.parse().unwrap();
    let near = [number + 1, number.saturating_sub(1)];
    // A rule that waits for 0 waits for nothing, and that is what it says then.
    near.map(|number| format!("{number}{unit}")).to_vec()
}
