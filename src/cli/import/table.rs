//! A CSV file as a table: its encoding, its delimiter, its columns by their names, its rows with their
//! lines. What a value means is in [`super::fields`].

use std::{borrow::Cow, ops::Range};

use anyhow::{Context, bail};

/// A column that a kind of file may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// In English.
    pub name: &'static str,
    /// What else its heading may be.
    pub also: &'static [&'static str],
    /// Whether a file without it is no file of this kind.
    pub required: bool,
}

/// Headings of the rejects' file, which may be imported again when it has been mended.
pub(super) const REJECT_HEADINGS: [&str; 2] = ["line", "reason"];

/// A parsed file.
#[derive(Debug)]
pub(super) struct Table {
    /// The content as UTF-8, but for rows that are not valid.
    bytes: Vec<u8>,
    pub delimiter: u8,
    /// As written.
    pub headings: Vec<String>,
    /// Of each heading, the name of its column, if it is one.
    names: Vec<Option<&'static str>>,
    header: Range<usize>,
    pub rows: Vec<Row>,
}

/// A row.
#[derive(Debug)]
pub(super) struct Row {
    /// Of its first character, counted from 1.
    pub line: u64,
    raw: Range<usize>,
    /// Its values, or why it has none.
    pub values: Result<Vec<String>, String>,
}

/// Windows-1251 from 0x80 on (<https://encoding.spec.whatwg.org/index-windows-1251.txt>).
const WINDOWS_1251: &str = "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя";

impl Table {
    /// Reads a file of this kind.
    ///
    /// # Errors
    /// When it is empty or lacks a column that it must have.
    pub fn parse(content: &[u8], columns: &'static [Column]) -> anyhow::Result<Self> {
        let bytes = decode(content).into_owned();
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).context("it is empty")?;
        let first_line = &bytes[start..line_end(&bytes, start)];
        let delimiter = if count(first_line, b';') >= count(first_line, b',') { b';' } else { b',' };
        let mut rows = split(&bytes, delimiter).into_iter();
        let header = rows.next().context("it is empty")?;
        let headings = header.values.map_err(|problem| anyhow::anyhow!("line {}: {problem}", header.line))?;
        let names: Vec<_> = headings.iter().map(|heading| column_of(heading, columns)).collect();
        let missing: Vec<String> = columns
            .iter()
            .filter(|column| column.required && !names.contains(&Some(column.name)))
            .map(|column| format!("{} ({})", column.also.first().unwrap_or(&column.name), column.name))
            .collect();
        if !missing.is_empty() {
            bail!("it lacks columns that it must have: {}; see switchboard import --help", missing.join(", "));
        }
        if let Some(twice) =
            columns.iter().find(|column| names.iter().flatten().filter(|n| **n == column.name).count() > 1)
        {
            bail!("it has two columns for {}; keep one", twice.name);
        }
        let width = headings.len();
        let rows = rows
            .map(|row| match row.values {
                Ok(values) if values.len() != width => {
                    let problem = format!("the row has {} columns and the heading {width}", values.len());
                    Row { values: Err(problem), ..row }
                }
                _ => row,
            })
            .collect();
        Ok(Self { delimiter, names, headings, header: header.raw, rows, bytes })
    }

    /// Headings that mean nothing here, except those of a rejects' file.
    pub fn unused(&self) -> Vec<&str> {
        let unknown = self.headings.iter().zip(&self.names).filter(|(_, name)| name.is_none());
        unknown.map(|(heading, _)| heading.as_str()).filter(|heading| !REJECT_HEADINGS.contains(heading)).collect()
    }

    /// Where the column is, and its heading as written.
    pub fn column(&self, name: &str) -> Option<(usize, &str)> {
        let index = self.names.iter().position(|known| *known == Some(name))?;
        Some((index, self.headings[index].as_str()))
    }

    /// A row as it stands in the file.
    pub fn raw(&self, row: &Row) -> &[u8] {
        &self.bytes[row.raw.clone()]
    }

    /// The heading as it stands in the file.
    pub fn raw_header(&self) -> &[u8] {
        &self.bytes[self.header.clone()]
    }
}

/// The content as UTF-8. A file is UTF-8 unless most of the lines that would show it are not.
fn decode(content: &[u8]) -> Cow<'_, [u8]> {
    if let Some(content) = content.strip_prefix(b"\xef\xbb\xbf") {
        return Cow::Borrowed(content);
    }
    let telling: Vec<&[u8]> = content.split(|byte| *byte == b'\n').filter(|line| !line.is_ascii()).collect();
    let utf8 = telling.iter().filter(|line| std::str::from_utf8(line).is_ok()).count();
    if utf8 * 2 >= telling.len() {
        return Cow::Borrowed(content);
    }
    let high: Vec<char> = WINDOWS_1251.chars().collect();
    let text: String = content
        .iter()
        .map(|byte| match byte.checked_sub(0x80) {
            None => char::from(*byte),
            Some(index) => high.get(usize::from(index)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
        })
        .collect();
    Cow::Owned(text.into_bytes())
}

