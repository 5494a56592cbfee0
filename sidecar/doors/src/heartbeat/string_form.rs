//! Messages as lines: `>>>`, then `name=value` each, then `<<<` and NUL. A kind other than text is marked `(digit)` before the name.

use super::message::{Field, Kind, MAX_FIELDS, MessageError};

/// Begins a message in this form.
pub const START: &[u8] = b">>>\n";
const END: &[u8] = b"<<<";
/// What stands for a byte that would end a line.
const STAND_IN: u8 = 0x13;

/// Reads the fields of a body that begins with [`START`].
pub fn parse(body: &[u8]) -> Result<Vec<Field>, MessageError> {
    let mut rest = body.strip_prefix(START).ok_or(MessageError::Start)?;
    let mut fields = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (line, after) = rest.split_at(end.ok_or(MessageError::End)?);
        rest = &after[1..];
        if line == END {
            break;
        }
        if fields.len() == MAX_FIELDS {
            return Err(MessageError::TooMany);
        }
        let field = parse_line(line).ok_or(MessageError::Field(fields.len()))?;
        fields.push(field);
    }
    match rest {
        b"" | b"\0" => Ok(fields),
        _ => Err(MessageError::End),
    }
}

/// Writes fields.
pub fn encode(fields: &[Field]) -> Vec<u8> {
    let bytes: usize = fields
        .iter()
        .map(|field| field.name.len() + field.value.len() + 5)
        .sum();
    let mut body = Vec::with_capacity(bytes + 9);
    body.extend_from_slice(START);
    for field in fields {
        if field.kind != Kind::TEXT {
            body.extend_from_slice(&[b'(', field.kind.digit(), b')']);
        }
        body.extend_from_slice(&field.name);
        body.push(b'=');
        body.extend_from_slice(&field.value);
        body.push(b'\n');
    }
    body.extend_from_slice(b"<<<\n\0");
    body
}

/// The byte, or what stands for it where it would end a line or the message.
pub fn harmless(byte: u8) -> u8 {
    if matches!(byte, b'\n' | 0) {
        STAND_IN
    } else {
        byte
    }
}

/// Whether a name begins with the mark of a kind.
pub fn looks_marked(name: &[u8]) -> bool {
    matches!(name, [b'(', digit, b')', ..] if digit.is_ascii_digit())
}

fn parse_line(line: &[u8]) -> Option<Field> {
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&line[..equals], &line[equals + 1..]);
    if line.contains(&0) {
        return None;
    }
    let (kind, name) = if looks_marked(name) {
        (Kind::from_digit(name[1])?, &name[3..])
    } else {
        (Kind::TEXT, name)
    };
    (!name.is_empty()).then(|| Field {
        kind,
        name: name.to_vec(),
        value: value.to_vec(),
    })
}
