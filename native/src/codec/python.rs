//! The codecs as Python sees them.

use super::cbor::{self, Value};
use super::git_index;
use super::ids::{self, Id};
use super::node::{self, Entry, Shape, TreeEntry};
use super::row::{self, Row};
use super::sides;
use super::FormatError as CoreError;
use crate::buffer::Lent;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use std::borrow::Cow;
use std::hash::{Hash, Hasher};

pyo3::create_exception!(_native, FormatError, PyValueError, "Bytes or values that docs/format.md does not allow.");

impl From<CoreError> for PyErr {
    fn from(error: CoreError) -> PyErr {
        FormatError::new_err(error.0)
    }
}

/// A reference to an object, in a node.
#[pyclass(frozen, module = "fusecas._native")]
pub struct Ref {
    pub id: Id,
}

#[pymethods]
impl Ref {
    #[new]
    fn new(id: &[u8]) -> PyResult<Self> {
        Ok(Ref { id: to_id(id)? })
    }

    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.id)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Ref>().is_ok_and(|other| other.get().id == self.id)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        self.id.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("Ref({})", hex(&self.id))
    }
}

pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn to_id(id: &[u8]) -> PyResult<Id> {
    id.try_into().map_err(|_| FormatError::new_err("an id that is not 32 bytes"))
}

// ---- CBOR

pub fn to_value(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth >= cbor::DEEPEST {
        return Err(FormatError::new_err("more than 64 levels deep"));
    }
    if object.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(yes) = object.cast::<PyBool>() {
        return Ok(Value::Bool(yes.is_true()));
    }
    if let Ok(number) = object.cast::<PyInt>() {
        return to_int(number).map(Value::Int);
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Value::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(text) = object.cast::<PyString>() {
        let text = text.to_str().map_err(|_| FormatError::new_err("text that is not UTF-8"))?;
        return Ok(Value::Text(text.to_owned()));
    }
    if let Ok(reference) = object.cast::<Ref>() {
        return Ok(Value::Ref(reference.get().id));
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        return Ok(Value::Float(number.value()));
    }
    if let Ok(map) = object.cast::<PyDict>() {
        let mut pairs = Vec::with_capacity(map.len());
        for pair in map.items() {
            let (key, item): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let key: String = key.extract().map_err(|_| FormatError::new_err("the key of a map that is not text"))?;
            pairs.push((key, to_value(&item, depth + 1)?));
        }
        return Ok(Value::Map(pairs));
    }
    if object.cast::<PyList>().is_ok() || object.cast::<PyTuple>().is_ok() {
        return object.try_iter()?.map(|item| to_value(&item?, depth + 1)).collect::<PyResult<_>>().map(Value::Array);
    }
    Err(PyTypeError::new_err(format!("{} has no place in a node", object.get_type().name()?)))
}

fn to_int(number: &Bound<'_, PyInt>) -> PyResult<i128> {
    if let Ok(small) = number.extract::<i64>() {
        return Ok(i128::from(small));
    }
    number.extract::<i128>().map_err(|_| FormatError::new_err("an integer beyond 64 bits"))
}

pub fn from_int(py: Python<'_>, number: i128) -> PyResult<Bound<'_, PyAny>> {
    Ok(match i64::try_from(number) {
        Ok(small) => small.into_pyobject(py)?.into_any(),
        Err(_) => number.into_pyobject(py)?.into_any(),
    })
}

pub fn from_value<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(yes) => PyBool::new(py, *yes).to_owned().into_any(),
        Value::Int(number) => from_int(py, *number)?,
        Value::Float(number) => PyFloat::new(py, *number).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Ref(id) => Bound::new(py, Ref { id: *id })?.into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(from_value(py, item)?)?;
            }
            list.into_any()
        }
        Value::Map(pairs) => {
            let map = PyDict::new(py);
            for (key, item) in pairs {
                map.set_item(key, from_value(py, item)?)?;
            }
            map.into_any()
        }
    })
}

#[pyfunction]
fn cbor_encode<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &cbor::encode(&to_value(value, 0)?)?))
}

#[pyfunction]
fn cbor_decode<'py>(py: Python<'py>, data: Lent) -> PyResult<Bound<'py, PyAny>> {
    from_value(py, &cbor::decode(data.as_slice())?)
}

#[pyfunction]
fn cbor_refs<'py>(py: Python<'py>, data: Lent) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    Ok(cbor::refs(data.as_slice())?.iter().map(|id| PyBytes::new(py, id)).collect())
}

// ---- ids

#[pyfunction]
fn content_hash<'py>(py: Python<'py>, data: Lent) -> Bound<'py, PyBytes> {
    let id = py.detach(|| ids::content_id(data.as_slice()));
    PyBytes::new(py, &id)
}