fn line_end(bytes: &[u8], start: usize) -> usize {
    (start..bytes.len()).find(|at| ends_line(bytes, *at)).unwrap_or(bytes.len())
}

/// Cuts the bytes into records. A record that runs over several lines and has the wrong width, or text
/// after a closing quotation mark, is taken for one with a mark that nobody closed: only its first line
/// is lost.
fn split(bytes: &[u8], delimiter: u8) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let (mut offset, mut line) = (0, 1);
    'again: loop {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(&bytes[offset..]);
        let mut record = csv::ByteRecord::new();
        let width = rows.first().and_then(|header| header.values.as_ref().ok()).map(Vec::len);
        let mut from = offset;
        // Reading from memory, a flexible reader has no reason to fail.
        while reader.read_byte_record(&mut record).unwrap_or(false) {
            let to =
                offset + usize::try_from(reader.position().byte()).unwrap_or(bytes.len()).min(bytes.len() - offset);
            let blank = bytes[from..to].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            line += newlines(bytes, from..from + blank);
            let raw = from + blank..trim_end(bytes, from + blank, to);
            let lines = newlines(bytes, from + blank..to);
            let odd = width.is_some_and(|width| record.len() != width) || !well_quoted(&bytes[raw.clone()], delimiter);
            if newlines(bytes, raw.clone()) > 0 && odd {
                let end = line_end(bytes, raw.start);
                let raw = raw.start..trim_end(bytes, raw.start, end);
                rows.push(Row { line, raw, values: Err("a quotation mark is opened and not closed".to_owned()) });
                offset = (end + 1).min(bytes.len());
                line += 1;
                continue 'again;
            }
            rows.push(Row { line, raw, values: values(&record) });
            line += lines;
            from = to;
        }
        return rows;
    }
}

/// Whether every value that begins with a quotation mark ends with one, right before the next value.
fn well_quoted(record: &[u8], delimiter: u8) -> bool {
    let mut rest = record;
    loop {
        let value = rest;
        let Some(quoted) = value.strip_prefix(b"\"") else {
            match value.iter().position(|byte| *byte == delimiter) {
                Some(at) => rest = &value[at + 1..],
                None => return true,
            }
            continue;
        };
        let mut at = 0;
        // A doubled mark is one of the text.
        let close = loop {
            match quoted[at..].iter().position(|byte| *byte == b'"') {
                Some(next) if quoted.get(at + next + 1) == Some(&b'"') => at += next + 2,
                Some(next) => break at + next + 1,
                None => return false,
            }
        };
        match quoted.get(close) {
            None => return true,
            Some(next) if *next == delimiter => rest = &quoted[close + 1..],
            Some(_) => return false,
        }
    }
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    bytes.split(|byte| *byte == wanted).count() - 1
}

/// Whether a line ends with this byte: CR LF counts once, and a CR of its own ends a line as it ends a
/// record.
fn ends_line(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b'\n' || bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n')
}

fn newlines(bytes: &[u8], range: Range<usize>) -> u64 {
    range.filter(|at| ends_line(bytes, *at)).count() as u64
}

fn trim_end(bytes: &[u8], from: usize, to: usize) -> usize {
    from + bytes[from..to].trim_ascii_end().len().max(usize::from(from < to))
}

fn values(record: &csv::ByteRecord) -> Result<Vec<String>, String> {
    record
        .iter()
        .enumerate()
        .map(|(index, value)| match std::str::from_utf8(value) {
            Ok(value) if value.contains('\0') => Err(format!("column {}: contains U+0000", index + 1)),
            Ok(value) => Ok(value.trim().to_owned()),
            Err(_) => Err(format!("column {}: is no valid UTF-8", index + 1)),
        })
        .collect()
}

