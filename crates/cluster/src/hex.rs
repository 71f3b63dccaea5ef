//! Identities and digests as text.

use sagitta_model::Violation;

/// 32 hexadecimal digits.
pub(crate) fn hex(id: u128) -> String {
    format!("{id:032x}")
}

pub(crate) fn parse_id(hex: &str) -> Result<u128, Violation> {
    u128::from_str_radix(hex, 16).map_err(|_| Violation::new("id", format!("`{hex}` is not 32 hexadecimal digits")))
}

/// 64 hexadecimal digits.
pub(crate) fn encode_digest(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn decode_digest(hex: &str) -> Result<[u8; 32], Violation> {
    let wrong = || Violation::new("digest", format!("`{hex}` is not 64 hexadecimal digits"));
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() {
        return Err(wrong());
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        let pair = hex.get(2 * at..2 * at + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}
