//! How a record becomes bytes: MessagePack with field names.
//!
//! Names cost some bytes and let a newer version add a field with a default, or drop one, without a
//! migration. Times are integers and ids raw octets, as their types choose for binary formats.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tables::TableName;
use crate::transaction::Fault;

pub(crate) fn encode<R: Serialize>(table: TableName, record: &R) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    encode_into(table, record, &mut bytes)?;
    Ok(bytes)
}

/// Appends a record's bytes.
pub(crate) fn encode_into<R: Serialize>(
    table: TableName,
    record: &R,
    bytes: &mut Vec<u8>,
) -> Result<(), Fault> {
    record
        .serialize(&mut rmp_serde::Serializer::new(bytes).with_struct_map())
        .map_err(|error| Fault::Corrupt { table: table.as_str(), what: error.to_string() })
}

pub(crate) fn decode<R: DeserializeOwned>(table: TableName, bytes: &[u8]) -> Result<R, Fault> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Fault::Corrupt { table: table.as_str(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use muster_policy::identity::{AccountId, Fingerprint, Serial};

    use super::*;

    #[test]
    fn ids_are_raw_octets_here_and_hex_for_people() {
        let serial = Serial::from_bytes(&[7; 20]).expect("twenty octets");
        let ids = (Fingerprint::from_bytes([0xab; 32]), AccountId::from_bytes([1; 16]), serial);
        let bytes = encode(TableName::Meta, &ids).expect("encodes");
        // One octet for the tuple, and two before each id.
        assert_eq!(bytes.len(), 1 + 3 * 2 + 32 + 16 + 20);
        assert_eq!(
            decode::<(Fingerprint, AccountId, Serial)>(TableName::Meta, &bytes).expect("decodes"),
            ids
        );
        let text = serde_json::to_string(&ids).expect("encodes");
        assert!(text.contains(&"ab".repeat(32)), "{text}");
        assert_eq!(serde_json::from_str::<(Fingerprint, AccountId, Serial)>(&text).expect("decodes"), ids);
    }
}
