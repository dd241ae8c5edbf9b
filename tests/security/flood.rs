//! What gets through when many try at once: limits over replicas, and hashing under load.
