//! Questions in Search-R1's and verl-agent's Parquet files.

use std::path::Path;

use super::lines::refused;
use super::question::Question;
use crate::EnvError;

/// Reads a file, one row at a time.
#[cfg(feature = "parquet")]
pub(super) fn load(path: &Path, fallback_source: &str) -> Result<Vec<Question>, EnvError> {
    let file = std::fs::File::open(path).map_err(|e| refused(path, None, &e))?;
    reading::rows(file, fallback_source).map_err(|(row, what)| {
        let place = row.map(|row| format!("row {row}: ")).unwrap_or_default();
        refused(path, None, &format!("{place}{what}"))
    })
}

/// Says that this build cannot read the file.
#[cfg(not(feature = "parquet"))]
pub(super) fn load(path: &Path, _fallback_source: &str) -> Result<Vec<Question>, EnvError> {
    Err(refused(path, None, &"built without the feature `parquet`: convert the file to JSON lines"))
}

#[cfg(feature = "parquet")]
pub(super) mod reading {
    use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
    use parquet::record::{Field, Row};
    use serde_json::{Map, Value};

    use super::super::question::Question;

    /// The questions of a file; errors carry the row's number (from 1), where there is one.
    pub(in crate::search) fn rows<R: ChunkReader + 'static>(
        file: R,
        fallback_source: &str,
    ) -> Result<Vec<Question>, (Option<usize>, String)> {
        let damaged = |e| format!("{e}: not a Parquet file, damaged, or of an unknown compression");
        let reader = SerializedFileReader::new(file).map_err(|e| (None, damaged(e)))?;
        let rows = reader.get_row_iter(None).map_err(|e| (None, damaged(e)))?;
        let mut questions = Vec::new();
        for (i, row) in rows.enumerate() {
            let number = Some(i + 1);
            let row = row.map_err(|e| (number, damaged(e)))?;
            let question = Question::from_value(object(&row), fallback_source);
            questions.push(question.map_err(|what| (number, what))?);
        }
        Ok(questions)
    }

    fn object(row: &Row) -> Value {
        let fields = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
        Value::Object(fields.collect::<Map<_, _>>())
    }

    fn value(field: &Field) -> Value {
        match field {
            Field::Bool(truth) => Value::from(*truth),
            Field::Byte(n) => Value::from(*n),
            Field::Short(n) => Value::from(*n),
            Field::Int(n) => Value::from(*n),
            Field::Long(n) => Value::from(*n),
            Field::UByte(n) => Value::from(*n),
            Field::UShort(n) => Value::from(*n),
            Field::UInt(n) => Value::from(*n),
            Field::ULong(n) => Value::from(*n),
            Field::Float(n) => Value::from(*n),
            Field::Double(n) => Value::from(*n),
            Field::Str(text) => Value::from(text.as_str()),
            // Writers that do not mark text as text; what is no text becomes null.
            Field::Bytes(bytes) => bytes.as_utf8().map_or(Value::Null, Value::from),
            Field::Group(row) => object(row),
            Field::ListInternal(list) => list.elements().iter().map(value).collect(),
            Field::MapInternal(map) => {
                let entries = map.entries().iter().map(|(key, item)| {
                    let key = match value(key) {
                        Value::String(key) => key,
                        other => other.to_string(),
                    };
                    (key, value(item))
                });
                Value::Object(entries.collect::<Map<_, _>>())
            }
            _ => Value::Null,
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
}
