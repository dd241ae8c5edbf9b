//! CSV as an attachment (RFC 4180: commas, CRLF) for people with spreadsheets: UTF-8 with a byte order
//! mark, without which Excel reads Cyrillic as something else, and no cell that could run as a formula.
//!
//! Rows come in batches, each fetched on a connection that is given back before the batch is sent: a
//! slow reader holds neither a connection nor more than one batch of memory. What goes wrong before the
//! first row is an ordinary problem; what goes wrong later closes the connection, so that half a file
//! cannot be taken for a whole one.

use std::io;

use ::csv::{Terminator, WriterBuilder};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use crate::error::{AppError, ErrorReport};

/// A row with a promised order of columns.
pub trait Table: Serialize + Send + Sync + 'static {
    /// Names of its JSON fields, as the header of the file has them.
    const COLUMNS: &'static [&'static str];
}

/// Rows, batch by batch.
pub trait Batches: Send + 'static {
    /// What a batch holds.
    type Row: Table;

    /// The next batch; `None` when there is no more.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Self::Row>>, AppError>> + Send;
}

/// Rows that are few enough to be at hand.
#[derive(Debug)]
pub struct Once<T>(pub Option<Vec<T>>);

impl<T: Table> Batches for Once<T> {
    type Row = T;

    async fn next(&mut self) -> Result<Option<Vec<T>>, AppError> {
        Ok(self.0.take())
    }
}

/// Answers with a file of that name, without the extension.
///
/// # Errors
/// As the first batch.
pub async fn attachment<B: Batches>(name: String, mut batches: B) -> Result<Response, AppError> {
    let mut head = Vec::from("\u{feff}");
    let first = batches.next().await?.unwrap_or_default();
    write::<B::Row>(&mut head, Some(B::Row::COLUMNS), &first).map_err(AppError::internal)?;
    drop(first);
    let disposition =
        HeaderValue::try_from(format!("attachment; filename=\"{name}.csv\"")).map_err(AppError::internal)?;
    let rest = stream::try_unfold((name, batches), async |(name, mut batches)| {
        let Some(rows) = batches.next().await.map_err(|error| broken_off(&name, error))? else { return Ok(None) };
        let mut chunk = Vec::new();
        write::<B::Row>(&mut chunk, None, &rows)?;
        Ok::<_, io::Error>(Some((Bytes::from(chunk), (name, batches))))
    });
    let body = Body::from_stream(stream::iter([Ok(Bytes::from(head))]).chain(rest));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, body).into_response())
}

/// The head of the answer is gone: all that is left is to log it and to hang up.
fn broken_off(file: &str, error: AppError) -> io::Error {
    let code = error.kind().code;
    let report = error.into_response().extensions_mut().remove::<ErrorReport>();
    let cause = report.and_then(|report| report.cause);
    tracing::error!(file, error_code = code, cause = cause.as_deref(), "an export broke off");
    io::Error::other(code)
}

fn write<T: Table>(out: &mut Vec<u8>, header: Option<&[&str]>, rows: &[T]) -> io::Result<()> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
    if let Some(columns) = header {
        writer.write_record(columns)?;
    }
    for row in rows {
        let row = serde_json::to_value(row)?;
        for column in T::COLUMNS {
            writer.write_field(cell(row.get(*column).unwrap_or(&Value::Null)))?;
        }
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush()
}

/// A value as text. One that a spreadsheet would take for a formula gets an apostrophe in front, which
/// makes it text there. So does whatever follows a character at which a spreadsheet may cut the value up:
/// a Russian one takes semicolons for the separator, and then quotation marks within a line for text.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text,
        number => return number.to_string(),
    };
    let mut safe = String::with_capacity(text.len() + 1);
    let mut begins = true;
    for character in text.chars() {
        if begins && matches!(character, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n') {
            safe.push('\'');
        }
        // A space, or a mark that quotes what follows, leaves it at the beginning.
        begins = matches!(character, ';' | '\t' | '\r' | '\n') || begins && matches!(character, ' ' | '"');
        safe.push(character);
    }
    safe
}

/// What a file name may hold of a parameter.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().filter(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Line {
        text: &'static str,
        number: Option<f64>,
    }

    impl Table for Line {
        const COLUMNS: &'static [&'static str] = &["number", "text"];
    }

    #[test]
    fn cells_cannot_become_formulas() {
        for text in ["=1+1", "+7916", "-1", "@SUM(A1)", "\tx", "\rx", "\nx"] {
            assert_eq!(cell(&json!(text)), format!("'{text}"));
        }
        for (text, safe) in [
            ("x;=1+1", "x;'=1+1"),
            ("x; \"=1+1\"", "x; \"'=1+1\""),
            (" =1", " '=1"),
            ("x\n@SUM(A1)", "x\n'@SUM(A1)"),
            ("x\t+1", "x\t'+1"),
        ] {
            assert_eq!(cell(&json!(text)), safe, "in a spreadsheet that cuts at semicolons, tabs or lines");
        }
        for text in ["a=b", "5; 6", "ul. Lenina, 5-7", "first\nsecond"] {
            assert_eq!(cell(&json!(text)), text);
        }
        assert_eq!(cell(&json!(-0.5)), "-0.5", "a number is no formula");
        assert_eq!(cell(&Value::Null), "");
    }

    #[test]
    fn a_file_is_quoted_where_it_must_be() {
        let mut out = Vec::new();
        let rows = [Line { text: "a, \"b\"\nc", number: Some(1.5) }, Line { text: "=x", number: None }];
        write(&mut out, Some(Line::COLUMNS), &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "number,text\r\n1.5,\"a, \"\"b\"\"\nc\"\r\n,'=x\r\n");
    }
}
