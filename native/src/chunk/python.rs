//! Content as Python sees it.

use super::batch::{self, Objects};
use super::content::{self, ContentWriter as Writer};
use super::files::{self, NewFile, Read, StoredPiece, Wanted, Written};
use super::recipe::{self, Item};
use super::update;
use crate::buffer::Lent;
use crate::codec::ids::{content_id, node_id, Id, CHUNK, PART, RECIPE};
use crate::codec::{cbor, python::to_id, python::FormatError};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use rustix::fd::BorrowedFd;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Objects waiting to be stored. Compression reads it like everybody else: the counters can be asked meanwhile.
#[pyclass(frozen, module = "fusecas._native")]
#[derive(Default)]
pub struct Batch {
    objects: RwLock<Objects>,
}

impl Batch {
    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        // A thread that panicked has not left half an object: adding to the list is the last thing it does.
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Batch {
    #[new]
    fn new() -> Self {
        Batch::default()
    }

    fn add(&self, py: Python<'_>, kind: u8, id: &[u8], data: Lent) -> PyResult<()> {
        let id = to_id(id)?;
        if data.as_slice().len() > cbor::LONGEST {
            return Err(FormatError::new_err("an object over 64 MiB"));
        }
        py.detach(|| self.write().add(kind, id, data.as_slice()));
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.read().count()
    }

    fn __contains__(&self, id: &[u8]) -> bool {
        id.try_into().is_ok_and(|id: &Id| self.read().holds(id))
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.read().size()
    }

    fn ids<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.read().ids().map(|id| PyBytes::new(py, id)).collect()
    }

    fn kinds<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.read().kinds().collect::<Vec<_>>())
    }

    fn sizes(&self) -> Vec<usize> {
        self.read().sizes().collect()
    }

    fn refs<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let objects = self.read();
        let found = match objects.get(at).ok_or_else(not_there)? {
            (CHUNK, _) => Vec::new(),
            (RECIPE, data) => cbor::refs(&data[..data.len().saturating_sub(recipe::CHECKSUM)])?,
            (_, data) => cbor::refs(data)?,
        };
        Ok(found.iter().map(|id| PyBytes::new(py, id)).collect())
    }

    #[pyo3(signature = (indices, level=3, threads=2))]
    fn compress(&self, py: Python<'_>, indices: Vec<usize>, level: i32, threads: usize) -> PyResult<Packed> {
        let packed = py.detach(|| {
            let objects = self.read();
            if indices.iter().any(|at| *at >= objects.count()) {
                return Err(not_there());
            }
            Ok(batch::compress(&objects, &indices, level, threads))
        })?;
        let total = packed.stored.iter().map(Vec::len).sum();
        let data = PyBytes::new_with(py, total, |mut out| {
            for each in &packed.stored {
                let (place, rest) = out.split_at_mut(each.len());
                place.copy_from_slice(each);
                out = rest;
            }
            Ok(())
        })?;
        let rows = packed.rows.iter().map(|row| (row.index, row.codec, row.offset, row.stored, row.size)).collect();
        Ok(Packed { data: data.unbind(), rows })
    }
}

fn not_there() -> PyErr {
    PyValueError::new_err("no such object in the batch")
}

type PackedRow = (usize, u8, usize, usize, usize);

/// Objects as they will be stored.
#[pyclass(frozen, get_all, module = "fusecas._native")]
pub struct Packed {
    data: Py<PyBytes>,
    rows: Vec<PackedRow>,
}

/// Content that arrives in pieces.
#[pyclass(frozen, module = "fusecas._native")]
pub struct ContentWriter {
    writer: Mutex<Option<Writer>>,
}

impl ContentWriter {
    fn with<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> PyResult<T> {
        let mut writer = self.writer.lock().map_err(|_| PyRuntimeError::new_err("the writer has failed"))?;
        writer.as_mut().map(work).ok_or_else(|| PyRuntimeError::new_err("the writer has finished"))
    }
}

pub fn into(batch: &Batch) -> impl FnMut(u8, Id, &[u8]) + '_ {
    |kind, id, data| batch.write().add(kind, id, data)
}

