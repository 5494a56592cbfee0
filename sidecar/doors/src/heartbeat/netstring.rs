//! Messages with lengths: `###`, then `<n>:(<kind>)<name>=<value>,` each with n = 4 + both lengths, then `%%%`, without NUL.

use super::message::{Field, Kind, MAX_FIELDS, MessageError};

/// Begins a message in this form.
pub const START: &[u8] = b"###\n";
const END: &[u8] = b"%%%\n";
/// More digits than the length of any frame has.
const MAX_DIGITS: usize = 6;

/// Reads the fields of a body that begins with [`START`].
pub fn parse(body: &[u8]) -> Result<Vec<Field>, MessageError> {
    let mut rest = body.strip_prefix(START).ok_or(MessageError::Start)?;
    let mut fields = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(END) {
            return match after {
                b"" | b"\0" => Ok(fields),
                _ => Err(MessageError::End),
            };
        }
        if rest.is_empty() {
            return Err(MessageError::End);
        }
        if fields.len() == MAX_FIELDS {
            return Err(MessageError::TooMany);
        }
        let (field, after) = parse_field(rest).ok_or(MessageError::Field(fields.len()))?;
        fields.push(field);
        rest = after;
    }
}

/// Writes fields.
pub fn encode(fields: &[Field]) -> Vec<u8> {
    let mut body = START.to_vec();
    for field in fields {
        let length = field.name.len() + field.value.len() + 4;
        body.extend_from_slice(length.to_string().as_bytes());
        body.extend_from_slice(&[b':', b'(', field.kind.digit(), b')']);
        body.extend_from_slice(&field.name);
        body.push(b'=');
        body.extend_from_slice(&field.value);
        body.push(b',');
    }
    body.extend_from_slice(END);
    body
}

fn parse_field(bytes: &[u8]) -> Option<(Field, &[u8])> {
    let colon = bytes
        .iter()
        .take(MAX_DIGITS + 1)
        .position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let rest = &bytes[colon + 1..];
    let (content, rest) = rest.split_at_checked(length)?;
    let rest = rest.strip_prefix(b",")?;
    let [b'(', digit, b')', pair @ ..] = content else {
        return None;
    };
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let name = &pair[..equals];
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b'\n' | 0)) {
        return None;
    }
    let field = Field {
        kind: Kind::from_digit(*digit)?,
        name: name.to_vec(),
        value: pair[equals + 1..].to_vec(),
    };
    Some((field, rest))
}
