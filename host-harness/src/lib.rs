//! Placeholder, written in the next steps.
pub mod agent;
pub mod machine;
pub mod verdict;