#[pyfunction]
fn node_id<'py>(py: Python<'py>, kind: u8, data: Lent) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &ids::node_id(kind, data.as_slice()))
}

/// What git's index says; None for what is none.
#[pyfunction]
fn git_index_digest<'py>(py: Python<'py>, data: Lent) -> Option<Bound<'py, PyBytes>> {
    git_index::digest(data.as_slice()).map(|digest| PyBytes::new(py, &digest))
}

#[pyfunction]
fn log_chain<'py>(py: Python<'py>, previous: &[u8], key: &[u8], value: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &ids::log_chain(previous, key, value))
}

#[pyfunction]
fn is_cut(level: u8, key: &[u8]) -> bool {
    ids::is_cut(level, key)
}

// ---- prolly nodes

fn bytes_of<'a>(tuple: &'a Bound<'_, PyTuple>, at: usize) -> PyResult<&'a [u8]> {
    let item = tuple.get_borrowed_item(at)?;
    let bytes = item.cast::<PyBytes>().map_err(|_| PyTypeError::new_err("an entry's key or id must be bytes"))?;
    let slice = bytes.as_bytes();
    // SAFETY: the tuple owns the bytes object, neither changes, and the tuple is borrowed for 'a.
    Ok(unsafe { std::slice::from_raw_parts(slice.as_ptr(), slice.len()) })
}

fn bytes_or_none<'a>(tuple: &'a Bound<'_, PyTuple>, at: usize) -> PyResult<Option<&'a [u8]>> {
    if tuple.get_borrowed_item(at)?.is_none() {
        return Ok(None);
    }
    bytes_of(tuple, at).map(Some)
}

fn number_of(tuple: &Bound<'_, PyTuple>, at: usize) -> PyResult<u64> {
    tuple
        .get_borrowed_item(at)?
        .extract::<u64>()
        .map_err(|_| FormatError::new_err("a number below 0 or beyond 64 bits"))
}

fn time_of(tuple: &Bound<'_, PyTuple>, at: usize) -> PyResult<i128> {
    let item = tuple.get_borrowed_item(at)?;
    let number = item.cast::<PyInt>().map_err(|_| PyTypeError::new_err("a time must be an integer"))?;
    to_int(&number)
}

fn cbor_of<'a>(tuple: &Bound<'_, PyTuple>, at: usize) -> PyResult<Cow<'a, [u8]>> {
    Ok(Cow::Owned(cbor::encode(&to_value(&tuple.get_item(at)?, 0)?)?))
}

fn to_entry<'a>(tuple: &'a Bound<'_, PyTuple>, shape: Shape, level: u8) -> PyResult<Entry<'a>> {
    let wanted = match (level, shape) {
        (1.., _) => 4,
        (_, Shape::Tree) => 7,
        (_, Shape::Links | Shape::Map) => 2,
        (_, Shape::Times | Shape::Log) => 3,
        (_, Shape::Inodes) => 4,
    };
    if tuple.len() != wanted {
        return Err(PyTypeError::new_err(format!("an entry of {} items, not {wanted}", tuple.len())));
    }
    let key = bytes_of(tuple, 0)?;
    if level > 0 {
        let (n, bytes) = (number_of(tuple, 2)?, number_of(tuple, 3)?);
        return Ok(Entry::Inner { last: key, child: bytes_of(tuple, 1)?, n, bytes });
    }
    Ok(match shape {
        Shape::Tree => {
            let ext = tuple.get_borrowed_item(6)?.is_none();
            Entry::Tree(TreeEntry {
                name: key,
                kind: u8::try_from(number_of(tuple, 1)?).map_err(|_| FormatError::new_err("an unknown kind"))?,
                mode: number_of(tuple, 2)?,
                target: bytes_or_none(tuple, 3)?,
                size: number_of(tuple, 4)?,
                count: number_of(tuple, 5)?,
                ext: if ext { None } else { Some(cbor_of(tuple, 6)?) },
            })
        }
        Shape::Links => Entry::Links { path: key, group: bytes_of(tuple, 1)? },
        Shape::Times => Entry::Times { name: key, mtime: time_of(tuple, 1)?, child: bytes_or_none(tuple, 2)? },
        Shape::Inodes => Entry::Inodes {
            name: key,
            number: number_of(tuple, 1)?,
            ctime: time_of(tuple, 2)?,
            child: bytes_or_none(tuple, 3)?,
        },
        Shape::Map => Entry::Map { key, value: cbor_of(tuple, 1)? },
        Shape::Log => Entry::Log { key, value: cbor_of(tuple, 1)?, chain: bytes_of(tuple, 2)? },
    })
}

