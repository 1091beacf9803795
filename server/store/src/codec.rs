//! How a record becomes bytes: MessagePack with field names.
//!
//! Names cost some bytes and let a newer version add a field with a default, or drop one, without a
//! migration. Times are integers and ids raw octets, as their types choose for binary formats.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tables::TableName;
use crate::transaction::Fault;

pub(crate) fn encode<R: Serialize>(table: TableName, record: &R) -> Result<Vec<u8>, Fault> {
    rmp_serde::to_vec_named(record)
        .map_err(|error| Fault::Corrupt { table: table.as_str(), what: error.to_string() })
}

pub(crate) fn decode<R: DeserializeOwned>(table: TableName, bytes: &[u8]) -> Result<R, Fault> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Fault::Corrupt { table: table.as_str(), what: error.to_string() })
}