fn too_long() -> PyErr {
    PyOSError::new_err((Errno::FBIG.raw_os_error(), "content over 1 TiB"))
}

#[pymethods]
impl ContentWriter {
    #[new]
    fn new() -> Self {
        ContentWriter { writer: Mutex::new(Some(Writer::default())) }
    }

    #[getter]
    fn total(&self) -> PyResult<u64> {
        self.with(|writer| writer.total())
    }

    fn feed(&self, py: Python<'_>, batch: &Batch, data: Lent) -> PyResult<()> {
        py.detach(|| {
            self.with(|writer| {
                if writer.total() + data.as_slice().len() as u64 > recipe::LARGEST_CONTENT {
                    return Err(too_long());
                }
                writer.feed(data.as_slice(), &mut into(batch));
                Ok(())
            })?
        })
    }

    fn feed_file(&self, py: Python<'_>, batch: &Batch, fd: i32, budget: u64) -> PyResult<u64> {
        let file = check_fd(fd)?;
        py.detach(|| {
            self.with(|writer| {
                let read = files::feed_from(writer, file, budget, &mut into(batch)).map_err(to_os_error)?;
                if writer.total() > recipe::LARGEST_CONTENT {
                    return Err(too_long());
                }
                Ok(read)
            })?
        })
    }

    fn finish<'py>(&self, py: Python<'py>, batch: &Batch) -> PyResult<(Bound<'py, PyBytes>, u64)> {
        let writer = self
            .writer
            .lock()
            .map_err(|_| PyRuntimeError::new_err("the writer has failed"))?
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("the writer has finished"))?;
        let (id, size) = py.detach(|| writer.finish(&mut into(batch)));
        Ok((PyBytes::new(py, &id), size))
    }
}

#[pyfunction]
fn cut_bytes<'py>(py: Python<'py>, batch: &Batch, data: Lent) -> (Bound<'py, PyBytes>, u64) {
    let (id, size) = py.detach(|| content::cut_bytes(data.as_slice(), &mut into(batch)));
    (PyBytes::new(py, &id), size)
}

// ---- recipes

fn to_python<'py>(py: Python<'py>, items: &[Item]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for item in items {
        let tuple = match item {
            Item::Chunk(id, length) => (PyBytes::new(py, id), *length).into_pyobject(py)?.into_any(),
            Item::Hole(length) => (py.None(), *length).into_pyobject(py)?.into_any(),
            Item::Part(id, length) => (PyBytes::new(py, id), *length, 1).into_pyobject(py)?.into_any(),
        };
        list.append(tuple)?;
    }
    Ok(list)
}

type DecodedRecipe<'py> = (u64, Bound<'py, PyList>, Option<Bound<'py, PyBytes>>);

#[pyfunction]
fn decode_recipe<'py>(py: Python<'py>, content: &[u8], data: Lent) -> PyResult<DecodedRecipe<'py>> {
    let decoded = recipe::decode(&to_id(content)?, data.as_slice())?;
    let groups = decoded.groups.as_ref().map(|groups| PyBytes::new(py, groups));
    Ok((decoded.size, to_python(py, &decoded.items)?, groups))
}

#[pyfunction]
fn decode_part<'py>(py: Python<'py>, data: Lent) -> PyResult<Bound<'py, PyList>> {
    to_python(py, &recipe::decode_part(data.as_slice())?)
}

/// As decode_recipe gives them.
#[derive(FromPyObject)]
enum PyItem {
    Part(Vec<u8>, u64, u8),
    Leaf(Option<Vec<u8>>, u64),
}

impl PyItem {
    fn to_item(&self) -> PyResult<Item> {
        Ok(match self {
            PyItem::Part(id, length, 1) => Item::Part(to_id(id)?, *length),
            PyItem::Part(..) => return Err(FormatError::new_err("an item of an unknown kind")),
            PyItem::Leaf(Some(id), length) => Item::Chunk(to_id(id)?, *length),
            PyItem::Leaf(None, length) => Item::Hole(*length),
        })
    }
}

