//! session

pub mod limits;
