//! Array arguments: numpy arrays without a copy, torch tensors through numpy, others by DLPack.

use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
    PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

/// A ValueError about an argument.
pub(crate) fn bad(argument: &str, why: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{argument}: {why}"))
}

/// A shape as numpy prints it.
pub(crate) fn shape_of(shape: &[usize]) -> String {
    if let [one] = shape {
        return format!("({one},)");
    }
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", sizes.join(", "))
}

/// Where an argument came from, and so where a result goes.
pub(crate) enum Origin<'py> {
    /// A numpy array, or another one that gave it.
    Numpy { half: bool },
    /// A torch tensor.
    Torch { tensor: Bound<'py, PyAny> },
}

/// An argument as a numpy array on the CPU.
pub(crate) struct Given<'py> {
    pub(crate) name: &'static str,
    pub(crate) array: Bound<'py, PyUntypedArray>,
    pub(crate) origin: Origin<'py>,
    /// The array shares memory with the argument.
    pub(crate) shared: bool,
}

/// The module torch, if the program has imported it.
fn torch(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    let torch = modules.get_item("torch")?;
    Ok(torch.filter(|torch| !torch.is_none()))
}

fn is_tensor(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(torch) = torch(value.py())? else { return Ok(false) };
    // A module that is still being imported may not have the class yet: no tensor exists then.
    torch.getattr("Tensor").map_or(Ok(false), |class| value.is_instance(&class))
}

impl<'py> Given<'py> {
    /// # Errors
    /// TypeError for what is no array.
    pub(crate) fn new(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = value.py();
        if let Ok(array) = value.cast::<PyUntypedArray>() {
            let half = array.dtype().kind() == b'f' && array.dtype().itemsize() == 2;
            let origin = Origin::Numpy { half };
            return Ok(Self { name, array: array.clone(), origin, shared: true });
        }
        if is_tensor(value)? {
            let before = value.call_method0("detach")?;
            let mut tensor = before.clone();
            if tensor.getattr("device")?.getattr("type")?.extract::<String>()? != "cpu" {
                tensor = tensor.call_method0("cpu")?;
            }
            let kind: String = tensor.getattr("dtype")?.str()?.extract()?;
            if kind == "torch.bfloat16" || kind == "torch.float16" {
                tensor = tensor.call_method0("float")?;
            }
            tensor = tensor.call_method0("contiguous")?;
            let same = before
                .call_method0("data_ptr")
                .and_then(|was| was.eq(tensor.call_method0("data_ptr")?));
            let array = tensor
                .call_method0("numpy")
                .map_err(|error| bad(name, format!("no dense tensor of numbers: {error}")))?;
            return Ok(Self {
                name,
                array: array.cast_into()?,
                origin: Origin::Torch { tensor: value.clone() },
                shared: same.unwrap_or(false),
            });
        }
        if value.hasattr("__dlpack__")? {
            let array = py
                .import("numpy")?
                .call_method1("from_dlpack", (value,))
                .map_err(|error| bad(name, format!("not readable through DLPack: {error}")))?;
            let origin = Origin::Numpy { half: false };
            return Ok(Self { name, array: array.cast_into()?, origin, shared: false });
        }
        Err(PyTypeError::new_err(format!(
            "{name}: expected a numpy array or a torch tensor, got {}",
            value.get_type().name()?
        )))
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    /// The argument and its shape, as messages name it.
    pub(crate) fn label(&self) -> String {
        format!("{} of shape {}", self.name, shape_of(self.shape()))
    }

    pub(crate) fn is_half(&self) -> bool {
        self.array.dtype().kind() == b'f' && self.array.dtype().itemsize() == 2
    }

    pub(crate) fn is_double(&self) -> bool {
        self.array.dtype().kind() == b'f' && self.array.dtype().itemsize() == 8
    }

    fn dtype_name(&self) -> String {
        self.array.dtype().str().map_or_else(|_| "?".into(), |name| name.to_string())
    }

    fn refuse_layout(&self) -> PyErr {
        let Self { name, .. } = self;
        bad(
            name,
            format!(
                "shape {} is not C-contiguous; pass numpy.ascontiguousarray({name})",
                shape_of(self.shape())
            ),
        )
    }

    /// The array as `T`; numpy's half precision is widened.
    ///
    /// # Errors
    /// ValueError for another dtype or layout.
    pub(crate) fn floats<T: Element>(&self, wanted: &str) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
        if !self.array.is_c_contiguous() {
            return Err(self.refuse_layout());
        }
        let array = if self.is_half() {
            self.array.call_method1("astype", ("float32",))?
        } else {
            self.array.as_any().clone()
        };
        let Ok(array) = array.cast::<PyArrayDyn<T>>() else {
            let why = format!("dtype is {}, expected {wanted}", self.dtype_name());
            return Err(bad(self.name, why));
        };
        self.borrow(array)
    }

