//! The wire format of Protocol Buffers: <https://protobuf.dev/programming-guides/encoding/>.

/// A field of a message.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    /// Where it is an integer.
    pub(super) value: u64,
    /// Its bytes without their length, where it has any.
    pub(super) content: &'a [u8],
    /// All its bytes.
    pub(super) whole: &'a [u8],
}

/// The fields of a message in order; ends with none where it is cut off.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = take(&mut self.0);
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// All fields of a short message; none where it is cut off.
pub(super) fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    Fields(message).collect()
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *rest;
    let key = number(rest)?;
    let mut value = 0;
    let content = match key & 7 {
        0 => {
            value = number(rest)?;
            &[]
        }
        1 => rest.split_off(..8)?,
        2 => {
            let len = usize::try_from(number(rest)?).ok()?;
            rest.split_off(..len)?
        }
        5 => rest.split_off(..4)?,
        _ => return None,
    };
    Some(Field { number: key >> 3, value, content, whole: &start[..start.len() - rest.len()] })
}

/// Takes an integer of variable length.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Writes an integer of variable length.
pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a field of bytes.
pub(super) fn put(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_number(out, number << 3 | 2);
    put_number(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Writes a field that is an integer.
pub(super) fn put_integer(out: &mut Vec<u8>, number: u64, value: u64) {
    put_number(out, number << 3);
    put_number(out, value);
}
