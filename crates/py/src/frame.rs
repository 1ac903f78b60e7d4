//! A table for Python: Arrow inside, numpy columns or an Arrow stream outside.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchIterator};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{DataType, SchemaRef};
use numpy::IntoPyArray;
use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList};

/// An immutable table.
#[pyclass(frozen, module = "empg._core")]
pub(crate) struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    pub(crate) fn of(schema: SchemaRef, mut batches: Vec<RecordBatch>) -> Self {
        if batches.is_empty() {
            // Some readers take the types from the first batch.
            batches.push(RecordBatch::new_empty(Arc::clone(&schema)));
        }
        Self { schema, batches }
    }
}

#[pymethods]
impl Table {
    #[getter]
    fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn __len__(&self) -> usize {
        self.num_rows()
    }

    /// A column: numbers and flags as a numpy array, texts and lists as a list.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let index = self.schema.index_of(name).map_err(|_| {
            let known = self.column_names().join(", ");
            PyKeyError::new_err(format!("no column is called {name:?}: there are {known}"))
        })?;
        let parts: Vec<&ArrayRef> = self.batches.iter().map(|b| b.column(index)).collect();
        let field = self.schema.field(index);
        column(py, &parts, field.data_type(), self.num_rows())
    }

    /// The table in Arrow's C stream interface.
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // A requested schema is a wish that a producer may leave unfulfilled.
        drop(requested_schema);
        let batches: Vec<_> = self.batches.iter().cloned().map(Ok).collect();
        let reader = RecordBatchIterator::new(batches, Arc::clone(&self.schema));
        let stream = FFI_ArrowArrayStream::new(Box::new(reader));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }

    /// The schema in Arrow's C data interface.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(&*self.schema)
            .map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }
}

fn column<'py>(
    py: Python<'py>,
    parts: &[&ArrayRef],
    kind: &DataType,
    rows: usize,
) -> PyResult<Bound<'py, PyAny>> {
    macro_rules! numbers {
        ($type:ty) => {{
            let mut values = Vec::with_capacity(rows);
            for part in parts {
                values.extend_from_slice(part.as_primitive::<$type>().values());
            }
            Ok(values.into_pyarray(py).into_any())
        }};
    }
    macro_rules! lists {
        ($type:ty) => {{
            let mut lists = Vec::with_capacity(rows);
            for part in parts {
                for list in part.as_list::<i32>().iter() {
                    let values = list.map(|list| {
                        list.as_primitive::<$type>().values().to_vec().into_pyarray(py)
                    });
                    lists.push(values);
                }
            }
            Ok(PyList::new(py, lists)?.into_any())
        }};
    }
    let nulls = parts.iter().any(|part| part.null_count() > 0);
    match kind {
        DataType::Float64 => {
            let mut values = Vec::with_capacity(rows);
            for part in parts {
                let part = part.as_primitive::<Float64Type>();
                values.extend(part.iter().map(|value| value.unwrap_or(f64::NAN)));
            }
            Ok(values.into_pyarray(py).into_any())
        }
        // numpy has no integers with gaps.
        DataType::Int64 if nulls => {
            let mut values = Vec::with_capacity(rows);
            for part in parts {
                let part = part.as_primitive::<Int64Type>();
                values.extend(part.iter().map(|value| value.map_or(f64::NAN, |v| v as f64)));
            }
            Ok(values.into_pyarray(py).into_any())
        }
        DataType::Int64 => numbers!(Int64Type),
        DataType::UInt64 => numbers!(UInt64Type),
        DataType::UInt32 => numbers!(UInt32Type),
        DataType::Boolean => {
            let values = parts.iter().flat_map(|part| part.as_boolean().iter());
            let values: Vec<Option<bool>> = values.collect();
            if nulls {
                return Ok(PyList::new(py, values)?.into_any());
            }
            let values: Vec<bool> = values.into_iter().flatten().collect();
            Ok(values.into_pyarray(py).into_any())
        }
        DataType::LargeUtf8 => {
            let values = parts.iter().flat_map(|part| part.as_string::<i64>().iter());
            Ok(PyList::new(py, values.collect::<Vec<_>>())?.into_any())
        }
        DataType::List(item) if *item.data_type() == DataType::UInt32 => lists!(UInt32Type),
        DataType::List(item) if *item.data_type() == DataType::Float32 => lists!(Float32Type),
        other => Err(PyRuntimeError::new_err(format!("a column of {other} has no numpy form"))),
    }
}
