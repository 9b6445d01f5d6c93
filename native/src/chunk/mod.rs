//! Content: how it is cut, hashed, compressed, read from files and written to them (docs/format.md, "Content").

pub mod batch;
pub mod content;
pub mod cut;
pub mod files;
pub mod groups;
mod old;
pub mod python;
pub mod recipe;
mod slabs;
pub mod update;
