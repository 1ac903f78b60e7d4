//! `trajectories/step-000010.parquet`: one row per agent step of a training step's rollouts.
//!
//! Parquet, because pandas, DuckDB and Polars read it as it is. Snappy, one row group, no clock
//! reading: the same rows give the same bytes.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use crate::{Result, RunError};

/// One agent step: what was seen and done, what it was worth and why.
///
/// Entropies and log-probabilities are in nats, of the full distribution at the sampling
/// temperature. The column of [`TrajectoryRow::h`] is called `H`; all others have their field's
/// name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrajectoryRow {
    /// The training step.
    pub step: u64,
    /// Index of the group (the rollouts of one task) in the batch.
    pub group: u32,
    /// Index of the rollout in its group.
    pub rollout: u32,
    /// The task.
    pub task: String,
    /// The task's type, as tables break success down by it.
    pub kind: String,
    /// Index of the agent step in the episode.
    pub turn: u32,
    /// What the environment showed before the step.
    pub observation: String,
    /// What the agent did.
    pub action: String,
    /// The episode's return R_i, the same in all its rows.
    pub reward: f64,
    /// How the episode ended, the same in all its rows.
    pub end: String,
    /// Whether the episode was won, the same in all its rows.
    pub won: bool,
    /// The sampled tokens.
    pub tokens: Vec<u32>,
    /// log π_old of each token.
    pub logprob: Vec<f32>,
    /// Entropy where each token was drawn.
    pub entropy: Vec<f32>,
    /// H, the mean entropy of the step.
    pub h: f64,
    /// H normalised over the batch.
    pub h_norm: f64,
    /// The factor g of the base advantage.
    pub g: f64,
    /// f of the next step; none for an episode's last.
    pub f_next: Option<f64>,
    /// The base advantage A.
    pub base: f64,
    /// ζ·f of the next step.
    pub bonus: f64,
    /// The batch mean that was subtracted.
    pub centring: f64,
    /// The advantage used in the loss.
    pub advantage: f64,
}

/// Columns in the order in which they are written and read.
const SCHEMA: &str = "
message agent_step {
    required int64 step (INTEGER(64,false));
    required int32 group (INTEGER(32,false));
    required int32 rollout (INTEGER(32,false));
    required binary task (STRING);
    required binary kind (STRING);
    required int32 turn (INTEGER(32,false));
    required binary observation (STRING);
    required binary action (STRING);
    required double reward;
    required binary end (STRING);
    required boolean won;
    required group tokens (LIST) { repeated group list { required int32 element (INTEGER(32,false)); } }
    required group logprob (LIST) { repeated group list { required float element; } }
    required group entropy (LIST) { repeated group list { required float element; } }
    required double H;
    required double h_norm;
    required double g;
    optional double f_next;
    required double base;
    required double bonus;
    required double centring;
    required double advantage;
}";

/// Columns of few distinct values.
const DICTIONARY: [&str; 6] = ["task", "kind", "end", "group", "rollout", "turn"];

/// The bytes of a Parquet file with these rows.
///
/// # Errors
/// A row whose lists differ in length.
pub(crate) fn encode(rows: &[TrajectoryRow], path: &Path) -> Result<Vec<u8>> {
    for (row, r) in rows.iter().enumerate() {
        if r.tokens.len() != r.logprob.len() || r.tokens.len() != r.entropy.len() {
            return Err(RunError::UnevenRow {
                row,
                task: r.task.clone(),
                turn: r.turn,
                tokens: r.tokens.len(),
                logprobs: r.logprob.len(),
                entropies: r.entropy.len(),
            });
        }
    }
    write(rows).map_err(|e| RunError::Io {
        action: "encode",
        path: path.to_owned(),
        source: std::io::Error::other(e),
    })
}

/// The rows of a Parquet file of ours.
///
/// # Errors
/// Bytes that are no such file.
pub(crate) fn decode(bytes: Vec<u8>, path: &Path) -> Result<Vec<TrajectoryRow>> {
    read(bytes, true).map_err(|e| RunError::corrupt(path, e.to_string()))
}