    /// The array as `T`, whose name in numpy is `name`, from any float type: a copy where it is another.
    ///
    /// # Errors
    /// ValueError for what is no float, or another layout.
    pub(crate) fn floats_as<T: Element>(
        &self,
        name: &str,
        wanted: &str,
    ) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
        let dtype = self.array.dtype();
        let float = dtype.kind() == b'f' && matches!(dtype.itemsize(), 2 | 4 | 8);
        let native = dtype.is_native_byteorder() != Some(false);
        if !(float && native && self.array.is_c_contiguous()) {
            return self.floats(wanted);
        }
        let array = self.array.call_method(
            "astype",
            (name,),
            Some(&[("copy", false)].into_py_dict(self.array.py())?),
        )?;
        self.borrow(array.cast()?)
    }

    fn borrow<T: Element>(
        &self,
        array: &Bound<'py, PyArrayDyn<T>>,
    ) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
        let borrowed = array.try_readonly().map_err(|_| {
            bad(self.name, "another call writes to this array (as its out=) at the same time")
        })?;
        if borrowed.as_slice().is_err() {
            return Err(bad(self.name, "the array's memory is not aligned"));
        }
        Ok(borrowed)
    }

    /// The array to write the result to.
    ///
    /// # Errors
    /// ValueError for another dtype or layout, a read-only array, or one that overlaps an input.
    pub(crate) fn floats_mut<T: Element>(
        &self,
        wanted: &str,
    ) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
        if !self.array.is_c_contiguous() {
            return Err(self.refuse_layout());
        }
        let Ok(array) = self.array.as_any().cast::<PyArrayDyn<T>>() else {
            let why = format!("dtype is {}, expected {wanted}", self.dtype_name());
            return Err(bad(self.name, why));
        };
        let mut borrowed = array.try_readwrite().map_err(|error| match error {
            numpy::BorrowError::NotWriteable => bad(self.name, "the array is read-only"),
            _ => bad(self.name, "its memory overlaps that of another argument, or is in use"),
        })?;
        if borrowed.as_slice_mut().is_err() {
            return Err(bad(self.name, "the array's memory is not aligned"));
        }
        Ok(borrowed)
    }

    /// Refuses to be written where others are read: by where they begin and end in memory, since
    /// every view that torch gives of a tensor is an array of its own to numpy's checks.
    ///
    /// # Errors
    /// ValueError that names the first that overlaps.
    pub(crate) fn apart_from<'a>(&self, others: impl Iterator<Item = &'a Self>) -> PyResult<()>
    where
        'py: 'a,
    {
        let shares = self.array.py().import("numpy")?.getattr("may_share_memory")?;
        for other in others {
            if shares.call1((&self.array, &other.array))?.extract()? {
                return Err(bad(self.name, format!("its memory overlaps that of {}", other.name)));
            }
        }
        Ok(())
    }

    /// Where the data begin.
    pub(crate) fn address<T: Element>(&self) -> Option<usize> {
        self.array.as_any().cast::<PyArrayDyn<T>>().ok().map(|array| array.data() as usize)
    }

    /// A mask without a copy: booleans are bytes.
    ///
    /// # Errors
    /// ValueError for another dtype or layout.
    pub(crate) fn mask(&self) -> PyResult<Mask<'py>> {
        if !self.array.is_c_contiguous() {
            return Err(self.refuse_layout());
        }
        let dtype = self.array.dtype();
        let array = self.array.as_any();
        Ok(match (dtype.kind(), dtype.itemsize()) {
            (b'b' | b'i' | b'u', 1) => {
                let bytes = array.call_method1("view", ("uint8",))?;
                Mask::U8(self.borrow(bytes.cast()?)?)
            }
            (b'i', 4) => Mask::I32(self.borrow(self.native(array)?.cast()?)?),
            (b'i', 8) => Mask::I64(self.borrow(self.native(array)?.cast()?)?),
            (b'f', 4) => Mask::F32(self.borrow(self.native(array)?.cast()?)?),
            (b'f', 8) => Mask::F64(self.borrow(self.native(array)?.cast()?)?),
            (b'f', 2) => Mask::F32(self.borrow(array.call_method1("astype", ("f4",))?.cast()?)?),
            (b'i' | b'u', _) => {
                Mask::F64(self.borrow(array.call_method1("astype", ("f8",))?.cast()?)?)
            }
            _ => {
                let why = format!("dtype is {}, expected bool, int or float", self.dtype_name());
                return Err(bad(self.name, why));
            }
        })
    }

    /// Refuses the other byte order, which has the same kind and size.
    fn native(&self, array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if self.array.dtype().is_native_byteorder() == Some(false) {
            return Err(bad(self.name, format!("dtype is {}: byte-swapped", self.dtype_name())));
        }
        Ok(array.clone())
    }

    /// Copies `result` into the argument, which does not share memory with its array.
    pub(crate) fn fill(&self, result: Bound<'py, PyAny>) -> PyResult<()> {
        let py = result.py();
        match &self.origin {
            Origin::Numpy { .. } => {
                py.import("numpy")?.call_method1("copyto", (&self.array, result))?;
            }
            Origin::Torch { tensor } => {
                let result = py.import("torch")?.call_method1("from_numpy", (result,))?;
                tensor.call_method0("detach")?.call_method1("copy_", (result,))?;
            }
        }
        Ok(())
    }
}

