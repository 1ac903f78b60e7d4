//! Questions in Search-R1's and verl-agent's Parquet files.

use std::path::Path;

use super::lines::refused;
use super::question::Question;
use crate::EnvError;

/// Reads a file, one row at a time.
#[cfg(feature = "parquet")]
pub(super) fn load(path: &Path, fallback_source: &str) -> Result<Vec<Question>, EnvError> {
    let file = std::fs::File::open(path).map_err(|e| refused(path, None, &e))?;
    reading::rows(file, fallback_source).map_err(|(row, what)| at(path, row, &what))
}

/// Reads bytes.
#[cfg(feature = "parquet")]
pub(super) fn parse(bytes: Vec<u8>, fallback_source: &str) -> Result<Vec<Question>, EnvError> {
    reading::rows(bytes::Bytes::from(bytes), fallback_source)
        .map_err(|(row, what)| at(Path::new("questions"), row, &what))
}

#[cfg(feature = "parquet")]
fn at(path: &Path, row: Option<usize>, what: &str) -> EnvError {
    let place = row.map(|row| format!("row {row}: ")).unwrap_or_default();
    refused(path, None, &format!("{place}{what}"))
}

/// Says that this build cannot read the file.
#[cfg(not(feature = "parquet"))]
pub(super) fn load(path: &Path, _fallback_source: &str) -> Result<Vec<Question>, EnvError> {
    Err(refused(path, None, &"built without the feature `parquet`: convert the file to JSON lines"))
}

#[cfg(feature = "parquet")]
pub(super) mod reading {
    use std::sync::Arc;

    use parquet::basic::{Encoding, PageType, Repetition};
    use parquet::column::page::{Page, PageMetadata, PageReader};
    use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
    use parquet::data_type::DataType;
    use parquet::errors::ParquetError;
    use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
    use parquet::schema::types::ColumnDescriptor;
    use serde_json::{Map, Value};

    use super::super::question::Question;

    /// Columns that tell of a question; lists without the levels that Parquet adds.
    const WANTED: [&str; 15] = [
        "id",
        "question",
        "data_source",
        "golden_answers",
        "answers",
        "answer",
        "prompt",
        "prompt.content",
        "reward_model.ground_truth.target",
        "env_kwargs.question",
        "env_kwargs.ground_truth.target",
        "metadata.split",
        "extra_info.split",
        "extra_info.index",
        "split",
    ];
    /// Names of the levels that writers put between a list and its elements.
    const LEVELS: [&str; 6] = ["list", "element", "item", "bag", "array", "array_element"];
    /// Rows read at a time.
    const CHUNK: usize = 4096;

    type Failure = (Option<usize>, String);