/// How many episodes the rows of a Parquet file of ours are of.
///
/// # Errors
/// As [`decode`].
pub(crate) fn episodes(bytes: Vec<u8>, path: &Path) -> Result<usize> {
    let rows = read(bytes, false).map_err(|e| RunError::corrupt(path, e.to_string()))?;
    let same = |a: &TrajectoryRow, b: &TrajectoryRow| {
        (a.step, a.group, a.rollout) == (b.step, b.group, b.rollout)
    };
    Ok(rows.chunk_by(same).count())
}

fn write(rows: &[TrajectoryRow]) -> Result<Vec<u8>, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by("empg-run version 1".to_owned())
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for column in DICTIONARY {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
    }
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build()))?;
    if !rows.is_empty() {
        let mut out = Columns { group: file.next_row_group()?, rows };
        out.put::<Int64Type>(|r| r.step as i64)?;
        out.put::<Int32Type>(|r| r.group as i32)?;
        out.put::<Int32Type>(|r| r.rollout as i32)?;
        out.put::<ByteArrayType>(|r| text(&r.task))?;
        out.put::<ByteArrayType>(|r| text(&r.kind))?;
        out.put::<Int32Type>(|r| r.turn as i32)?;
        out.put::<ByteArrayType>(|r| text(&r.observation))?;
        out.put::<ByteArrayType>(|r| text(&r.action))?;
        out.put::<DoubleType>(|r| r.reward)?;
        out.put::<ByteArrayType>(|r| text(&r.end))?;
        out.put::<BoolType>(|r| r.won)?;
        out.put_lists::<Int32Type, u32>(|r| &r.tokens, |&t| t as i32)?;
        out.put_lists::<FloatType, f32>(|r| &r.logprob, |&x| x)?;
        out.put_lists::<FloatType, f32>(|r| &r.entropy, |&x| x)?;
        out.put::<DoubleType>(|r| r.h)?;
        out.put::<DoubleType>(|r| r.h_norm)?;
        out.put::<DoubleType>(|r| r.g)?;
        out.put_optional::<DoubleType>(|r| r.f_next)?;
        out.put::<DoubleType>(|r| r.base)?;
        out.put::<DoubleType>(|r| r.bonus)?;
        out.put::<DoubleType>(|r| r.centring)?;
        out.put::<DoubleType>(|r| r.advantage)?;
        out.group.close()?;
    }
    file.into_inner()
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text.as_bytes().to_vec())
}

/// A row group that is written column by column.
struct Columns<'a> {
    group: SerializedRowGroupWriter<'a, Vec<u8>>,
    rows: &'a [TrajectoryRow],
}

impl Columns<'_> {
    fn put<T: DataType>(
        &mut self,
        field: impl Fn(&TrajectoryRow) -> T::T,
    ) -> Result<(), ParquetError> {
        let values: Vec<T::T> = self.rows.iter().map(field).collect();
        self.write::<T>(&values, None, None)
    }

    fn put_optional<T: DataType>(
        &mut self,
        field: impl Fn(&TrajectoryRow) -> Option<T::T>,
    ) -> Result<(), ParquetError> {
        let values: Vec<Option<T::T>> = self.rows.iter().map(field).collect();
        let defined: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
        let values: Vec<T::T> = values.into_iter().flatten().collect();
        self.write::<T>(&values, Some(&defined), None)
    }

    fn put_lists<T: DataType, V>(
        &mut self,
        field: impl Fn(&TrajectoryRow) -> &[V],
        convert: impl Fn(&V) -> T::T,
    ) -> Result<(), ParquetError> {
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.rows {
            let list = field(row);
            // An empty list is one entry without a value; otherwise level 0 opens a new row.
            defined.extend(std::iter::repeat_n(i16::from(!list.is_empty()), list.len().max(1)));
            repeated.push(0);
            repeated.extend(std::iter::repeat_n(1, list.len().saturating_sub(1)));
            values.extend(list.iter().map(&convert));
        }
        self.write::<T>(&values, Some(&defined), Some(&repeated))
    }

    fn write<T: DataType>(
        &mut self,
        values: &[T::T],
        defined: Option<&[i16]>,
        repeated: Option<&[i16]>,
    ) -> Result<(), ParquetError> {
        let mut column = self
            .group
            .next_column()?
            .ok_or_else(|| ParquetError::General("a column too many".to_owned()))?;
        column.typed::<T>().write_batch(values, defined, repeated)?;
        column.close()
    }
}