/// A numpy array as a tensor on the device of another, and of a dtype, or its own.
pub(crate) fn to_torch<'py>(
    array: Bound<'py, PyAny>,
    beside: &Bound<'py, PyAny>,
    dtype: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    let tensor = py.import("torch")?.call_method1("from_numpy", (array,))?;
    let place = [("device", beside.getattr("device")?)].into_py_dict(py)?;
    if let Some(dtype) = dtype {
        place.set_item("dtype", dtype)?;
    }
    tensor.call_method("to", (), Some(&place))
}

/// A mask of one of the types that trainers use.
pub(crate) enum Mask<'py> {
    U8(PyReadonlyArrayDyn<'py, u8>),
    I32(PyReadonlyArrayDyn<'py, i32>),
    I64(PyReadonlyArrayDyn<'py, i64>),
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
}

/// Whole numbers of any array-like of one dimension.
///
/// # Errors
/// ValueError for other numbers, dimensions or lengths.
pub(crate) fn integers(
    name: &'static str,
    value: &Bound<'_, PyAny>,
    length: Option<usize>,
) -> PyResult<Vec<i128>> {
    let py = value.py();
    let value =
        if is_tensor(value)? { Given::new(name, value)?.array.into_any() } else { value.clone() };
    let array = py
        .import("numpy")?
        .call_method1("asarray", (value,))
        .map_err(|error| bad(name, error))?
        .cast_into::<PyUntypedArray>()?;
    let shape = array.shape();
    if shape.len() != 1 || length.is_some_and(|length| length != shape[0]) {
        let expected = length.map_or("one dimension".into(), |length| shape_of(&[length]));
        return Err(bad(name, format!("shape {}, expected {expected}", shape_of(shape))));
    }
    match array.dtype().kind() {
        _ if shape[0] == 0 => Ok(Vec::new()),
        b'i' => {
            let array = array.call_method1("astype", ("int64",))?;
            Ok(entries::<i64>(name, &array)?.into_iter().map(i128::from).collect())
        }
        b'u' => {
            let array = array.call_method1("astype", ("uint64",))?;
            Ok(entries::<u64>(name, &array)?.into_iter().map(i128::from).collect())
        }
        _ => Err(bad(name, format!("dtype is {}, expected whole numbers", array.dtype().str()?))),
    }
}

/// [`integers`] of a narrower type, each entry belonging to a row.
///
/// # Errors
/// As [`integers`]; an entry that does not fit is named by its row.
pub(crate) fn integers_as<T: TryFrom<i128>>(
    name: &'static str,
    value: &Bound<'_, PyAny>,
    length: Option<usize>,
) -> PyResult<Vec<T>> {
    let fit = |(row, value): (usize, i128)| {
        let why = if value < 0 { "is negative" } else { "is too large" };
        T::try_from(value).map_err(|_| bad(name, format!("{value} at row {row} {why}")))
    };
    integers(name, value, length)?.into_iter().enumerate().map(fit).collect()
}

/// Floats of any array-like of one dimension.
///
/// # Errors
/// ValueError for other entries, dimensions or lengths.
pub(crate) fn numbers(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let py = value.py();
    let value =
        if is_tensor(value)? { Given::new(name, value)?.array.into_any() } else { value.clone() };
    let array = py
        .import("numpy")?
        .call_method1("asarray", (value,))
        .map_err(|error| bad(name, error))?
        .cast_into::<PyUntypedArray>()?;
    if array.shape().len() != 1 {
        let why = format!("shape {}, expected one dimension", shape_of(array.shape()));
        return Err(bad(name, why));
    }
    if !matches!(array.dtype().kind(), b'f' | b'i' | b'u' | b'b') {
        return Err(bad(name, format!("dtype is {}, expected numbers", array.dtype().str()?)));
    }
    entries(name, &array.call_method1("astype", ("float64",))?)
}

/// Whole numbers of a numpy array of one dimension.
///
/// # Errors
/// ValueError for other numbers.
pub(crate) fn small_integers(name: &'static str, array: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let dtype = array.cast::<PyUntypedArray>()?.dtype();
    match (dtype.kind(), dtype.itemsize()) {
        (b'i', _) | (b'u', 1..=4) => entries(name, &array.call_method1("astype", ("int64",))?),
        _ if array.len()? == 0 => Ok(Vec::new()),
        _ => Err(bad(name, format!("dtype is {}, expected whole numbers", dtype.str()?))),
    }
}

fn entries<T: Element + Copy>(name: &str, array: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    let array = array.cast::<PyArray1<T>>()?;
    array.to_vec().map_err(|error| bad(name, error))
}
