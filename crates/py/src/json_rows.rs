//! Lines of JSON objects as a table: nested objects become columns with dotted names.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray, RecordBatch,
};
use arrow_schema::{ArrowError, Field, Schema};
use serde_json::{Map, Value};

use crate::frame::Table;

/// A table of flattened objects, one row each. Where a line lacks a key its cell is null. A column
/// holds integers, numbers, flags or texts; of a mixture, or of lists, the JSON text.
pub(crate) fn table(rows: &[Map<String, Value>], skip: &[&str]) -> Result<Table, ArrowError> {
    let mut columns: Vec<(String, Vec<&Value>)> = Vec::new();
    let mut places = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        // The step leads, whatever the order of keys.
        for (key, value) in row
            .iter()
            .filter(|(key, _)| *key == "step")
            .chain(row.iter().filter(|(key, _)| *key != "step" && !skip.contains(&key.as_str())))
        {
            flatten(key.clone(), value, &mut |name, value| {
                let place = *places.entry(name.clone()).or_insert_with(|| {
                    columns.push((name, Vec::new()));
                    columns.len() - 1
                });
                let (_, values) = &mut columns[place];
                // A key twice in one object cannot be: the last has won in parsing.
                values.resize(index, &Value::Null);
                values.push(value);
            });
        }
    }
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for (name, mut values) in columns {
        values.resize(rows.len(), &Value::Null);
        let array = array(&values);
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let batches = if arrays.is_empty() {
        Vec::new()
    } else {
        vec![RecordBatch::try_new(Arc::clone(&schema), arrays)?]
    };
    Ok(Table::of(schema, batches))
}

/// Calls with every leaf and its dotted name.
fn flatten<'a>(name: String, value: &'a Value, leaf: &mut impl FnMut(String, &'a Value)) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                flatten(format!("{name}.{key}"), value, leaf);
            }
        }
        _ => leaf(name, value),
    }
}

fn array(values: &[&Value]) -> ArrayRef {
    let all = |is: fn(&Value) -> bool| values.iter().all(|value| value.is_null() || is(value));
    if all(Value::is_null) {
        return Arc::new(Float64Array::from(vec![None::<f64>; values.len()]));
    }
    if all(Value::is_boolean) {
        return Arc::new(values.iter().map(|v| v.as_bool()).collect::<BooleanArray>());
    }
    if all(Value::is_i64) {
        return Arc::new(values.iter().map(|v| v.as_i64()).collect::<Int64Array>());
    }
    if all(Value::is_number) {
        return Arc::new(values.iter().map(|v| v.as_f64()).collect::<Float64Array>());
    }
    if all(Value::is_string) {
        return Arc::new(values.iter().map(|v| v.as_str()).collect::<LargeStringArray>());
    }
    let text = |v: &&Value| (!v.is_null()).then(|| v.to_string());
    Arc::new(values.iter().map(text).collect::<LargeStringArray>())
}
