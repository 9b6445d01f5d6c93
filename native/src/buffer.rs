//! Bytes that Python lends to native code.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

/// A borrowed or copied run of bytes that stays valid and unchanged while it lives, with or without the GIL.
pub enum Lent {
    /// The immutable bytes of a `bytes` object, which is kept alive.
    Bytes(Py<PyBytes>, usize, usize),
    /// A read-only view of `bytes`, or of memory that belongs to no object: a page of LMDB's map.
    Buffer(PyBuffer<u8>),
    /// Anything else could change under us, read-only or not: its bytes are copied.
    Copied(Vec<u8>),
}

impl Lent {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            // SAFETY: pointer and length were taken from the bytes object that `_owner` keeps alive; the memory of a
            // bytes object neither moves nor changes.
            Lent::Bytes(_owner, pointer, length) => unsafe {
                std::slice::from_raw_parts(*pointer as *const u8, *length)
            },
            // SAFETY: the buffer is contiguous (checked on arrival) and held, so its memory stays where it is. What it
            // shows is an immutable `bytes` object, or a page of LMDB's map, which no writer touches while the caller's
            // transaction is open.
            Lent::Buffer(buffer) => unsafe { slice_of(buffer) },
            Lent::Copied(bytes) => bytes,
        }
    }
}

/// The memory of a buffer.
///
/// # Safety
/// The buffer must be contiguous, and nobody may write to it while the slice is used.
unsafe fn slice_of(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 {
        return &[];
    }
    std::slice::from_raw_parts(buffer.buf_ptr() as *const u8, buffer.len_bytes())
}

/// Whether this is a memoryview of `bytes` or of memory without an owner. One of a bytearray may be read-only and change.
fn shows_what_stays(object: &Borrowed<'_, '_, PyAny>) -> bool {
    object.cast::<PyMemoryView>().is_ok_and(|view| {
        view.getattr("obj").is_ok_and(|owner| owner.is_none() || owner.cast_exact::<PyBytes>().is_ok())
    })
}

impl<'a, 'py> FromPyObject<'a, 'py> for Lent {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            let slice = bytes.as_bytes();
            return Ok(Lent::Bytes(bytes.to_owned().unbind(), slice.as_ptr() as usize, slice.len()));
        }
        let buffer =
            PyBuffer::<u8>::get(&object).map_err(|_| PyTypeError::new_err("bytes or a buffer of bytes is needed"))?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not contiguous"));
        }
        if buffer.readonly() && shows_what_stays(&object) {
            return Ok(Lent::Buffer(buffer));
        }
        Ok(Lent::Copied(buffer.to_vec(object.py())?))
    }
}
