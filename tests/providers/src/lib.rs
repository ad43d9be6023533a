//! Power providers, each against the real thing that it speaks with: see `tests/providers`.