fn from_entry<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyTuple>> {
    let bytes = |slice: &[u8]| PyBytes::new(py, slice);
    let maybe = |slice: Option<&[u8]>| slice.map(|slice| PyBytes::new(py, slice));
    match entry {
        Entry::Inner { last, child, n, bytes: size } => (bytes(last), bytes(child), n, size).into_pyobject(py),
        Entry::Tree(each) => {
            let ext = match &each.ext {
                Some(ext) => Some(from_value(py, &cbor::decode(ext)?)?),
                None => None,
            };
            let target = maybe(each.target);
            (bytes(each.name), each.kind, each.mode, target, each.size, each.count, ext).into_pyobject(py)
        }
        Entry::Links { path, group } => (bytes(path), bytes(group)).into_pyobject(py),
        Entry::Times { name, mtime, child } => (bytes(name), from_int(py, *mtime)?, maybe(*child)).into_pyobject(py),
        Entry::Inodes { name, number, ctime, child } => {
            (bytes(name), number, from_int(py, *ctime)?, maybe(*child)).into_pyobject(py)
        }
        Entry::Map { key, value } => (bytes(key), from_value(py, &cbor::decode(value)?)?).into_pyobject(py),
        Entry::Log { key, value, chain } => {
            (bytes(key), from_value(py, &cbor::decode(value)?)?, bytes(chain)).into_pyobject(py)
        }
    }
}

/// level, entries, and what they count for above: entries and bytes.
type DecodedNode<'py> = (u8, Bound<'py, PyList>, u64, u64);

#[pyfunction]
fn decode_node<'py>(py: Python<'py>, kind: u8, data: Lent) -> PyResult<DecodedNode<'py>> {
    let node = node::decode_node(kind, data.as_slice())?;
    let entries = PyList::empty(py);
    for entry in &node.entries {
        entries.append(from_entry(py, entry)?)?;
    }
    let (n, bytes) = node.totals()?;
    Ok((node.level, entries, n, bytes))
}

type EncodedNode<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64, u64);

#[pyfunction]
fn encode_level<'py>(
    py: Python<'py>,
    kind: u8,
    level: u8,
    entries: Vec<Bound<'py, PyTuple>>,
) -> PyResult<Vec<EncodedNode<'py>>> {
    let shape = Shape::of(kind)?;
    let parsed: Vec<Entry> = entries.iter().map(|tuple| to_entry(tuple, shape, level)).collect::<PyResult<_>>()?;
    let nodes = node::encode_level(kind, level, &parsed)?;
    Ok(nodes
        .iter()
        .map(|each| {
            (PyBytes::new(py, &each.id), PyBytes::new(py, &each.data), PyBytes::new(py, &each.last), each.n, each.bytes)
        })
        .collect())
}

#[pyfunction]
fn open_tail(level: u8, entries: Vec<Bound<'_, PyTuple>>) -> PyResult<usize> {
    let mut run = 0;
    for entry in &entries {
        run += 1;
        if run == node::MOST_ENTRIES || ids::is_cut(level, bytes_of(entry, 0)?) {
            run = 0;
        }
    }
    Ok(run)
}

#[pyfunction]
fn check_ext(ext: &Bound<'_, PyAny>) -> PyResult<()> {
    if node::check_ext(&cbor::encode(&to_value(ext, 0)?)?)?.linked {
        return Err(FormatError::new_err("a root among hard links"));
    }
    Ok(())
}

// ---- side trees

/// So many entries are cut into nodes while others may run.
const MANY_ENTRIES: usize = 8192;

/// A store, by two functions of Python's: `load(id, kind)` and `save(kind, data)`.
struct Callables<'py> {
    py: Python<'py>,
    load: Bound<'py, PyAny>,
    save: Bound<'py, PyAny>,
}

impl sides::Nodes<PyErr> for Callables<'_> {
    fn load(&self, kind: u8, id: &Id) -> PyResult<Vec<u8>> {
        let data: Lent = self.load.call1((PyBytes::new(self.py, id), kind))?.extract()?;
        Ok(data.as_slice().to_vec())
    }

    fn save(&self, kind: u8, data: &[u8]) -> PyResult<()> {
        self.save.call1((kind, PyBytes::new(self.py, data))).map(|_| ())
    }

    fn encode(&self, kind: u8, level: u8, entries: &[Entry]) -> super::Result<Vec<node::Encoded>> {
        if entries.len() < MANY_ENTRIES {
            return node::encode_level(kind, level, entries);
        }
        self.py.detach(|| node::encode_level(kind, level, entries))
    }
}

fn optional_id(id: Option<&[u8]>) -> PyResult<Option<Id>> {
    id.map(to_id).transpose()
}

