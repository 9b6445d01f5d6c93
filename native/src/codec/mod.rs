//! Canonical CBOR, the nodes of prolly trees, the rows of the index (docs/format.md).

pub mod cbor;
pub mod git_index;
pub mod ids;
pub mod node;
pub mod python;
pub mod row;
pub mod sides;

/// Bytes or values that the format does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError(pub String);

impl std::fmt::Display for FormatError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for FormatError {}

pub type Result<T> = std::result::Result<T, FormatError>;

/// An error in the shape that `?` and `return` want.
pub fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(FormatError(message.into()))
}