/// The new id of a content that changed in places; see update.rs.
#[pyfunction]
#[pyo3(signature = (batch, fd, size, old_size, old_items, old_groups, dirty, load_part=None))]
#[allow(clippy::too_many_arguments)]
fn update_content<'py>(
    py: Python<'py>,
    batch: &Batch,
    fd: i32,
    size: u64,
    old_size: u64,
    old_items: Vec<PyItem>,
    old_groups: Option<Lent>,
    dirty: Vec<(u64, u64)>,
    load_part: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    if size > recipe::LARGEST_CONTENT {
        return Err(too_long());
    }
    let file = check_fd(fd)?;
    let items: Vec<Item> = old_items.iter().map(PyItem::to_item).collect::<PyResult<_>>()?;
    let groups = old_groups.as_ref().map_or(&[][..], Lent::as_slice);
    if !groups.chunks_exact(32).remainder().is_empty() {
        return Err(FormatError::new_err("groups that are not 32 bytes each"));
    }
    let groups: Vec<Id> = groups.chunks_exact(32).map(|id| id.try_into().expect("32 bytes")).collect();
    let old = update::Old { size: old_size, items: &items, groups: &groups };
    let id = py.detach(|| {
        let mut load = |id: &Id| match &load_part {
            Some(load) => Python::attach(|py| {
                let data: Lent = load.call1(py, (PyBytes::new(py, id),))?.extract(py)?;
                Ok(recipe::decode_part(data.as_slice())?)
            }),
            None => Err(FormatError::new_err("a part, and no load_part to load it")),
        };
        let mut source = |at: u64, out: &mut [u8]| read_exactly(file, at, out).map_err(to_os_error);
        update::update(&old, size, &dirty, &mut load, &mut source, &mut into(batch))
    })?;
    Ok(PyBytes::new(py, &id))
}

fn read_exactly(file: BorrowedFd<'_>, mut at: u64, mut out: &mut [u8]) -> Result<(), Errno> {
    while !out.is_empty() {
        match rustix::io::pread(file, &mut *out, at) {
            Ok(0) => return Err(Errno::STALE), // shorter than it was said to be
            Ok(length) => {
                at += length as u64;
                out = &mut out[length..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

// ---- stored bytes

#[pyfunction]
fn decompress<'py>(py: Python<'py>, data: Lent, codec: u8, size: usize) -> PyResult<Bound<'py, PyBytes>> {
    let raw = py.detach(|| batch::decompress(data.as_slice(), codec, size));
    raw.map(|raw| PyBytes::new(py, &raw)).ok_or_else(|| FormatError::new_err("stored bytes that do not unpack"))
}

type Stored = (Vec<u8>, u8, u8, usize, Lent);

/// For each (id, kind, codec, size, stored bytes): whether the bytes give the id.
#[pyfunction]
#[pyo3(signature = (objects, threads=2))]
fn verify_objects(py: Python<'_>, objects: Vec<Stored>, threads: usize) -> PyResult<Vec<bool>> {
    py.detach(|| {
        let right = |(id, kind, codec, size, stored): &Stored| -> Option<bool> {
            let id: &Id = id.as_slice().try_into().ok()?;
            let data = batch::decompress(stored.as_slice(), *codec, *size)?;
            Some(match *kind {
                CHUNK => content_id(&data) == *id,
                RECIPE => recipe::decode(id, &data).is_ok(),
                kind => node_id(kind, &data) == *id && (kind != PART || recipe::decode_part(&data).is_ok()),
            })
        };
        Ok(batch::in_parallel(objects.len(), threads, |at| right(&objects[at]).unwrap_or(false)))
    })
}

// ---- files

fn check_fd(fd: i32) -> PyResult<BorrowedFd<'static>> {
    if fd < 0 {
        return Err(PyValueError::new_err("not a file descriptor"));
    }
    // SAFETY: the caller keeps the descriptor open during the call; a closed one gives EBADF, not memory errors.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

fn to_os_error(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), std::io::Error::from(errno).to_string()))
}

fn kind_of(mode: u32) -> u8 {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::Fifo => 4,
        FileType::Socket => 5,
        FileType::CharacterDevice => 6,
        FileType::BlockDevice => 7,
        _ => 0,
    }
}

