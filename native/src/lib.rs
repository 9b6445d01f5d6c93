//! The native core of fusecas: everything that must be fast and needs no decision.
//!
//! Each part is plain Rust with a thin shell for Python on top (`python.rs`). Nothing here knows LMDB: bytes come in
//! as buffers and go out as buffers.

pub mod buffer;
pub mod chunk;
pub mod codec;
pub mod overlay;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    codec::python::register(module)?;
    chunk::python::register(module)?;
    overlay::python::register(module)
}
