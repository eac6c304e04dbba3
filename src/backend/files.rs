//! Built-in provider.
