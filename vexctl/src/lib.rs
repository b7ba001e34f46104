//! vexctl.