/// The rows, or of each only which episode it is of.
fn read(bytes: Vec<u8>, whole: bool) -> Result<Vec<TrajectoryRow>, ParquetError> {
    let file = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
    let ours = parse_message_type(SCHEMA)?;
    if *file.metadata().file_metadata().schema() != ours {
        return Err(ParquetError::General("its columns are not those of a run".to_owned()));
    }
    let mut all = Vec::new();
    for index in 0..file.num_row_groups() {
        let group = file.get_row_group(index)?;
        let count = usize::try_from(group.metadata().num_rows())
            .map_err(|_| ParquetError::General("a negative number of rows".to_owned()))?;
        let mut rows = vec![TrajectoryRow::default(); count];
        let mut from = Cursor { group: group.as_ref(), column: 0 };
        from.take::<Int64Type>(&mut rows, |r, v| r.step = v as u64)?;
        from.take::<Int32Type>(&mut rows, |r, v| r.group = v as u32)?;
        from.take::<Int32Type>(&mut rows, |r, v| r.rollout = v as u32)?;
        if !whole {
            all.append(&mut rows);
            continue;
        }
        from.take_text(&mut rows, |r, v| r.task = v)?;
        from.take_text(&mut rows, |r, v| r.kind = v)?;
        from.take::<Int32Type>(&mut rows, |r, v| r.turn = v as u32)?;
        from.take_text(&mut rows, |r, v| r.observation = v)?;
        from.take_text(&mut rows, |r, v| r.action = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.reward = v)?;
        from.take_text(&mut rows, |r, v| r.end = v)?;
        from.take::<BoolType>(&mut rows, |r, v| r.won = v)?;
        from.take::<Int32Type>(&mut rows, |r, v| r.tokens.push(v as u32))?;
        from.take::<FloatType>(&mut rows, |r, v| r.logprob.push(v))?;
        from.take::<FloatType>(&mut rows, |r, v| r.entropy.push(v))?;
        from.take::<DoubleType>(&mut rows, |r, v| r.h = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.h_norm = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.g = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.f_next = Some(v))?;
        from.take::<DoubleType>(&mut rows, |r, v| r.base = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.bonus = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.centring = v)?;
        from.take::<DoubleType>(&mut rows, |r, v| r.advantage = v)?;
        all.append(&mut rows);
    }
    Ok(all)
}

/// A row group that is read column by column.
struct Cursor<'a> {
    group: &'a dyn RowGroupReader,
    column: usize,
}

