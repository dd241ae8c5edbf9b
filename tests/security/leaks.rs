//! Planted secrets and personal data, and where they must never turn up.
