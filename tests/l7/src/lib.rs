//! Nothing of its own: the tests are in `tests/it`.
