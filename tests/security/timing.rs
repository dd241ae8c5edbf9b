//! What a stopwatch tells about who exists.
