//! Procedural households: generated games in ALFWorld's problem format.
