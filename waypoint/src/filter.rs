//! Stages of the request pipeline that may answer by themselves, one file each.

pub(crate) mod answer;
pub(crate) mod authorize;
pub(crate) mod cors;
pub(crate) mod fault;