impl Cursor<'_> {
    /// Gives every value of the next column to the row that it belongs to: one a row, none for a
    /// null, one call per element for a list.
    fn take<T: DataType>(
        &mut self,
        rows: &mut [TrajectoryRow],
        mut set: impl FnMut(&mut TrajectoryRow, T::T),
    ) -> Result<(), ParquetError> {
        let uneven = || ParquetError::General("columns of different lengths".to_owned());
        let descriptor = self.group.metadata().column(self.column).column_descr_ptr();
        let mut column = get_typed_column_reader::<T>(self.group.get_column_reader(self.column)?);
        self.column += 1;
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        let nested = (descriptor.max_def_level() > 0, descriptor.max_rep_level() > 0);
        let mut read = 0;
        while read < rows.len() {
            let (records, _, _) = column.read_records(
                rows.len() - read,
                nested.0.then_some(&mut defined),
                nested.1.then_some(&mut repeated),
                &mut values,
            )?;
            if records == 0 {
                return Err(uneven());
            }
            read += records;
        }
        if !nested.0 {
            defined.resize(values.len(), 1);
        }
        if !nested.1 {
            repeated.resize(defined.len(), 0);
        }
        let (mut values, mut begun) = (values.into_iter(), 0);
        for (defined, repeated) in defined.into_iter().zip(repeated) {
            begun += usize::from(repeated == 0);
            if defined > 0 {
                let row = begun.checked_sub(1).and_then(|row| rows.get_mut(row));
                set(row.ok_or_else(uneven)?, values.next().ok_or_else(uneven)?);
            }
        }
        Ok(())
    }

    fn take_text(
        &mut self,
        rows: &mut [TrajectoryRow],
        mut set: impl FnMut(&mut TrajectoryRow, String),
    ) -> Result<(), ParquetError> {
        let mut invalid = false;
        self.take::<ByteArrayType>(rows, |row, value| match value.as_utf8() {
            Ok(text) => set(row, text.to_owned()),
            Err(_) => invalid = true,
        })?;
        if invalid {
            return Err(ParquetError::General("text that is not UTF-8".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = TrajectoryRow> {
        let lists = (0..6usize).prop_flat_map(|n| {
            let floats = prop::collection::vec(-9f32..9.0, n);
            (prop::collection::vec(any::<u32>(), n), floats.clone(), floats)
        });
        let texts = prop::array::uniform5(".{0,12}");
        let numbers = prop::array::uniform8(-1e9f64..1e9);
        let keys = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>());
        (lists, texts, numbers, prop::option::of(-1f64..1.0), keys, any::<bool>()).prop_map(
            |((tokens, logprob, entropy), texts, x, f_next, keys, won)| {
                let [task, kind, observation, action, end] = texts;
                TrajectoryRow {
                    step: keys.0,
                    group: keys.1,
                    rollout: keys.2,
                    turn: keys.3,
                    task,
                    kind,
                    observation,
                    action,
                    end,
                    won,
                    tokens,
                    logprob,
                    entropy,
                    f_next,
                    reward: x[0],
                    h: x[1],
                    h_norm: x[2],
                    g: x[3],
                    base: x[4],
                    bonus: x[5],
                    centring: x[6],
                    advantage: x[7],
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_round_trip_and_bytes_repeat(rows in prop::collection::vec(row(), 0..20)) {
            let bytes = encode(&rows, Path::new("t")).unwrap();
            prop_assert_eq!(&encode(&rows, Path::new("t")).unwrap(), &bytes);
            prop_assert_eq!(decode(bytes, Path::new("t")).unwrap(), rows);
        }
    }

    #[test]
    fn more_rows_than_a_page_holds_round_trip() {
        let rows: Vec<_> = (0..30_000u32)
            .map(|i| TrajectoryRow {
                turn: i,
                tokens: (0..i % 7).collect(),
                logprob: vec![-0.5; i as usize % 7],
                entropy: vec![0.25; i as usize % 7],
                f_next: (i % 3 > 0).then_some(f64::from(i)),
                observation: format!("You arrive at drawer {i}."),
                ..TrajectoryRow::default()
            })
            .collect();
        let bytes = encode(&rows, Path::new("t")).unwrap();
        assert!(decode(bytes, Path::new("t")).unwrap() == rows);
    }

    #[test]
    fn uneven_lists_are_named() {
        let row = TrajectoryRow { tokens: vec![1, 2], task: "t".into(), ..Default::default() };
        let error = encode(&[TrajectoryRow::default(), row], Path::new("t")).unwrap_err();
        assert!(matches!(error, RunError::UnevenRow { row: 1, tokens: 2, logprobs: 0, .. }));
    }

    #[test]
    fn other_bytes_are_an_error() {
        assert!(decode(b"PAR1nonsensePAR1".to_vec(), Path::new("t")).is_err());
        assert!(decode(Vec::new(), Path::new("t")).is_err());
    }
}
