//! How long things are kept: retention, anonymisation, and the age of the last backup.
