//! Journeys of users through the whole mesh: see `tests/it`. Nothing is exported.