fn column_of(heading: &str, columns: &'static [Column]) -> Option<&'static str> {
    let wanted = fold(heading);
    let column = columns
        .iter()
        .find(|column| fold(column.name) == wanted || column.also.iter().any(|other| fold(other) == wanted))?;
    Some(column.name)
}

/// A name without what people vary: case, ё, underscores, spaces.
pub(super) fn fold(text: &str) -> String {
    let text = text.replace(['_', '\u{a0}'], " ").to_lowercase().replace('ё', "е");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column { name: "number", also: &["Номер"], required: true },
        Column { name: "client_name", also: &["Имя"], required: false },
    ];

    fn lines(content: &[u8]) -> Vec<(u64, Result<Vec<String>, String>)> {
        let table = Table::parse(content, COLUMNS).unwrap();
        table.rows.into_iter().map(|row| (row.line, row.values)).collect()
    }

    fn row(values: [&str; 2]) -> Vec<String> {
        values.map(str::to_owned).to_vec()
    }

    #[test]
    fn both_encodings_and_both_delimiters_give_the_same_rows() {
        let expected = [(2, Ok(row(["1", "Ёлкин"])))];
        assert_eq!(lines("Номер;Имя\r\n1;Ёлкин\r\n".as_bytes()), expected);
        assert_eq!(lines("\u{feff}number,Client Name\n1,Ёлкин".as_bytes()), expected);
        // "Номер;Имя", "1;Ёлкин" in Windows-1251.
        let windows = b"\xcd\xee\xec\xe5\xf0;\xc8\xec\xff\r\n1;\xa8\xeb\xea\xe8\xed\r\n";
        assert_eq!(lines(windows), expected);
        assert_eq!(WINDOWS_1251.chars().count(), 128);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_none_and_each_row_stands_in_the_file(
            content in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "number;client_name\r?\n(([0-9a]|\"|;|\r|\n|\u{ff}){0,20})".prop_map(String::into_bytes),
            ],
        ) {
            let Ok(table) = Table::parse(&content, COLUMNS) else { return Ok(()) };
            let mut last = 1;
            for row in &table.rows {
                prop_assert!(row.line > last, "{:?}", table);
                last = row.line;
                prop_assert!(!table.raw(row).is_empty());
                prop_assert!(row.values.as_ref().map_or(true, |values| values.len() == table.headings.len()));
            }
        }

        #[test]
        fn what_was_written_is_read(
            rows in prop::collection::vec(("[0-9]{1,3}", "[^\0\r\u{feff}]{0,12}"), 0..5),
        ) {
            let mut writer = csv::WriterBuilder::new().delimiter(b';').from_writer(Vec::new());
            writer.write_record(["number", "client_name"]).unwrap();
            for (number, name) in &rows {
                writer.write_record([number, name]).unwrap();
            }
            let read = Table::parse(&writer.into_inner().unwrap(), COLUMNS).unwrap().rows.into_iter();
            let read: Vec<_> = read.map(|row| row.values.unwrap()).collect();
            let written: Vec<_> = rows.iter().map(|(number, name)| row([number, name.trim()])).collect();
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn every_row_knows_its_line_and_a_bad_one_costs_no_other() {
        let content = "Номер;Имя\n\n1;a\n2;\"b\nc\"\n3;\"open\n4;d\n5\n6;e\n";
        let rows = lines(content.as_bytes());
        assert_eq!(rows[0], (3, Ok(row(["1", "a"]))));
        assert_eq!(rows[1], (4, Ok(row(["2", "b\nc"]))));
        assert_eq!(rows[2].0, 6);
        assert!(rows[2].1.as_ref().unwrap_err().contains("quotation mark"), "{rows:?}");
        assert_eq!(rows[3], (7, Ok(row(["4", "d"]))));
        assert_eq!(rows[4].1.as_ref().unwrap_err(), "the row has 1 columns and the heading 2");
        assert_eq!(rows[5], (9, Ok(row(["6", "e"]))));
        // Closed by the next row's mark, it would have the right width and swallow that row.
        let swallowed = lines("Номер;Имя\n1;\"open\n2;\"b;b\"\n".as_bytes());
        assert_eq!(swallowed[0].1.as_ref().unwrap_err(), "a quotation mark is opened and not closed");
        assert_eq!(swallowed[1], (3, Ok(row(["2", "b;b"]))));
        let broken = lines(b"number;\xd0\x98\xd0\xbc\xd1\x8f\n1;\xff\xfe\n2;ok\n");
        assert_eq!(broken[0].1.as_ref().unwrap_err(), "column 2: is no valid UTF-8");
        assert_eq!(broken[1], (3, Ok(row(["2", "ok"]))));
    }

    #[test]
    fn each_row_has_a_line_of_its_own_whatever_ends_it() {
        let numbers = |content: &str| lines(content.as_bytes()).iter().map(|(line, _)| *line).collect::<Vec<_>>();
        assert_eq!(numbers("Номер;Имя\r1;a\r2;b\r"), [2, 3]);
        // Cut in two by a CR inside: neither part is a row, and each must be named.
        assert_eq!(numbers("Номер;Имя\r\n1;a\rb;c;d\r\n2;e\r\n"), [2, 3, 4]);
        assert_eq!(numbers("Номер;Имя\n1;\"a\rb\"\n2;\"open\r\n3;c\n"), [2, 4, 5]);
    }

    #[test]
    fn a_file_of_another_kind_is_named_as_such() {
        let error = Table::parse("Имя;Телефон\n".as_bytes(), COLUMNS).unwrap_err().to_string();
        assert!(error.contains("Номер (number)"), "{error}");
        assert!(Table::parse(b"", COLUMNS).unwrap_err().to_string().contains("empty"));
        assert!(Table::parse("number;Номер\n".as_bytes(), COLUMNS).unwrap_err().to_string().contains("two columns"));
    }
}
