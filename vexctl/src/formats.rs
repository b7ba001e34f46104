//! Files that hold many vectors: `.npy` (NumPy format 1 to 3, little-endian f4 or f8, C order),
//! `.fvecs` (each row its length as i32, then f32), and JSON lines.

use serde::Deserialize;

/// A vector and the name it came with, if any.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Row {
    /// JSON lines may name each row; it becomes the file's name.
    #[serde(default, alias = "id", alias = "path")]
    pub name: Option<String>,
    /// The numbers.
    pub vector: Vec<f32>,
}

fn bare(vector: Vec<f32>) -> Row {
    Row { name: None, vector }
}

fn le_f32(bytes: &[u8]) -> Vec<f32> {
    let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    bytes.chunks_exact(4).map(number).collect()
}

/// The rows of an `.fvecs` file.
///
/// # Errors
/// A sentence naming the row that makes no sense.
pub fn fvecs(mut data: &[u8]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    while let Some((head, rest)) = data.split_first_chunk::<4>() {
        let dims = usize::try_from(i32::from_le_bytes(*head)).unwrap_or(0);
        let bytes = dims.saturating_mul(4);
        if dims == 0 || rest.len() < bytes {
            return Err(format!(
                "row {}: {dims} numbers are announced and not there",
                rows.len()
            ));
        }
        rows.push(bare(le_f32(&rest[..bytes])));
        data = &rest[bytes..];
    }
    if data.is_empty() {
        Ok(rows)
    } else {
        Err("bytes are left after the last row".into())
    }
}

/// What stands between `key` and the next comma or bracket in a `.npy` header.
fn npy_field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(key)? + key.len();
    Some(header[at..].trim_start_matches([' ', ':', '\'', '"']))
}

/// The rows of a `.npy` file holding a matrix, or one vector.
///
/// # Errors
/// A sentence saying what is not supported or damaged.
pub fn npy(data: &[u8]) -> Result<Vec<Row>, String> {
    let rest = data
        .strip_prefix(b"\x93NUMPY")
        .ok_or("this is no .npy file")?;
    let wide = rest.first().is_some_and(|&major| major >= 2);
    let (length, start) = match (wide, rest) {
        (false, [_, _, a, b, ..]) => (u32::from(u16::from_le_bytes([*a, *b])), 4),
        (true, [_, _, a, b, c, d, ..]) => (u32::from_le_bytes([*a, *b, *c, *d]), 6),
        _ => return Err("the header is cut short".into()),
    };
    let end = start + length as usize;
    let header = rest.get(start..end).ok_or("the header is cut short")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;
    let kind = npy_field(header, "descr'").unwrap_or("");
    let width = match kind.get(..3) {
        Some("<f4") => 4,
        Some("<f8") => 8,
        _ => return Err("only little-endian float32 and float64 are read".into()),
    };
    if npy_field(header, "fortran_order'").is_some_and(|text| text.starts_with("True")) {
        return Err("columns are stored first: save it in C order".into());
    }
    let shape = npy_field(header, "shape'").and_then(|text| text.strip_prefix('('));
    let shape = shape
        .and_then(|text| text.split(')').next())
        .ok_or("no shape is given")?;
    let numbers = shape
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let numbers: Result<Vec<usize>, _> = numbers.map(str::parse).collect();
    let (count, dims) = match numbers.map_err(|_| "the shape makes no sense")?[..] {
        [dims] => (1, dims),
        [count, dims] => (count, dims),
        _ => return Err("only a vector or a matrix is read".into()),
    };
    let body = &rest[end..];
    let wanted = count.checked_mul(dims).and_then(|n| n.checked_mul(width));
    if dims == 0 || wanted != Some(body.len()) {
        return Err(format!(
            "{count} rows of {dims} are announced, {} bytes are there",
            body.len()
        ));
    }
    let double = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    Ok(body
        .chunks_exact(dims * width)
        .map(|row| {
            bare(if width == 4 {
                le_f32(row)
            } else {
                row.chunks_exact(8).map(|b| double(b) as f32).collect()
            })
        })
        .collect())
}

/// The rows of a JSON-lines file: each `{"name": …, "vector": […]}` or just `[…]`.
///
/// # Errors
/// A sentence naming the line that makes no sense.
pub fn json_lines(text: &str) -> Result<Vec<Row>, String> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let row = if line.trim_start().starts_with('[') {
                serde_json::from_str(line).map(bare)
            } else {
                serde_json::from_str(line)
            };
            row.map_err(|e| format!("line {}: {e}", number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy_file(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(body);
        file
    }

    #[test]
    fn npy_rows_and_mistakes() {
        let body: Vec<u8> = [1f32, 2., 3., 4.]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        let rows = npy(&npy_file("<f4", "(2, 2)", &body)).unwrap();
        assert_eq!(rows[1].vector, [3., 4.]);
        assert_eq!(npy(&npy_file("<f4", "(4,)", &body)).unwrap().len(), 1);
        assert_eq!(
            npy(&npy_file("<f8", "(1, 2)", &body)).unwrap()[0]
                .vector
                .len(),
            2
        );
        assert!(npy(&npy_file(">f4", "(2, 2)", &body)).is_err());
        assert!(npy(&npy_file("<f4", "(3, 2)", &body)).is_err());
        assert!(npy(b"\x93NUMPY\x01").is_err() && npy(b"").is_err());
    }

    #[test]
    fn fvecs_rows_and_mistakes() {
        let mut file = 2i32.to_le_bytes().to_vec();
        file.extend([1f32, 2.].iter().flat_map(|n| n.to_le_bytes()));
        assert_eq!(fvecs(&file).unwrap(), [bare(vec![1., 2.])]);
        file.push(0);
        assert!(fvecs(&file).is_err());
        assert!(fvecs(&(-1i32).to_le_bytes()).is_err());
    }

    #[test]
    fn json_rows_and_mistakes() {
        let rows = json_lines("[1, 2]\n\n{\"id\": \"a\", \"vector\": [3]}\n").unwrap();
        assert_eq!(rows[1].name.as_deref(), Some("a"));
        assert!(json_lines("[1, \"x\"]").unwrap_err().starts_with("line 1"));
    }
}