    /// The questions of a file; errors carry the row's number (from 1), where there is one.
    ///
    /// Column by column: the crate's own assembly of rows panics where levels contradict each other.
    pub(in crate::search) fn rows<R: ChunkReader + 'static>(
        file: R,
        fallback_source: &str,
    ) -> Result<Vec<Question>, Failure> {
        let reader = SerializedFileReader::new(file).map_err(damaged)?;
        let mut questions = Vec::new();
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(damaged)?;
            let count = usize::try_from(group.metadata().num_rows())
                .map_err(|_| (None, "a negative number of rows".to_owned()))?;
            let mut records: Vec<Map<String, Value>> = Vec::new();
            let mut first = true;
            for column in 0..group.num_columns() {
                let description = group.metadata().column(column).column_descr_ptr();
                let path = plain_path(&description);
                if description.max_rep_level() > 1 || !WANTED.contains(&path.as_str()) {
                    continue;
                }
                let chunk = group.metadata().column(column);
                let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                if start < 0 || chunk.compressed_size() < 0 {
                    return Err((None, format!("the column {path} lies before the file")));
                }
                let pages = group.get_column_page_reader(column).map_err(damaged)?;
                let pages = Box::new(Checked { pages, dictionary: false });
                let cells = match get_column_reader(Arc::clone(&description), pages) {
                    ColumnReader::ByteArrayColumnReader(reader) => {
                        cells(reader, &description, |text| text.as_utf8().ok().map(Value::from))
                    }
                    ColumnReader::Int32ColumnReader(reader) => {
                        cells(reader, &description, |n| Some(Value::from(*n)))
                    }
                    ColumnReader::Int64ColumnReader(reader) => {
                        cells(reader, &description, |n| Some(Value::from(*n)))
                    }
                    _ => continue,
                };
                let cells = cells.map_err(damaged)?;
                if cells.len() != count {
                    let rows = cells.len();
                    return Err((None, format!("the column {path} has {rows} rows, not {count}")));
                }
                if std::mem::take(&mut first) {
                    records.resize(count, Map::new());
                }
                for (record, cell) in records.iter_mut().zip(cells) {
                    put(record, &path, cell);
                }
            }
            if first {
                return Err((None, "no column tells of a question".to_owned()));
            }
            for record in records {
                let number = questions.len() + 1;
                let question = Question::from_value(Value::Object(record), fallback_source);
                questions.push(question.map_err(|what| (Some(number), what))?);
            }
        }
        Ok(questions)
    }

    /// Pages whose reader panics where a dictionary is missing.
    struct Checked {
        pages: Box<dyn PageReader>,
        dictionary: bool,
    }

    impl Iterator for Checked {
        type Item = Result<Page, ParquetError>;

        fn next(&mut self) -> Option<Self::Item> {
            self.get_next_page().transpose()
        }
    }

    impl PageReader for Checked {
        fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
            let page = self.pages.get_next_page()?;
            if let Some(page) = &page {
                let encoded = matches!(
                    page.encoding(),
                    Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY
                );
                self.dictionary |= page.page_type() == PageType::DICTIONARY_PAGE;
                if encoded && !self.dictionary {
                    return Err(ParquetError::General("a dictionary is missing".to_owned()));
                }
            }
            Ok(page)
        }

        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
            self.pages.peek_next_page()
        }

        fn skip_next_page(&mut self) -> Result<(), ParquetError> {
            self.pages.skip_next_page()
        }

        fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
            self.pages.at_record_boundary()
        }
    }

    #[allow(clippy::needless_pass_by_value)] // handed to map_err
    fn damaged(error: ParquetError) -> Failure {
        (None, format!("{error}: not a Parquet file, damaged, or of an unknown compression"))
    }

    fn plain_path(column: &ColumnDescriptor) -> String {
        let parts = column.path().parts().iter().enumerate();
        let own = parts.filter(|(i, part)| *i == 0 || !LEVELS.contains(&part.as_str()));
        own.map(|(_, part)| part.as_str()).collect::<Vec<_>>().join(".")
    }

    /// One cell a row: a value, a list of them, or null.
    fn cells<T: DataType>(
        mut reader: ColumnReaderImpl<T>,
        column: &ColumnDescriptor,
        value: impl Fn(&T::T) -> Option<Value>,
    ) -> Result<Vec<Value>, ParquetError> {
        let (most, is_list) = (column.max_def_level(), column.max_rep_level() == 1);
        let optional = column.self_type().get_basic_info().repetition() == Repetition::OPTIONAL;
        // The definition level of a list that is there and empty.
        let empty = most - 1 - i16::from(optional);
        let mut cells = Vec::new();
        let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            values.clear();
            definition.clear();
            repetition.clear();
            let (records, _, levels) = reader.read_records(
                CHUNK,
                Some(&mut definition),
                Some(&mut repetition),
                &mut values,
            )?;
            if records == 0 {
                return Ok(cells);
            }
            let mut values = values.iter();
            for i in 0..levels {
                let level = if most == 0 { 0 } else { definition.get(i).copied().unwrap_or(0) };
                let found = if level == most { values.next().and_then(&value) } else { None };
                if !is_list {
                    cells.push(found.unwrap_or(Value::Null));
                    continue;
                }
                let begins = repetition.get(i).is_none_or(|level| *level == 0);
                if begins {
                    let there = level >= empty;
                    cells.push(if there { Value::Array(Vec::new()) } else { Value::Null });
                }
                if let (Some(Value::Array(list)), Some(found)) = (cells.last_mut(), found) {
                    list.push(found);
                }
            }
        }
    }

    /// Sets a field of a record; `prompt.content` becomes messages.
    fn put(record: &mut Map<String, Value>, path: &str, cell: Value) {
        if cell.is_null() {
            return;
        }
        if path == "prompt.content" {
            if let Value::Array(contents) = cell {
                let message =
                    |content| Value::Object(Map::from_iter([("content".into(), content)]));
                record.insert("prompt".to_owned(), contents.into_iter().map(message).collect());
            }
            return;
        }
        match path.split_once('.') {
            None => {
                record.insert(path.to_owned(), cell);
            }
            Some((name, rest)) => {
                let inner = record.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = inner {
                    put(inner, rest, cell);
                }
            }
        }
    }
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Values, definition level, repetition levels.
    type Column = (&'static [&'static str], i16, &'static [i16]);

    /// Search-R1's columns, written column by column: two questions, the second with two answers.
    fn search_r1() -> Vec<u8> {
        let schema = parse_message_type(
            "message schema {
                optional binary data_source (STRING);
                optional group prompt (LIST) { repeated group list { optional group element {
                    optional binary content (STRING);
                    optional binary role (STRING);
                } } }
                optional binary ability (STRING);
                optional group reward_model {
                    optional group ground_truth {
                        optional group target (LIST) { repeated group list {
                            optional binary element (STRING);
                        } }
                    }
                    optional binary style (STRING);
                }
                optional group extra_info {
                    optional int64 index;
                    optional binary split (STRING);
                }
            }",
        )
        .unwrap();
        let columns: [Option<Column>; 8] = [
            Some((&["nq", "hotpotqa"], 1, &[0, 0])),
            Some((&["Think. Question: who?\n", "Question: where?"], 4, &[0, 0])),
            Some((&["user", "user"], 4, &[0, 0])),
            Some((&["fact", "fact"], 1, &[0, 0])),
            Some((&["Ada", "Rom", "Roma"], 5, &[0, 0, 1])),
            Some((&["rule", "rule"], 2, &[0, 0])),
            None,
            Some((&["train", "test"], 2, &[0, 0])),
        ];
        let mut bytes = Vec::new();
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer =
            SerializedFileWriter::new(&mut bytes, Arc::new(schema), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            let mut out = group.next_column().unwrap().unwrap();
            if let Some((values, depth, repetition)) = column {
                let values: Vec<ByteArray> = values.iter().map(|&v| v.into()).collect();
                let definition = vec![depth; values.len()];
                out.typed::<ByteArrayType>()
                    .write_batch(&values, Some(&definition), Some(repetition))
                    .unwrap();
            } else {
                out.typed::<Int64Type>().write_batch(&[0, 1], Some(&[2, 2]), None).unwrap();
            }
            out.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn search_r1_files_are_read() {
        let bytes = bytes::Bytes::from(search_r1());
        let questions = reading::rows(bytes, "file").unwrap();
        assert_eq!(questions.len(), 2);
        assert_eq!(questions[0].question, "who?");
        assert_eq!(questions[0].split.as_deref(), Some("train"));
        assert_eq!(questions[1].golden_answers, ["Rom", "Roma"]);
        assert_eq!(questions[1].source, "hotpotqa");
    }

    #[test]
    fn damage_is_told() {
        let whole = search_r1();
        for cut in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
            let part = bytes::Bytes::copy_from_slice(&whole[..cut]);
            assert!(reading::rows(part, "file").is_err(), "{cut}");
        }
    }

    #[test]
    fn flipped_bytes_are_survived() {
        let whole = search_r1();
        for at in 0..whole.len() {
            for mask in [0xff, 0x01, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= mask;
                let _ = reading::rows(bytes::Bytes::from(bytes), "file");
            }
        }
    }
}