fn nanoseconds(seconds: i64, fraction: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(fraction)
}

/// Whole seconds, and the nanoseconds above them.
fn seconds(time: i128) -> (i64, i64) {
    (time.div_euclid(1_000_000_000) as i64, time.rem_euclid(1_000_000_000) as i64)
}

fn number<'py>(py: Python<'py>, value: i128) -> PyResult<Bound<'py, PyAny>> {
    Ok(match i64::try_from(value) {
        Ok(small) => small.into_pyobject(py)?.into_any(),
        Err(_) => value.into_pyobject(py)?.into_any(),
    })
}

type Failures<'py> = Vec<(Bound<'py, PyBytes>, i32)>;

#[pyfunction]
fn list_names<'py>(py: Python<'py>, fd: i32) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let directory = check_fd(fd)?;
    let names = py.detach(|| files::list_names(directory)).map_err(to_os_error)?;
    Ok(names.iter().map(|name| PyBytes::new(py, name)).collect())
}

#[pyfunction]
#[pyo3(signature = (fd, names, trusted=false))]
fn look_at<'py>(
    py: Python<'py>,
    fd: i32,
    names: Vec<Vec<u8>>,
    trusted: bool,
) -> PyResult<(Bound<'py, PyList>, Failures<'py>)> {
    let directory = check_fd(fd)?;
    let listing = py.detach(|| files::look_at_all(directory, names, trusted));
    let entries = PyList::empty(py);
    for each in &listing.entries {
        let stat = &each.stat;
        let xattrs: Vec<_> =
            each.xattrs.iter().map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value))).collect();
        let fields: [Bound<'py, PyAny>; 15] = [
            PyBytes::new(py, &each.name).into_any(),
            kind_of(stat.st_mode).into_pyobject(py)?.into_any(),
            (stat.st_mode & 0o7777).into_pyobject(py)?.into_any(),
            stat.st_uid.into_pyobject(py)?.into_any(),
            stat.st_gid.into_pyobject(py)?.into_any(),
            stat.st_nlink.into_pyobject(py)?.into_any(),
            stat.st_dev.into_pyobject(py)?.into_any(),
            stat.st_ino.into_pyobject(py)?.into_any(),
            stat.st_size.into_pyobject(py)?.into_any(),
            number(py, nanoseconds(stat.st_mtime, stat.st_mtime_nsec))?,
            number(py, nanoseconds(stat.st_ctime, stat.st_ctime_nsec))?,
            rustix::fs::major(stat.st_rdev).into_pyobject(py)?.into_any(),
            rustix::fs::minor(stat.st_rdev).into_pyobject(py)?.into_any(),
            each.link_target.as_ref().map(|target| PyBytes::new(py, target)).into_pyobject(py)?.into_any(),
            xattrs.into_pyobject(py)?.into_any(),
        ];
        entries.append(PyTuple::new(py, fields)?)?;
    }
    let failed = listing.failed.iter().map(|(name, errno)| (PyBytes::new(py, name), errno.raw_os_error())).collect();
    Ok((entries, failed))
}

#[pyfunction]
#[pyo3(signature = (fd, name, trusted=false))]
fn read_xattrs<'py>(
    py: Python<'py>,
    fd: i32,
    name: &[u8],
    trusted: bool,
) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
    let found = files::read_xattrs(check_fd(fd)?, name, trusted).map_err(to_os_error)?;
    Ok(found.iter().map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value))).collect())
}

type ReadFile<'py> = (i32, Option<Bound<'py, PyBytes>>, u64, Bound<'py, PyAny>);
const CHANGED: i32 = -1;