fn id_or_none(py: Python<'_>, id: Option<Id>) -> Option<Bound<'_, PyBytes>> {
    id.map(|id| PyBytes::new(py, &id))
}

#[pyfunction]
fn write_times<'py>(
    py: Python<'py>,
    tree: Option<&[u8]>,
    time: i128,
    load: Bound<'py, PyAny>,
    save: Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let tree = optional_id(tree)?;
    Ok(id_or_none(py, sides::write_times(tree.as_ref(), time, &Callables { py, load, save })?))
}

type Shifted<'py> = (Option<Bound<'py, PyBytes>>, Vec<(Bound<'py, PyBytes>, i128, Bound<'py, PyBytes>)>);

#[pyfunction]
fn shift_times<'py>(
    py: Python<'py>,
    times: &[u8],
    from: (i128, i128),
    to: (i128, i128),
    load: Bound<'py, PyAny>,
    save: Bound<'py, PyAny>,
) -> PyResult<Shifted<'py>> {
    let shift = sides::Shift { from, to };
    let (root, directories) = sides::shift_times(&to_id(times)?, &shift, &Callables { py, load, save })?;
    let named = directories
        .iter()
        .map(|each| (PyBytes::new(py, &each.name), each.mtime, PyBytes::new(py, &each.child)))
        .collect();
    Ok((id_or_none(py, root), named))
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // what says the numbers, and a store
fn write_inodes<'py>(
    py: Python<'py>,
    tree: Option<&[u8]>,
    times: Option<&[u8]>,
    first: u64,
    time: i128,
    changes: Vec<(PyBackedBytes, Option<Bound<'py, PyTuple>>)>,
    load: Bound<'py, PyAny>,
    save: Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let (tree, times) = (optional_id(tree)?, optional_id(times)?);
    let nodes = Callables { py, load, save };
    let mut changed = sides::Changes::new();
    for (name, entry) in &changes {
        changed.insert(name, entry.as_ref().map(|entry| to_entry(entry, Shape::Inodes, 0)).transpose()?);
    }
    Ok(id_or_none(py, sides::write_inodes(tree.as_ref(), times.as_ref(), first, time, &changed, &nodes)?))
}

// ---- rows

#[pyfunction]
#[allow(clippy::too_many_arguments)] // one for each field of a row
fn pack_row<'py>(
    py: Python<'py>,
    kind: u8,
    codec: u8,
    n: u64,
    pack: u64,
    offset: u64,
    stored: u64,
    size: u64,
    created: u64,
) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &row::pack_row(&Row { kind, codec, n, pack, offset, stored, size, created }))
}

/// The fields of a row in their order: kind, codec, n, pack, offset, stored, size, created.
type RowFields = (u8, u8, u64, u64, u64, u64, u64, u64);

#[pyfunction]
fn unpack_row(data: Lent) -> PyResult<RowFields> {
    let row = row::unpack_row(data.as_slice())?;
    Ok((row.kind, row.codec, row.n, row.pack, row.offset, row.stored, row.size, row.created))
}

#[pyfunction]
fn pack_varints<'py>(py: Python<'py>, numbers: Vec<u64>) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(numbers.len() * 4);
    numbers.iter().for_each(|number| row::put_varint(&mut out, *number));
    PyBytes::new(py, &out)
}

#[pyfunction]
fn unpack_varints(data: Lent) -> PyResult<Vec<u64>> {
    let data = data.as_slice();
    let (mut at, mut numbers) = (0, Vec::new());
    while at < data.len() {
        numbers.push(row::take_varint(data, &mut at)?);
    }
    Ok(numbers)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("FormatError", module.py().get_type::<FormatError>())?;
    module.add_class::<Ref>()?;
    for function in [
        wrap_pyfunction!(cbor_encode, module)?,
        wrap_pyfunction!(cbor_decode, module)?,
        wrap_pyfunction!(cbor_refs, module)?,
        wrap_pyfunction!(content_hash, module)?,
        wrap_pyfunction!(node_id, module)?,
        wrap_pyfunction!(git_index_digest, module)?,
        wrap_pyfunction!(log_chain, module)?,
        wrap_pyfunction!(is_cut, module)?,
        wrap_pyfunction!(decode_node, module)?,
        wrap_pyfunction!(encode_level, module)?,
        wrap_pyfunction!(open_tail, module)?,
        wrap_pyfunction!(check_ext, module)?,
        wrap_pyfunction!(write_times, module)?,
        wrap_pyfunction!(shift_times, module)?,
        wrap_pyfunction!(write_inodes, module)?,
        wrap_pyfunction!(pack_row, module)?,
        wrap_pyfunction!(unpack_row, module)?,
        wrap_pyfunction!(pack_varints, module)?,
        wrap_pyfunction!(unpack_varints, module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(())
}
