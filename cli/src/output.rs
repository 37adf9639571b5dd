//! Standard output. A reader that went away (`| head`) is no reason for a panic.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line, as `println!` does, whether or not someone still reads.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::write(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use say;

/// Writes at once.
pub(crate) fn write(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    out.write_fmt(text).and_then(|()| out.flush()).ok();
}
