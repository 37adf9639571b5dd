//! Forms of the change event outside this process.
