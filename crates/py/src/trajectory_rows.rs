//! Agent steps of a run as a table.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float32Type, UInt32Type};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, LargeStringArray, ListArray, PrimitiveArray, RecordBatch,
    UInt32Array, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use empg_run::TrajectoryRow;

/// The columns of `trajectories/*.parquet`, by the same names.
pub(crate) fn schema() -> SchemaRef {
    let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
    let fields: [(&str, DataType); 22] = [
        ("step", DataType::UInt64),
        ("group", DataType::UInt32),
        ("rollout", DataType::UInt32),
        ("task", DataType::LargeUtf8),
        ("kind", DataType::LargeUtf8),
        ("turn", DataType::UInt32),
        ("observation", DataType::LargeUtf8),
        ("action", DataType::LargeUtf8),
        ("reward", DataType::Float64),
        ("end", DataType::LargeUtf8),
        ("won", DataType::Boolean),
        ("tokens", list(DataType::UInt32)),
        ("logprob", list(DataType::Float32)),
        ("entropy", list(DataType::Float32)),
        ("H", DataType::Float64),
        ("h_norm", DataType::Float64),
        ("g", DataType::Float64),
        ("f_next", DataType::Float64),
        ("base", DataType::Float64),
        ("bonus", DataType::Float64),
        ("centring", DataType::Float64),
        ("advantage", DataType::Float64),
    ];
    let nullable = |name| name == "f_next";
    let fields = fields.into_iter().map(|(name, kind)| Field::new(name, kind, nullable(name)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// One training step's rows.
pub(crate) fn batch(rows: &[TrajectoryRow]) -> Result<RecordBatch, ArrowError> {
    type Row = TrajectoryRow;
    let text = |of: fn(&Row) -> &str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<LargeStringArray>())
    };
    let small = |of: fn(&Row) -> u32| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<UInt32Array>())
    };
    let number = |of: fn(&Row) -> f64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<Float64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.step)).collect::<UInt64Array>()),
        small(|row| row.group),
        small(|row| row.rollout),
        text(|row| &row.task),
        text(|row| &row.kind),
        small(|row| row.turn),
        text(|row| &row.observation),
        text(|row| &row.action),
        number(|row| row.reward),
        text(|row| &row.end),
        Arc::new(rows.iter().map(|row| Some(row.won)).collect::<BooleanArray>()),
        lists::<UInt32Type>(rows, |row| &row.tokens),
        lists::<Float32Type>(rows, |row| &row.logprob),
        lists::<Float32Type>(rows, |row| &row.entropy),
        number(|row| row.h),
        number(|row| row.h_norm),
        number(|row| row.g),
        Arc::new(rows.iter().map(|row| row.f_next).collect::<Float64Array>()),
        number(|row| row.base),
        number(|row| row.bonus),
        number(|row| row.centring),
        number(|row| row.advantage),
    ];
    RecordBatch::try_new(schema(), columns)
}

fn lists<T: ArrowPrimitiveType>(
    rows: &[TrajectoryRow],
    of: fn(&TrajectoryRow) -> &[T::Native],
) -> ArrayRef {
    let lengths = rows.iter().map(|row| of(row).len());
    let offsets = arrow_buffer::OffsetBuffer::from_lengths(lengths);
    let values: Vec<T::Native> = rows.iter().flat_map(|row| of(row).iter().copied()).collect();
    let values = PrimitiveArray::<T>::new(values.into(), None);
    let field = Arc::new(Field::new("item", T::DATA_TYPE, true));
    Arc::new(ListArray::new(field, offsets, Arc::new(values), None))
}
