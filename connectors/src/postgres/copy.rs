//! Lines of `COPY … TO STDOUT` in text format.

use super::pgoutput::Cell;

/// Takes lines apart, keeping its memory between them.
#[derive(Debug, Default)]
pub(crate) struct CopyLine {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cells: Vec<Cell>,
}

impl CopyLine {
    /// Reads one line (with or without its newline) into `cells` and the `bytes` they stand in.
    pub(crate) fn read(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.bytes.clear();
        self.cells.clear();
        for field in line.split(|byte| *byte == b'\t') {
            if field == b"\\N" {
                self.cells.push(Cell::Null);
                continue;
            }
            let start = self.bytes.len();
            unescape(field, &mut self.bytes);
            // Lines are below 1 GiB, so places in them fit.
            self.cells.push(Cell::Text { start: start as u32, len: (self.bytes.len() - start) as u32 });
        }
    }
}

fn unescape(mut field: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'\\', field) {
        out.extend_from_slice(&field[..at]);
        let escaped = field.get(at + 1).copied().unwrap_or(b'\\');
        out.push(match escaped {
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            other => other,
        });
        field = field.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_every_escape() {
        let mut line = CopyLine::default();
        line.read(b"7\t\\N\t\ta\\tb\\nc\\\\d\\r\n");
        let texts: Vec<_> = line.cells.iter().map(|cell| cell.text(&line.bytes)).collect();
        assert_eq!(texts, [Some(&b"7"[..]), None, Some(b""), Some(b"a\tb\nc\\d\r")]);
    }
}
