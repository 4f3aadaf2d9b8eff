//! Why things are as they are, in words.

pub mod l2;
