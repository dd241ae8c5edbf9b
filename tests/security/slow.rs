//! Clients that hold connections open and send nothing.