/// For each (name, device, inode, ctime): (0, content id, size, mtime); or (errno or -1 for «changed», None, 0, 0).
#[pyfunction]
#[pyo3(signature = (batch, fd, wanted, threads=2))]
fn read_files<'py>(
    py: Python<'py>,
    batch: &Batch,
    fd: i32,
    wanted: Vec<(Vec<u8>, u64, u64, i128)>,
    threads: usize,
) -> PyResult<Vec<ReadFile<'py>>> {
    let directory = check_fd(fd)?;
    let wanted: Vec<Wanted> = wanted
        .into_iter()
        .map(|(name, device, inode, changed)| Wanted { name, device, inode, changed: seconds(changed) })
        .collect();
    let results: Vec<Read> = py.detach(|| {
        let read = files::read_files(directory, &wanted, threads);
        let mut objects = batch.write();
        read.into_iter()
            .flat_map(|(results, emitted)| {
                emitted.into(&mut |kind, id, data: &[u8]| objects.add(kind, id, data));
                results
            })
            .collect()
    });
    results
        .into_iter()
        .map(|result| {
            Ok(match result {
                Read::Content { id, size, mtime } => {
                    (0, Some(PyBytes::new(py, &id)), size, number(py, nanoseconds(mtime.0, mtime.1))?)
                }
                Read::Changed => (CHANGED, None, 0, number(py, 0)?),
                Read::Failed(errno) => (errno.raw_os_error(), None, 0, number(py, 0)?),
            })
        })
        .collect()
}

type PyPiece = (u64, u8, usize, Lent, Vec<u8>);

fn to_pieces(pieces: &[PyPiece]) -> PyResult<Vec<StoredPiece<'_>>> {
    pieces
        .iter()
        .map(|(offset, codec, size, stored, id)| {
            let id = to_id(id)?;
            Ok(StoredPiece { offset: *offset, codec: *codec, size: *size, stored: stored.as_slice(), id })
        })
        .collect()
}

fn to_code(written: Written) -> i32 {
    match written {
        Written::Done => 0,
        Written::Corrupted => -1,
        Written::Failed(errno) => errno.raw_os_error(),
    }
}

type PyNewFile = (Vec<u8>, u32, Vec<PyPiece>, u64, Option<i128>);

/// For each (name, mode, [(offset, codec, size, stored bytes, id)], size, mtime): 0, -1 for corrupted, or errno.
#[pyfunction]
#[pyo3(signature = (fd, new_files, threads=2))]
fn write_files(py: Python<'_>, fd: i32, new_files: Vec<PyNewFile>, threads: usize) -> PyResult<Vec<i32>> {
    let directory = check_fd(fd)?;
    let prepared: Vec<NewFile> = new_files
        .iter()
        .map(|(name, mode, pieces, size, mtime)| {
            Ok(NewFile {
                name: name.clone(),
                mode: *mode,
                pieces: to_pieces(pieces)?,
                size: *size,
                mtime: mtime.map(seconds),
            })
        })
        .collect::<PyResult<_>>()?;
    let results = py.detach(|| files::write_files(directory, &prepared, threads));
    Ok(results.into_iter().map(to_code).collect())
}

/// Unpack, verify and write pieces into an open file: 0, -1 for corrupted, or errno.
#[pyfunction]
#[pyo3(signature = (fd, pieces, threads=2))]
fn write_pieces(py: Python<'_>, fd: i32, pieces: Vec<PyPiece>, threads: usize) -> PyResult<i32> {
    let file = check_fd(fd)?;
    let prepared = to_pieces(&pieces)?;
    let result = py.detach(|| files::write_pieces(file, &prepared, threads));
    Ok(to_code(result.err().unwrap_or(Written::Done)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Batch>()?;
    module.add_class::<Packed>()?;
    module.add_class::<ContentWriter>()?;
    for function in [
        wrap_pyfunction!(cut_bytes, module)?,
        wrap_pyfunction!(decode_recipe, module)?,
        wrap_pyfunction!(decode_part, module)?,
        wrap_pyfunction!(update_content, module)?,
        wrap_pyfunction!(decompress, module)?,
        wrap_pyfunction!(verify_objects, module)?,
        wrap_pyfunction!(list_names, module)?,
        wrap_pyfunction!(look_at, module)?,
        wrap_pyfunction!(read_xattrs, module)?,
        wrap_pyfunction!(read_files, module)?,
        wrap_pyfunction!(write_files, module)?,
        wrap_pyfunction!(write_pieces, module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(())
}
